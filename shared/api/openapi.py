"""The OpenAPI 3.1 document, made of the operations and their models. `python -m shared.api.openapi` prints it."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from shared import __version__
from shared.api.bodies import Health, ProblemBody
from shared.api.routes import OPERATIONS, Operation

_REF = "#/components/schemas/{model}"
_REASONS = {
    401: "No function key, or a wrong one. The Functions host answers, without a body.",
    400: "The request is not valid; every wrong field is named.",
    403: "This deployment does not allow fixes.",
    404: "There is no such run, or no plan.",
    409: "The state that things are in does not allow it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    503: "The app lacks something that it needs (storage, identity, Durable Functions), has a bad setting, or is busy.",
}


def document() -> dict[str, Any]:
    """The whole document."""
    inputs: list[type[BaseModel]] = [operation.body for operation in OPERATIONS if operation.body is not None]
    outputs: list[type[BaseModel]] = list(
        dict.fromkeys([operation.answers for operation in OPERATIONS] + [ProblemBody])
    )
    wanted: list[tuple[type[BaseModel], JsonSchemaMode, TypeAdapter[Any]]] = [
        *((model, "validation", TypeAdapter(model)) for model in inputs),
        *((model, "serialization", TypeAdapter(model)) for model in outputs),
    ]
    schemas, shared_schemas = TypeAdapter.json_schemas(wanted, ref_template=_REF)
    by_model = {model: schema for (model, _), schema in schemas.items()}
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(f"/api/{operation.path}", {})[operation.method.lower()] = _operation(operation, by_model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AKS Kubelet Guard",
            "version": __version__,
            "description": "Audits and fixes of the kubelet settings of AKS nodes.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": shared_schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-functions-key"}},
        },
        "security": [{"key": []}],
    }


def _operation(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    text = inspect.getdoc(operation.carry_out) or ""
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": text.partition(":")[0].rstrip("."),
        "description": text,
    }
    parameters = [
        {
            "name": part[1:-1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": r"^\d{8}T\d{6}Z-[0-9a-f]{6}$"},
        }
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if operation.query is not None:
        inline = operation.query.model_json_schema()
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": _inlined(schema, inline.get("$defs", {}))}
            for name, schema in inline["properties"].items()
        ]
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[operation.body]}}
        made["requestBody"] = {
            "required": any(field.is_required() for field in operation.body.model_fields.values()),
            "content": content,
        }
    refusals = {400, 503, *operation.refusals, *((413, 415) if operation.body is not None else ())}
    made["responses"] = {
        str(operation.status): _response("Well.", "application/json", schemas[operation.answers]),
        **{
            str(status): _response(_REASONS[status], "application/problem+json", schemas[ProblemBody])
            for status in sorted(refusals)
        },
    }
    made["responses"]["401"] = {"description": _REASONS[401]}
    if operation.open:
        made["security"] = []
        made["responses"] = {"200": made["responses"]["200"]}
    if operation.answers is Health:
        made["responses"]["503"]["content"]["application/json"] = {"schema": schemas[Health]}
    return made


def _response(description: str, kind: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A parameter's schema without references and without null, which no address can carry."""
    if "$ref" in schema:
        return definitions[schema["$ref"].rsplit("/", 1)[-1]]
    options = [_inlined(item, definitions) for item in schema.get("anyOf", []) if item != {"type": "null"}]
    if len(options) == 1:
        return {**{name: value for name, value in schema.items() if name not in ("anyOf", "default")}, **options[0]}
    return schema


def as_text() -> str:
    """The document as it is kept in openapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text())
