"""What the tests of the whole bus share: configuration texts, the consumer's ledger (tests/data/php/wire.php), counters.

The ledger is the consumer's own word: nothing of the bus' code reads or writes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pepperbus import stats
from tests.fixtures.bus import NODE, Bus
from tests.fixtures.fpm import Fpm
from tests.fixtures.redis import Redis

T = TypeVar("T")


class Line(NamedTuple):
    """One line of the ledger; `kind`: B began, E ended."""

    kind: str
    id: str
    attempt: int
    topic: str
    at: float
    pid: int
    length: int
    sha1: str
    in_trace: str
    out_trace: str


def ledger(php: Fpm) -> list[Line]:
    made = []
    for words in (line.split(" ") for line in php.ledger()):
        kind, job_id, attempt, topic, at, pid, length, *rest = words
        made.append(Line(kind, job_id, int(attempt), topic, float(at), int(pid), int(length), *rest))
    return made


def ended(php: Fpm) -> list[Line]:
    return [line for line in ledger(php) if line.kind == "E"]


def begun(php: Fpm) -> list[Line]:
    return [line for line in ledger(php) if line.kind == "B"]


def let_go(php: Fpm) -> None:
    """Jobs whose content is `hold` end, and new ones end at once."""
    (php.scripts / "go").touch()


def node(php: Fpm | None = None, redis: Redis | None = None, pool: str = "dedicated = yes", more: str = "") -> str:
    """The node's file. Storage `local` is embedded, or lies on `redis` when one is given."""
    text = NODE
    if redis is not None:
        text = text.replace("type = embedded", f"type = redis\n        url = {redis.url}")
    if php is not None:
        text += f"[fastcgi]\n    [[php]]\n        address = {php.address}\n        max_connections = 4\n"
        text += "".join(f"        {line}\n" for line in pool.splitlines())
    return text + more


def queue(
    script: str = "", topic: str = "", head: str = "", topics: tuple[str, ...] = ("mail",), run: str = "fastcgi"
) -> str:
    """A queue's file: `head` are lines of the queue, `topic` of each of its topics."""
    lines = ["open = loopback", "password = secret", "storage = local", *head.splitlines(), "[topics]"]
    for name in topics:
        lines += [f"[[{name}]]", f"run = {run}"]
        lines += ["pool = php", f"script = {script}"] if run == "fastcgi" else []
        lines += topic.splitlines()
    return "\n".join(lines) + "\n"


def until(look: Callable[[], T], good: Callable[[T], object], bus: Bus | None = None, seconds: float = 40.0) -> T:
    """Look until what is seen is `good`; that."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if good(seen):
            return seen
        assert time.monotonic() < end, f"not within {seconds:g} s: {seen!r}\n{bus.log if bus else ''}"
        time.sleep(0.01)


def counts(bus: Bus, topic: str = "orders/mail") -> stats.Totals:
    return stats.read_all(bus.run_dir / "stats", (topic,)).get(topic) or stats.Totals()


def until_count(bus: Bus, topic: str = "orders/mail", seconds: float = 40.0, **wanted: int) -> stats.Totals:
    """Wait until these counters of the topic have reached these numbers."""
    return until(
        lambda: counts(bus, topic), lambda now: all(now[name] >= n for name, n in wanted.items()), bus, seconds
    )


def ask(bus: Bus, *words: str) -> Any:
    """The command line's JSON answer."""
    done = bus.cli("--json", *words)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def life(bus: Bus, job_id: str, topic: str = "orders/mail", events: int = 0) -> dict[str, Any]:
    """The whole life of a job in one topic, as `pepperbus job` tells it, once it has that many events.

    A worker counts first, then stores, then writes its journal: who has seen a counter may look too early.
    """

    def told() -> dict[str, Any]:
        found = ask(bus, "job", job_id)["topics"]
        return next((dict(one) for one in found if one["topic"] == topic), {"events": []})

    return until(told, lambda seen: len(seen["events"]) >= events and seen.get("topic"), bus)


def push(bus: Bus, *values: str | bytes, key: str = "orders/x") -> list[str]:
    """LPUSH in the old way; the ids."""
    with bus.client() as client:
        answer = json.loads(client.execute_command("LPUSH", key, *values))
    assert answer["error"] == "", answer
    return list(answer["jobs"])
