"""Finished jobs, whole: kept as long as their queue's `history` says, so that they can be replayed.

Floor 3. The same logs and the same kind of database as the journal's, in files of their own: contents may be large, and go at
another time. A process that is killed loses the last turn's contents here, never a job.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import apsw
import gevent
import msgspec

from pepperbus.config.model import Config
from pepperbus.job import Job
from pepperbus.journal import store
from pepperbus.journal.contract import JournalWriter, Row
from pepperbus.journal.log import LogWriter

_WHOLE = 1 << 30
_decode = msgspec.msgpack.Decoder(Row).decode
_Result = TypeVar("_Result")


class Keeping:
    """A `JournalWriter` before another one: keeps what is done of queues with a `history`."""

    def __init__(self, journal: JournalWriter, config: Config, process: str) -> None:
        self._journal = journal
        self._log = LogWriter(config.bus.data_dir / "finished", process, _WHOLE)
        self.take(config)

    def take(self, config: Config) -> None:
        """Go by a new configuration."""
        self._topics = set(topics_with_history(config))

    @property
    def dropped(self) -> int:
        return self._journal.dropped

    def add(self, row: Row, soon: bool = True) -> None:
        if row.outcome == "done" and row.topic in self._topics:
            kept = Row("done", row.job_id, row.topic, row.at_ms, in_trace=row.in_trace, client=row.client)
            kept.accepted_ms, kept.content = row.accepted_ms, row.content
            self._log.add(kept, soon)
        self._journal.add(row, soon)

    def flush(self) -> None:
        self._log.flush()
        self._journal.flush()

    def close(self) -> None:
        self._log.close()
        self._journal.close()


def topics_with_history(config: Config) -> dict[str, float]:
    """`queue/topic` -> seconds that its finished jobs are kept."""
    queues = (queue for queue in config.queues.values() if queue.history)
    return {topic.full_name: queue.history for queue in queues for topic in queue.topics.values()}


class Finished:
    """The finished jobs of one node."""

    def __init__(self, data_dir: Path) -> None:
        self._directory, self._database = data_dir / "finished", data_dir / "finished.db"

    def ingest(self) -> None:
        """The ticker's: take over what the processes have written. Waits for the disk."""
        if self._directory.exists():
            store.ingest(self._directory, self._database)

    def retain(self, oldest_ms: dict[str, int], max_bytes: int) -> None:
        """The ticker's: forget what is older than its topic's time, topics that are not named, and what is too much."""
        if not self._database.exists():
            return
        with closing(apsw.Connection(str(self._database))) as connection:
            connection.set_busy_timeout(5000)
            known = [topic for (topic,) in connection.execute("SELECT DISTINCT topic FROM rows")]
            for topic in known:
                bound: Any = oldest_ms.get(str(topic), 1 << 62)
                connection.execute("DELETE FROM rows WHERE topic = ? AND at < ?", (topic, bound))
            connection.execute("PRAGMA incremental_vacuum").fetchall()
        store.retain(self._database, 0, max_bytes)

    def portion(
        self, topic: str, after: int | None, since_ms: int, until_ms: int, text: str, n: int
    ) -> tuple[list[tuple[int, int]], int | None]:
        """(job id, when it was done) of those that match among the next `n` kept, each job once; and where to go on.

        `after`: the job behind which to look. None for where to go on: that was all.
        """
        low = store.signed(after) if after is not None else -(1 << 63)
        bound = self._ask("SELECT job FROM rows WHERE job > ? ORDER BY job LIMIT 1 OFFSET ?", (low, n - 1))
        high = bound[0][0] if bound else (1 << 63) - 1
        query = (
            "SELECT job, max(at) FROM rows INDEXED BY rows_job WHERE job > ? AND job <= ? AND topic = ? "
            "AND at BETWEEN ? AND ? AND instr(data, ?) GROUP BY job"
        )
        found = self._ask(query, (low, high, topic, since_ms, until_ms, text.encode()))
        return [(job % (1 << 64), at) for job, at in found], high % (1 << 64) if bound else None

    def find(self, topic: str, job_id: int, since_ms: int) -> tuple[int, int] | None:
        """(job id, when it was done), when it is kept."""
        query = "SELECT max(at) FROM rows WHERE job = ? AND topic = ? AND at >= ?"
        for (at,) in self._ask(query, (store.signed(job_id), topic, since_ms)):
            return (job_id, at) if at is not None else None
        return None

    def body(self, topic: str, job_id: int) -> bytes | None:
        """The stored form of a finished job; None when it is not kept any more."""
        query = "SELECT data FROM rows WHERE job = ? AND topic = ? ORDER BY at DESC LIMIT 1"
        for (data,) in self._ask(query, (store.signed(job_id), topic)):
            row = _decode(data)
            return Job(row.job_id, row.in_trace, row.content, row.accepted_ms, row.client).encode()
        return None

    def _ask(self, query: str, values: tuple[object, ...]) -> list[Any]:
        def work() -> list[Any]:
            if not self._database.exists():
                return []
            with closing(apsw.Connection(str(self._database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
                connection.set_busy_timeout(1000)
                try:
                    return connection.execute(query, values).fetchall()
                except apsw.SQLError:  # the ticker is making the tables this moment
                    return []

        return _in_thread(work)


def _in_thread(work: Callable[[], _Result]) -> _Result:
    return gevent.get_hub().threadpool.apply(work)
