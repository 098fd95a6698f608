"""Every error the bus raises on purpose: who erred, what the client may do, how the process exits.

Floor 0. Each class carries its facts as attributes, so nobody needs a ladder of `isinstance`:
`exit_status` is what a command ends with, `reply` is the word a RESP client sees in front of the text.
"""

from __future__ import annotations


class PepperbusError(Exception):
    """The root. Raising anything else across a package border is a bug."""

    exit_status = 1
    reply = "ERR"


class ConfigError(PepperbusError):
    """The configuration cannot be used; the text names file, line, key, what was found and what is allowed."""

    exit_status = 3

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class BootError(PepperbusError):
    """The process cannot start; one line says why and what would help."""

    exit_status = 3


class UsageError(PepperbusError):
    """A command was called with words it does not take."""

    exit_status = 2


class NotReachable(PepperbusError):
    """The bus (its control socket, its gateway) does not answer."""

    exit_status = 3


class NotFound(PepperbusError):
    """No queue, topic, storage or job of that name."""


class Forbidden(PepperbusError):
    """Whoever asked may not do this; the text names the role that may."""


class TooManyTries(PepperbusError):
    """Logins failed too often of late; `wait_s` says when the next one is looked at."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed logins; try again in {wait_s:.0f} s")
        self.wait_s = wait_s


class ProtocolError(PepperbusError):
    """The other side broke the wire protocol. Final for its connection: nothing is parsed after it."""


class StorageError(PepperbusError):
    """A storage operation did not do what was asked. See the two children for what is known about it."""


class StorageUnavailable(StorageError):
    """Definite: nothing of this operation was stored or changed, and nothing of it will be."""

    reply = "TRYAGAIN"


class StorageUnknown(StorageError):
    """No answer in time: the operation may or may not have happened. Repeating it with the same ids is safe."""

    reply = "UNKNOWN"


class StorageRefused(BootError):
    """The storage is not set up as the configuration demands; the text holds the setting to change."""
