"""`run` is `pepperbus serve`: the configuration, the lock and the sockets, then the loop until the end. Floor 5."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from setproctitle import setproctitle

from pepperbus import failpoints
from pepperbus.config.known import Known
from pepperbus.config.load import load
from pepperbus.errors import PepperbusError
from pepperbus.log import Log
from pepperbus.master import handover
from pepperbus.master.bus import Bus
from pepperbus.master.handed import Handed
from pepperbus.master.loop import Master
from pepperbus.master.mold import ROLES, Mold
from pepperbus.master.opened import gives_up_root, open_all

_PR_SET_CHILD_SUBREAPER = 36
_MOST_FILES = 1 << 20


def run(config_path: Path | None, roles: Mapping[str, str] = ROLES, chaos: bool = False) -> int:
    """Serve in the foreground until told to stop. The exit status: 0 clean, 3 could not boot (one line says why).

    `roles` maps each kind of process to its "module:function"; kinds that are missing are not started.
    `chaos`: the failpoints of the environment are obeyed; without it they are refused.
    """
    os.umask(0o027)
    _allow_descriptors()
    try:
        armed = failpoints.asked(os.environ, chaos)
        handed = handover.take()
        _adopt_grandchildren()
        # It imports while we read. After an upgrade signals are still held back, and it would inherit that.
        mold = None if handed else Mold(roles)
        try:
            return _serve(config_path, dict(roles), armed, handed, mold)
        finally:
            if mold:
                mold.end()
    except PepperbusError as error:
        for line in str(error).splitlines():
            print(f"pepperbus: {line}", file=sys.stderr)
        return error.exit_status


def _serve(
    config_path: Path | None, roles: dict[str, str], armed: str, handed: Handed | None, mold: Mold | None
) -> int:
    known = Known()
    config = load(config_path, known=known)
    if handed:
        config = replace(config, generation=handed.generation + 1)
    if mold and gives_up_root(config.bus):
        mold.end()
        mold = None
    opened = handed.opened if handed else open_all(config)
    setproctitle(f"pepperbus: master {config.bus.node}")
    log = Log("master", config.log.file, config.log.level, config.log.format, config.log.errors)
    if opened.new_data:
        what = f"{config.bus.data_dir} was not there and is new; if jobs lay in it before, is its disk mounted?"
        log.warning("data_dir_made", what)
    if armed:
        log.warning("failpoints_armed", armed)
        failpoints.arm(armed, "master", config.bus.run_dir)
    try:
        return Master(Bus(config, opened, log, roles, handed, armed, mold), handed, known).run()
    finally:
        opened.close()


def _allow_descriptors() -> None:
    """As many open files as the system lets us have: a client is one, and a shell's soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _adopt_grandchildren() -> None:
    """Become the parent of what the mold forks twice, so that waitpid tells us their ends (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
