"""Where a worker process begins after the fork. Floor 4."""

from __future__ import annotations

import sys

from pepperbus.child import Child
from pepperbus.worker.app import boot

#: How long the hub and the thread of an embedded storage keep the interpreter from each other, seconds. With Python's
#: 5 ms every send of a job may wait that long.
SWITCH = 0.0002


def main(child: Child) -> None:
    """Serve until told to leave; returns when every outcome is stored."""
    sys.setswitchinterval(SWITCH)
    boot(child).run()
