"""What needs somebody now, most harmful first, each line with the way to its cause. Floor 5.

Made from one `Status`; says the same as its `problems`, and what only shows over a minute: failures, full storages, pauses
that were forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pepperbus.operations.results import QueueStatus, Status, TopicStatus
from pepperbus.web.formats import count
from pepperbus.web.monitor import Monitor
from pepperbus.web.words import _, span

HARMS = ("loss", "stop", "slow")
_FULL = 0.9
_FAILING = 0.1
_LATE_S = 300.0
_CLOSED = ("stopped", "down", "probing")
_LEVELS = ("memory", "process", "power")


@dataclass(frozen=True, slots=True)
class Matter:
    """`text` says what, `detail` why, `href` leads there. `topic`: whose it is, "" for the node's own."""

    harm: str
    text: str
    href: str
    detail: str = ""
    topic: str = ""


def matters(status: Status, monitor: Monitor, stuck: Mapping[str, str]) -> list[Matter]:
    """Everything, worst first."""
    found = [*_node(status), *_storages(status)]
    given = {storage.name: storage.durability for storage in status.storages if storage.alive and storage.durability}
    failed = monitor.minute.rates("failed", 60)
    for queue in status.queues:
        found += _durability(queue, given)
        found += _closed(queue, stuck)
        for topic in queue.topics:
            if topic.ready or topic.dead or topic.name in failed or topic.state in _CLOSED:
                found += _topic(topic, status, failed.get(topic.name, 0.0), monitor)
    for topic in status.detached:
        n = topic.ready + topic.delayed + topic.leased + topic.dead
        facts = {"topic": topic.name, "n": count(n), "storage": topic.storage}
        text = _("{topic}: {n} jobs lie in {storage}, but no queue names this topic", **facts)
        found.append(Matter("stop", text, f"/topics/{topic.name}", "", topic.name))
    return sorted(found, key=lambda matter: HARMS.index(matter.harm))


def _node(status: Status) -> Iterator[Matter]:
    if not status.running:
        yield Matter("stop", _("The bus does not answer"), "/nodes", "; ".join(status.problems[:1]))
    for process in status.processes:
        if process["state"] == "failed" or (process["state"] == "waiting" and process.get("reason")):
            text = _("Process {name} does not run", name=process["name"])
            yield Matter("stop", text, "/nodes", str(process.get("reason") or ""))
    for node in status.nodes:
        if not node.alive:
            text = _("Node {name} has said nothing for {time}", name=node.name, time=span(node.silent_s))
            yield Matter("slow", text, "/nodes#others")


def _storages(status: Status) -> Iterator[Matter]:
    for storage in status.storages:
        if not storage.alive:
            text = _("Storage {name} does not answer: its queues refuse pushes", name=storage.name)
            yield Matter("stop", text, "/storage", storage.detail)
        elif storage.limit and storage.used >= _FULL * storage.limit:
            share = f"{storage.used / storage.limit:.0%}"
            yield Matter("stop", _("Storage {name} is {share} full", name=storage.name, share=share), "/storage")


def _durability(queue: QueueStatus, given: dict[str, str]) -> Iterator[Matter]:
    for name in dict.fromkeys(topic.storage for topic in queue.topics) if queue.durability else ():
        if name in given and _LEVELS.index(given[name]) < _LEVELS.index(queue.durability):
            facts = {"queue": queue.name, "wanted": queue.durability, "storage": name, "given": given[name]}
            text = _(
                "{queue} refuses pushes: it asks for durability {wanted}, storage {storage} gives {given}", **facts
            )
            yield Matter("loss", text, "/storage", "", queue.name)


def _closed(queue: QueueStatus, stuck: Mapping[str, str]) -> Iterator[Matter]:
    """`stuck`: queue or topic -> why it could not be removed."""
    if queue.closed:
        left = count(sum(topic.ready + topic.delayed + topic.leased + topic.dead for topic in queue.topics))
        facts = {"queue": queue.name, "n": left}
        text = (
            _("{queue} takes no jobs any more and is removed once it is empty; left: {n}", **facts)
            if queue.closed == "remove"
            else _("{queue} is closed: it takes no jobs; left: {n}", **facts)
        )
        yield Matter("slow", text, f"/queues/{queue.name}/edit", stuck.get(queue.name, ""), queue.name)
    for topic in queue.topics if not queue.closed else ():
        if topic.closed:
            left = count(topic.ready + topic.delayed + topic.leased + topic.dead)
            facts = {"topic": topic.name, "n": left, "dead": count(topic.dead)}
            text = (
                _("{topic} takes no new jobs and is removed once it is empty; left: {n}, of them dead: {dead}", **facts)
                if topic.closed == "remove"
                else _("{topic} is closed: it takes no new jobs; left: {n}, of them dead: {dead}", **facts)
            )
            yield Matter("slow", text, f"/topics/{topic.name}", stuck.get(topic.name, ""), topic.name)


def _topic(topic: TopicStatus, status: Status, failed: float, monitor: Monitor) -> Iterator[Matter]:
    """`failed`: attempts a second, over the last minute."""
    name, here, waiting = topic.name, f"/topics/{topic.name}", count(topic.ready)
    late = (status.at_ms - topic.oldest_ms) / 1000 if topic.oldest_ms and topic.ready else 0.0
    if topic.state in _CLOSED:
        facts = {"topic": name, "state": _(topic.state), "n": waiting}
        text = _("{topic}: its consumer is {state}, {n} jobs wait", **facts)
        yield Matter("stop", text, here, topic.why or topic.target, name)
    elif topic.paused and topic.ready:
        yield Matter("slow", _("{topic} is paused, {n} jobs wait", topic=name, n=waiting), here, "", name)
    elif late > _LATE_S:
        text = _("{topic}: the oldest job has waited {time}", topic=name, time=span(late))
        yield Matter("slow", text, here, "", name)
    done = monitor.rate(name, "done", 60) if failed else 0.0
    if failed > _FAILING * (failed + done):
        share = f"{failed / (failed + done):.0%}"
        text = _("{topic}: {share} of the attempts of the last minute failed", topic=name, share=share)
        yield Matter("slow", text, f"/errors?topic={name}", "", name)
    if topic.dead:
        text = _("{topic}: dead jobs that wait for a decision: {n}", topic=name, n=count(topic.dead))
        yield Matter("slow", text, f"{here}/jobs?state=dead", "", name)
