"""Who may ask. Until there are logins the sidecar trusts this machine, so a web page must not be able to speak for it.

Floor 5. A page of a foreign site can reach loopback through the browser of somebody who sits here: by its own name
(DNS rebinding; its Host header tells) or across sites (its Origin header, and a content type no plain form can send).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Request, Response

from pepperbus.config.model import Config

_UNSAFE = ("POST", "PUT", "DELETE")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def refusal(request: Request, config: Config) -> str:
    """Why this request is not served; empty when it is."""
    if not _is_ours(request.host, config):
        return f"Host: {request.host} is not this machine; ask by localhost, 127.0.0.1 or the configured address"
    if request.method not in _UNSAFE:
        return ""
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.host}":
        return f"requests from {origin} are not served"
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "requests from other sites are not served"
    ours = (
        origin is not None or request.headers.get("Sec-Fetch-Site") == "same-origin"
    )  # a browser says so of our own pages
    if request.mimetype != "application/json" and not (ours and request.mimetype in _FORMS):
        return f"{request.method} wants Content-Type: application/json"
    return ""


def _is_ours(host: str, config: Config) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in {_host_of(address) for address in config.web.listen}:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def harden(response: Response) -> Response:
    """The headers every answer gets."""
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
