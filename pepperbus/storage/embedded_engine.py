"""The LMDB environment of an embedded storage and the one native thread that writes to it.

Floor 3. LMDB's writer lock waits inside C and so does the fsync of a commit; in the hub's thread they would stop
every greenlet. So a write is a function that the thread runs: all functions that wait share one transaction and one
fsync, and each caller gets its own result. Reading never waits and happens where it is asked for.

The two threads share one interpreter. LMDB's binding lets go of it at each call, and a busy hub then keeps it for a
whole switch interval: a batch that takes 0.1 ms alone took 10. So the hub stands still while the functions run, once
the writer lock is there, and for the commit as well where the disk is quick: waking up against a busy hub costs more
than a quick disk does. It runs while the thread waits for the lock or for a slow disk.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import lmdb
from gevent.hub import Waiter, get_hub
from gevent.monkey import get_original

from pepperbus.errors import StorageError, StorageRefused, StorageUnavailable, StorageUnknown
from pepperbus.storage.embedded_layout import FORMAT, NUMBER, TABLES
from pepperbus.storage.embedded_look import Look
from pepperbus.storage.embedded_work import Work

T = TypeVar("T")

_start_thread = get_original("_thread", "start_new_thread")
_native_lock = get_original("_thread", "allocate_lock")

_READERS = 2048
#: How long the thread waits for the hub to stand still, seconds. A hub that is busy for longer is not waited for.
_STILL = 0.02
#: The longest the hub stands still, seconds. On a disk that takes longer to commit it does so only for the functions.
_QUICK = 0.004
#: New jobs are refused while the disk has less than this left (5 % of a small disk), so that settling goes on.
_RESERVE = 64 << 20


class _Operation:
    """One write that waits for its turn, then its result or error. Errors travel as values, never as tracebacks."""

    __slots__ = ("error", "result", "run", "waiter")

    def __init__(self, run: Callable[[Work], Any]) -> None:
        self.run = run
        self.waiter: Any = Waiter()
        self.result: Any = None
        self.error: Exception | None = None


class _Still:
    """A moment in which the hub stands still: the hub says that it does, the thread says when it is over."""

    __slots__ = ("begun", "over")

    def __init__(self) -> None:
        self.begun = _native_lock()
        self.begun.acquire()
        self.over = _native_lock()
        self.over.acquire()

    def end(self) -> None:
        if self.over.locked():
            self.over.release()


class Engine:
    """One open environment in one process. Not to be carried over a fork; a child that tries gets an error."""

    def __init__(self, name: str, path: Path, map_size: int, now_ms: Callable[[], int]) -> None:
        self.path = path
        self._name = name
        self._map_size = map_size
        self._now_ms = now_ms
        self._pid = os.getpid()
        self._waiting: deque[_Operation] = deque()  # the hub appends, the thread takes
        self._finished: deque[_Operation] = deque()  # the thread appends, the hub takes
        self._stills: deque[_Still] = deque()  # the thread appends; who takes it out decides whether it happens
        self._last: _Operation | None = None
        self._wake = _native_lock()
        self._wake.acquire()
        self._env: Any = None
        self._room_until = 0.0
        self._slow_disk = False
        self._tables: dict[str, Any] = {}
        self._answers = get_hub().loop.async_()
        self._answers.start(self._answer)
        _start_thread(self._serve, ())
        try:
            self._submit(_Operation(lambda _: None))  # the thread opens the file for the first operation
        except (StorageError, StorageRefused):
            self.close()
            raise

    def close(self) -> None:
        """Finish what waits, then let go of the file. In a forked child: nothing, the file is the parent's."""
        if self._last or os.getpid() != self._pid:
            return
        self._last = last = _Operation(lambda _: None)
        self._waiting.append(last)
        self._ring()
        last.waiter.get()
        self._answers.stop()
        self._answers.close()

    def write(self, run: Callable[[Work], T]) -> T:
        """Run `run` in a transaction, which is on the disk when this returns. Blocks the greenlet, not the hub."""
        return cast(T, self._submit(_Operation(run)))

    @contextmanager
    def look(self) -> Iterator[Look]:
        """A transaction that sees one moment of the storage. Must not yield to the hub inside."""
        self._check_process()
        env = self._env
        if env is None:
            raise StorageUnavailable(f"storage {self._name}: {self.path} is being opened again")
        try:
            with env.begin() as txn:
                yield Look(txn, self._tables)
        except lmdb.Error as error:
            raise self._unavailable(error) from error

    def facts(self) -> dict[str, int]:
        """`used` bytes of data, `file` bytes, `free` bytes on the disk."""
        with self.look() as look:
            used = self._used(look.txn)
        disk = os.statvfs(self.path)
        return {"used": used, "file": _file_size(self._env), "free": disk.f_bavail * disk.f_frsize}

    def reader_check(self) -> int:
        """Free the reader slots of killed processes, which keep old pages from being used again. Returns how many."""
        self._check_process()
        return int(self._env.reader_check())

    # -- the hub's side ------------------------------------------------------------------------------------------

    def _submit(self, operation: _Operation) -> Any:
        self._check_process()
        self._waiting.append(operation)
        self._ring()
        operation.waiter.get()
        if operation.error:
            raise operation.error
        return operation.result

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StorageUnavailable(f"storage {self._name} was opened before a fork; open it in this process")
        if self._last:
            raise StorageUnavailable(f"storage {self._name} is closed")

    def _ring(self) -> None:
        if self._wake.locked():
            self._wake.release()

    def _answer(self) -> None:
        if self._stills:
            self._stand_still()
        while self._finished:
            self._finished.popleft().waiter.switch(None)

    def _stand_still(self) -> None:
        try:
            still = self._stills.popleft()
        except IndexError:  # the thread has given up waiting just now
            return
        still.begun.release()
        still.over.acquire(timeout=_QUICK)

    # -- the thread's side ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            self._wake.acquire()
            batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
            ending = bool(batch) and batch[-1] is self._last
            self._run(batch[:-1] if ending else batch)
            if ending and self._env is not None:
                self._env.close()
            self._finished.extend(batch)
            self._answers.send()
            if ending:
                return

    def _run(self, batch: list[_Operation]) -> None:
        """Run the operations in one transaction; when one spoils it, each in a transaction of its own."""
        if not batch:
            return
        try:
            self._env = self._env or self._open()
            self._transact(batch)
        except (StorageUnknown, StorageRefused) as error:
            for operation in batch:
                operation.error = error
        except Exception as error:
            if len(batch) > 1:
                for operation in batch:
                    self._run([operation])
            else:
                batch[0].error = self._unavailable(error) if isinstance(error, lmdb.Error) else error

    def _hub_stands_still(self) -> _Still:
        still = _Still()
        self._stills.append(still)
        self._answers.send()
        if not still.begun.acquire(timeout=_STILL):
            try:
                self._stills.popleft()
            except IndexError:
                still.begun.acquire()
        return still

    def _transact(self, batch: list[_Operation]) -> None:
        txn = self._env.begin(write=True)
        still = self._hub_stands_still()
        try:
            results = self._work(txn, batch)
            if self._slow_disk:
                still.end()
            self._commit(txn)
        finally:
            still.end()
        for operation, result in zip(batch, results, strict=True):
            operation.result = result

    def _work(self, txn: Any, batch: list[_Operation]) -> list[Any]:
        try:
            work = Work(txn, self._tables, self._now_ms(), self._make_room)
            results = [operation.run(work) for operation in batch]
            work.finish()
        except BaseException:
            txn.abort()
            raise
        return results

    def _commit(self, txn: Any) -> None:
        began = time.monotonic()
        try:
            txn.commit()
        except lmdb.Error as error:
            self._after_failed_commit(error)
            raise
        self._slow_disk = time.monotonic() - began > _QUICK

    def _after_failed_commit(self, error: lmdb.Error) -> None:
        """A commit fails for certain unless its very last write did: LMDB then refuses all further work."""
        try:
            self._env.begin(write=True).abort()
        except lmdb.Error:
            self._env.close()
            self._env = None  # the next operation opens the file anew and sees what is on the disk
            raise StorageUnknown(f"storage {self._name}: {self.path}: {error}") from error

    def _make_room(self, txn: Any) -> None:
        """Raise StorageUnavailable while there is no room for jobs: on the disk, and among the free pages of the file.
        Looks five times a second, it takes its time.
        """
        now = time.monotonic()
        if now < self._room_until:
            return
        disk = os.statvfs(self.path)
        reserve = min(_RESERVE, disk.f_blocks // 20 * disk.f_frsize)
        room = disk.f_bavail * disk.f_frsize
        if room < reserve and room + _file_size(self._env) - self._used(txn) < reserve:
            raise StorageUnavailable(
                f"storage {self._name}: no room for more jobs, {room >> 20} MiB are free on the disk of {self.path}"
            )
        self._room_until = now + 0.2

    def _used(self, txn: Any) -> int:
        """Bytes of the pages that hold something."""
        stats = [txn.stat(table) for table in self._tables.values()]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int(pages * stats[0]["psize"])

    def _open(self) -> Any:
        try:
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            env = lmdb.open(
                str(self.path),
                map_size=self._map_size,
                mode=0o640,
                max_dbs=len(TABLES),
                max_readers=_READERS,
                meminit=False,
            )
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise StorageRefused(f"storage {self._name}: {error}; restore it or move it away") from error
        except (OSError, lmdb.Error) as error:
            raise StorageUnavailable(f"storage {self._name}: cannot open {self.path}: {error}") from error
        try:
            self._tables = self._open_tables(env)
        except lmdb.CorruptedError as error:
            env.close()
            raise StorageRefused(f"storage {self._name}: the file in {self.path} is damaged: {error}") from error
        except BaseException:
            env.close()
            raise
        return env

    def _open_tables(self, env: Any) -> dict[str, Any]:
        with env.begin(write=True) as txn:
            self._fill_up(env)
            about = env.open_db(b"about", txn=txn)
            record = txn.get(b"format", db=about)
            found = NUMBER.unpack(record)[0] if record else FORMAT
            if found > FORMAT:
                raise StorageRefused(
                    f"storage {self._name}: {self.path} has format {found}, this version reads up to {FORMAT};"
                    " start the newer version again"
                )
            if not record:
                txn.put(b"format", NUMBER.pack(FORMAT), db=about)
            return {name: env.open_db(name.encode(), txn=txn) for name in TABLES}

    def _fill_up(self, env: Any) -> None:
        """Give the file the length it should have. LMDB maps it, so reading behind the end of a file that was cut off
        would kill the process; a page of zeros is found damaged instead. Under the writer lock: nobody else extends it.
        """
        length = _file_size(env)
        file = self.path / "data.mdb"
        if file.stat().st_size < length:
            os.truncate(file, length)

    def _unavailable(self, error: lmdb.Error) -> StorageUnavailable:
        if isinstance(error, lmdb.MapFullError):
            return StorageUnavailable(f"storage {self._name} is full: {self._map_size >> 20} MiB are used")
        if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
            return StorageUnavailable(f"storage {self._name}: the file in {self.path} is damaged: {error}")
        return StorageUnavailable(f"storage {self._name}: {self.path}: {error}")


def _file_size(env: Any) -> int:
    """The length of the data file as LMDB sees it."""
    return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])
