"""systemd's notify protocol: one datagram of KEY=value lines to $NOTIFY_SOCKET (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time

#: How long a supervisor that does not read may keep the master; then the message is dropped.
_PATIENCE_S = 0.1
#: What a supervisor tells us in the environment, and nobody else.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Silent when nobody listens. Takes the variables out of the environment, so that no child speaks for us."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = os.environ.pop("WATCHDOG_USEC", "")
        os.environ.pop("WATCHDOG_PID", None)
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(_PATIENCE_S)
            self._address = "\0" + address[1:] if address[0] == "@" else address
        #: The variables as they were, for the master that takes over this process.
        self.variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": watchdog_us}
        #: How often WATCHDOG=1 is due, in seconds (half of what systemd allows); 0.0 = not asked for.
        self.watchdog_every = int(watchdog_us) / 2e6 if self._socket and watchdog_us.isdigit() else 0.0

    def tell(self, *lines: str) -> None:
        if self._socket:
            try:
                self._socket.sendto("\n".join(lines).encode(), self._address)
            except OSError:  # a supervisor that went away, or does not read, is no reason to stop
                pass

    def ready(self, status: str) -> None:
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self.tell("STOPPING=1", "STATUS=draining")

    def watchdog(self) -> None:
        self.tell("WATCHDOG=1")
