"""Straight to a consumer, past storage and workers: ask whether it is there, or show it one job and see its answer.

Floor 4. Nothing is stored, counted or retried; what the bus would do with the answer is the verdict's word.
"""

from __future__ import annotations

from typing import Any

from pepperbus.accounts.model import Right
from pepperbus.config.model import Topic
from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Answer, Delivered, Request
from pepperbus.delivery.verdict import judge, judge_ping
from pepperbus.errors import UsageError
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.nodes.errands import Errand
from pepperbus.operations import elsewhere
from pepperbus.operations.by_hand import command
from pepperbus.operations.office import Office
from pepperbus.operations.results import Pinged, Sent
from pepperbus.operations.rights import operation

PING_S = 10.0
_LONGEST_S = 3600.0
_SLOT = 15  # the last gateway slot: a test job's id is that of no stored job on nodes with fewer gateways


@operation(Right.OPERATE, "topic", audited=False)
def ping(office: Office, topic: str, timeout: float = PING_S, node: str = "") -> Pinged:
    """One ping, as workers send it before they feed a topic; from another `node` as `elsewhere.ask` has it.

    Raises NotFound for an unknown topic.
    """
    found = office.topic(topic)
    if _is_elsewhere(office, node):
        errand = Errand("ping", topic, office.actor.name, office.config.bus.node)
        return elsewhere.ask(office, node, errand, Pinged, PING_S)
    request = Request(
        found.queue, found.name, _trace(office), ping=True, deadline_s=timeout, now_ms=office.clock.now_ms()
    )
    address, answer = _call(office, topic, request)
    registered, reason = judge_ping(answer, request)
    shown = {**_shown(answer), "command": command(found, office.config, request), "node": office.config.bus.node}
    return Pinged(topic, address, registered, reason, **shown)


def _check_patience(topic: Topic, timeout: float) -> None:
    """Raises UsageError: whoever waits holds a connection of the sidecar, and one of the consumer's places."""
    most = max(_LONGEST_S, topic.timeout)
    if not 0 <= timeout <= most:
        raise UsageError(f"a timeout is at most {most:g} s here, not {timeout:g}")


@operation(Right.OPERATE, "topic", details=("attempt", "node"), tells=("id", "act", "code", "reason"))
def send(office: Office, topic: str, content: bytes, *, attempt: int = 1, timeout: float = 0.0, node: str = "") -> Sent:
    """Deliver `content` as one job, now, and judge the answer. `timeout` 0: the topic's own.

    The consumer really runs it, called from this node, or from another `node` as `elsewhere.ask` has it. Raises NotFound
    for an unknown topic.
    """
    found = office.topic(topic)
    _check_patience(found, timeout)
    if _is_elsewhere(office, node):
        me = office.config.bus.node
        errand = Errand("send", topic, office.actor.name, me, content, attempt, timeout)
        return elsewhere.ask(office, node, errand, Sent, timeout or found.timeout)
    now_ms = office.clock.now_ms()
    job_id = IdGenerator(office.config.bus.shard, _SLOT, office.clock.now_ms).next()
    job = Job(job_id, _trace(office), content, now_ms, office.who)
    request = Request(
        found.queue, found.name, _trace(office), (Delivered(job, attempt),), False, timeout or found.timeout, now_ms
    )
    address, answer = _call(office, topic, request)
    pool = office.config.pools.get(found.pool)
    verdict = judge(answer, request, found, dedicated=pool is None or pool.dedicated)
    return Sent(
        topic,
        address,
        str(job_id),
        verdict.act.value,
        verdict.code,
        verdict.error_code,
        verdict.reason,
        **_shown(answer),
        command=command(found, office.config, request),
        node=office.config.bus.node,
    )


def _is_elsewhere(office: Office, node: str) -> bool:
    return bool(node) and node != office.config.bus.node


def _call(office: Office, topic: str, request: Request) -> tuple[str, Answer]:
    consumer = make_consumer(office.topic(topic), office.config)
    try:
        return consumer.address, consumer.call(request)
    finally:
        consumer.close()


def _trace(office: Office) -> str:
    """Traces are numbers of the ids' form."""
    return str(IdGenerator(office.config.bus.shard, _SLOT, office.clock.now_ms).next())


def _shown(answer: Answer) -> dict[str, Any]:
    return {
        "transport": answer.transport.value,
        "status": answer.status,
        "headers": dict(answer.headers),
        "body": answer.body.decode(errors="replace"),
        "stderr": answer.stderr.decode(errors="replace") or answer.detail,
        "connect_ms": answer.connect_ms,
        "total_ms": answer.total_ms,
    }
