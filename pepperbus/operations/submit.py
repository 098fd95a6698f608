"""Jobs from producers that speak HTTP: through the gateway, with its reply as it is.

Floor 4. A producer shows its queue's password, which the gateway judges as it judges a Redis client's; or an API token, whose
person must be an operator of the queue's system. Neither is an operator's deed: the audit log has nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import hiredis

from pepperbus.accounts.model import Right
from pepperbus.errors import NotReachable
from pepperbus.names import JSON_KEY
from pepperbus.operations.gateway_client import GatewayClient
from pepperbus.operations.office import Office
from pepperbus.operations.rights import operation


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that are stored together. `due_ms`: not before then; `front`: ahead of all that wait, the first foremost."""

    contents: list[bytes]
    due_ms: int = 0
    front: bool = False
    traceparent: str = ""  # becomes their inTraceId


@dataclass(frozen=True, slots=True)
class Submitted:
    """The gateway's reply. `text`: its JSON; `error`: what that says; `refused`: the login itself was."""

    text: bytes
    error: str = ""
    refused: bool = False


@operation(Right.OPERATE, "queue", audited=False)
def submit(office: Office, queue: str, batch: Batch) -> Submitted:
    """Push in the name of an account, with the queue's own password. Raises NotFound and NotReachable."""
    found = office.queue(queue)
    with GatewayClient(office) as client:
        client.login(found)
        return _push(client, queue, batch)


class Producer(NamedTuple):
    """Who is no account: a login of the gateway's (a queue's or one of `[logins]`); `password` None: none was shown."""

    user: str
    password: str | None

    def submit(self, office: Office, queue: str, read: Callable[[], Batch]) -> Submitted:
        """Push by this login; the gateway says whether it may, and whether there is such a queue. Raises NotReachable.

        `read` is called once the password is known to be right: strangers' jobs are not even taken in.
        """
        with GatewayClient(office) as client:
            if self.password is not None:
                client.send(b"AUTH", self.user.encode(), self.password.encode())
                if isinstance(client.reply(), hiredis.ReplyError):
                    return _failed("NOAUTH invalid password", refused=True)
            return _push(client, queue, read())


def _push(client: GatewayClient, queue: str, batch: Batch) -> Submitted:
    if batch.traceparent:
        client.send(b"CLIENT", b"TRACEPARENT", batch.traceparent.encode())
        client.reply()
    try:
        client.send(*_command(queue, batch))
        reply = client.reply()
    except NotReachable as error:
        return _failed(f"UNKNOWN {error}")  # it may be stored all the same
    if isinstance(reply, bytes):
        return Submitted(reply, json.loads(reply)["error"])
    return _failed(str(reply))


def _command(queue: str, batch: Batch) -> list[bytes]:
    key = f"{queue}/{JSON_KEY}".encode()
    if batch.due_ms:
        at = b"%d.%03d" % divmod(batch.due_ms, 1000)
        return [b"ZADD", key, *(word for content in batch.contents for word in (at, content))]
    if batch.front:
        return [b"RPUSH", key, *reversed(batch.contents)]  # its last value goes ahead of all
    return [b"LPUSH", key, *batch.contents]


def _failed(text: str, refused: bool = False) -> Submitted:
    answer: dict[str, Any] = {"jobs": None, "inTraceId": "", "error": text}
    return Submitted(json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode(), text, refused)
