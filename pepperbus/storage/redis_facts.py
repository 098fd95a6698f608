"""What a Redis or Pika says of itself, and what follows: may it be used, and what does an answered push survive.

Floor 3. Pure but for `read_facts`, which asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pepperbus.errors import StorageRefused, StorageUnavailable
from pepperbus.storage.contract import MEMORY, POWER, PROCESS
from pepperbus.storage.redis_wire import Connection

OLDEST_REDIS, OLDEST_PIKA = (5, 0, 0), (3, 5, 2)


@dataclass(frozen=True, slots=True)
class Facts:
    """`appendfsync` is "" when the server may not be asked."""

    version: str
    pika: bool
    cluster: bool
    appendonly: bool
    appendfsync: str
    policy: str
    used: int
    limit: int
    commands: int = 0
    clients: int = 0

    def durability(self) -> str:
        """What an answered push survives here."""
        if self.pika:
            return PROCESS
        if not self.appendonly:
            return MEMORY
        return POWER if self.appendfsync == "always" else PROCESS

    def check(self, storage: str, mode: str) -> None:
        """Raises StorageRefused with what to change when jobs would not be safe here."""
        if self.pika and mode != "pika":
            raise StorageRefused(f"storage {storage}: this is Pika {self.version}; set `mode = pika`")
        oldest = OLDEST_PIKA if self.pika else OLDEST_REDIS
        if _number(self.version) < oldest:
            wanted = ".".join(map(str, oldest))
            raise StorageRefused(
                f"storage {storage}: version {self.version} is too old; {wanted} is the oldest that works"
            )
        if self.cluster:
            raise StorageRefused(
                f"storage {storage}: this is a Redis Cluster, which is not supported; give a single Redis"
            )
        if self.limit and self.policy not in ("", "noeviction"):
            raise StorageRefused(
                f"storage {storage}: maxmemory-policy is {self.policy}: it would delete jobs when memory is full; "
                f"type: CONFIG SET maxmemory-policy noeviction"
            )

    def advice(self, level: str) -> str:
        """The lines to type so that it gives `level`; "" when it does already. Add CONFIG REWRITE to keep them."""
        if self.pika:
            return "" if level in (MEMORY, PROCESS) else "Pika cannot: use another storage, or a lower durability"
        lines = []
        if level in (PROCESS, POWER) and not self.appendonly:
            lines.append("CONFIG SET appendonly yes")
        if level == POWER and self.appendfsync != "always":
            lines.append("CONFIG SET appendfsync always")
        return "\n".join(lines)

    def detail(self) -> str:
        if self.pika:
            return f"Pika {self.version}"
        fsync = self.appendfsync or "unknown (CONFIG GET is not allowed)"
        log = f"appendonly yes, appendfsync {fsync}" if self.appendonly else "appendonly no"
        return f"Redis {self.version}, {log}"


def read_facts(connection: Connection) -> Facts:
    """Ask INFO and, where it is allowed, CONFIG GET. Raises StorageUnavailable."""
    info: dict[str, str] = {}
    for section in ("server", "memory", "persistence", "cluster", "stats", "clients"):
        info |= parse_info(connection.ask((b"INFO", section))[0])
    settings = {name: _setting(connection, name) for name in ("appendfsync", "maxmemory-policy", "maxmemory")}
    return Facts(
        version=info.get("pika_version") or info.get("redis_version", "0"),
        pika="pika_version" in info,
        cluster=info.get("cluster_enabled") == "1",
        appendonly=info.get("aof_enabled") == "1",
        appendfsync=settings["appendfsync"],
        policy=settings["maxmemory-policy"] or info.get("maxmemory_policy", ""),
        used=int(info.get("used_memory", "0")),
        limit=int(settings["maxmemory"] or info.get("maxmemory", "0")),
        commands=int(info.get("total_commands_processed", "0")),
        clients=int(info.get("connected_clients", "0")),
    )


def parse_info(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode(errors="replace").splitlines() if ":" in line)
    return {key: value for key, _, value in pairs}


def _setting(connection: Connection, name: str) -> str:
    """A setting of the server; "" when it has none of that name or does not tell."""
    try:
        pair = connection.ask((b"CONFIG", b"GET", name))[0]
    except StorageUnavailable:
        if not connection.usable:
            raise
        return ""
    return pair[1].decode() if pair else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:3])
