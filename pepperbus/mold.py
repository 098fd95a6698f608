"""The mold: patched by gevent first, everything imported once, frozen; it runs no hub and forks the others on request.

Why a mold: a patched master misses SIGCHLD; modules imported before patching break in the children; importing in each
child costs 7 to 9 MB and 0.5 s. Each birth is a double fork: the grandchild's parent becomes the master (which is a
child subreaper), so the master reaps it itself and the mold never has to. It ends when its master's line ends.

The master only executes this module and never imports it.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402
import faulthandler
import gc
import importlib
import os
import random
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from setproctitle import setproctitle

from pepperbus import failpoints, log
from pepperbus.child import Child, Line
from pepperbus.config.model import Config
from pepperbus.errors import BootError, ConfigError
from pepperbus.family.beats import Beats
from pepperbus.family.channel import Inbox, Outbox, pack_up, unpack_down
from pepperbus.family.spec import EXIT_BOOT, Spec
from pepperbus.names import owner_name

_fork: Callable[[], int] = monkey.get_original("os", "fork")  # gevent's own would make a hub to watch the child with
_waitpid: Callable[[int, int], tuple[int, int]] = monkey.get_original("os", "waitpid")
_select: Callable[..., Any] = monkey.get_original("select", "select")
_plain_socket: type[socket.socket] = monkey.get_original("socket", "socket")
#: Whom the kernel should end first when memory is short: never the master, rather a worker than a gateway.
_OOM = {"worker": 200, "web": 300, "ticker": 100}


class Mold:
    """What every child of this master inherits, and the one way to make one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inbox = Inbox()
        self._roles: dict[str, str] = {}  # those not imported yet
        self._mains: dict[str, Callable[[Child], None]] = {}
        self._listeners: dict[str, dict[str, int]] = {}
        self._wakes: dict[str, int] = {}
        self._config: Config | None = None
        self._beats: Beats | None = None
        self._failpoints = ""

    def serve(self) -> None:
        """Obey the master until its line ends. While it says nothing, import what it will ask for."""
        while True:
            if self._roles and not _select([self._sock], [], [], 0)[0]:
                self._import_role(next(iter(self._roles)))
                continue
            if not self._inbox.read(self._sock):
                return
            for body in self._inbox.bodies():
                self._obey(unpack_down(body))

    def _obey(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "roles":
                self._roles = message["roles"]
            case "hello":
                self._prepare(message)
            case "listeners":
                fds = self._inbox.take_fds(len(message["addresses"]))
                self._listeners.setdefault(message["role"], {}).update(zip(message["addresses"], fds, strict=True))
            case "wakes":
                fds = self._inbox.take_fds(len(message["groups"]))
                self._wakes.update(zip(message["groups"], fds, strict=True))
            case "config":
                self._config = message["config"]
                gc.collect()
                gc.freeze()
            case "spawn":
                self._spawn(message["spec"], self._inbox.take_fds(1)[0])

    def _prepare(self, message: dict[str, Any]) -> None:
        fd, _ = self._inbox.take_fds(2)  # the other is the lock: it is held by being open
        self._beats = Beats(fd)
        self._failpoints = message["failpoints"]
        for name in message["preload"]:
            self._import(name)

    def _import_role(self, role: str) -> None:
        """Each when it is needed, or when there is nothing else to do: a gateway need not wait for the pages."""
        self._mains[role] = self._import(self._roles.pop(role))
        gc.freeze()
        if not self._roles:
            self._tell({"op": "mold_ready"})

    def _import(self, path: str) -> Any:
        """`module` or `module:function`."""
        name, _, function = path.partition(":")
        try:
            module = importlib.import_module(name)
            return getattr(module, function) if function else module
        except Exception as error:
            traceback.print_exc()
            self._tell({"op": "mold_failed", "reason": f"{type(error).__name__}: {error}"})
            sys.exit(EXIT_BOOT)

    def _tell(self, message: dict[str, Any]) -> None:
        box = Outbox()
        box.put(pack_up(message))
        box.flush(self._sock)

    def _spawn(self, spec: Spec, line_fd: int) -> None:
        if spec.role in self._roles:
            self._import_role(spec.role)
        try:
            middle = _fork()
        except OSError as error:
            self._tell({"op": "fork_failed", "boot": spec.boot, "reason": error.strerror})
            os.close(line_fd)
            return
        if middle:
            os.close(line_fd)
            _, status = _waitpid(middle, 0)
            if status:
                self._tell({"op": "fork_failed", "boot": spec.boot, "reason": "out of processes or memory"})
            return
        try:
            pid = _fork()
        except OSError:
            os._exit(1)
        if pid:
            os._exit(0)
        self._be(spec, line_fd)

    def _be(self, spec: Spec, line_fd: int) -> NoReturn:
        """From here on this is the child."""
        status = 1
        try:
            status = self._live(spec, line_fd)
        finally:
            sys.stdout.flush()
            os._exit(status)  # the mold's own stack must not unwind here

    def _live(self, spec: Spec, line_fd: int) -> int:
        assert self._config is not None
        assert self._beats is not None
        self._sock.close()
        self._inbox.drop_fds()
        gc.enable()
        random.seed()
        _reset_signals()
        setproctitle(f"pepperbus: {spec.name} starting")
        if spec.role in _OOM:
            _prefer_for_oom(_OOM[spec.role])
        config = self._config
        line = Line(socket.socket(fileno=line_fd), self._beats, spec.beat)
        line.tell({"op": "born", "pid": os.getpid()})
        child = Child(
            spec.role,
            spec.name,
            spec.index,
            spec.group,
            spec.boot,
            spec.bus_boot,
            owner_name(config.bus.node, spec.name, spec.boot),
            config,
            log.Log(spec.name, config.log.file, config.log.level, config.log.format, config.log.errors),
            self._own_listeners(spec.role),
            self._own_wakes(spec),
            line=line,
        )
        if self._failpoints:
            failpoints.arm(self._failpoints, spec.role, config.bus.run_dir)
        return _run(self._mains[spec.role], child, line)

    def _own_listeners(self, role: str) -> dict[str, socket.socket]:
        """The role's sockets; those of the others are closed, or they would stay open when their owners stop."""
        for other, fds in self._listeners.items():
            if other != role:
                for fd in fds.values():
                    os.close(fd)
        return {address: socket.socket(fileno=fd) for address, fd in self._listeners.get(role, {}).items()}

    def _own_wakes(self, spec: Spec) -> dict[str, int]:
        if spec.role != "worker":
            return dict(self._wakes)
        for group, fd in self._wakes.items():
            if group != spec.group:
                os.close(fd)
        return {spec.group: self._wakes[spec.group]}


def _run(main: Callable[[Child], None], child: Child, line: Line) -> int:
    """The role's main, and what its end means: 0 left, 3 could not boot, 1 a bug."""
    try:
        main(child)
        return 0
    except (BootError, ConfigError) as error:
        return _failed(child, line, str(error), definite=True)
    except BaseException as error:
        traceback.print_exc()
        return _failed(child, line, f"{type(error).__name__}: {error}", definite=False)


def _failed(child: Child, line: Line, reason: str, definite: bool) -> int:
    is_boot = definite or not child.started
    child.log.error("boot_failed" if is_boot else "crashed", reason)
    line.tell({"op": "failed", "reason": reason, "definite": definite})
    return EXIT_BOOT if is_boot else 1


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # The terminal's and the operator's words to the bus are for the master alone.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold payloads and secrets
    faulthandler.enable()  # the master's SIGABRT prints where a stuck process hangs, then ends it


def _prefer_for_oom(score: int) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError:
        pass


def main(fd: int) -> None:
    """Serve the master at the other end of `fd`."""
    setproctitle("pepperbus: mold")
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()
    Mold(_plain_socket(fileno=fd)).serve()
