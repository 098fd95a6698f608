"""What the configuration says of alarms: when one begins and ends, who is told. Floor 1, frozen as `model`."""

from __future__ import annotations

from dataclasses import dataclass

from pepperbus.config.secret import Secret


@dataclass(frozen=True)
class Limit:
    """When an alarm begins and when it is over: the measure holds beyond a threshold for so many seconds."""

    begin: float = 1.0
    begin_for: float = 0.0
    end: float = 1.0
    end_for: float = 0.0
    off: bool = False


Limits = tuple[tuple[str, Limit], ...]  # rule -> its limit


@dataclass(frozen=True)
class Channel:
    """Who is told of alarms, and how."""

    name: str
    type: str = "webhook"  # webhook | mail | apprise
    url: Secret = Secret()
    sign: Secret = Secret()
    server: str = ""
    security: str = "starttls"  # starttls | tls | none
    user: str = ""
    password: Secret = Secret()
    sender: str = ""
    to: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()  # () = everything
    rules: tuple[str, ...] = ()  # () = all
    language: str = "en"


@dataclass(frozen=True)
class Alarms:
    """`rules`: every rule's limit; `systems`: what is different for a system's queues."""

    language: str = "en"
    dashboard: str = ""
    every: float = 10.0
    gather: float = 15.0
    window: float = 300.0
    least: int = 10
    keep: float = 90 * 86400.0
    channels: tuple[Channel, ...] = ()
    rules: Limits = ()
    systems: tuple[tuple[str, Limits], ...] = ()
