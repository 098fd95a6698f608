"""The LMDB file of an embedded storage: opening it, its size, the room that is left, what its errors mean.

Floor 3. Knows LMDB and the layout's table names; knows neither threads nor who wants to write.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lmdb

from pepperbus.errors import StorageRefused, StorageUnavailable
from pepperbus.storage.embedded_layout import FORMAT, NUMBER, TABLES

_READERS = 2048
#: New jobs are refused while the disk has less than this left (5 % of a small disk), so that settling goes on.
_RESERVE = 64 << 20


class File:
    """One open environment. Opening may wait for another process inside C."""

    def __init__(self, name: str, path: Path, map_size: int) -> None:
        """Raises StorageUnavailable or StorageRefused."""
        self.path = path
        self._name = name
        self._map_size = map_size
        self._room_until = 0.0
        try:
            self.env = lmdb.open(
                str(self.path),
                map_size=map_size,
                mode=0o640,
                max_dbs=len(TABLES),
                max_readers=_READERS,
                meminit=False,
                metasync=False,  # the engine syncs again before it answers what must survive a power cut
            )
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise StorageRefused(f"storage {name}: {error}; restore it or move it away") from error
        except (OSError, lmdb.Error) as error:
            raise StorageUnavailable(f"storage {name}: cannot open {path}: {error}") from error
        try:
            self.tables: dict[str, Any] = self._open_tables()
        except lmdb.CorruptedError as error:
            self.env.close()
            raise StorageRefused(f"storage {name}: the file in {path} is damaged: {error}") from error
        except lmdb.Error as error:
            self.env.close()
            raise self.unavailable(error) from error
        except BaseException:
            self.env.close()
            raise

    def _open_tables(self) -> dict[str, Any]:
        env = self.env
        with env.begin(write=True) as txn:
            self._fill_up()
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

    def _fill_up(self) -> None:
        """Give the file the length it should have. LMDB maps it, so reading behind the end of a file that was cut off
        would kill the process; a page of zeros is found damaged instead. Under the writer lock: nobody else extends it.
        """
        file = self.path / "data.mdb"
        if file.stat().st_size < self.size():
            os.truncate(file, self.size())

    def size(self) -> int:
        """The length of the data file as LMDB sees it."""
        return int((self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"])

    def facts(self, txn: Any) -> dict[str, int]:
        """`used` bytes of data, `file` bytes, `free` bytes on the disk; `commits` so far, `readers` that have it open."""
        disk, info = os.statvfs(self.path), self.env.info()
        counted = {"commits": info["last_txnid"], "readers": info["num_readers"]}
        return {"used": self._used(txn), "file": self.size(), "free": disk.f_bavail * disk.f_frsize, **counted}

    def make_room(self, txn: Any) -> None:
        """Raise StorageUnavailable while there is no room for jobs: on the disk, and among the free pages of the file.
        Looks five times a second, it takes its time.
        """
        now = time.monotonic()
        if now < self._room_until:
            return
        disk = os.statvfs(self.path)
        reserve = min(_RESERVE, disk.f_blocks // 20 * disk.f_frsize)
        room = disk.f_bavail * disk.f_frsize
        if room < reserve and room + self.size() - self._used(txn) < reserve:
            raise StorageUnavailable(
                f"storage {self._name}: no room for more jobs, {room >> 20} MiB are free on the disk of {self.path}"
            )
        self._room_until = now + 0.2

    def _used(self, txn: Any) -> int:
        """Bytes of the pages that hold something."""
        stats = [txn.stat(table) for table in self.tables.values()]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int(pages * stats[0]["psize"])

    def unavailable(self, error: lmdb.Error) -> StorageUnavailable:
        """What LMDB's error means for the caller, when it is sure that nothing happened."""
        if isinstance(error, lmdb.MapFullError):
            return StorageUnavailable(f"storage {self._name} is full: {self._map_size >> 20} MiB are used")
        if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
            return StorageUnavailable(f"storage {self._name}: the file in {self.path} is damaged: {error}")
        return StorageUnavailable(f"storage {self._name}: {self.path}: {error}")
