"""The nemesis: one fault after the other, chosen by a seed, each written to the ledger at the moment it strikes.

A line is `fault time name detail`. A fault is a function of the `Stage`; what it breaks it mends again before it returns, so
that faults do not pile up into something nobody can tell apart. Waiting here is for the length of a fault.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

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


def redis_kill(stage: Stage, chance: random.Random) -> str:
    stage.redis_kill()
    time.sleep(chance.uniform(0.0, 1.0))
    stage.redis_start()
    return "kill -9, started again"


def redis_freeze(stage: Stage, chance: random.Random) -> str:
    seconds = chance.uniform(0.5, 5.0)
    stage.redis_signal(signal.SIGSTOP)
    time.sleep(seconds)
    stage.redis_signal(signal.SIGCONT)
    return f"{seconds:.1f} s"


def redis_full(stage: Stage, chance: random.Random) -> str:
    seconds = chance.uniform(0.5, 2.0)
    stage.redis_config("maxmemory", "1mb")
    time.sleep(seconds)
    stage.redis_config("maxmemory", "0")
    return f"maxmemory 1mb for {seconds:.1f} s"


FAULTS: dict[str, Fault] = {
    "kill worker": kill("worker"),
    "kill gateway": kill("gateway"),
    "kill ticker": kill("ticker"),
    "kill web": kill("web"),
    "kill mold": kill("mold"),
    "kill master": kill_master,
    "kill everything": kill_everything,
    "restart bus": restart_bus,
    "stop worker": stop_and_continue("worker", 1.0),
    "stop gateway": stop_and_continue("gateway", 1.0),
    "stop master": stop_and_continue("master", 2.0),
    "hang worker": stop_and_continue("worker", 8.0),
    "fpm down": fpm_down,
    "fpm reload": fpm_reload,
    "fpm child": fpm_child,
    "hup": hup,
}
REDIS_FAULTS: dict[str, Fault] = {"redis kill": redis_kill, "redis freeze": redis_freeze, "redis full": redis_full}


def run(stage: Stage, ledger: Path, faults: int, seed: int, until: Callable[[], bool], gap_s: float) -> None:
    """Strike `faults` times, every kind at least once if there are enough, until `until()` says the load is over."""
    chance = random.Random(seed)
    known = dict(FAULTS) | (REDIS_FAULTS if stage.engine != "embedded" else {})
    names = list(known)
    chance.shuffle(names)
    plan = (names * (faults // len(names) + 1))[:faults]
    with ledger.open("a", buffering=1) as out:
        for name in plan:
            if until():
                break
            time.sleep(chance.uniform(0.3, 1.0) * gap_s)
            out.write(f"fault {time.time():.6f} {name.replace(' ', '_')}\n")
            detail = known[name](stage, chance)
            stage.say(f"{name}: {detail}")
