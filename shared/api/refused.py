"""The app where the real one cannot be imported: it says why. It imports no package but azure.functions.

The Functions worker looks at the annotations of functions: they are types here, and no text.
"""

import json

import azure.functions as func

from shared.api.problems import BAD_PACKAGE


def app(why: str) -> func.FunctionApp:
    """An app of two HTTP functions, `health` and `live`, which answer 503 with these words.

    It has no orchestrator, so that runs in flight are left as they are, for a deployment that works.
    """
    made = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
    problem = {"type": BAD_PACKAGE.type, "title": BAD_PACKAGE.title, "status": BAD_PACKAGE.status, "detail": why}

    def answer(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the binding's name
        return func.HttpResponse(
            json.dumps(problem),
            status_code=BAD_PACKAGE.status,
            headers={"Cache-Control": "no-store"},
            mimetype="application/problem+json",
        )

    for name, level in (("health", func.AuthLevel.FUNCTION), ("live", func.AuthLevel.ANONYMOUS)):
        made.function_name(name)(made.route(name, methods=["GET"], auth_level=level)(answer))
    return made
