"""Signatures on what is sent to HTTP consumers, in the form of Standard Webhooks, so that its libraries can check them.

Floor 2. Pure. The signed text is `id.timestamp.body`; the receiver compares in constant time and refuses old timestamps.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error
from hashlib import sha256

from pepperbus.errors import ConfigError

_PREFIX = "whsec_"


class Signer:
    """Signs with one topic's secret. `whsec_…` holds the key in base64, anything else is the key itself.

    Raises ConfigError when the part after `whsec_` is not base64.
    """

    def __init__(self, secret: str) -> None:
        if secret.startswith(_PREFIX):
            try:
                self._key = b64decode(secret.removeprefix(_PREFIX), validate=True)
            except Error:
                raise ConfigError("sign: what follows whsec_ must be base64") from None
        else:
            self._key = secret.encode()

    def headers(self, message_id: str, timestamp_s: int, body: bytes) -> list[tuple[str, str]]:
        """The three headers. `message_id` is the same for every attempt of a job; the timestamp is the attempt's."""
        signed = f"{message_id}.{timestamp_s}.".encode() + body
        signature = b64encode(hmac.digest(self._key, signed, sha256)).decode()
        return [
            ("webhook-id", message_id),
            ("webhook-timestamp", str(timestamp_s)),
            ("webhook-signature", f"v1,{signature}"),
        ]
