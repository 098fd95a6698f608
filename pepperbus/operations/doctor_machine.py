"""The machine: disks, kernel limits, clock.

Floor 4. What the system does not tell is left out, not guessed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from pepperbus.config.model import Config
from pepperbus.operations.doctor_redis import is_local
from pepperbus.operations.findings import Finding

_LEAST_FREE = 0.1
_RESERVE = 200  # descriptors beside those of clients
_FLEETING = ("tmpfs", "ramfs", "devtmpfs")
_FAR = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.glusterfs", "ceph", "9p", "lustre", "afs")
_CERTIFICATE_DAYS = 21
_STA_UNSYNC = 0x40


def disks(config: Config) -> Iterator[Finding]:
    for key in ("data_dir", "run_dir"):
        path: Path = getattr(config.bus, key)
        if not path.exists():
            continue
        free = shutil.disk_usage(path)
        inodes = os.statvfs(path)
        share = min(free.free / max(free.total, 1), inodes.f_favail / inodes.f_files if inodes.f_files else 1)
        if share < _LEAST_FREE:
            what = f"{path}: {share:.0%} of the disk (or its inodes) is free"
            yield Finding("stop", what, f"[bus] {key} = a larger disk")
        if inodes.f_flag & os.ST_RDONLY:
            yield Finding("stop", f"{path}: this disk is mounted read-only", "see `dmesg`; remount it when it is whole")
    yield from _kind(config)
    data = config.bus.data_dir
    journal = config.journal.max_bytes
    if data.exists() and (free_now := shutil.disk_usage(data).free) < journal / 2:
        what = f"{data}: {free_now >> 20} MiB are free, and the journal may take {journal >> 20} MiB"
        yield Finding("stop", what, f"[journal] max_bytes = {max(free_now >> 22, 16)}MiB")


def _kind(config: Config) -> Iterator[Finding]:
    path = config.bus.data_dir
    kind = filesystem(path)
    if kind in _FLEETING:
        yield Finding("loss", f"{path} lies in memory ({kind}): a reboot takes all jobs", "[bus] data_dir = a disk")
    elif kind in _FAR and any(s.type == "embedded" for s in config.storages.values()):
        what = f"{path} is a network file system ({kind}): an embedded storage is not safe there"
        yield Finding("loss", what, "[bus] data_dir = a local disk, or type = redis")


def filesystem(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system `path` (or its nearest existing parent) lies on; "" when it cannot be known."""
    where = os.path.realpath(path)
    found, kind = "", ""
    try:
        for line in mounts.read_text().splitlines():
            before, _, after = line.partition(" - ")
            point = before.split()[4].encode().decode("unicode_escape")
            inside = where == point or where.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(found):
                found, kind = point, after.split()[0]
    except (OSError, IndexError):
        return ""
    return kind


def certificate(config: Config, now: float = 0.0) -> Iterator[Finding]:
    """How long the front door's certificate lasts. `now`: unix time, the system's if 0."""
    file = config.gateway.cert
    if file is None:
        return
    try:
        facts: dict[str, str] = ssl._ssl._test_decode_cert(str(file))  # type: ignore[attr-defined]  # ssl has no other way
        days = (ssl.cert_time_to_seconds(facts["notAfter"]) - (now or time.time())) / 86400
    except (OSError, AttributeError, KeyError, ValueError):
        return
    if days < _CERTIFICATE_DAYS:
        what = f"[gateway] cert {file} " + (f"ends in {days:.0f} days" if days > 0 else f"ended {-days:.0f} days ago")
        yield Finding("stop", f"{what}: clients that verify it cannot connect then", "a new certificate, and a restart")


def kernel(config: Config, system: Path = Path("/"), nofile: int = 0) -> Iterator[Finding]:
    """`nofile` 0: the limit of this shell, which is the bus' only where it is started from here."""
    somaxconn = _number(system / "proc/sys/net/core/somaxconn")
    if 0 < somaxconn < 1024:
        what = f"net.core.somaxconn is {somaxconn}: bursts of clients are refused"
        yield Finding("slow", what, "sysctl net.core.somaxconn=4096")
    if any(is_local(s.url.reveal()) for s in config.storages.values() if s.type == "redis"):
        if _number(system / "proc/sys/vm/overcommit_memory") == 0:
            what = "vm.overcommit_memory is 0: Redis may fail to fork for its log"
            yield Finding("slow", what, "sysctl vm.overcommit_memory=1")
        if "[always]" in _text(system / "sys/kernel/mm/transparent_hugepage/enabled"):
            what = "transparent huge pages are on: Redis stalls and doubles its memory while it forks"
            yield Finding("slow", what, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (at each boot)")
    limit = nofile or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = config.gateway.max_clients + _RESERVE
    if 0 < limit < needed:
        what = f"{limit} open files are allowed here, {needed} are needed for [gateway] max_clients"
        yield Finding("slow", what, f"LimitNOFILE={needed} in the unit, or max_clients = {max(limit - _RESERVE, 1)}")


def open_files(pid: int) -> int:
    """The hard limit of a running process; 0 when it cannot be read or there is none."""
    for line in _text(Path(f"/proc/{pid}/limits")).splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[4]) if line.split()[4].isdigit() else 0
    return 0


def clock(synchronized: bool | None = None) -> Iterator[Finding]:
    """`synchronized` None: ask the kernel."""
    if (clock_is_kept() if synchronized is None else synchronized) is False:
        what = "nothing keeps this machine's clock right: delayed jobs come early or late, nodes misjudge each other"
        yield Finding("slow", what, "timedatectl set-ntp true (chrony or systemd-timesyncd)")


def clock_is_kept() -> bool | None:
    """Whether some time service disciplines the clock (adjtimex(2)); None when the kernel does not say."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, larger than any
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) < 0:
        return None
    longs = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_long))
    status = ctypes.cast(ctypes.byref(longs.contents, 5 * ctypes.sizeof(ctypes.c_long)), ctypes.POINTER(ctypes.c_int))
    return not status[0] & _STA_UNSYNC


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else -1
