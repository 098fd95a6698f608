"""Where a worker process begins after the fork. Floor 4."""

from __future__ import annotations

from pepperbus.child import Child
from pepperbus.worker.app import boot


def main(child: Child) -> None:
    """Serve until told to leave; returns when every outcome is stored."""
    boot(child).run()
