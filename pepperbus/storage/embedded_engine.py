"""Writing to the embedded storage: group commit in the hub's own thread where the disk is quick, aside where it is not.

Floor 3. A write is a function; all that wait when a transaction begins share it and its fsync, and each caller gets its
own result. The functions always run in the hub. What may wait inside C is done aside: for the turn while another process
has it (`embedded_turn`), and, while commits take long, beginning and committing. A commit on a quick disk (0.3 ms) is
dearer to hand to a thread than to wait for: leasing 16 jobs that way took 28 us of processor and 48 us of time a job,
here 14 and 25. Reading never waits and happens where it is asked for.

A commit syncs what it wrote before the page that makes it valid, so a power cut never damages the file, but may undo the
last commit. A write that must survive (`durable`) is answered after a second sync. Leases and settlings do without: what
they risk is that jobs of the last tenth of a second run again, as they do when a worker dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

import lmdb
from gevent.hub import Waiter, get_hub

from pepperbus.errors import StorageError, StorageRefused, StorageUnavailable, StorageUnknown
from pepperbus.storage.embedded_aside import Aside
from pepperbus.storage.embedded_file import File
from pepperbus.storage.embedded_look import Look
from pepperbus.storage.embedded_turn import Turn
from pepperbus.storage.embedded_work import Work

T = TypeVar("T")

#: A disk whose commits took less than the first on average (s) is quick, until they take more than the second. A machine
#: with too much to do makes commits longer too, and there handing them to a thread would only add to it.
_QUICK, _SLOW = 0.002, 0.004
#: The weight of the latest commit in that average: one of 60 ms makes a disk slow for some twenty commits.
_WEIGHT = 0.125
#: A commit that nobody needed to be durable is so after this (s).
_LATE = 0.1


class _Operation:
    """One write that waits for its turn, then its result or error. Errors travel as values, never as tracebacks."""

    __slots__ = ("durable", "error", "result", "run", "waiter")

    def __init__(self, run: Callable[[Work], Any], durable: bool) -> None:
        self.run = run
        self.durable = durable
        self.waiter: Any = Waiter()
        self.result: Any = None
        self.error: Exception | None = None


class Engine:
    """One open environment in one process. Not to be carried over a fork; a child that tries gets an error."""

    def __init__(self, name: str, path: Path, map_size: int, now_ms: Callable[[], int]) -> None:
        self.path = path
        self._name = name
        self._map_size = map_size
        self._now_ms = now_ms
        self._pid = os.getpid()
        self._closed = False
        self._waiting: list[_Operation] = []
        self._alone: list[_Operation] = []  # of a transaction that one of them spoiled: each gets one of its own
        self._commit_s = _SLOW  # how long commits take on average; a disk has to prove that it is quick
        self._quick = False
        self._unsynced = False
        self._doubtful = False  # a sync failed: what it was for may be in memory only, and no later sync would write it
        self._turn: Turn | None = None
        self._file: File | None = None
        loop: Any = get_hub().loop
        self._soon = loop.timer(0)
        self._late = loop.timer(_LATE, _LATE)
        self._aside = Aside()
        try:
            self._submit(_Operation(lambda _: None, False))  # the file is opened for the first operation
        except (StorageError, StorageRefused):
            self.close()
            raise

    def close(self) -> None:
        """Finish what waits, then let go of the file. In a forked child: nothing, the file is the parent's."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        if self._file or self._aside.busy or self._waiting:
            self._queue(_Operation(lambda _: None, True))
        self._aside.close()
        for timer in (self._soon, self._late):
            timer.stop()
            timer.close()
        if self._file:
            self._file.env.close()
        if self._turn:
            self._turn.close()

    def write(self, run: Callable[[Work], T], durable: bool = True, doubt: Callable[[T], None] | None = None) -> T:
        """Run `run` in a transaction, which is committed when this returns. Blocks the greenlet, not the hub.

        `durable`: it survives a power cut then; otherwise a moment later. `doubt` is told, before this raises
        StorageUnknown, what `run` returned: perhaps it is so.
        """
        operation = _Operation(run, durable)
        try:
            return cast(T, self._submit(operation))
        except StorageUnknown:
            if doubt is not None and operation.result is not None:
                doubt(operation.result)
            raise

    @contextmanager
    def look(self) -> Iterator[Look]:
        """A transaction that sees one moment of the storage. Must not yield to the hub inside."""
        file = self._opened()
        try:
            with file.env.begin() as txn:
                yield Look(txn, file.tables)
        except lmdb.Error as error:
            raise file.unavailable(error) from error

    def facts(self) -> dict[str, int]:
        """`used` bytes of data, `file` bytes, `free` bytes on the disk; `commits` so far, `readers` that have it open."""
        with self.look() as look:
            return self._opened().facts(look.txn)

    def reader_check(self) -> int:
        """Free the reader slots of killed processes, which keep old pages from being used again. Returns how many."""
        return int(self._opened().env.reader_check())

    def _opened(self) -> File:
        self._check_process()
        if self._file is None:
            raise StorageUnavailable(f"storage {self._name}: {self.path} is being opened again")
        return self._file

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StorageUnavailable(f"storage {self._name} was opened before a fork; open it in this process")
        if self._closed:
            raise StorageUnavailable(f"storage {self._name} is closed")

    # -- operations come and go ----------------------------------------------------------------------------------

    def _submit(self, operation: _Operation) -> Any:
        self._check_process()
        self._queue(operation)
        if operation.error:
            raise operation.error
        return operation.result

    def _queue(self, operation: _Operation) -> None:
        self._waiting.append(operation)
        self._schedule()
        operation.waiter.get()

    def _schedule(self) -> None:
        """Look after what waits when the hub has looked at its sockets once: what is submitted till then goes together.

        A callback would be run before that, and the callback of who is answered and writes again, fifty times over.
        """
        if not self._soon.active:
            self._soon.start(self._next, update=False)

    def _next(self) -> None:
        if self._aside.busy or not (self._waiting or self._alone):
            return
        file, turn = self._file, self._turn
        if file is None or turn is None:
            self._aside.run(self._open, self._file_is_open)
        elif not self._quick:
            self._aside.run(partial(self._begin_aside, file, turn), partial(self._begun_aside, file, turn))
        elif turn.try_take():
            self._transact(file, turn)
        else:
            self._aside.run(turn.take, lambda _, error: self._transact(file, turn))

    def _take(self) -> list[_Operation]:
        if self._alone:
            return [self._alone.pop(0)]
        batch, self._waiting = self._waiting, []
        return batch

    def _failed(self, batch: list[_Operation], error: Exception) -> list[_Operation]:
        """Have each tried alone, or tell them. Returns those that have their outcome."""
        if len(batch) > 1 and not isinstance(error, StorageUnknown):
            self._alone += batch
            return []
        for operation in batch:
            operation.error = error
        return batch

    def _answer(self, batch: list[_Operation]) -> None:
        if self._unsynced and not self._late.active:
            self._late.start(self._sync_late)
        if self._waiting or self._alone:
            self._schedule()
        for operation in batch:
            operation.waiter.switch(None)

    # -- the file ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            turn = self._turn = self._turn or Turn(self.path)
        except OSError as error:
            raise StorageUnavailable(f"storage {self._name}: cannot open {self.path}: {error}") from error
        turn.take()
        try:
            self._file = File(self._name, self.path, self._map_size)
        finally:
            turn.give()

    def _file_is_open(self, _: None, error: Exception | None) -> None:
        batch: list[_Operation] = []
        if error:
            batch, self._waiting, self._alone = self._alone + self._waiting, [], []
            for operation in batch:
                operation.error = error
        self._answer(batch)

    # -- a transaction in the hub --------------------------------------------------------------------------------

    def _transact(self, file: File, turn: Turn) -> None:
        """A whole transaction here and now; the turn is ours."""
        batch = self._take()
        try:
            txn = file.env.begin(write=True)
            try:
                self._work(file, txn, batch)
            except BaseException:
                txn.abort()
                raise
            self._commit(file, txn, batch)
        except Exception as error:
            batch = self._failed(batch, self._named(file, error))
        finally:
            turn.give()
        self._answer(batch)

    def _work(self, file: File, txn: Any, batch: list[_Operation]) -> None:
        work = Work(txn, file.tables, self._now_ms(), file.make_room)
        for operation in batch:
            operation.result = operation.run(work)
        if self._doubtful:
            work.touch()
        work.finish()

    def _named(self, file: File, error: Exception) -> Exception:
        return file.unavailable(error) if isinstance(error, lmdb.Error) else error

    # -- a transaction on a slow disk: the functions run in the hub, the rest aside ------------------------------

    def _begin_aside(self, file: File, turn: Turn) -> Any:
        turn.take()
        try:
            return file.env.begin(write=True)
        except BaseException:
            turn.give()
            raise

    def _begun_aside(self, file: File, turn: Turn, txn: Any, error: Exception | None) -> None:
        batch = self._take()
        if error is None:
            try:
                self._work(file, txn, batch)
            except Exception as spoiled:
                error = spoiled
        if txn is None:
            self._ended_aside(file, batch, error)
        else:
            end = partial(self._end_aside, file, turn, txn, batch, error)
            self._aside.run(end, lambda _, error: self._ended_aside(file, batch, error))

    def _end_aside(self, file: File, turn: Turn, txn: Any, batch: list[_Operation], error: Exception | None) -> None:
        try:
            if error:
                txn.abort()
                raise error
            self._commit(file, txn, batch)
        finally:
            turn.give()

    def _ended_aside(self, file: File, batch: list[_Operation], error: Exception | None) -> None:
        if error:
            batch = self._failed(batch, self._named(file, error))
        self._answer(batch)

    # -- commit and sync, in whichever thread --------------------------------------------------------------------

    def _commit(self, file: File, txn: Any, batch: list[_Operation]) -> None:
        """Commit, as durably as anyone in the batch wants it, and learn how quick the disk is."""
        began = monotonic()
        try:
            txn.commit()
        except lmdb.Error as error:
            self._after_failed_commit(file, error)
            raise
        took = monotonic() - began
        self._commit_s += (took - self._commit_s) * _WEIGHT
        self._quick = self._commit_s < (_SLOW if self._quick else _QUICK)
        self._unsynced = True
        if any(operation.durable for operation in batch):
            self._sync(file)

    def _after_failed_commit(self, file: File, error: lmdb.Error) -> None:
        """A commit fails for certain unless its very last write did: LMDB then refuses all further work."""
        try:
            file.env.begin(write=True).abort()
        except lmdb.Error:
            self._give_up(file, error)

    def _give_up(self, file: File, error: lmdb.Error) -> None:
        """Let go of the file: the next operation opens it anew and sees what is on the disk. Raises StorageUnknown."""
        self._file = None
        file.env.close()
        raise StorageUnknown(f"storage {self._name}: {self.path}: {error}") from error

    def _sync(self, file: File) -> None:
        try:
            file.env.sync(True)
        except lmdb.Error as error:
            self._doubtful = True
            self._give_up(file, error)
        self._unsynced = self._doubtful = False

    def _sync_late(self) -> None:
        """The timer's: make durable what nobody waited for. While something else is under way: the next time."""
        file = self._file
        if self._aside.busy:
            return
        self._late.stop()
        if file and self._unsynced:
            self._aside.run(partial(self._sync, file), lambda _, error: self._answer([]))
