"""Run dead or delayed jobs once more, all or a share of them, at a rate, stopping when too many fail again.

Floor 4. A replayed job is an ordinary ready job with a fresh budget; how it fares is read from the journal. The selection
is read before the first job moves. Interrupted, it has replayed what `replayed` says; the rest is as it was.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import gevent

from pepperbus.accounts.model import Right
from pepperbus.errors import UsageError
from pepperbus.job import State
from pepperbus.journal.contract import Row
from pepperbus.journal.follow import Follower
from pepperbus.operations.jobs import Selection, ids_of
from pepperbus.operations.office import Office
from pepperbus.operations.purge import deed
from pepperbus.operations.results import Replayed
from pepperbus.operations.rights import operation

BATCH = 100
WATCHED = 100  # with `stop_at_errors`: jobs on their way whose fate is not yet known
ENOUGH = 10  # fates known before a share of errors means anything
Progress = Callable[[Replayed], None]


@operation(
    Right.OPERATE,
    "selection",
    details=("selection", "sample", "rate", "stop_at_errors"),
    tells=("matched", "replayed", "done", "failed", "stopped"),
)
def replay(
    office: Office,
    selection: Selection,
    *,
    sample: float = 1.0,
    rate: float = 0.0,
    stop_at_errors: float = 0.0,
    dry_run: bool = False,
    progress: Progress = lambda replayed: None,
) -> Replayed:
    """Make the selected jobs ready. `sample`: this share of them, by chance; `rate`: jobs a second (0 = no limit).

    `stop_at_errors`: end when this share of the replayed jobs has failed again (looked at from 10 known fates on;
    the replay then waits for fates). Raises UsageError for a state that cannot be replayed or a share out of 0..1.
    """
    _check(selection, sample, rate, stop_at_errors)
    ids = list(ids_of(office, selection))
    if sample < 1.0:
        ids = [job_id for job_id in ids if random.random() < sample]
    if dry_run:
        return Replayed(len(ids), dry_run=True)
    run = _Run(office, selection.topic, ids, rate, stop_at_errors, progress)
    return run.go()


def _check(selection: Selection, sample: float, rate: float, stop_at_errors: float) -> None:
    if selection.state not in (State.DEAD, State.DELAYED):
        raise UsageError(f"{selection.state} jobs cannot be replayed; dead and delayed ones can")
    if not 0 < sample <= 1 or not 0 <= stop_at_errors <= 1:
        raise UsageError("a share is more than 0 and at most 1 (100%)")
    if rate < 0:
        raise UsageError("a rate is a positive number of jobs a second")


class _Run:
    """One replay under way."""

    def __init__(
        self, office: Office, topic: str, ids: list[int], rate: float, stop_at_errors: float, progress: Progress
    ) -> None:
        self._office = office
        self._topic = topic
        self._ids = ids
        self._rate = rate
        self._stop_at = stop_at_errors
        self._progress = progress
        self._pending: set[int] = set()
        self._result = Replayed(len(ids))
        self._started = time.monotonic()

    def go(self) -> Replayed:
        follower = Follower(self._office.config.bus.data_dir / "journal")
        try:
            self._all(follower)
            self._last_fates(follower)
        except KeyboardInterrupt:
            self._result.stopped = "interrupted"
        finally:
            follower.close()
        self._result.seconds = time.monotonic() - self._started
        return self._result

    def _all(self, follower: Follower) -> None:
        storage = self._office.holder(self._topic)
        size = max(1, min(BATCH, int(self._rate / 10))) if self._rate else BATCH
        sent = 0
        with self._office.journal_writer() as journal:
            while sent < len(self._ids) and not self._result.stopped:
                batch = self._ids[sent : sent + (min(size, ENOUGH) if self._stop_at else size)]
                sent += len(batch)
                self._pending.update(batch)  # before they move: a fast fate must find its job here
                self._result.replayed += storage.replay(self._topic, batch)
                for job_id in batch:
                    journal.add(deed(self._office, "replayed", job_id, self._topic))
                self._office.wake(self._topic)
                self._wait(follower, sent)

    def _wait(self, follower: Follower, sent: int) -> None:
        """Until the rate allows the next batch and, when errors count, few enough fates are open."""
        while True:
            self._learn(follower.poll())
            early = sent / self._rate - (time.monotonic() - self._started) if self._rate else 0.0
            crowded = bool(self._stop_at) and len(self._pending) > WATCHED
            if self._result.stopped or (early <= 0 and not crowded):
                gevent.sleep(0)  # the journal's rows are written between turns
                return
            gevent.sleep(min(max(early, 0.02), 0.1))

    def _last_fates(self, follower: Follower) -> None:
        """With `stop_at_errors` the outcome is part of the answer: wait for what is still on its way, 10 s at most."""
        deadline = time.monotonic() + 10
        while self._stop_at and self._pending and not self._result.stopped and time.monotonic() < deadline:
            self._learn(follower.poll())
            gevent.sleep(0.05)

    def _learn(self, rows: list[Row]) -> None:
        for row in rows:
            if row.topic == self._topic and row.job_id in self._pending and row.outcome in ("done", "retry", "dead"):
                self._pending.discard(row.job_id)
                self._result.done += row.outcome == "done"
                self._result.failed += row.outcome != "done"
        known = self._result.done + self._result.failed
        if self._stop_at and known >= min(ENOUGH, len(self._ids)) and self._result.failed / known >= self._stop_at:
            self._result.stopped = f"{self._result.failed} of {known} failed again"
        self._progress(self._result)
