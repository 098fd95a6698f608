"""The rules: what each is about and measured in, and which limit holds for a topic. Floor 3, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pepperbus.config.alarm_settings import Channel, Limit
from pepperbus.config.model import Config, Topic


class About(StrEnum):
    """What a rule's subject is."""

    TOPIC = "topic"  # queue/topic
    STORAGE = "storage"
    NODE = "node"
    SCHEDULE = "schedule"  # queue/name


@dataclass(frozen=True, slots=True)
class Rule:
    """`unit`: count, time (s), share (0 to 1), left (s; the smaller the worse) or state (0 or 1), as in schema.ini.

    `common`: every node that shares the storage measures the same, so one of them speaks for all.
    """

    name: str
    about: About
    unit: str
    common: bool = False


RULES = {
    rule.name: rule
    for rule in (
        Rule("backlog", About.TOPIC, "count", common=True),
        Rule("oldest", About.TOPIC, "time", common=True),
        Rule("failures", About.TOPIC, "share"),
        Rule("wait_p99", About.TOPIC, "time"),
        Rule("run_p99", About.TOPIC, "time"),
        Rule("dead", About.TOPIC, "count", common=True),
        Rule("consumer_down", About.TOPIC, "state"),
        Rule("node_down", About.NODE, "state", common=True),
        Rule("storage_down", About.STORAGE, "state"),
        Rule("storage_full", About.STORAGE, "share", common=True),
        Rule("storage_left", About.STORAGE, "left", common=True),
        Rule("schedule_missed", About.SCHEDULE, "time", common=True),
    )
}
OFF = Limit(off=True)


def limit(config: Config, rule: str, topic: Topic | None = None) -> Limit:
    """What holds for a topic: its own file's limit, else its system's, else everybody's."""
    if topic is not None:
        for own, found in topic.alarms:
            if own == rule:
                return found
        queue = config.queues.get(topic.queue)
        for system, limits in config.alarms.systems:
            if queue is not None and system == queue.system and rule in dict(limits):
                return dict(limits)[rule]
    return dict(config.alarms.rules).get(rule, OFF)


def concerns(channel: Channel, rule: str, system: str) -> bool:
    """Whether a channel wants to hear of it. `system` "": a queue without one, a storage, a node."""
    return (not channel.rules or rule in channel.rules) and (not channel.systems or system in channel.systems)
