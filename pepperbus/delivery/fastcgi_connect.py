"""Opening a connection to a FastCGI server by hand: what to call, and what each refusal means.

gevent's own connect is not used: a unix socket whose backlog is full answers EAGAIN at once and never becomes
writable, on which it spins at full CPU. Here EAGAIN is a fact for the caller, who asks again a little later.
Knows sockets and errno, nothing of FastCGI.
"""

from __future__ import annotations

import _socket  # the plain class: non-blocking, without the two watchers of gevent's socket
import errno
import grp
import os
import pwd
import stat
from ipaddress import ip_address

from pepperbus.delivery.contract import Transport

_FLAGS = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_NOBODY = {errno.ENOENT, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
_LATER = {errno.EAGAIN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNRESET}


class Address:
    """`unix:/path` or `host:port`, as the configuration has it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = text.removeprefix("unix:") if text.startswith(("unix:", "/")) else ""
        host, _, port = text.rpartition(":")
        self.host = host.strip("[]")
        self.port = int(port) if not self.path else 0
        self.family = _socket.AF_UNIX if self.path else _family(self.host)

    @property
    def needs_lookup(self) -> bool:
        """Whether the host is a name, so that addresses must be asked for first."""
        return self.family == _socket.AF_UNSPEC

    def open(self, host: str = "") -> tuple[_socket.socket | None, int]:
        """A socket and an errno: 0 connected, EINPROGRESS under way, anything else refused (and no socket).

        `host` is the numeric address when the configured one is a name.
        """
        family = _family(host) if host else self.family
        try:
            sock = _socket.socket(family, _FLAGS)
        except OSError as error:
            return None, error.errno or errno.EMFILE
        if self.path:
            target: str | tuple[str, int] = self.path
        else:
            target = (host or self.host, self.port)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        try:
            refused = sock.connect_ex(target)
        except OSError:  # "AF_UNIX path too long" has no errno
            refused = errno.ENAMETOOLONG
        if refused in (0, errno.EINPROGRESS):
            return sock, refused
        sock.close()
        return None, refused

    def judge(self, refused: int) -> Transport:
        """What a refused connect says: nobody there, come again later, or never without a person's help."""
        if refused in _LATER:
            return Transport.BUSY
        if refused in _NOBODY and not self._is_no_socket():
            return Transport.NO_LISTENER
        return Transport.FORBIDDEN

    def explain(self, refused: int) -> str:
        """One line for people: the address, the reason and, where it helps, the mode of the socket."""
        reason = os.strerror(refused)
        if self.path and self.judge(refused) is Transport.FORBIDDEN:
            return f"{self.text}: {reason}; {_mode(self.path)}; we are {_user(os.geteuid())}{_cure(self.path)}"
        return f"{self.text}: {reason}"

    def _is_no_socket(self) -> bool:
        """Linux says ECONNREFUSED for a file or directory where the socket should be."""
        try:
            return bool(self.path) and not stat.S_ISSOCK(os.stat(self.path).st_mode)
        except OSError:
            return False


def _family(host: str) -> int:
    try:
        return _socket.AF_INET6 if ip_address(host).version == 6 else _socket.AF_INET
    except ValueError:
        return _socket.AF_UNSPEC


def _mode(path: str) -> str:
    try:
        facts = os.stat(path)
    except OSError as error:
        return f"cannot look at it: {error.strerror}"
    return f"it is {stat.filemode(facts.st_mode)} of {_user(facts.st_uid)} group {_group(facts.st_gid)}"


def _cure(path: str) -> str:
    """What a person may type where a group would open the socket."""
    try:
        facts = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISSOCK(facts.st_mode) or facts.st_gid in (os.getegid(), *os.getgroups()):
        return ""
    group = _group(facts.st_gid)
    if facts.st_mode & 0o020 and facts.st_gid:
        return f": usermod -aG {group} {_user(os.geteuid())}, then restart the bus"
    return ": in php-fpm's pool set listen.group to a group of the bus, and listen.mode = 0660"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"
