"""A message through Apprise: DingTalk, WeCom, Feishu, Slack and a good hundred more. Floor 3.

Imported when a channel first needs it. Where it connects to is the service's own address, not one that `[http]` judges; its
schemes that post anywhere are refused by `check`.
"""

from __future__ import annotations

import logging

from pepperbus.alarms.message import Message
from pepperbus.config.model import Channel
from pepperbus.errors import PepperbusError

_KINDS = {"begin": "failure", "end": "success", "test": "info"}


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
