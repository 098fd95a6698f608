"""php-fpm's own pool files, read as far as this account may: which pool listens at an address, and its limits.

Floor 4. `include` and a pool's defaults in php.ini are not followed: a value that does not stand there is not known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path("/etc/php")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 0, "k": 10, "m": 20, "g": 30}
_VALUE = re.compile(r"(\d{1,12})([a-z]?)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PoolFile:
    """One `[pool]` of a file. Numbers are 0 where the file does not say, or says something else than a number."""

    file: Path
    name: str
    values: dict[str, str]

    def number(self, key: str) -> int:
        value = self.values.get(key, "")
        return int(value) if value.isascii() and value.isdigit() else 0

    def seconds(self, key: str) -> float:
        match = _VALUE.match(self.values.get(key, ""))
        return float(int(match[1]) * _UNITS.get(match[2].lower(), 0)) if match else 0.0

    def size(self, key: str) -> int:
        match = _VALUE.match(self.values.get(key, ""))
        return int(match[1]) << _SIZES.get(match[2].lower(), 0) if match else 0


def find(address: str, directory: Path = DIRECTORY) -> PoolFile | None:
    """The pool that listens at `address` (as in our configuration); None when no readable file has it."""
    for file in sorted(directory.glob("**/pool.d/*.conf")):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        for pool in parse(file, text):
            if _same(pool.values.get("listen", "").replace("$pool", pool.name), address):
                return pool
    return None


def parse(file: Path, text: str) -> list[PoolFile]:
    """Every pool of a file; the last of two equal keys counts, as for php-fpm."""
    pools: list[PoolFile] = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            pools.append(PoolFile(file, line[1:-1], {}))
        elif pools and "=" in line and not line.startswith((";", "#")):
            key, _, value = line.partition("=")
            pools[-1].values[key.strip()] = value.partition(";")[0].strip().strip("\"'")
    return pools


def _same(listen: str, address: str) -> bool:
    if address.startswith("unix:"):
        return listen == address.removeprefix("unix:")
    return listen == address or (listen.isdigit() and address.rpartition(":")[2] == listen)
