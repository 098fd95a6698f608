"""The one shape in which this sidecar says over HTTP that something failed, and the status of each kind of failure.

Floor 5. Knows Flask's responses and the errors' classes; nothing of routes, pages or logins. How a page shows a failure is
`pages.answers`'.
"""

from __future__ import annotations

import msgspec
from flask import Response

from pepperbus import errors
from pepperbus.web import openapi

#: The first class that fits decides: HTTP status and the error's stable code.
_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.Forbidden, 403, "forbidden"),
    (errors.NotFound, 404, "not_found"),
    (errors.UsageError, 400, "usage"),
    (errors.ConfigError, 422, "configuration"),
    (errors.NotReachable, 503, "not_reachable"),
    (errors.StorageUnknown, 504, "storage_unknown"),
    (errors.StorageUnavailable, 503, "storage_unavailable"),
    (errors.StorageRefused, 503, "storage_refused"),
    (errors.TooManyTries, 429, "too_many_tries"),
    (errors.PepperbusError, 409, "refused"),
)


def error(status: int, code: str, message: str, details: list[str] | None = None) -> Response:
    """The one shape of an error."""
    body = openapi.Error(openapi.ErrorDetail(code, message, details or []))
    return Response(msgspec.json.encode(body), status, mimetype="application/json")


def told(failure: errors.PepperbusError) -> Response:
    """What became of an operation that raised."""
    status, code = next((status, code) for kind, status, code in _ERRORS if isinstance(failure, kind))
    details = list(failure.mistakes) if isinstance(failure, errors.ConfigError) else []
    return error(status, code, str(failure), details)
