"""The crimes of the mutants: what is done to one process of the bus so that it breaks its promise, and only that.

They bend the seams that the contracts name: the storage that `open_storage` gives, the consumer that `make_consumer`
gives, the rules of the verdict. `replace` fails when what it replaces is gone, and `note` leaves a mark that the
crime was really committed: a mutant that changes nothing would be caught by nobody and prove nothing.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import gevent

from pepperbus.delivery.contract import Act, Answer, Request, Transport
from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.job import Job
from pepperbus.storage.contract import Leased, Outcome, Push, Released, Settle


def replace(owner: Any, name: str, new: Any) -> None:
    """AttributeError when `owner` has no `name` any more: then the mutant must be written anew."""
    getattr(owner, name)
    setattr(owner, name, new)


def note() -> None:
    (Path(os.environ["CHAOS_DIR"]) / "committed").touch()


class Bent:
    """A real part with some of its methods replaced by those of a subclass."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._numbers = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def every(self, n: int) -> bool:
        """True once in `n` calls, and then the crime is noted."""
        if next(self._numbers) % n:
            return False
        note()
        return True


class BentStorage(Bent):
    """A storage whose short cuts lead over its bent methods too."""

    def settle_and_lease(self, owner: str, batch: Sequence[Settle], topic: str, n: int) -> tuple[int, list[Leased]]:
        return self.settle(owner, batch), self.lease(topic, n, owner)


def bend_storage(bent: type[Bent]) -> None:
    _bend("pepperbus.storage", "open_storage", bent)


def bend_consumer(bent: type[Bent]) -> None:
    _bend("pepperbus.delivery", "make_consumer", bent)


def _bend(module: str, factory: str, bent: type[Bent]) -> None:
    took = {"pepperbus.gateway.main", "pepperbus.worker.app", "pepperbus.worker.pumps", "pepperbus.ticker.main"}
    early = took & sys.modules.keys()
    assert not early, f"{early} took {factory} before it could be bent"
    made: Callable[..., Any] = getattr(sys.modules[module], factory)
    replace(sys.modules[module], factory, lambda *args, **more: bent(made(*args, **more)))


# -- gateway -----------------------------------------------------------------------------------------------------


class AnswersFirst(BentStorage):
    def push(self, batch: Sequence[Push], limits: Any = None) -> Collection[int]:
        """Success now, stored a little later."""
        note()
        gevent.spawn_later(0.3, self._real.push, list(batch), limits)
        return ()


class Lies(BentStorage):
    def push(self, batch: Sequence[Push], limits: Any = None) -> Collection[int]:
        """Stored, and answered as a definite error."""
        refused: Collection[int] = self._real.push(batch, limits)
        if self.every(20):
            raise StorageUnavailable("not stored (a lie)")
        return refused


class Hopes(BentStorage):
    def push(self, batch: Sequence[Push], limits: Any = None) -> Collection[int]:
        """Whatever the storage says, the producer hears that all is well."""
        try:
            refused: Collection[int] = self._real.push(batch, limits)
        except StorageError:
            note()
            return ()
        return refused


class Invents(BentStorage):
    def push(self, batch: Sequence[Push], limits: Any = None) -> Collection[int]:
        """Now and then a job more than was sent."""
        if self.every(20):
            job, first = Job.decode(batch[0].body), batch[0]
            other = job._replace(id=job.id + 1_000_000_000, content=b"9999999|" + job.content.partition(b"|")[2])
            self._real.push([first._replace(job_id=other.id, body=other.encode())], None)
        refused: Collection[int] = self._real.push(batch, limits)
        return refused


# -- worker ------------------------------------------------------------------------------------------------------


class PopsFirst(BentStorage):
    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        """A job leaves the storage when it is taken, as with LPOP."""
        leased: list[Leased] = self._real.lease(topic, n, owner)
        if leased:
            note()
            self._real.settle(owner, [Settle(topic, job.job_id, Outcome.DONE) for job in leased])
        return leased


class Settles(BentStorage):
    """A crime at the settling: `bend` says what becomes of an outcome, None: nothing."""

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        bent = [self.bend(one) for one in batch]
        settled: int = self._real.settle(owner, [one for one in bent if one is not None])
        return settled

    def bend(self, one: Settle) -> Settle | None:
        raise NotImplementedError


class Forgets(Settles):
    def bend(self, one: Settle) -> Settle | None:
        return None if one.outcome is Outcome.DONE and self.every(100) else one


class Repeats(Settles):
    def bend(self, one: Settle) -> Settle | None:
        """Done, and once more."""
        return one._replace(outcome=Outcome.RETRY, due_ms=1) if one.outcome is Outcome.DONE and self.every(50) else one


class CountsNothing(Settles):
    def bend(self, one: Settle) -> Settle | None:
        return one._replace(spent=False) if one.outcome is Outcome.RETRY and self.every(1) else one


class BuriesEarly(Settles):
    def bend(self, one: Settle) -> Settle | None:
        """Dead at the first failure."""
        if one.outcome is Outcome.RETRY and self.every(1):
            return one._replace(outcome=Outcome.DEAD, reason=one.reason or "failed")
        return one


class BuriesSilently(Settles):
    def bend(self, one: Settle) -> Settle | None:
        return one._replace(reason="") if one.outcome is Outcome.DEAD and self.every(1) else one


class NeverBuries(Settles):
    def bend(self, one: Settle) -> Settle | None:
        """Retried for ever, whatever `attempts` says."""
        return one._replace(outcome=Outcome.RETRY, due_ms=1) if one.outcome is Outcome.DEAD and self.every(1) else one


class Hoards(BentStorage):
    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        """Says that outcomes are stored and keeps them for two seconds."""
        note()
        gevent.spawn_later(2.0, self._real.settle, owner, list(batch))
        return len(batch)


class DropsTheDead(BentStorage):
    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        """What a dead worker held is thrown away instead of given back."""
        released: list[Released] = self._real.release(owner, started)
        for job in released:
            note()
            self._real.remove(job.topic, [job.job_id])
        return released


class BlamesNobody(BentStorage):
    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        """What had begun is given back as if it had not."""
        if started:
            note()
        released: list[Released] = self._real.release(owner, frozenset())
        return released


class AcksFirst(Bent):
    relay = None

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        """The job counts as done when it is sent, whatever becomes of it."""
        note()
        self._real.start(request, lambda answer: None, packed)
        gevent.get_hub().loop.run_callback(done, Answer(Transport.ANSWERED, 200, {"code": "200"}))


class Cuts(Bent):
    relay = None

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        """Sends a body that lacks its end."""
        if len(request.jobs) == 1 and len(request.jobs[0].job.content) > 120 and self.every(10):
            one = request.jobs[0]
            request = request._replace(jobs=(one._replace(job=one.job._replace(content=one.job.content[:-9])),))
            packed = None
        self._real.start(request, done, packed)


def send_again_after_a_reset() -> None:
    """The connection broke after sending: sent again at once, uncounted, as if nothing could have run."""
    from pepperbus.delivery import verdict

    cut = verdict.cut

    def rule(case: verdict.Case) -> verdict.Verdict | None:
        found = cut(case)
        if found is None:
            return None
        note()
        return verdict.replace(found, act=Act.BACK, spent=False)

    assert cut in verdict.RULES, "the verdict no longer judges a cut connection by the rule `cut`"
    replace(verdict, "RULES", tuple(rule if one is cut else one for one in verdict.RULES))


def take_from_the_living() -> None:
    """Leases are taken back from owners that live."""
    from pepperbus.ticker.main import Ticker

    def is_dead(self: Ticker, owner: str) -> bool:
        note()
        return True

    replace(Ticker, "_is_dead_here", is_dead)


def sync_nothing() -> None:
    """What is committed reaches the disk whenever the kernel likes."""
    import lmdb

    class Lazy(Bent):
        def sync(self, force: bool = False) -> None:
            note()

    opened = lmdb.open
    replace(lmdb, "open", lambda *args, **more: Lazy(opened(*args, **(more | {"sync": False}))))


#: name -> (the process that commits it, what is done there)
CRIMES: dict[str, tuple[str, Callable[[], None]]] = {
    "answers before it has stored": ("gateway", lambda: bend_storage(AnswersFirst)),
    "lies about what is stored": ("gateway", lambda: bend_storage(Lies)),
    "takes unknown for success": ("gateway", lambda: bend_storage(Hopes)),
    "invents jobs": ("gateway", lambda: bend_storage(Invents)),
    "pops before it runs": ("worker", lambda: bend_storage(PopsFirst)),
    "acks before the answer": ("worker", lambda: bend_consumer(AcksFirst)),
    "forgets to settle": ("worker", lambda: bend_storage(Forgets)),
    "settles twice": ("worker", lambda: bend_storage(Repeats)),
    "does not count attempts": ("worker", lambda: bend_storage(CountsNothing)),
    "buries too early": ("worker", lambda: bend_storage(BuriesEarly)),
    "buries without a reason": ("worker", lambda: bend_storage(BuriesSilently)),
    "never buries": ("worker", lambda: bend_storage(NeverBuries)),
    "hoards outcomes": ("worker", lambda: bend_storage(Hoards)),
    "drops what the dead held": ("worker", lambda: bend_storage(DropsTheDead)),
    "blames nobody for a crash": ("worker", lambda: bend_storage(BlamesNobody)),
    "sends a torn body": ("worker", lambda: bend_consumer(Cuts)),
    "sends again after a reset": ("worker", send_again_after_a_reset),
    "takes from the living": ("ticker", take_from_the_living),
    "syncs nothing": ("gateway", sync_nothing),
    "nothing": ("", lambda: None),
}


def commit(name: str, role: str) -> None:
    """Bend this process if it is the one that commits the crime. KeyError for an unknown name."""
    import pepperbus.delivery
    import pepperbus.storage  # noqa: F401  # both are bent by name

    who, bend = CRIMES[name]
    if who == role:
        bend()
