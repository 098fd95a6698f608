"""Signals into the loop: each arrives as one byte on a socket, in the order the kernel delivered them.

Handlers do nothing, so nothing can happen in the middle of anything.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

HEARD = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)


def hear() -> socket.socket:
    """Start hearing; the returned socket gets the signals' numbers as bytes."""
    ours, python = socket.socketpair()
    ours.setblocking(False)
    python.setblocking(False)
    signal.set_wakeup_fd(python.detach(), warn_on_full_buffer=False)
    for number in HEARD:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    return ours


@contextmanager
def held_back() -> Iterator[None]:
    """What arrives waits in the kernel, also over an exec, until somebody hears again: handlers do not survive an exec,
    and without one most of these would end the process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def take(sock: socket.socket) -> list[signal.Signals]:
    """The signals since the last call."""
    try:
        return [signal.Signals(number) for number in sock.recv(4096)]
    except BlockingIOError:
        return []
