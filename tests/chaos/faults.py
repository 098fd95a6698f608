"""The faults: each a function of the `Stage` that breaks one thing and, where nobody else would, mends it before it returns.

So that faults do not pile up into something nobody can tell apart. Waiting here is for the length of a fault.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import redis

from tests.chaos import wire
from tests.chaos.stage import Stage

Fault = Callable[[Stage, random.Random], str]


def kill(role: str) -> Fault:
    def strike(stage: Stage, chance: random.Random) -> str:
        pids = stage.pids(role)
        if not pids:
            return "nobody there"
        pid = chance.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return f"pid {pid}"

    return strike


def stop_and_continue(role: str, seconds: float) -> Fault:
    def strike(stage: Stage, chance: random.Random) -> str:
        pids = stage.pids(role)
        if not pids:
            return "nobody there"
        pid = chance.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
        return f"pid {pid} for {seconds:g} s"

    return strike


def kill_master(stage: Stage, chance: random.Random) -> str:
    stage.kill_master()
    stage.start_bus()
    return "started again"


def kill_everything(stage: Stage, chance: random.Random) -> str:
    stage.kill_everything()
    stage.start_bus()
    return "started again"


def restart_bus(stage: Stage, chance: random.Random) -> str:
    stage.stop_bus()
    stage.start_bus()
    return "TERM, started again"


def fpm_down(stage: Stage, chance: random.Random) -> str:
    stage.fpm.stop()
    time.sleep(chance.uniform(0.2, 2.0))
    stage.fpm.start()
    return "TERM, started again"


def fpm_reload(stage: Stage, chance: random.Random) -> str:
    os.kill(stage.fpm.pid, signal.SIGUSR2)
    return "USR2"


def fpm_child(stage: Stage, chance: random.Random) -> str:
    children = stage.fpm.children()
    if children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(children), signal.SIGKILL)
    return f"one of {len(children)}"


def hup(stage: Stage, chance: random.Random) -> str:
    return stage.edit_and_hup(chance)


def fpm_kill(stage: Stage, chance: random.Random) -> str:
    """kill -9 of its master: orphans go on serving, and nobody listens when they are gone."""
    stage.fpm.kill_master()
    time.sleep(chance.uniform(0.2, 1.0))
    stage.fpm.kill_children()
    stage.fpm.start()
    return "kill -9 of the master, then of its orphans, started again"


def fpm_freeze(stage: Stage, chance: random.Random) -> str:
    seconds, children = chance.uniform(0.5, 3.0), stage.fpm.children()
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)
    return f"{len(children)} children for {seconds:.1f} s"


def fpm_slow(stage: Stage, chance: random.Random) -> str:
    seconds = chance.uniform(1.0, 3.0)
    stage.slow.touch()
    time.sleep(seconds)
    stage.slow.unlink()
    return f"every job 50 ms longer for {seconds:.1f} s"


def moved_away(what: str) -> Fault:
    """The script as in a half-done deployment, or the socket: gone, and back a moment later."""

    def strike(stage: Stage, chance: random.Random) -> str:
        path = Path(stage.script) if what == "script" else stage.fpm.socket
        seconds = chance.uniform(0.3, 2.0)
        path.rename(path.with_suffix(".away"))
        time.sleep(seconds)
        path.with_suffix(".away").rename(path)
        return f"{path.name} for {seconds:.1f} s"

    return strike


def no_descriptors(role: str) -> Fault:
    """The process may open nothing more for a while (prlimit)."""

    def strike(stage: Stage, chance: random.Random) -> str:
        seconds = chance.uniform(0.5, 2.0)
        held: dict[int, tuple[int, int]] = {}
        for pid in stage.pids(role):
            with contextlib.suppress(OSError):
                held[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                used = len(os.listdir(f"/proc/{pid}/fd"))
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, held[pid][1]))
        time.sleep(seconds)
        for pid, limits in held.items():
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        return f"{len(held)} processes for {seconds:.1f} s"

    return strike


def disk_full(stage: Stage, chance: random.Random) -> str:
    seconds = chance.uniform(0.5, 2.0)
    taken = stage.disk.fill()
    time.sleep(seconds)
    stage.disk.free()
    ended = ""
    # With appendfsync always it ends itself rather than lie; its supervisor starts it again.
    if stage.engine != "embedded" and not stage.redis_lives():
        stage.redis_start()
        ended = ", Redis had ended itself and was started again"
    return f"{taken} MiB taken for {seconds:.1f} s{ended}"


def bad_wire(which: str, mode: str) -> Fault:
    """`which`: wire (bus to Redis) or front (a producer to the gateway)."""

    def strike(stage: Stage, chance: random.Random) -> str:
        one: wire.Wire = getattr(stage, which)
        seconds = chance.uniform(0.5, 3.0)
        one.mode = mode
        time.sleep(seconds)
        one.mode = wire.PASS
        return f"{seconds:.1f} s"

    return strike


def cut_wire(which: str) -> Fault:
    def strike(stage: Stage, chance: random.Random) -> str:
        one: wire.Wire = getattr(stage, which)
        counts = []
        for _ in range(chance.randrange(1, 6)):
            counts.append(one.cut())
            time.sleep(chance.uniform(0.0, 0.2))
        return f"{counts} connections reset"

    return strike


def hup_storm(stage: Stage, chance: random.Random) -> str:
    for _ in range(20):
        stage.edit_and_hup(chance, may_break=False)
        time.sleep(0.05)
    return "20 in a second"


def redis_kill(stage: Stage, chance: random.Random) -> str:
    stage.redis_kill()
    time.sleep(chance.uniform(0.0, 1.0))
    stage.redis_start()
    return "kill -9, started again"


def redis_restart(stage: Stage, chance: random.Random) -> str:
    stage.redis_kill(signal.SIGTERM)
    stage.redis_start()
    return "TERM, started again"


def redis_freeze(stage: Stage, chance: random.Random) -> str:
    seconds = chance.uniform(0.5, 5.0)
    stage.redis_signal(signal.SIGSTOP)
    time.sleep(seconds)
    stage.redis_signal(signal.SIGCONT)
    return f"{seconds:.1f} s"


def redis_setting(name: str, bad: str, good: str) -> Fault:
    """A setting that makes it refuse writes for a while."""

    def strike(stage: Stage, chance: random.Random) -> str:
        seconds = chance.uniform(0.5, 2.0)
        stage.redis_ask("CONFIG", "SET", name, bad)
        time.sleep(seconds)
        stage.redis_ask("CONFIG", "SET", name, good)
        return f"{name} {bad} for {seconds:.1f} s"

    return strike


def redis_password(stage: Stage, chance: random.Random) -> str:
    """Changed, and everybody must connect again: nobody gets in."""
    seconds = chance.uniform(0.5, 2.0)
    stage.redis_ask("CONFIG", "SET", "requirepass", "changed")
    stage.redis_ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", password="changed")
    time.sleep(seconds)
    stage.redis_ask("CONFIG", "SET", "requirepass", "", password="changed")
    return f"changed for {seconds:.1f} s"


def redis_readonly(stage: Stage, chance: random.Random) -> str:
    """As after a failover: it takes itself for the replica of somebody who is not there."""
    seconds = chance.uniform(0.5, 2.0)
    stage.redis_ask("REPLICAOF", "127.0.0.1", "1")
    time.sleep(seconds)
    stage.redis_ask("REPLICAOF", "NO", "ONE")
    return f"for {seconds:.1f} s"


def suspend(stage: Stage, chance: random.Random) -> str:
    """All of the bus and its Redis stand still and go on, as on a laptop that slept; php-fpm does not."""
    seconds = chance.uniform(2.0, 8.0)
    stage.freeze(signal.SIGSTOP)
    time.sleep(seconds)
    stage.freeze(signal.SIGCONT)
    return f"{seconds:.1f} s"


def upgrade(stage: Stage, chance: random.Random) -> str:
    """USR2, and everybody is replaced under load."""
    for pid in stage.pids("master"):
        os.kill(pid, signal.SIGUSR2)
    time.sleep(2.0)
    return "USR2"


def redis_cut(stage: Stage, chance: random.Random) -> str:
    with contextlib.suppress(redis.RedisError):  # our own connection may be among them
        return f"{stage.redis_ask('CLIENT', 'KILL', 'TYPE', 'normal')!r} connections closed"
    return "connections closed"


def clock(seconds: float) -> Fault:
    """The wall clock of the bus jumps, and back again."""

    def strike(stage: Stage, chance: random.Random) -> str:
        stage.clock_ms(int(seconds * 1000))
        time.sleep(1.0)
        stage.clock_ms(0)
        return f"{seconds:+g} s for 1 s"

    return strike


FAULTS: dict[str, Fault] = {
    "kill worker": kill("worker"),
    "kill gateway": kill("gateway"),
    "kill ticker": kill("ticker"),
    "kill web": kill("web"),
    "kill mold": kill("mold"),
    "kill master": kill_master,
    "kill everything": kill_everything,
    "restart bus": restart_bus,
    "upgrade": upgrade,
    "suspend": suspend,
    "stop worker": stop_and_continue("worker", 1.0),
    "stop gateway": stop_and_continue("gateway", 1.0),
    "stop ticker": stop_and_continue("ticker", 2.0),
    "stop web": stop_and_continue("web", 2.0),
    "stop mold": stop_and_continue("mold", 2.0),
    "stop master": stop_and_continue("master", 2.0),
    "hang worker": stop_and_continue("worker", 8.0),
    "hang gateway": stop_and_continue("gateway", 8.0),
    "no descriptors worker": no_descriptors("worker"),
    "no descriptors gateway": no_descriptors("gateway"),
    "producer wire slow": bad_wire("front", wire.SLOW),
    "producer wire split": bad_wire("front", wire.SPLIT),
    "producer wire cut": cut_wire("front"),
    "disk full": disk_full,
    "script away": moved_away("script"),
    "socket away": moved_away("socket"),
    "fpm down": fpm_down,
    "fpm kill": fpm_kill,
    "fpm reload": fpm_reload,
    "fpm child": fpm_child,
    "fpm freeze": fpm_freeze,
    "fpm slow": fpm_slow,
    "hup": hup,
    "hup storm": hup_storm,
}
REDIS_FAULTS: dict[str, Fault] = {
    "redis kill": redis_kill,
    "redis restart": redis_restart,
    "redis freeze": redis_freeze,
    "redis full": redis_setting("maxmemory", "1mb", "0"),
    "redis without replicas": redis_setting("min-replicas-to-write", "1", "0"),
    "redis password": redis_password,
    "redis readonly": redis_readonly,
    "redis cut": redis_cut,
    "redis wire slow": bad_wire("wire", wire.SLOW),
    "redis wire split": bad_wire("wire", wire.SPLIT),
    "redis wire silent": bad_wire("wire", wire.SILENT),
    "redis wire cut": cut_wire("wire"),
}
CLOCK_FAULTS: dict[str, Fault] = {
    "clock ahead": clock(20.0),
    "clock behind": clock(-20.0),
    "clock far behind": clock(-3600.0),
}
