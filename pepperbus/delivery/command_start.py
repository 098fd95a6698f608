"""`run = command`: how one process of a topic is started: words, environment, user, descriptors, and who ends it if we die.

Floor 3. Knows nothing of jobs. No shell is involved, and of the bus' own environment only what every program needs is
passed on: it may hold secrets.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from gevent.subprocess import STDOUT, Popen

from pepperbus.config.model import Config, Topic
from pepperbus.delivery import command_marks

#: Where the verdicts of `feed = stdin` come from: standard output is PHP's for warnings.
VERDICTS = 3
_PASSED_ON = ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UMASK = 0o022  # as cron and supervisord give; the bus' own, 027, would hide what a program writes for others
_PR_SET_PDEATHSIG = 1
#: The bus ignores these or handles them; a program expects them as they are by default.
_SIGNALS = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
_libc = ctypes.CDLL(None, use_errno=True)


class Command:
    """The command of one topic. `shown` is for people: without what `feed = pull` adds, the password is in that."""

    def __init__(self, topic: Topic, config: Config) -> None:
        self.shown = " ".join(topic.command)
        self._words = [*topic.command, *(_pull_words(topic, config) if topic.feed == "pull" else ())]
        self._directory = topic.directory
        self._run_dir = config.bus.run_dir
        self._user = topic.user
        self._account = _account(topic.user)
        self._environment = {**_passed_on(self._account), **dict(topic.environment)}
        self._environment |= {"PEPPERBUS_QUEUE": topic.queue, "PEPPERBUS_TOPIC": topic.name}

    def trouble(self) -> str:
        """Why it cannot be started now, as far as can be seen from here; "" when it seems fine."""
        if self._account is None:
            return f"there is no user {self._user} on this machine"
        if os.geteuid() not in (0, self._account.pw_uid):
            return f"only root may run it as {self._user}; this bus does not run as root"
        if not os.path.isdir(self._directory):
            return f"there is no directory {self._directory}"
        program = self._words[0]
        places = [self._directory] if "/" in program else self._environment["PATH"].split(os.pathsep)
        if not any(os.access(os.path.join(place, program), os.X_OK) for place in places):
            return f"there is no program {program} that may be run (looked in {', '.join(places)})"
        return ""

    def start(self, stdin: int, output: int, verdicts: int = -1, more: Mapping[str, str] | None = None) -> Any:
        """A gevent Popen. `stdin`, `output` and `verdicts` are descriptors of ours that the process gets copies of.

        It leads a session of its own, and ends with this process whatever becomes of that. Raises OSError.
        """
        marks = command_marks.of_this_process(self._run_dir)
        environment = {**self._environment, **(more or {}), command_marks.VARIABLE: marks.token}
        process = Popen(
            self._words,
            stdin=stdin,
            stdout=output,
            stderr=STDOUT,
            cwd=self._directory,
            env=environment,
            pass_fds=(VERDICTS,) if verdicts >= 0 else (),
            preexec_fn=_prepare(verdicts),
            start_new_session=True,
            umask=_UMASK,
            **self._other_user(),
        )
        try:
            marks.add(process.pid)
        except OSError:  # a full disk: what nobody could end after us must not begin
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return process

    def forget(self, pid: int) -> None:
        """Nothing of that process' group is left."""
        command_marks.of_this_process(self._run_dir).remove(pid)

    def _other_user(self) -> dict[str, Any]:
        account = self._account
        if account is None or account.pw_uid == os.geteuid():
            return {}
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def _prepare(verdicts: int) -> Callable[[], None]:
    """What the new process does between fork and exec. Nothing that takes a lock: threads may have held it."""
    parent = os.getpid()

    def prepare() -> None:
        if verdicts == VERDICTS:
            os.set_inheritable(VERDICTS, True)
        elif verdicts >= 0:
            os.dup2(verdicts, VERDICTS)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that was said
            os._exit(1)

    return prepare


def _pull_words(topic: Topic, config: Config) -> list[str]:
    """What the Go system's workers were called with; the PHP SDK of that time reads it with getopt."""
    host, port = _gateway(config)
    password = topic.password or config.queues[topic.queue].password
    words = ["-q", topic.full_name, "-h", host, "-p", port, "-a", password.reveal()]
    words += ["-t", str(topic.max_task)] if topic.max_task else []
    return words + (["-H", topic.entry] if topic.entry else [])


def _gateway(config: Config) -> tuple[str, str]:
    """Host and port of the front door, TCP if it has one; a unix socket is its path and port 0, as phpredis wants it."""
    tcp = [one for one in config.gateway.listen if not one.startswith("unix:")]
    if not tcp:
        return config.gateway.listen[0].removeprefix("unix:"), "0"
    host, _, port = tcp[0].rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    return (f"tls://{host}" if config.gateway.cert else host), port


def _account(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def _passed_on(account: pwd.struct_passwd | None) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    found.setdefault("PATH", _PATH)
    if account is not None:
        found |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        found["SHELL"] = account.pw_shell or "/bin/sh"
    return found
