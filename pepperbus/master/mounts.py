"""A disk that should be there: what /etc/fstab wants mounted above a directory and is not.

Knows the two tables of mounts only. An empty directory in the place of a disk looks like a bus without jobs.
"""

from __future__ import annotations

from pathlib import Path

FSTAB = Path("/etc/fstab")
MOUNTS = Path("/proc/self/mounts")


def unmounted(directory: Path, fstab: Path = FSTAB, mounts: Path = MOUNTS) -> str:
    """The mount point of `fstab` at or above `directory` where nothing is mounted; "" when there is none."""
    wanted, there = _points(fstab), _points(mounts)
    above = [str(path) for path in (directory, *directory.parents)]
    return next((path for path in above if path in wanted and path not in there), "")


def _points(table: Path) -> set[str]:
    try:
        lines = table.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return {_unescaped(one[1]).rstrip("/") or "/" for one in fields if len(one) > 2 and one[1].startswith("/")}


def _unescaped(text: str) -> str:
    """fstab(5) writes blanks as octal."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
