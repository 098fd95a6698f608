"""Who runs the jobs: each php-fpm pool with its own status page, each URL, and how this node's workers see them.

Floor 4. Everything is asked now; what does not answer says so in its `error`.
"""

from __future__ import annotations

from typing import Any

import gevent
import msgspec

from pepperbus.config.model import FastcgiPool, Topic
from pepperbus.delivery import fpm_status
from pepperbus.errors import NotFound, NotReachable
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, may, operation


class Target(Result):
    """One topic's way to its consumer. `closed`: open, or what closed it; `why` in words."""

    topic: str
    address: str
    closed: str = "unknown"
    why: str = ""
    in_flight: int = 0
    window: int = 0
    concurrency: int = 0
    workers: int = 0


class Consumer(Result):
    """A pool, a URL or a command with the topics that go there. `fpm`: php-fpm's status page, empty where none is configured.

    `keepalive`: connections are kept between jobs, and php-fpm counts a child that waits on one as active.
    `staff`: a command's processes, of all workers of the node; as `delivery.contract.Staff.facts` has them.
    """

    name: str
    kind: str
    address: str
    max_connections: int = 0
    dedicated: bool = False
    keepalive: bool = False
    targets: list[Target] = msgspec.field(default_factory=list)
    fpm: dict[str, Any] = msgspec.field(default_factory=dict)
    error: str = ""
    staff: list[dict[str, Any]] = msgspec.field(default_factory=list)


@operation(Right.VIEW)
def consumers(office: Office) -> list[Consumer]:
    """Every pool, and every URL or command that a topic names. Bounded by 2 s for a status page that hangs."""
    told, staff = _told(office)
    pools = {pool.name: _of_pool(pool) for pool in office.config.pools.values()}
    urls: dict[str, Consumer] = {}
    for topic in office.topics():
        if topic.pulled or not may(office, Right.VIEW, topic.full_name):
            continue
        home = pools.get(topic.pool)
        address = home.address if home else " ".join(topic.command or topic.urls)
        consumer = home or urls.setdefault(address, Consumer(address, topic.run, address))
        mine = told.get(topic.full_name, []) or [_kept(crew) for crew in staff.get(topic.full_name, [])]
        consumer.targets.append(_target(topic, address, mine))
        consumer.staff += [{"topic": topic.full_name, **facts} for facts in staff.get(topic.full_name, [])]
    asking = [gevent.spawn(_ask_fpm, pools[pool.name], pool) for pool in office.config.pools.values() if pool.status]
    gevent.joinall(asking)
    return [*pools.values(), *urls.values()]


@operation(Right.VIEW)
def fpm(office: Office, pool: str) -> dict[str, Any]:
    """The status page of one pool, as php-fpm spells its fields. Raises NotFound and NotReachable."""
    found = office.config.pools.get(pool)
    if found is None:
        raise NotFound(f"pool not found: {pool!r}")
    if not found.status:
        raise NotFound(f"pool {pool}: no `status` in [fastcgi]; set pm.status_listen and pm.status_path in php-fpm")
    return fpm_status.of(found)


def _told(office: Office) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]:
    """topic -> what each worker that feeds it says; the same of its command's processes."""
    try:
        answer = office.ask({"op": "tell", "role": "worker", "command": {"op": "targets"}, "timeout": 2})
    except NotReachable:
        return {}, {}
    staff: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for one in answer.get("answers", {}).values():
        for name, facts in one.get("topics", {}).items():
            found.setdefault(name, []).append(facts)
        for name, facts in one.get("staff", {}).items():
            staff.setdefault(name, []).append(facts)
    return found, staff


def _kept(crew: dict[str, Any]) -> dict[str, Any]:
    """Processes that find their work themselves: all that can be said is whether they live."""
    return {"closed": "open" if crew["processes"] else "down", "why": crew["why"], "window": len(crew["processes"])}


def _target(topic: Topic, address: str, told: list[dict[str, Any]]) -> Target:
    target = Target(topic.full_name, address, concurrency=topic.concurrency, workers=len(told))
    for facts in told:
        target.in_flight += facts.get("in_flight", 0)
        target.window = max(target.window, facts.get("window", 0))
        if target.closed in ("unknown", "open") or facts["closed"] != "open":
            target.closed, target.why = facts["closed"], facts.get("why", "")
    return target


def _of_pool(pool: FastcgiPool) -> Consumer:
    return Consumer(pool.name, "fastcgi", pool.address, pool.max_connections, pool.dedicated, pool.keepalive)


def _ask_fpm(consumer: Consumer, pool: FastcgiPool) -> None:
    try:
        consumer.fpm = fpm_status.of(pool)
    except NotReachable as error:
        consumer.error = str(error)
