"""A request to a consumer as a person would send it again from a shell: curl for HTTP, cgi-fcgi for php-fpm.

Floor 4. The same bytes the bus sends, but for secrets, which are left out: a signature, logins, what a queue's file refers to.
"""

from __future__ import annotations

import base64
import re
import shlex
from urllib.parse import urlsplit

from pepperbus.config.model import Config, Topic
from pepperbus.delivery import form
from pepperbus.delivery.contract import Request
from pepperbus.delivery.fastcgi_params import Params
from pepperbus.delivery.http_request import Requests, Url
from pepperbus.wire import fastcgi

_SECRET = re.compile(r"auth|cookie|token|secret|passw|key|signature|credential", re.IGNORECASE)
_SHOWN_BYTES = 64 << 10
_OURS = ("host", "content-length")


def command(topic: Topic, config: Config, request: Request) -> str:
    """A shell command; "" for a way of running that no command stands for, and for a body too large to be pasted."""
    body, _ = form.body(request, topic)
    if len(body) > _SHOWN_BYTES:
        return ""
    match topic.run:
        case "http":
            return _curl(topic, request)
        case "fastcgi":
            return _cgi_fcgi(topic, config, request, body)
        case _:
            return ""


def _curl(topic: Topic, request: Request) -> str:
    url = Url.parse(topic.urls[0])
    made, body = Requests(topic).make(request, url)
    words = ["curl", "-i", f"{urlsplit(url.shown).scheme}://{url.netloc}{url.target}"]
    for raw_name, raw_value in made.headers.raw_items():
        name, value = raw_name.decode(), raw_value.decode(errors="replace")
        if name.lower() in _OURS and not (name.lower() == "host" and topic.host):
            continue
        words += ["-H", f"{name}: {'***' if _is_secret(topic, name) else value}"]
    return _fed([*words, "--data-binary", "@-"], body)


def _cgi_fcgi(topic: Topic, config: Config, request: Request, body: bytes) -> str:
    pool = config.pools[topic.pool]
    params = fastcgi.unpacked(Params(topic, pool.dedicated).of(request, body))
    shown = {name: "***" if _is_secret(topic, name) else value.decode(errors="replace") for name, value in params}
    words = ["env", "-i", *(f"{name}={value}" for name, value in shown.items() if not name.startswith("PHP_"))]
    return _fed([*words, "cgi-fcgi", "-bind", "-connect", pool.address.removeprefix("unix:")], body)


def _is_secret(topic: Topic, name: str) -> bool:
    return name in topic.hidden or bool(_SECRET.search(name))


def _fed(words: list[str], body: bytes) -> str:
    line = " ".join(shlex.quote(word) for word in words)
    try:
        return f"printf %s {shlex.quote(body.decode())} | {line}"
    except UnicodeDecodeError:
        return f"echo {base64.b64encode(body).decode()} | base64 -d | {line}"
