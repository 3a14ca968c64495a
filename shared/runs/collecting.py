"""Getting one node's evidence: run the collect script, fetch what did not fit, take it apart."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pydantic import TypeAdapter

from shared.azure import CommandResult, Pending
from shared.models import Evidence, Node, Problem, Status
from shared.node import evidence, frames
from shared.runs.services import Services

# A frame that arrives broken is asked for once more; a node that changes while its parts are fetched, too.
_ATTEMPTS = 2

# Starting takes a second or two, longer where the node is busy or Azure slows us down.
_CLAIM_SECONDS = 10

_STARTED: TypeAdapter[Pending | CommandResult] = TypeAdapter(Pending | CommandResult)


async def run_script(services: Services, run_id: str, node: Node, step: str, script: str) -> CommandResult | Problem:
    """Run `script` on the node once: where to ask for its result is stored before it is waited for.

    Whoever comes here again for the same run, node and step (a restarted host, a delivery twice) waits for the command
    that was started, and starts no second one. Only where a host died between Azure's yes and the note of it does
    nobody know: then it is started again, which the scripts bear (one reads, the other is compare and swap).
    """
    if not await services.store.claim_command(run_id, node.key, step, {}):
        known = await _started_by_another(services, run_id, node, step)
        if known is not None:
            return await _result(services, node, known)
    started = await services.azure.start_and_wait(node, script)
    if isinstance(started, Problem):
        if not started.may_have_run:
            await services.store.delete_command(run_id, node.key, step)
        return started
    await services.store.save_command(run_id, node.key, step, _STARTED.dump_python(started, mode="json"))
    return await _result(services, node, started)


async def _result(services: Services, node: Node, started: Pending | CommandResult) -> CommandResult | Problem:
    if isinstance(started, CommandResult):
        return started
    result = await services.azure.wait(node, started)
    return replace(result, may_have_run=True) if isinstance(result, Problem) else result


async def _started_by_another(services: Services, run_id: str, node: Node, step: str) -> Pending | CommandResult | None:
    """The command that another one claimed, once it has noted where to ask; None where it did not."""
    patience = _CLAIM_SECONDS
    while (known := await services.store.command(run_id, node.key, step)) is not None:
        if known:
            return _STARTED.validate_python(known)
        if patience <= 0:
            break
        patience -= 1
        await asyncio.sleep(1)
    return None


async def collect(services: Services, run_id: str, node: Node, look: str = "collect") -> Evidence | Problem:
    """The node's evidence, or why there is none. Every other look of the same run has a name of its own."""
    broken = "no attempt was made"
    for attempt in range(1, _ATTEMPTS + 1):
        parts: list[frames.Frame] = []
        first = 1
        try:
            while True:
                step = f"{look}.{attempt}.{first}"
                nonce = frames.request_nonce(run_id, node.key, step)
                result = await run_script(services, run_id, node, step, frames.collect_script(first, nonce))
                if isinstance(result, Problem):
                    return result
                parts += frames.parse_streams(result.stdout, result.stderr, nonce)
                first += frames.PARTS_PER_CALL
                if first > parts[0].parts:
                    break
            return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)
        except frames.MissingTools as missing:
            return Problem(
                status=Status.ERROR,
                code="missing_tool",
                reason=f"the node lacks commands that the script needs: {', '.join(missing.tools)}",
                hint="Look at the node's image: every AKS node has them.",
            )
        except (frames.FrameError, evidence.EvidenceError) as error:
            broken = str(error)
    return Problem(
        status=Status.ERROR,
        code="garbled",
        reason=f"what the node sent back cannot be trusted: {broken}",
        hint="Look at /var/lib/waagent/run-command/download on the node: something else may print to the script's"
        " output.",
    )
