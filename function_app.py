"""What the Functions worker imports: the app, or where it cannot run here, one that says so.

An app that does not index has no function at all, and says nowhere why. So the Python is looked at before any package
that is made for one, and a package that cannot be imported is said too.
"""

import logging

import azure.functions as func

from shared import runtime

log = logging.getLogger(__name__)


def _app() -> func.FunctionApp:
    why = runtime.wrong()
    if not why:
        try:
            from shared.api.triggers import app as found
        # SystemError: what pydantic raises where its compiled part is not of its version.
        except (ImportError, SystemError) as error:
            log.exception("the app cannot be imported")
            why = f"the app cannot be imported: {error}"
        else:
            real: func.FunctionApp = found
            return real
    from shared.api import refused

    log.critical("nothing works until the app is deployed anew: %s", why)
    return refused.app(why)


app = _app()
