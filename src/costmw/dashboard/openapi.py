"""The API's description (OpenAPI 3.1), made of the table of its operations and of the answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from costmw import __version__
from costmw.dashboard import parameters as p
from costmw.dashboard.api import OPERATIONS, Operation
from costmw.dashboard.parameter import Parameter
from costmw.dashboard.responses import JSON, Told
from costmw.dashboard.writes import NAME

_SCHEMAS = "#/components/schemas/{model}"
_PROBLEM_JSON = "application/problem+json"

_ABOUT = """\
What the LLM calls of an app cost. Money is US dollars as plain decimal strings, times are ISO 8601.
Answers are confined to what whoever signs in may see.
"""

_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "What went wrong, and what to do (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "parameter": {"type": "string", "description": "The parameter that cannot be used."},
        "field": {"type": "string", "description": "The field that cannot be used."},
    },
    "required": ["type", "title", "status", "detail"],
}

_STATUSES: Mapping[int, str] = {
    400: "Something cannot be used; it is named, with what is allowed.",
    401: "Nobody is signed in.",
    403: "Whoever is signed in may not, or a page of another origin asks.",
    404: "There is no such thing, or not for whoever asks.",
    409: "An app's code has a budget of this name.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "An error inside of costmw; the app's log has it.",
    503: "The store cannot be read now.",
}


@functools.cache
def document() -> Told:
    """The description, written once."""
    body = json.dumps(described(), separators=(",", ":")).encode()
    return Told.written(body, body)


def described() -> dict[str, Any]:
    """The description as an object."""
    answers = {one.answer for one in OPERATIONS if one.answer}
    inputs = {one.takes for one in OPERATIONS if one.takes}
    models: list[tuple[type[BaseModel], Any]] = [
        *((model, "serialization") for model in sorted(answers, key=lambda m: m.__name__)),
        *((model, "validation") for model in sorted(inputs, key=lambda m: m.__name__)),
    ]
    names, schemas = models_json_schema(models, ref_template=_SCHEMAS)
    refs = {model: names[model, mode] for model, mode in models}
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(f"/{one.path}", {})[one.method.lower()] = _operation(one, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "costmw", "version": __version__, "description": _ABOUT},
        # Relative to this document: nobody here knows under which address the page is seen.
        "servers": [{"url": "."}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Problem": _PROBLEM},
            "parameters": {parameter.name: _parameter(parameter) for parameter in p.VIEW},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(one: Operation, refs: Mapping[type[BaseModel], Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.about,
        "parameters": list(_parameters(one)),
        "responses": dict(_responses(one, refs)),
    }
    if one.takes:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": refs[one.takes]}}}
    return told


def _parameters(one: Operation) -> Iterator[Mapping[str, Any]]:
    if one.place == "id":
        schema = {"type": "string", "format": "uuid"}
        yield {"name": "id", "in": "path", "required": True, "schema": schema}
    elif one.place == "name":
        schema = {"type": "string", "pattern": f"^{NAME}$"}
        yield {"name": "name", "in": "path", "required": True, "schema": schema}
    for parameter in one.parameters:
        if parameter in p.VIEW:
            yield {"$ref": f"#/components/parameters/{parameter.name}"}
        else:
            yield _parameter(parameter)


def _parameter(parameter: Parameter[Any]) -> Mapping[str, Any]:
    schema = parameter.schema
    if parameter is p.TZ:
        schema = {**schema, "enum": sorted(p.time_zones())}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.about,
        "required": parameter.is_needed,
        "schema": schema,
    }


def _responses(
    one: Operation, refs: Mapping[type[BaseModel], Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if one.method == "DELETE":
        yield "204", {"description": "Done."}
    else:
        schema = refs[one.answer] if one.answer else {"type": "object"}
        content: dict[str, Any] = {JSON: {"schema": schema}}
        if one.is_table:
            content["text/csv"] = {"schema": {"type": "string"}}
        yield "200", {"description": "The answer.", "content": content, **_etag(one)}
    if one.is_shared:
        yield "304", {"description": "Nothing is new since the ETag sent.", **_etag(one)}
    for status in _statuses_of(one):
        yield (
            str(status),
            {
                "description": _STATUSES[status],
                "content": {_PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )


def _etag(one: Operation) -> Mapping[str, Any]:
    if not one.is_shared:
        return {}
    schema = {"type": "string"}
    return {"headers": {"ETag": {"schema": schema, "description": "For If-None-Match."}}}


def _statuses_of(one: Operation) -> Iterator[int]:
    yield from (400, 401, 403)
    if one.place:
        yield 404
    if one.place == "name":
        yield 409
    if one.takes:
        yield from (413, 415)
    yield from (500, 503)
