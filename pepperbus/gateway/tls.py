"""TLS without a socket: bytes from the wire in, plain bytes out, and the reverse. Used by `connection` as a filter.

The handshake runs in the same callbacks as everything else, so a client that stalls in it costs nothing but its place,
and the connection's first-command deadline ends it.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from pepperbus.errors import BootError


def load_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A server context, TLS 1.2 or newer. Raises BootError naming the files when they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise BootError(f"[gateway] cert {cert}, key {key}: {error.strerror or error}") from error
    return context


class TlsFilter:
    """One connection's TLS state."""

    __slots__ = ("_in", "_open", "_out", "_tls", "ended")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._open = False
        self.ended = False  # the other side said goodbye

    def receive(self, data: bytes) -> bytes:
        """The plain bytes that `data` completes. Raises ssl.SSLError (an OSError) for what is no TLS."""
        self._in.write(data)
        plain = bytearray()
        try:
            if not self._open:
                self._tls.do_handshake()
                self._open = True
            while not self.ended:
                piece = self._tls.read(1 << 16)
                plain += piece
                self.ended = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return bytes(plain)

    def outgoing(self) -> bytes:
        """Bytes the protocol itself wants to send (handshake, tickets)."""
        return self._out.read()

    def encrypt(self, data: bytes) -> bytes:
        if self._open:
            self._tls.write(data)
        return self._out.read()
