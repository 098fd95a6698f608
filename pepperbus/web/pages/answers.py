"""What a page answers to a click, and to what went wrong. Floor 5.

With htmx a click changes nothing but a toast and the live part, which is fetched anew; a plain form gets a redirect back.
"""

from __future__ import annotations

import json

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.exceptions import HTTPException

from pepperbus import errors
from pepperbus.web import logins
from pepperbus.web.logins import local_path
from pepperbus.web.said import said
from pepperbus.web.words import _

#: The first class that fits decides: HTTP status and the page's title.
_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.NotFound, 404, "Not found"),
    (errors.UsageError, 400, "This did not work"),
    (errors.Forbidden, 403, "This is not for you"),
    (errors.TooManyTries, 429, "This did not work"),
    (errors.PepperbusError, 409, "This did not work"),
)


#: What operations and the login say to people word by word; anything else is shown as it is.
SAID = (
    logins.WRONG,
    logins.NO_DIRECTORY,
    logins.WRONG_CODE,
    logins.DIFFER,
    "a password has 10 to 1024 characters",
    "the old password is wrong",
    "this is the last account with the role admin: give another one that role first",
)


def is_htmx() -> bool:
    return request.headers.get("HX-Request") == "true"


def did(text: str, back: str = "", *, good: bool = True, go: bool = False) -> Response:
    """Say what was done. `go`: leave for `back` also under htmx (the page one was on has no meaning any more)."""
    if not is_htmx():
        return redirect(local_path((not go and request.form.get("back")) or back or "/"), 303)  # type: ignore[return-value]
    response = Response(status=204)
    if go:
        response.headers["HX-Redirect"] = back
        response.headers["HX-Trigger"] = json.dumps({"said": {"text": text, "kind": "good" if good else "bad"}})
    else:
        toast = {"text": text, "kind": "good" if good else "bad"}
        response.headers["HX-Trigger"] = json.dumps({"toast": toast, "done": True})
    return response


def fragment(template: str, status: int = 200, **facts: object) -> Response:
    """A piece of a page for htmx, also when it says what is wrong."""
    response = Response(render_template(template, **facts), status, mimetype="text/html")
    response.headers["X-Swap"] = "yes"
    return response


def trouble(failure: errors.PepperbusError) -> str:
    """An error for a person: ConfigError's mistakes each on a line. In their language as far as that is known."""
    text = str(failure)
    return _(text) if text in SAID else said(text)


def status_of(failure: errors.PepperbusError) -> int:
    """The HTTP status of an answer that says why not."""
    return next(status for kind, status, _title in _ERRORS if isinstance(failure, kind))


def error_page(status: int, title: str, text: str) -> Response:
    return Response(render_template("error.html", title=title, text=text, status=status), status, mimetype="text/html")


def wants_page() -> bool:
    """Whether a person looks at the answer."""
    return not request.path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


def http_error(failure: HTTPException) -> Response:
    """What the library refuses by itself: no such address, a form where a page was asked for, too large a body."""
    status = failure.code or 500
    if status in (404, 405):
        text = _("Perhaps the queue or the job is gone, or the address is not quite right.")
        return error_page(status, _("There is no such page"), text)
    title = _("This is too large") if status == 413 else _("This did not work")
    return error_page(status, title, said(failure.description or ""))


def register(pages: Blueprint) -> None:
    @pages.errorhandler(errors.PepperbusError)
    def failed(failure: errors.PepperbusError) -> Response:
        status, title = next((status, title) for kind, status, title in _ERRORS if isinstance(failure, kind))
        if is_htmx() or request.method != "GET":
            return Response(trouble(failure), status, mimetype="text/plain")
        return error_page(status, _(title), trouble(failure))
