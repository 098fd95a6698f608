"""Random histories: the memory model beside each engine must give the same answers and show the same jobs."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pepperbus.clock import ManualClock
from pepperbus.config.model import StorageConfig
from pepperbus.job import State
from pepperbus.storage.contract import Leased, Once, Outcome, Push, Settle, Storage
from pepperbus.storage.memory import MemoryStorage
from tests.contract.conftest import ENGINES
from tests.contract.rig import Producer, Rig

_history = count(1)
topics = st.sampled_from(["a", "b"])


class Beside(RuleBasedStateMachine):
    """One history in topics of its own. Each lease has a new owner, so all orders are defined by the contract."""

    rig: Rig

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.rig.clock
        self.model: Storage = MemoryStorage(StorageConfig("model", "memory"), self.clock)
        self.real = self.rig.make()
        self.real.open()
        self.prefix = f"h{next(_history)}"
        self.producer = Producer(self.clock)
        self.pushed: list[Push] = []
        self.released: set[str] = set()
        self.leases: list[tuple[str, list[Leased]]] = []
        self.owners = count(1)

    def topic(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def both(self, call):
        expected, found = call(self.model), call(self.real)
        assert found == expected
        return expected

    @rule(names=st.sets(topics, min_size=1), n=st.integers(1, 5), kind=st.sampled_from(["normal", "front", "delayed"]))
    def push(self, names: set[str], n: int, kind: str) -> None:
        due = self.clock.now_ms() + 1000 * n if kind == "delayed" else 0
        where = [self.topic(name) for name in sorted(names)]
        batch = [self.producer.push(*where, due_ms=due, front=kind == "front") for _ in range(n)]
        self.pushed += batch
        self.both(lambda one: list(one.push(batch)))

    @rule(name=topics, limit=st.integers(1, 8), n=st.integers(1, 4))
    def push_limited(self, name: str, limit: int, n: int) -> None:
        batch = self.producer.several(n, self.topic(name))
        self.pushed += batch
        self.both(lambda one: sorted(one.push(batch, {self.topic(name): limit})))

    @rule(names=st.lists(st.sampled_from("xyz"), min_size=1, max_size=4), alive=st.booleans(), limit=st.integers(0, 4))
    def push_once(self, names: list[str], alive: bool, limit: int) -> None:
        where = self.topic("a"), self.topic("b")
        batch = [Once(self.producer.push(*where), f"{self.prefix}/{name}", 86_400_000, alive) for name in names]
        self.pushed += [one.push for one in batch]
        self.both(lambda one: one.push_once(batch, {where[0]: limit} if limit else None))

    @rule(old=st.sampled_from(["", "1", "2"]), new=st.sampled_from(["", "1", "2"]), n=st.integers(0, 2))
    def swap(self, old: str, new: str, n: int) -> None:
        batch = self.producer.several(n, self.topic("b"))
        self.pushed += batch
        self.both(lambda one: one.swap(f"{self.prefix}/text", old, new, batch))
        self.both(lambda one: one.recall(f"{self.prefix}/text"))

    @rule(data=st.data())
    def push_again(self, data: st.DataObject) -> None:
        """A job that is still there stays as it is. One that is gone would come back; that is left out."""
        there = [one for one in self.pushed if len(self.model.find(one.job_id, one.topics)) == len(one.topics)]
        if there:
            push = data.draw(st.sampled_from(there))
            self.both(lambda one: list(one.push([push])))

    @rule(name=topics, n=st.integers(1, 6))
    def lease(self, name: str, n: int) -> None:
        owner = f"{self.prefix}/w/{next(self.owners)}"
        jobs = self.both(lambda one: one.lease(self.topic(name), n, owner))
        if jobs:
            self.leases.append((owner, jobs))

    @rule(data=st.data(), outcome=st.sampled_from(Outcome), spent=st.integers(0, 2), wait=st.integers(1, 4))
    def settle(self, data: st.DataObject, outcome: Outcome, spent: int, wait: int) -> None:
        """Also verdicts that come twice, or after the owner was released."""
        if self.leases:
            owner, jobs = data.draw(st.sampled_from(self.leases))
            due = self.clock.now_ms() + 1000 * wait
            some = data.draw(st.lists(st.sampled_from(jobs), min_size=1, max_size=4))
            batch = [Settle(one.topic, one.job_id, outcome, due, "because", spent) for one in some]
            self.both(lambda one: one.settle(owner, batch))

    @rule(data=st.data(), outcome=st.sampled_from((Outcome.DONE, Outcome.DONE, Outcome.BACK)), name=topics)
    def settle_and_lease(self, data: st.DataObject, outcome: Outcome, name: str) -> None:
        alive = [one for one in self.leases if one[0] not in self.released]
        if alive:
            owner, jobs = data.draw(st.sampled_from(alive))
            batch = [Settle(one.topic, one.job_id, outcome) for one in data.draw(st.lists(st.sampled_from(jobs)))]
            n = data.draw(st.integers(0, 4))
            _, more = self.both(lambda one: one.settle_and_lease(owner, batch, self.topic(name), n))
            if more:
                self.leases.append((owner, more))

    @rule(data=st.data(), known=st.booleans())
    def release(self, data: st.DataObject, known: bool) -> None:
        if self.leases:
            owner, jobs = data.draw(st.sampled_from(self.leases))
            self.released.add(owner)
            ran = {(one.topic, one.job_id) for one in data.draw(st.lists(st.sampled_from(jobs)))} if known else None
            self.both(lambda one: sorted(one.release(owner, ran)))

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for name in "ab":
            while self.both(lambda one: one.promote(self.topic(name), self.clock.now_ms(), 3))[0]:  # noqa: B023
                pass

    @rule(data=st.data(), name=topics, remove=st.booleans())
    def operate(self, data: st.DataObject, name: str, remove: bool) -> None:
        if self.pushed:
            ids = [one.job_id for one in data.draw(st.lists(st.sampled_from(self.pushed), max_size=4))]
            topic = self.topic(name)
            self.both(lambda one: one.remove(topic, ids) if remove else one.replay(topic, ids))

    @rule(name=topics, paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:
        mine = self.prefix + "/"
        self.both(lambda one: one.set_paused(self.topic(name), paused))
        self.both(lambda one: {topic for topic in one.paused() if topic.startswith(mine)})

    @rule()
    def reopen(self) -> None:
        if self.rig.keeps:
            self.real.close()
            self.real = self.rig.make()
            self.real.open()

    @invariant()
    def same_to_see(self) -> None:
        self.clock.advance(0.001)
        self.both(lambda one: one.depths([self.topic("a"), self.topic("b"), self.topic("none")]))
        for name in "ab":
            topic = self.topic(name)
            self.both(lambda one: one.depth(topic))  # noqa: B023
            for state in (State.READY, State.DELAYED, State.DEAD):
                self.both(lambda one: one.peek(topic, state, n=1000).jobs)  # noqa: B023
            self.both(lambda one: sorted(one.peek(topic, State.LEASED, n=1000).jobs))  # noqa: B023
        for push in self.pushed[-3:]:
            self.both(lambda one: one.find(push.job_id, push.topics))  # noqa: B023

    def teardown(self) -> None:
        self.real.close()


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"memory"}))
def test_an_engine_behaves_like_the_model(engine: str, tmp_path: Path) -> None:
    with ENGINES[engine](tmp_path, ManualClock()) as made:
        machine = type("BesideEngine", (Beside,), {"rig": made})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
