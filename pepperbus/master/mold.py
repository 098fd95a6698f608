"""The master's side of the mold: start it, tell it what children inherit, have it fork one.

The mold itself is `pepperbus.mold`: a fresh interpreter, because the master must never import what it imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pepperbus
from pepperbus.config.model import Config
from pepperbus.family.beats import Beats
from pepperbus.family.spec import Spec
from pepperbus.master.lines import new_line
from pepperbus.master.notify import VARIABLES

ROOT = str(Path(pepperbus.__file__).parent.parent)
# -P: the directory it is started in must not be able to slip modules in.
_CODE = "import sys; sys.path.append(sys.argv[1]); from pepperbus.mold import main; main(int(sys.argv[2]))"

#: Role -> "module:function", called with a `Child`.
ROLES = {
    "gateway": "pepperbus.gateway.main:main",
    "worker": "pepperbus.worker.main:main",
    "ticker": "pepperbus.ticker.main:main",
    "web": "pepperbus.web.main:main",
}


class Mold:
    """One mold process. It imports what `roles` name at once; it can fork when it has met its master."""

    def __init__(self, roles: Mapping[str, str]) -> None:
        self.line, theirs = new_line("mold")
        fd = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, ROOT, str(fd)],
            pass_fds=(fd,),
            process_group=0,  # Ctrl-C at the terminal is for the master alone
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in VARIABLES},
        )
        theirs.close()
        self.line.tell({"op": "roles", "roles": dict(roles)})

    def meet(self, preload: list[str], beats: Beats, lock_fd: int, failpoints: str = "") -> None:
        """`preload` is imported before the first fork; every process gets `lock_fd` and obeys the `failpoints`."""
        self.line.tell({"op": "hello", "preload": preload, "failpoints": failpoints}, [beats.fd, lock_fd])

    @property
    def pid(self) -> int:
        return self._process.pid

    def listen(self, role: str, fds: dict[str, int]) -> None:
        self.line.tell_many("listeners", "addresses", fds, role=role)

    def take_wakes(self, fds: dict[str, int]) -> None:
        self.line.tell_many("wakes", "groups", fds)

    def take_config(self, config: Config) -> None:
        self.line.tell({"op": "config", "config": config})

    def spawn(self, spec: Spec, line_fd: int) -> None:
        """Have a child forked; it says `born` with its pid on its own line, whose end is passed here."""
        self.line.tell({"op": "spawn", "spec": spec}, [line_fd])

    def end(self) -> None:
        """Without delay, for a master that serves no more. It holds nothing: its children are the master's."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.line.close()

    def ended(self, status: int) -> None:
        """The loop reaped it: Popen must not wait for that pid again, it may be somebody else's by now."""
        self._process.returncode = status
        self.line.close()


def preload(config: Config, roles: dict[str, str]) -> list[str]:
    """What the mold imports besides the roles: the engines this configuration uses, so that children share them."""
    if roles != ROLES:
        return []
    engines = {storage.type for storage in config.storages.values()}
    ways = {topic.run for queue in config.queues.values() for topic in queue.topics.values() if not topic.pulled}
    return sorted([f"pepperbus.storage.{name}" for name in engines] + [f"pepperbus.delivery.{name}" for name in ways])
