"""Delete jobs of a selection: dead, ready or delayed ones. Leased jobs are left alone.

Floor 4. Every deleted job gets a journal row, so its life still tells what became of it.
"""

from __future__ import annotations

from collections.abc import Callable

from pepperbus.accounts.model import Right
from pepperbus.errors import UsageError
from pepperbus.job import State
from pepperbus.journal.contract import Row
from pepperbus.operations.jobs import stored_of
from pepperbus.operations.office import Office
from pepperbus.operations.results import Purged
from pepperbus.operations.rights import operation
from pepperbus.storage.selection import Selection

BATCH = 500
Progress = Callable[[Purged], None]


@operation(Right.OPERATE, "selection", details=("selection",), tells=("matched", "removed", "stopped"))
def purge(
    office: Office, selection: Selection, *, dry_run: bool = False, progress: Progress = lambda purged: None
) -> Purged:
    """Delete the selected jobs for good. Interrupted, it has deleted what `removed` says and nothing else.

    Raises UsageError for leased jobs: they are with a worker.
    """
    if selection.state is State.LEASED:
        raise UsageError("leased jobs are with a worker and cannot be purged")
    ids = [stored.job_id for stored in stored_of(office, selection)]
    purged = Purged(len(ids), dry_run=dry_run)
    if dry_run:
        return purged
    storage = office.holder(selection.topic)
    try:
        with office.journal_writer() as journal:
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                gone = storage.remove(selection.topic, batch)
                purged.removed += gone
                # Only when some stayed (leased meanwhile) it must be asked which.
                stayed = {i for i in batch if storage.find(i, [selection.topic])} if gone < len(batch) else set()
                for job_id in set(batch) - stayed:
                    journal.add(deed(office, "removed", job_id, selection.topic))
                progress(purged)
    except KeyboardInterrupt:
        purged.stopped = "interrupted"
    return purged


def deed(office: Office, what: str, job_id: int, topic: str) -> Row:
    """The journal's row of something an operator did to a job."""
    return Row(what, job_id, topic, office.clock.now_ms(), node=office.config.bus.node, process=office.who)
