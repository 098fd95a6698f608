"""A Redis as a storage: what its settings and its own trouble will do to jobs.

Floor 4. Only asks (INFO, CONFIG GET, TIME); what the server does not tell is left out. Whether it gives the durability a
queue asks for is the storage's own word, not looked at here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis

from pepperbus.config.model import StorageConfig
from pepperbus.operations.findings import Diagnosis, Finding

_FULL_SHARE = 0.85  # from here on the gateway refuses pushes
_CLOCK_S = 2.0
_FEW_CLIENTS = 200
_SETTINGS = (
    "maxmemory", "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "aof-load-truncated",
    "stop-writes-on-bgsave-error", "maxclients", "maxmemory-policy",
)  # fmt: skip


def storage(config: StorageConfig, told: Diagnosis, now: float = 0.0) -> Iterator[Finding]:
    """Everything about one `type = redis`. `now`: our clock, the system's if 0."""
    url = config.url.reveal()
    yield from _way(config.name, url, bool(config.url and urlsplit(url).password))
    try:
        with _client(url, config.store_timeout) as client:
            info: dict[str, Any] = client.info("all")
            settings = {name: _setting(client, name) for name in _SETTINGS}
            theirs = client.time()
    except (redis.RedisError, OSError, ValueError):
        return  # that it does not open has been said
    if "pika_version" in info:
        told.unknown.append(f"storage {config.name}: Pika's own settings were not looked at")
        return
    yield from _memory(config.name, info, settings)
    yield from _disk(config.name, info, settings)
    yield from _shape(config.name, info, settings)
    apart = abs((now or time.time()) - (theirs[0] + theirs[1] / 1e6))
    if apart > _CLOCK_S:
        what = f"storage {config.name}: its clock and ours differ by {apart:.0f} s: nodes judge each other by it"
        yield Finding("slow", what, "a time service (chrony, systemd-timesyncd) on both machines")


def is_local(url: str) -> bool:
    return url.startswith("unix:") or urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost", None)


def _way(name: str, url: str, password: bool) -> Iterator[Finding]:
    if is_local(url):
        return
    if not url.startswith("rediss:"):
        what = f"storage {name}: jobs and password cross the network readable"
        yield Finding("open", what, f"[storages] [[{name}]] url = rediss://…")
    if not password:
        what = f"storage {name}: whoever reaches this Redis can read and delete all jobs"
        yield Finding("open", what, "requirepass (or a user) in Redis, and the password in url")


def _memory(name: str, info: dict[str, Any], settings: dict[str, str]) -> Iterator[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(settings["maxmemory"] or info.get("maxmemory", 0))
    if not limit:
        room = int(info.get("total_system_memory", 0)) * 3 // 4
        what = f"storage {name}: maxmemory is 0: Redis grows until the kernel ends it, or other programs"
        yield Finding("stop", what, f"CONFIG SET maxmemory {room or '…'}; CONFIG REWRITE")
    elif used > limit * _FULL_SHARE:
        what = f"storage {name}: {used / limit:.0%} of maxmemory is used; pushes are refused, and at 100% acks fail"
        yield Finding("stop", what, "consume or purge jobs, or CONFIG SET maxmemory higher")
    policy = settings["maxmemory-policy"] or str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        what = f"storage {name}: maxmemory-policy is {policy}: Redis deletes jobs when memory is full"
        yield Finding("loss", what, "CONFIG SET maxmemory-policy noeviction; CONFIG REWRITE")


def _disk(name: str, info: dict[str, Any], settings: dict[str, str]) -> Iterator[Finding]:
    aof = bool(info.get("aof_enabled"))
    if aof and info.get("aof_last_write_status", "ok") != "ok":
        what = f"storage {name}: Redis cannot write its append-only file and refuses all writes"
        yield Finding("stop", what, "see Redis' log: a full or failing disk, mostly")
    if (
        info.get("rdb_last_bgsave_status", "ok") != "ok"
        and settings["stop-writes-on-bgsave-error"] != "no"
        and settings["save"]
    ):
        what = f"storage {name}: the last snapshot failed: Redis refuses all writes (MISCONF)"
        yield Finding(
            "stop", what, 'see Redis\' log; with an append-only file snapshots are not needed: CONFIG SET save ""'
        )
    if aof and info.get("aof_last_bgrewrite_status", "ok") != "ok":
        what = f"storage {name}: the append-only file cannot be rewritten and grows without end"
        yield Finding("slow", what, "see Redis' log: free disk, vm.overcommit_memory = 1")
    if aof and settings["appendfsync"] == "no":
        what = f"storage {name}: appendfsync is no: a loss of power takes up to half a minute of pushes"
        yield Finding("loss", what, "CONFIG SET appendfsync everysec (1 s), or always (nothing)")
    if aof and settings["appendfsync"] == "always" and settings["no-appendfsync-on-rewrite"] == "yes":
        what = f"storage {name}: no-appendfsync-on-rewrite takes `always` back while the file is rewritten"
        yield Finding("loss", what, "CONFIG SET no-appendfsync-on-rewrite no; CONFIG REWRITE")
    if aof and settings["aof-load-truncated"] == "no":
        what = f"storage {name}: aof-load-truncated is no: after a crash Redis does not start by itself"
        yield Finding("stop", what, "CONFIG SET aof-load-truncated yes; CONFIG REWRITE")
    if aof and settings["save"]:
        what = f"storage {name}: snapshots (save {settings['save']}) beside the append-only file cost a fork each"
        yield Finding("slow", what, 'CONFIG SET save ""; CONFIG REWRITE')


def _shape(name: str, info: dict[str, Any], settings: dict[str, str]) -> Iterator[Finding]:
    if info.get("role") in ("slave", "replica"):
        yield Finding("stop", f"storage {name}: this Redis is a replica and takes no writes", "name its master in url")
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if version < (6, 2):
        what = f"storage {name}: Redis {info.get('redis_version')} gets no security fixes any more"
        yield Finding("open", what, "Redis 7.2 or newer, or Valkey")
    clients = int(settings["maxclients"] or 10_000)
    if clients < _FEW_CLIENTS:
        what = f"storage {name}: maxclients is {clients}; every process of every node holds several connections"
        yield Finding("stop", what, "CONFIG SET maxclients 10000; CONFIG REWRITE")


def _client(url: str, timeout: float) -> redis.Redis:
    plain, mark, query = url.partition("?")
    words = [word.replace("ca=", "ssl_ca_certs=", 1) if word.startswith("ca=") else word for word in query.split("&")]
    text = plain + mark + "&".join(words)
    return redis.Redis.from_url(text, socket_timeout=timeout, socket_connect_timeout=timeout, decode_responses=True)


def _setting(client: redis.Redis, name: str) -> str:
    """ "" when the server does not tell."""
    try:
        return str(dict(client.config_get(name)).get(name, ""))
    except redis.ResponseError:
        return ""
