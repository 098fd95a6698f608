"""Disks of a run's own: one small enough to be filled to the last byte, one in an image that can be copied as it is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
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


class LoopDisk:
    """An ext4 in an image file, mounted at `path`; made anew unless `image` is a copy of another's."""

    can_fill = False
    why = "the disk of a power cut is not filled"

    def __init__(self, path: Path, image: Path | None = None, mib: int = 192) -> None:
        self.path = path
        self.image = image or path.with_suffix(".img")
        path.mkdir()
        if image is None:
            with self.image.open("wb") as file:
                file.truncate(mib * _MIB)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))
        _run("mount", "-o", "loop", str(self.image), str(path))

    @staticmethod
    def unavailable() -> str:
        """Why there can be none here; "" when there can."""
        if os.geteuid() != 0:
            return "mounting an image needs root"
        if missing := [name for name in ("mkfs.ext4", "losetup", "mount") if not shutil.which(name)]:
            return f"not installed: {', '.join(missing)}"
        free = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False)
        return "" if free.returncode == 0 else f"no loop device: {free.stderr.strip()}"

    def copy(self, to: Path) -> None:
        """The image as the block device has it now; what lies in the page cache of the file system is not in it."""
        _run("cp", "--sparse=always", str(self.image), str(to))

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False)
        self.image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
