"""What a request must look like, whoever sends it, and the headers of every answer.

Floor 5. A page of a foreign site can reach us through the browser of somebody who may: by its own name (DNS rebinding; its
Host header tells) or across sites (its Origin header). Who is asking is the business of logins.py.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import cache
from urllib.parse import urlsplit

from flask import Request, Response, g

from pepperbus.config.model import Config

_UNSAFE = ("POST", "PUT", "DELETE")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def refusal(request: Request, config: Config, forms: bool = False, any_type: bool = False) -> str:
    """Why this request is not served; empty when it is.

    `forms`: tools that are no browsers may POST forms here; `any_type`: they may POST whatever they like.
    """
    if not _is_ours(request.host, config):
        return f"Host: {request.host} is not this machine; ask by localhost, 127.0.0.1 or the configured address"
    if request.method not in _UNSAFE:
        return ""
    origin = request.headers.get("Origin")
    if origin is not None and origin not in (f"http://{request.host}", f"https://{request.host}"):
        return f"requests from {origin} are not served"
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "requests from other sites are not served"
    ours = (
        origin is not None or request.headers.get("Sec-Fetch-Site") == "same-origin"
    )  # a browser says so of our own pages
    if (
        not any_type
        and request.mimetype != "application/json"
        and not ((ours or forms) and request.mimetype in _FORMS + ("",) * forms)
    ):
        return f"{request.method} wants Content-Type: application/json"
    return ""


def _is_ours(host: str, config: Config) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    named = {_host_of(address) for address in config.web.listen}
    if name == "localhost" or name in named or name in {host.lower() for host in config.web.hosts}:
        return True
    everywhere = bool(named & {"0.0.0.0", "::", ""})
    try:
        return ipaddress.ip_address(name).is_loopback or everywhere  # an address cannot be bound anew, only a name can
    except ValueError:
        return everywhere and name in _own_names()


@cache
def _own_names() -> tuple[str, ...]:
    own = socket.gethostname().lower()
    return own, own.partition(".")[0]


def _host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def harden(response: Response) -> Response:
    """The headers every answer gets.

    Referrer-Policy is not no-referrer: with it browsers send "Origin: null" with our own forms.
    """
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if g.get("secure"):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
