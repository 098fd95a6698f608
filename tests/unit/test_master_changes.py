"""What a new configuration touches, and what it must leave alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pepperbus.config.model import (
    Bus,
    Config,
    FastcgiPool,
    Gateway,
    Journal,
    Log,
    Queue,
    Schedule,
    StorageConfig,
    Topic,
    Web,
)
from pepperbus.config.secret import Secret
from pepperbus.config.timing import Timing
from pepperbus.master.changes import compare, longest_timeout_s, wanted


def queue(name: str, **facts: object) -> Queue:
    topic = Topic(name, "mail", "local", "fastcgi", pool="php", script="/x.php", timeout=60.0)
    return replace(Queue(name, Secret("p"), {"mail": topic}, "local"), **facts)  # type: ignore[arg-type]


def config(*queues: Queue) -> Config:
    return Config(
        Path("/etc/pepperbus.conf"),
        "queues.d/*.conf",
        Bus("n"),
        Gateway(),
        Web(),
        Log(),
        Journal(),
        {"local": StorageConfig("local", "embedded", path=Path("/d"))},
        {"php": FastcgiPool("php", "unix:/p"), "other": FastcgiPool("other", "unix:/o")},
        {},
        {one.name: one for one in queues},
        generation=3,
    )


OLD = config(queue("a"), queue("b"))


def test_the_same_again_touches_nothing_but_the_generation() -> None:
    change = compare(OLD, config(queue("a"), queue("b")))
    assert (change.added, change.changed, change.removed, change.groups, change.needs_restart) == (
        [],
        [],
        [],
        set(),
        [],
    )
    assert change.config.generation == 4


def test_only_the_changed_queues_workers_are_replaced() -> None:
    change = compare(OLD, config(queue("a", workers=2, rpush="normal"), queue("b"), queue("c")))
    assert (change.added, change.changed, change.removed) == (["c"], ["a"], [])
    assert change.groups == {"a", "c"}


def test_a_schedule_is_no_business_of_workers() -> None:
    tick = Schedule("orders", "tick", Timing("@hourly"))
    change = compare(config(queue("orders")), config(queue("orders", schedule={"tick": tick})))
    assert (change.changed, change.groups) == (["orders"], set())


def test_a_removed_queue_takes_its_workers_along() -> None:
    change = compare(OLD, config(queue("b")))
    assert (change.removed, change.groups) == (["a"], {"a"})


def test_a_queue_that_moves_between_groups_touches_both() -> None:
    assert compare(OLD, config(queue("a", process_group="b"), queue("b"))).groups == {"a", "b"}


def test_a_pool_touches_only_those_who_use_it() -> None:
    pools = {**OLD.pools, "other": FastcgiPool("other", "unix:/elsewhere")}
    assert compare(OLD, replace(OLD, pools=pools)).groups == set()
    pools = {**OLD.pools, "php": FastcgiPool("php", "unix:/elsewhere")}
    assert compare(OLD, replace(OLD, pools=pools)).groups == {"a", "b"}


def test_what_hangs_on_opened_things_stays_and_is_named() -> None:
    new = replace(
        OLD,
        bus=Bus("renamed", grace=9.0),
        gateway=Gateway(listen=("0.0.0.0:1",), max_clients=7),
        storages={"local": StorageConfig("local", "redis")},
        log=Log(level="warning"),
    )
    change = compare(OLD, new)
    assert change.needs_restart == ["[bus] node", "[gateway] listen", "[log] level", "[storages] [[local]]"]
    assert (change.config.bus.node, change.config.bus.grace) == ("n", 9.0)
    assert (change.config.gateway.listen, change.config.gateway.max_clients) == (OLD.gateway.listen, 7)
    assert change.config.storages == OLD.storages
    assert change.groups == set()


def test_tags_decide_which_groups_there_are() -> None:
    tagged = replace(OLD, bus=Bus("n", consumer=False))
    change = compare(OLD, tagged)
    assert change.groups == {"a", "b"}
    assert [one.role for one in wanted(change.config, 1, {"gateway", "worker", "ticker", "web"}, {})] == [
        "gateway",
        "ticker",
        "web",
    ]


def test_a_group_has_the_most_workers_any_of_its_queues_asks_for() -> None:
    grouped = config(queue("a", process_group="g"), queue("b", process_group="g", workers=3), queue("c"))
    counts = {one.group: one.count for one in wanted(grouped, 1, {"worker"}, {})}
    assert counts == {"g": 3, "c": 1}


def test_a_range_of_workers_begins_low_and_is_kept_to() -> None:
    ranged = config(queue("a", workers=4, least_workers=2))
    counts = [wanted(ranged, 1, {"worker"}, {"a": asked})[0].count for asked in (0, 1, 3, 9)]
    assert counts == [2, 2, 3, 4]


def test_a_draining_worker_may_finish_its_longest_attempt() -> None:
    assert longest_timeout_s(OLD, "a") == 60.0
    assert longest_timeout_s(OLD, "nobody") == 0.0
