"""php-fpm's own pool files, read as far as this account may: which pool listens at an address, and its limits.

Floor 4. What a pool does not say of PHP is looked up in the php.ini beside it; `include` and conf.d are not followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
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
    general: dict[str, str] = field(default_factory=dict)  # [global] of this file or of php-fpm.conf beside it
    ini: dict[str, str] = field(default_factory=dict)  # php.ini beside it

    def php(self, name: str, default: str = "") -> str:
        """A setting of PHP: the pool's, else php.ini's, else `default`."""
        for kind in ("php_admin_value", "php_admin_flag", "php_value", "php_flag"):
            if (value := self.values.get(f"{kind}[{name}]")) is not None:
                return value
        return self.ini.get(name, default)

    def php_size(self, name: str, default: str) -> int:
        return _size(self.php(name, default))

    def php_flag(self, name: str, default: bool) -> bool:
        value = self.php(name).lower()
        return value in ("1", "on", "yes", "true", "stdout", "stderr") if value else default

    def general_seconds(self, key: str) -> float:
        return _seconds(self.general.get(key, ""))

    def number(self, key: str) -> int:
        value = self.values.get(key, "")
        return int(value) if value.isascii() and value.isdigit() else 0

    def seconds(self, key: str) -> float:
        return _seconds(self.values.get(key, ""))


def find(address: str, directory: Path = DIRECTORY) -> PoolFile | None:
    """The pool that listens at `address` (as in our configuration); None when no readable file has it."""
    for file in sorted(directory.glob("**/pool.d/*.conf")):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        for pool in parse(file, text):
            if _same(pool.values.get("listen", "").replace("$pool", pool.name), address):
                main = file.parent.parent
                general = {**_section(main / "php-fpm.conf", "global"), **_section(file, "global")}
                return replace(pool, general=general, ini=_lines(main / "php.ini"))
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


def _section(file: Path, name: str) -> dict[str, str]:
    try:
        return next((pool.values for pool in parse(file, file.read_text(errors="replace")) if pool.name == name), {})
    except OSError:
        return {}


def _lines(file: Path) -> dict[str, str]:
    """Every `name = value` of a php.ini, whatever section it stands in (PHP does not look at sections either)."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return {}
    pools = parse(file, "[all]\n" + "\n".join(line for line in text.splitlines() if not line.strip().startswith("[")))
    return pools[0].values


def _seconds(value: str) -> float:
    match = _VALUE.match(value)
    return float(int(match[1]) * _UNITS.get(match[2].lower(), 0)) if match else 0.0


def _size(value: str) -> int:
    match = _VALUE.match(value)
    return int(match[1]) << _SIZES.get(match[2].lower(), 0) if match else 0


def _same(listen: str, address: str) -> bool:
    if address.startswith("unix:"):
        return listen == address.removeprefix("unix:")
    return listen == address or (listen.isdigit() and address.rpartition(":")[2] == listen)
