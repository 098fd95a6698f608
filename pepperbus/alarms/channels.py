"""How a channel's messages are sent, and when again after a failure. Floor 3."""

from __future__ import annotations

from pepperbus.alarms import mail, service, webhook
from pepperbus.alarms.message import Message
from pepperbus.config.alarm_settings import Channel
from pepperbus.config.model import Http
from pepperbus.errors import PepperbusError

#: A message that nobody takes for so long is given up: by then it is old news, and the next ones wait behind it.
GIVE_UP_S = 6 * 3600.0
_FIRST_S, _MOST_S = 2.0, 300.0


def send(channel: Channel, message: Message, http: Http, now_ms: int) -> None:
    """Returns when it was taken. Raises PepperbusError with why not; never what the address or a password is."""
    try:
        match channel.type:
            case "webhook":
                webhook.send(channel, message, http, now_ms)
            case "mail":
                mail.send(channel, message)
            case _:
                service.send(channel, message)
    except PepperbusError:
        raise
    except Exception as error:  # a library's bug is a message not sent, not a ticker that dies
        raise PepperbusError(f"{type(error).__name__}: {error}") from error


def wait_s(tries: int) -> float:
    """Seconds until the next try after `tries` failed ones."""
    return float(min(_FIRST_S * 2 ** max(tries - 1, 0), _MOST_S))
