"""A message through Apprise: DingTalk, WeCom, Feishu, Slack and a good hundred more. Floor 3.

Apprise is imported when a channel needs it. Where it connects to is not judged by `[http]`: its addresses are the services'
own, or stand in the node's file; its schemes that post anywhere are refused by `check`.
"""

from __future__ import annotations

import logging

from pepperbus.alarms.message import Message
from pepperbus.config.alarm_settings import Alarms, Channel
from pepperbus.errors import PepperbusError

_KINDS = {"begin": "failure", "end": "success", "test": "info"}


def prepare(settings: Alarms) -> None:
    """Load Apprise and its plugins, if a channel needs them: half a second of work, best done before anything else waits."""
    for channel in settings.channels:
        if channel.type == "apprise":
            import apprise

            apprise.Apprise.instantiate(channel.url.reveal())


def send(channel: Channel, message: Message) -> None:
    """Returns when the service took it. Raises PepperbusError."""
    import apprise

    target = apprise.Apprise()
    if not target.add(channel.url.reveal()):
        raise PepperbusError("Apprise does not know this address; see its list of services for how one is written")
    with apprise.LogCapture(level=logging.WARNING) as log:
        taken = target.notify(title=message.title, body=message.text, notify_type=_KINDS[message.kind])
        why = log.getvalue().strip().splitlines() if not taken else []
    if not taken:
        raise PepperbusError(f"{target[0].service_name}: {why[-1][:300] if why else 'not taken'}")
