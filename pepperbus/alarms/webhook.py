"""A message as JSON by POST, signed if wanted, within `[http] allow` and `deny` like any consumer. Floor 3."""

from __future__ import annotations

from time import monotonic

import h11
import msgspec

from pepperbus import __version__
from pepperbus.alarms.message import Message
from pepperbus.config.alarm_settings import Channel
from pepperbus.config.model import Http
from pepperbus.delivery.contract import Transport
from pepperbus.delivery.http_answer import Failed
from pepperbus.delivery.http_connection import connect
from pepperbus.delivery.http_request import Url, rendered
from pepperbus.delivery.sign import Signer
from pepperbus.errors import PepperbusError

TIMEOUT_S = 10.0


def send(channel: Channel, message: Message, http: Http, now_ms: int) -> None:
    """Returns when the receiver answered 2xx. Raises PepperbusError; the text never holds the URL's path."""
    url = Url.parse(channel.url.reveal())
    body = msgspec.json.encode(message)
    headers = [
        ("Host", url.netloc),
        ("User-Agent", f"pepperbus/{__version__}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if url.authorization:
        headers.append(("Authorization", url.authorization))
    if channel.sign:
        headers += Signer(channel.sign.reveal()).headers(message.id, now_ms // 1000, body)
    else:
        headers.append(("webhook-id", message.id))
    end = monotonic() + TIMEOUT_S
    try:
        out = rendered(h11.Request(method="POST", target=url.target, headers=headers), body)
        connection = connect(url, end, http)
        try:
            answer = connection.exchange(out, end)
        finally:
            connection.close()
    except (Failed, h11.LocalProtocolError) as error:
        raise PepperbusError(str(error).replace(url.shown, url.netloc)) from None
    if answer.transport is not Transport.ANSWERED or not 200 <= answer.status < 300:
        raise PepperbusError(f"{url.netloc}: HTTP status {answer.status} where 2xx is wanted")
