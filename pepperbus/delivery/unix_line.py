"""How many connects wait in the line of a listening unix socket on this machine: what php-fpm's status page does not say.

Floor 3. php-fpm knows the line of TCP sockets only; of a unix socket it says 0, however full it is. The kernel knows
(linux/unix_diag.h, as `ss -xl` asks it) for sockets of this network namespace.
"""

from __future__ import annotations

import _socket  # gevent's own would wait in the hub, and the kernel answers at once
import struct
from collections.abc import Iterator

_SOCK_DIAG, _BY_FAMILY = 4, 20  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
_DUMP, _DONE, _ERROR = 0x301, 3, 2  # NLM_F_REQUEST | NLM_F_DUMP; NLMSG_DONE, NLMSG_ERROR
_LISTENING = 1 << 10  # TCP_LISTEN, which unix sockets use too
_NAME, _RQLEN = 0, 4  # UNIX_DIAG_NAME, UNIX_DIAG_RQLEN
_SHOW = 1 << 0 | 1 << 4  # UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN
_HEAD = struct.Struct("=IHHII")  # nlmsghdr
_ASKED = struct.Struct("=BBHIIIII")  # unix_diag_req
_ANSWERED = 16  # bytes of unix_diag_msg
_MOST = 1 << 16


def waiting(path: str) -> int | None:
    """Connects that nobody has accepted yet; None when the kernel does not tell, or has no such socket here."""
    try:
        lines = dict(_listening())
    except OSError:
        return None
    return lines.get(path.encode())


def _listening() -> Iterator[tuple[bytes, int]]:
    """(path, length of its line) of every listening unix socket. Raises OSError."""
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _SOCK_DIAG)
    try:
        sock.settimeout(1.0)
        asked = _ASKED.pack(_socket.AF_UNIX, 0, 0, _LISTENING, 0, _SHOW, 0, 0)
        sock.sendto(_HEAD.pack(_HEAD.size + len(asked), _BY_FAMILY, _DUMP, 1, 0) + asked, (0, 0))
        while True:
            data = memoryview(sock.recv(_MOST))
            while len(data) >= _HEAD.size:
                length, kind, _, _, _ = _HEAD.unpack_from(data)
                if kind in (_DONE, _ERROR) or length < _HEAD.size:
                    return
                found = dict(_attributes(data[_HEAD.size + _ANSWERED : length]))
                if _NAME in found and len(found.get(_RQLEN, b"")) >= 4:
                    yield found[_NAME].rstrip(b"\0"), struct.unpack_from("=I", found[_RQLEN])[0]
                data = data[_padded(length) :]
    finally:
        sock.close()


def _attributes(data: memoryview) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, bytes(data[4:length])
        data = data[_padded(length) :]


def _padded(length: int) -> int:
    return length + 3 & ~3
