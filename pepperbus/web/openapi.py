"""The OpenAPI 3.1 document, from the table of routes and the structs. Floor 5."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pepperbus import __version__
from pepperbus.web.routes import ROUTES
from pepperbus.web.table import Route
from pepperbus.web.takes import Nothing

_REF = "#/components/schemas/{name}"


class ErrorDetail(msgspec.Struct):
    """`code` is stable; `message` is for people; `details` has one line for each mistake where there are several."""

    code: str
    message: str
    details: list[str] = msgspec.field(default_factory=list)


class Error(msgspec.Struct):
    """What every answer of 400 and above holds."""

    error: ErrorDetail


def document(prefix: str) -> dict[str, Any]:
    """The whole document. `prefix` is where the API lies."""
    types = [Error, *(route.result for route in ROUTES), *(route.body for route in ROUTES if route.body is not Nothing)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = {repr(one): schema for one, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pepperbus",
            "version": __version__,
            "description": "What the command line can do. Times end in _ms (wall time) or _s. Unsafe methods want"
            " Content-Type: application/json. Log in with Authorization: Bearer TOKEN; a page's session also sends"
            " X-CSRF-Token with unsafe methods. x-needs names the role.",
        },
        "servers": [{"url": prefix}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "pepperbus"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _operation(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    media = "text/event-stream" if route.stream else "application/json"
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "x-needs": route.needs.name.lower(),
        "description": f"Needs: {route.needs}.",
        "parameters": [*_in_path(route), *_in_query(route)],
        "responses": {
            "200": {"description": "Done.", "content": {media: {"schema": by_type[repr(route.result)]}}},
            "default": {
                "description": "It was not done; why is in the error.",
                "content": {"application/json": {"schema": by_type[repr(Error)]}},
            },
        },
    }
    if route.body is not Nothing:
        content = {"application/json": {"schema": by_type[repr(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _in_path(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", route.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _in_query(route: Route) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([route.query])
    properties = components[route.query.__name__].get("properties", {})
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]
