"""Taking back what a dead process held. Floor 4; used by a successor in the same slot, and by the ticker for the rest.

A process is known to be dead without a guess: its successor in the same slot only starts after it was reaped, and a
master that holds the lock knows that nothing of an earlier bus lives. Only lost hosts are judged by their silence.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pepperbus.clock import Clock
from pepperbus.journal.contract import JournalWriter, Row
from pepperbus.log import Log
from pepperbus.names import split_owner
from pepperbus.storage.contract import CRASH_LIMIT, Storage
from pepperbus.worker import inflight


def take_back(
    storage: Storage,
    dead: Callable[[str], bool],
    run_dir: Path,
    journal: JournalWriter,
    log: Log,
    clock: Clock,
    lost_host: bool = False,
) -> list[str]:
    """Release the leases of every owner in `storage` that is `dead`; returns those owners. Raises StorageError."""
    gone = [owner for owner in storage.owners() if dead(owner)]
    for owner in gone:
        process = split_owner(owner)[1]
        who = "gateway" if process.startswith("gateway.") else "worker"
        begun = None if lost_host else inflight.started(run_dir, owner)
        if process == "ticker":  # it leases to move jobs to another storage, and runs none
            begun = frozenset()
        released = storage.release(owner, begun)
        for job in released:
            if job.started:
                reason = (
                    f"its {who} died {CRASH_LIMIT} times while it ran" if job.dead else f"its {who} died; may have run"
                )
                journal.add(
                    Row(
                        "released",
                        job.job_id,
                        job.topic,
                        clock.now_ms(),
                        attempt=job.attempt,
                        node=owner.split("/")[0],
                        process=owner,
                        outcome="dead" if job.dead else "back",
                        reason=reason,
                    )
                )
        if released:
            begun_count = sum(job.started for job in released)
            log.warning("leases_taken_back", owner=owner, jobs=len(released), begun=begun_count, storage=storage.name)
    return gone
