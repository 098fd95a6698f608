"""Pushing from here goes through the gateway, with the queue's login: exactly what a producer's push goes through.

Floor 4. A small client on a plain socket: pipelined commands of several jobs each, replies counted one by one.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hiredis

from pepperbus.accounts.model import Right
from pepperbus.config.model import Queue
from pepperbus.config.values import HASH
from pepperbus.errors import NotReachable, PepperbusError, ProtocolError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Pushed
from pepperbus.operations.rights import operation

COMMAND_JOBS = 100
COMMAND_BYTES = 256 << 10
IN_FLIGHT = 8  # commands sent ahead of their replies
TIMEOUT_S = 15.0
KEPT_IDS = 100
Progress = Callable[[Pushed], None]


@operation(Right.OPERATE, "queue", details=("front", "due_ms"), tells=("accepted", "refused", "unknown", "error"))
def push(
    office: Office,
    queue: str,
    contents: Iterable[bytes | None],
    *,
    front: bool = False,
    due_ms: int = 0,
    progress: Progress = lambda pushed: None,
) -> Pushed:
    """Push every content as one job. None among them: no more at once, so what there is goes out now.

    `front`: ahead of all waiting jobs; `due_ms`: not before then.

    A refusal ends it: `error` says why, `accepted` how many are in. Ctrl-C ends it too, after the replies under way.
    Raises NotFound for an unknown queue and NotReachable when no gateway answers.
    """
    found = office.queue(queue)
    started = time.monotonic()
    pushed = Pushed(queue)
    with _Client(office) as client:
        client.login(found)
        try:
            contents = _small_enough(contents, office.config.gateway.max_bulk, pushed)
            _push_all(client, found, contents, front, due_ms, pushed, progress)
        except KeyboardInterrupt:
            pushed.interrupted = True
    pushed.seconds = time.monotonic() - started
    return pushed


def through_gateway(office: Office, queue: Queue, contents: list[bytes], due_ms: int, pushed: Pushed) -> Pushed:
    """The same as a part of another operation; what it comes to is added to `pushed`."""
    with _Client(office) as client:
        client.login(queue)
        _push_all(client, queue, contents, False, due_ms, pushed, lambda _: None)
    return pushed


def _push_all(
    client: _Client,
    queue: Queue,
    contents: Iterable[bytes | None],
    front: bool,
    due_ms: int,
    pushed: Pushed,
    progress: Progress,
) -> None:
    waiting: list[int] = []
    if front:
        contents = [
            content for content in reversed(list(contents)) if content is not None
        ]  # RPUSH puts its last value ahead of all: so our first one runs first

    def collect() -> None:
        _count(client.reply(), waiting.pop(0), pushed)
        progress(pushed)

    try:
        for batch in _batches(contents):
            if not batch:
                while waiting:
                    collect()
                continue
            client.send(*_command(queue, batch, front, due_ms))
            waiting.append(len(batch))
            if len(waiting) >= IN_FLIGHT:
                collect()
            if pushed.error:
                break
        while waiting:
            collect()
    except (KeyboardInterrupt, NotReachable) as stop:
        if isinstance(stop, KeyboardInterrupt):
            while waiting:
                collect()
            raise
        pushed.unknown += sum(waiting)
        pushed.error = pushed.error or f"UNKNOWN {stop}"


def _small_enough(contents: Iterable[bytes | None], most: int, pushed: Pushed) -> Iterator[bytes | None]:
    """Ends before a job that is too large: the gateway would cut us, in the protocol's words instead of ours."""
    for content in contents:
        if content is not None and len(content) > most:
            pushed.refused += 1
            pushed.error = f"a job of {len(content)} bytes is larger than [gateway] max_bulk allows ({most})"
            return
        yield content


def _command(queue: Queue, batch: list[bytes], front: bool, due_ms: int) -> list[bytes]:
    key = f"{queue.name}/push".encode()
    if due_ms:
        at = b"%d.%03d" % divmod(due_ms, 1000)
        return [b"ZADD", key, *(word for content in batch for word in (at, content))]
    return [b"RPUSH" if front else b"LPUSH", key, *batch]


def _batches(contents: Iterable[bytes | None]) -> Iterator[list[bytes]]:
    """Contents in portions; an empty one where the replies should be waited for."""
    batch: list[bytes] = []
    size = 0
    for content in contents:
        if content is None:
            yield from (batch, []) if batch else ()
            batch, size = [], 0
            continue
        if batch and (len(batch) >= COMMAND_JOBS or size + len(content) > COMMAND_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(content)
        size += len(content)
    if batch:
        yield batch


def _count(reply: Any, jobs: int, pushed: Pushed) -> None:
    """Count one reply: the JSON bulk, an integer (`reply = redis`), or an error."""
    error = ""
    if isinstance(reply, bytes):
        answer = json.loads(reply)
        error = answer["error"]
        pushed.ids += (answer["jobs"] or [])[: KEPT_IDS - len(pushed.ids)]
    elif isinstance(reply, hiredis.ReplyError):
        error = str(reply)
    if not error:
        pushed.accepted += jobs
    elif error.startswith("UNKNOWN"):
        pushed.unknown += jobs
    else:
        pushed.refused += jobs
    pushed.error = pushed.error or error


class _Client:
    """One connection to this node's gateway."""

    def __init__(self, office: Office) -> None:
        gateway = office.config.gateway
        self._reader = hiredis.Reader()
        problems: list[str] = []
        for address in sorted(gateway.listen, key=lambda text: not text.startswith("unix:")):
            try:
                self._socket = _connect(address, bool(gateway.cert))
                return
            except OSError as error:
                problems.append(f"{address}: {error.strerror or error}")
        raise NotReachable("no gateway answers (" + "; ".join(problems) + ")")

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def login(self, queue: Queue) -> None:
        """Say the queue's password. Raises PepperbusError when the running bus has another one."""
        password = queue.password.reveal()
        if not password:
            return
        if password.startswith(HASH):
            password = os.environ.get("PEPPERBUS_PASSWORD", "")
            if not password and not queue.open:
                raise PepperbusError(
                    f"the file of queue {queue.name!r} holds only a hash of its password; say it in $PEPPERBUS_PASSWORD"
                )
        self.send(b"AUTH", f"{queue.name}:{password}".encode())
        reply = self.reply()
        if isinstance(reply, hiredis.ReplyError):
            raise PepperbusError(
                f"the gateway refuses the password of queue {queue.name!r} ({reply}); was its file changed since `reload`?"
            )

    def send(self, *words: bytes) -> None:
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
        try:
            self._socket.sendall(b"".join(parts))
        except OSError as error:
            raise NotReachable(f"the gateway closed the connection: {error.strerror or error}") from error

    def reply(self) -> Any:
        try:
            while (answer := self._reader.gets()) is False:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise NotReachable("the gateway closed the connection")
                self._reader.feed(data)
        except hiredis.ProtocolError as error:
            raise ProtocolError(f"this is no Redis protocol: {error}") from error
        except OSError as error:
            raise NotReachable(f"no answer from the gateway: {error.strerror or error}") from error
        return answer


def _connect(address: str, tls: bool) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
    connection = socket.create_connection((everywhere.get(host, host), int(port)), TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _unverified(connection) if tls else connection


def _unverified(connection: socket.socket) -> ssl.SSLSocket:
    """TLS without checking the certificate: the address is our own configuration's, on this very machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)
