"""What a new configuration means for a running bus: pure comparison of two of them.

Gateways, ticker and web take a new configuration in place; workers are replaced where something they work with
changed; what hangs on opened sockets, files and names stays as it was until a restart, and is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pepperbus.config.model import Config, Queue
from pepperbus.master.children import Wanted

_FIXED = {
    "bus": ("node", "shard", "data_dir", "run_dir", "user", "group"),
    "gateway": ("listen", "cert", "key", "public"),
    "web": ("listen", "cert", "key", "public"),
    "log": ("file", "level", "format", "errors"),
}


@dataclass(frozen=True)
class Change:
    """`config` is what runs from now on: the new one with everything that cannot change live as it was."""

    config: Config
    added: list[str]
    changed: list[str]
    removed: list[str]
    groups: set[str]  # worker groups to replace
    needs_restart: list[str]

    def answer(self) -> dict[str, Any]:
        return {
            "generation": self.config.generation,
            "added": self.added,
            "changed": self.changed,
            "removed": self.removed,
            "needs_restart": self.needs_restart,
        }


def compare(old: Config, new: Config) -> Change:
    config, needs_restart = _keep_fixed(old, new)
    config = replace(config, generation=old.generation + 1)
    both = old.queues.keys() & new.queues.keys()
    before, after = old.groups(), config.groups()
    return Change(
        config,
        sorted(new.queues.keys() - old.queues.keys()),
        sorted(name for name in both if old.queues[name] != new.queues[name]),
        sorted(old.queues.keys() - new.queues.keys()),
        {
            group
            for group in before.keys() | after.keys()
            if _work(old, before.get(group)) != _work(config, after.get(group))
        },
        needs_restart,
    )


def _keep_fixed(old: Config, new: Config) -> tuple[Config, list[str]]:
    """`new` with the settings of `old` where they cannot change live, and their names where they differ."""
    differ: list[str] = []
    sections: dict[str, Any] = {}
    for section, keys in _FIXED.items():
        before, after = getattr(old, section), getattr(new, section)
        kept = {key: getattr(before, key) for key in keys}
        differ += [f"[{section}] {key}" for key in keys if getattr(after, key) != kept[key]]
        sections[section] = replace(after, **kept)
    storages = dict(new.storages)
    for name, storage in old.storages.items():
        if name in storages and storages[name] != storage:
            differ.append(f"[storages] [[{name}]]")
            storages[name] = storage
    return replace(new, storages=storages, **sections), differ


def _work(config: Config, queues: list[Queue] | None) -> tuple[object, ...] | None:
    """Everything the workers of a group of queues work with; equal values mean that they may stay."""
    if queues is None:
        return None
    topics = [topic for queue in queues for topic in queue.topics.values()]
    return (
        [_fed(queue) for queue in queues],
        [config.pools.get(topic.pool) for topic in topics],
        [config.pools.get(topic.canary.pool) for topic in topics if topic.canary],
        [config.storages.get(topic.storage) for topic in topics],
        [config.consumes(topic) for topic in topics],
        config.journal,
        config.http,
    )


def _fed(queue: Queue) -> Queue:
    """Without what is the ticker's, and without who takes new jobs: what lies there runs all the same."""
    topics = queue.topics
    if any(topic.closed != "no" for topic in topics.values()):
        topics = {name: replace(topic, closed="no") for name, topic in topics.items()}
    return replace(queue, topics=topics, closed="no", schedule={}, intakes=())


def wanted(config: Config, gateways: int, roles: set[str], workers: Mapping[str, int]) -> list[Wanted]:
    """Which children there should be, of those roles this bus knows. `workers`: where in its range a group stands."""
    all_wanted = [Wanted("gateway", "", gateways, indexes=16)]
    all_wanted += [
        Wanted("worker", group, _workers(queues, workers.get(group, 0))) for group, queues in config.groups().items()
    ]
    all_wanted += [Wanted("ticker", "", 1, single=True), Wanted("web", "", 1 if config.web.listen else 0, single=True)]
    return [one for one in all_wanted if one.role in roles]


def _workers(queues: list[Queue], asked: int) -> int:
    """`asked`, within what the queues of the group give as their range; at first its lower end."""
    most = max(queue.workers for queue in queues)
    return min(most, max(asked, *(queue.least_workers or queue.workers for queue in queues)))


def longest_timeout_s(config: Config, group: str) -> float:
    """How long an attempt of that group may still take."""
    queues = config.groups().get(group, [])
    return max((topic.timeout for queue in queues for topic in queue.topics.values()), default=0.0)
