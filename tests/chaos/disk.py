"""A small disk of the run's own that can be filled to the last byte, or a plain directory where none may be mounted."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

_MIB = 1 << 20


class SmallDisk:
    """A tmpfs of `mib` at `path`; `can_fill` is False, with `why`, when the machine does not allow it."""

    def __init__(self, path: Path, mib: int = 512) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "pepperbus-chaos", str(path)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            result = subprocess.CompletedProcess(command, 1, stderr=str(error))
        self.can_fill = result.returncode == 0
        self.why = result.stderr.strip()
        self._ballast = path / "ballast"

    def fill(self) -> int:
        """Take every free byte; how many (MiB)."""
        size, step = 0, 64 * _MIB
        fd = os.open(self._ballast, os.O_CREAT | os.O_WRONLY)
        try:
            while step >= 1:
                try:
                    os.posix_fallocate(fd, size, step)
                    size += step
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EFBIG):
                        raise
                    step //= 2
        finally:
            os.close(fd)
        return size // _MIB

    def free(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ballast.unlink()

    def close(self) -> None:
        self.free()
        if self.can_fill:
            subprocess.run(["umount", "-l", str(self.path)], check=False)
