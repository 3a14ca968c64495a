"""Carrying out a step, in either host: what goes wrong with it becomes data, so that the orchestrator deals with it."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import ValidationError

from shared.errors import CredentialError, EndpointError, GuardError, StoreError
from shared.runs.model.messages import Failed
from shared.runs.orchestrators.hand import first_line
from shared.runs.services import Services
from shared.runs.steps import STEPS
from shared.runs.steps.advancing import OvertakenError

log = logging.getLogger(__name__)


async def carry_out(services: Services, name: str, job: Any) -> Any:
    """A step's answer to a message, both as JSON; or a Failed, which says whether it is worth another try."""
    step = STEPS[name]
    try:
        message = step.message.model_validate(job)
    except ValidationError as error:
        return _failed(f"{name} was told what it does not know, perhaps by another version: {first_line(error)}", False)
    try:
        return (await step.carry_out(services, message)).model_dump(mode="json")
    except StoreError as error:
        log.warning("%s: %s", name, error)
        services.tell_refusal(getattr(message, "run_id", ""), error)
        return _failed(first_line(error), error.transient)
    except (CredentialError, EndpointError) as error:
        log.warning("%s: %s", name, error)
        services.tell_refusal(getattr(message, "run_id", ""), error)
        return _failed(str(error), True)
    except GuardError as error:
        return _failed(first_line(error), False)
    except OvertakenError as error:
        log.info("%s: %s", name, error)
        return _failed(first_line(error), True)
    except Exception as error:
        log.exception("run %s: %s failed", getattr(message, "run_id", ""), name)
        return _failed(f"{type(error).__name__}: {first_line(error)}", False)


def _failed(why: str, again: bool) -> Any:
    # Bounded: an orchestrator keeps it in its history.
    return Failed(failed=why[:500], again=again).model_dump(mode="json")
