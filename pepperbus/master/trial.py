"""The master's side of a trial: start `pepperbus.trial` from the code on disk, bound its time, understand its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from pepperbus.config.model import Config
from pepperbus.master import handover
from pepperbus.master.mold import ROOT

#: A new version that takes longer to say that it works does not work.
LIMIT_S = 30.0
_CODE = """\
import sys
sys.path.append(sys.argv[1])
from pepperbus.trial import main
main(int(sys.argv[2]), sys.argv[3], sys.argv[4])
"""


class Trial:
    """One trial process. Raises OSError when it cannot be started."""

    def __init__(self, config: Config, roles: dict[str, str]) -> None:
        self._until = time.monotonic() + LIMIT_S
        self._late = False
        # Files in memory, not pipes: a trial that says much must not wait for a reader.
        self._report = os.memfd_create("pepperbus-trial", os.MFD_CLOEXEC)
        self._errors = os.memfd_create("pepperbus-trial-errors", os.MFD_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, ROOT, str(self._report), str(config.file), json.dumps(roles)],
                pass_fds=(self._report,),
                process_group=0,
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
            )
        except OSError:
            self._close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill_if_late(self, now: float) -> None:
        if now >= self._until and not self._late:
            self._late = True
            self.kill()

    def kill(self) -> None:
        """The loop reaps it, so the pid is still its own."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self, status: int) -> tuple[dict[str, Any], list[str]]:
        """It was reaped. Its report, empty when it failed; and what it said, the reason last."""
        self._process.returncode = status
        report, said = _all_of(self._report), _all_of(self._errors).splitlines()
        self._close()
        if self._late:
            return {}, [*said, f"not ready within {LIMIT_S:g} s"]
        if status or not report:
            return {}, _with_place(said) or [f"it ended with wait status {status} and said nothing"]
        return json.loads(report), said

    def _close(self) -> None:
        os.close(self._report)
        os.close(self._errors)


def _with_place(said: list[str]) -> list[str]:
    """The last line of a traceback says what, the last of those above it that name a file say where."""
    places = [line.strip() for line in said[:-1] if line.startswith('  File "')]
    return [*said[:-1], f"{said[-1]} ({places[-1]})"] if places else said


def _all_of(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        return file.read().decode(errors="replace")


def objection(report: dict[str, Any], config: Config) -> str:
    """Why a version that works all the same cannot take over from this one; empty when it can."""
    if report["handover"] != handover.VERSION:
        return f"version {report['version']} takes over in another form than this one hands over: restart the bus"
    return restart_needed(report["fixed"], config)


def restart_needed(there: dict[str, str], config: Config) -> str:
    """Which settings that are fixed while the bus runs differ from those it runs with; empty when none does."""
    differ = [key for key, value in handover.fixed(config).items() if there.get(key, value) != value]
    return f"changed, but needs a restart: {', '.join(differ)}" if differ else ""
