"""Pushing from here goes through the gateway, with the queue's login: exactly what a producer's push goes through.

Floor 4. Pipelined commands of several jobs each, replies counted one by one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hiredis

from pepperbus.accounts.model import Right
from pepperbus.config.model import Queue
from pepperbus.errors import NotReachable
from pepperbus.operations.gateway_client import GatewayClient
from pepperbus.operations.office import Office
from pepperbus.operations.results import Pushed
from pepperbus.operations.rights import operation

COMMAND_JOBS = 100
COMMAND_BYTES = 256 << 10
IN_FLIGHT = 8  # commands sent ahead of their replies
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
    with GatewayClient(office) as client:
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
    with GatewayClient(office) as client:
        client.login(queue)
        _push_all(client, queue, contents, False, due_ms, pushed, lambda _: None)
    return pushed


def _push_all(
    client: GatewayClient,
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
