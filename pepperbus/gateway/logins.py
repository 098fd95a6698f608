"""Who may do what: passwords, logins and the slowing down of those who guess.

Knows the configuration's model only. A login is re-examined whenever the configuration changed: a new password or a
removed login ends it, a queue that merely went away does not (its pushes then say that it is gone).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from dataclasses import dataclass
from fnmatch import fnmatchcase

import gevent.lock

from pepperbus.accounts.passwords import matches
from pepperbus.config.model import Config
from pepperbus.config.secret import Secret
from pepperbus.config.values import HASH

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds before a failed login is answered; doubles with each failure
LONGEST_LOCAL_DELAY = 0.5  # loopback and unix sockets: a wrong password must not hold a web server's processes
TOO_MANY = 10  # failures of one address after which the answer says so
FORGET = 60.0  # seconds after which an address starts anew
_MAX_ADDRESSES = 10_000
_AT_ONCE = 2  # hashes that are checked at the same time: each takes a core and 32 MiB


@dataclass(frozen=True, slots=True)
class Login:
    """What a connection logged in as. `topic`: taking from exactly that topic; `patterns`: a login of `[logins]`."""

    name: str
    secret: Secret
    push: bool
    pop: bool
    patterns: tuple[str, ...]
    topic: str = ""

    def may_push(self, queue: str) -> bool:
        return self.push and self._covers(queue)

    def may_pop(self, queue: str, topic: str) -> bool:
        return self.pop and self._covers(queue) and self.topic in ("", topic)

    def _covers(self, queue: str) -> bool:
        return any(pattern == queue or fnmatchcase(queue, pattern) for pattern in self.patterns)


class Passwords:
    """Compares in constant time, whatever the length; keeps keyed digests, never a second copy of a password.

    A stored hash takes long to check, so what once matched it is remembered by its digest.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._digests: dict[Secret, bytes] = {}
        self._turns = gevent.lock.BoundedSemaphore(_AT_ONCE)

    def matches(self, stored: Secret, given: bytes) -> bool:
        """Whether `given` is the password; an empty stored one matches nothing, a hash only what it is known to match."""
        expected = self._digests.get(stored)
        if expected is None:
            expected = self._digest(stored.reveal().encode())
            if is_hash(stored):
                expected = expected[::-1]  # of nothing
            else:
                self._remember(stored, expected)
        return hmac.compare_digest(expected, self._digest(given)) and bool(stored)

    def check_hash(self, stored: Secret, given: bytes) -> bool:
        """The same for a stored hash (of any other secret: False), in a thread. Waits in the calling greenlet."""
        with self._turns:
            fits = matches(given.decode(errors="replace"), stored.reveal() if is_hash(stored) else "")
        if fits:
            self._remember(stored, self._digest(given))
        return fits

    def _remember(self, stored: Secret, digest: bytes) -> None:
        if len(self._digests) > 10_000:
            self._digests.clear()
        self._digests[stored] = digest

    def _digest(self, text: bytes) -> bytes:
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()


def is_hash(secret: Secret) -> bool:
    return secret.reveal().startswith(HASH)


def find_login(config: Config, name: str) -> Login | None:
    """The login that `name` can become: a queue, a `queue/topic`, or one of `[logins]`."""
    queue_name, slash, topic_name = name.partition("/")
    queue = config.queues.get(queue_name)
    if slash:
        topic = queue.topics.get(topic_name) if queue else None
        if queue is None or topic is None:
            return None
        return Login(name, topic.password or queue.password, False, True, (queue_name,), topic_name)
    if queue is not None:
        return Login(name, queue.password, True, False, (queue_name,))
    login = config.logins.get(name)
    if login is None:
        return None
    return Login(name, login.password, login.push, login.pop, login.queues)


def log_in(config: Config, passwords: Passwords, name: bytes, password: bytes) -> Login | None:
    """The login, or None: unknown name and wrong password take the same time and look the same.

    None as well for the right password of a hash that has not been checked yet: `log_in_slowly` is then to be asked.
    """
    login = find_login(config, name.decode(errors="replace"))
    matched = passwords.matches(login.secret if login else Secret("nobody"), password)
    return login if matched else None


def log_in_slowly(config: Config, passwords: Passwords, name: bytes, password: bytes) -> Login | None:
    """The same where hashes may be meant; waits. A name nobody has takes the time of a hash too."""
    login = find_login(config, name.decode(errors="replace"))
    matched = passwords.check_hash(login.secret if login else Secret(), password)
    return login if matched else None


def needs_time(config: Config) -> bool:
    """Whether any password is kept as a hash: then every refusal takes the time of looking at one."""
    secrets = [login.password for login in config.logins.values()]
    secrets += [queue.password for queue in config.queues.values()]
    secrets += [topic.password for queue in config.queues.values() for topic in queue.topics.values()]
    return any(is_hash(secret) for secret in secrets)


def still_valid(config: Config, login: Login) -> Login | None:
    """`login` as it is under a new configuration, None when it has ended."""
    now = find_login(config, login.name)
    if now is None:
        gone = login.name.partition("/")[0] not in config.queues and login.patterns[:1] == (
            login.name.partition("/")[0],
        )
        return login if gone else None
    return now if now.secret == login.secret else None


class Throttle:
    """How long failed logins of an address wait for their answer. Good logins never wait."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def failed(self, address: str, local: bool, now: float) -> tuple[float, int]:
        """Count one failure. Returns (seconds to wait, failures so far)."""
        count, last = self._failures.pop(address, (0, now))
        if now - last > FORGET:
            count = 0
        count += 1
        self._failures[address] = (count, now)
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        longest = LONGEST_LOCAL_DELAY if local else LONGEST_DELAY
        return min(FIRST_DELAY * 2.0 ** min(count - 1, 20), longest), count
