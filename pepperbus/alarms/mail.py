"""A message by SMTP. Floor 3. Blocks the greenlet; under gevent nothing else."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate

from pepperbus.alarms.message import Message
from pepperbus.config.alarm_settings import Channel
from pepperbus.errors import PepperbusError

TIMEOUT_S = 20.0


def send(channel: Channel, message: Message) -> None:
    """Returns when the server took it for every address. Raises PepperbusError."""
    host, _, port = channel.server.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context()
        if channel.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port), timeout=TIMEOUT_S, context=context)
        else:
            server = smtplib.SMTP(host, int(port), timeout=TIMEOUT_S)
        with server:
            if channel.security == "starttls":
                server.starttls(context=context)
            if channel.user:
                server.login(channel.user, channel.password.reveal())
            refused = server.send_message(letter(channel, message))
    except (OSError, smtplib.SMTPException) as error:
        raise PepperbusError(f"{channel.server}: {_words(error)}") from None
    if refused:
        raise PepperbusError(f"{channel.server}: refused for {', '.join(refused)}")


def letter(channel: Channel, message: Message) -> EmailMessage:
    """The mail itself. The same message has the same Message-ID, so a mailbox shows a second try once."""
    made = EmailMessage()
    made["Subject"] = " ".join(message.title.split())
    made["From"] = channel.sender
    made["To"] = ", ".join(channel.to)
    made["Date"] = formatdate(message.at_ms / 1000)
    made["Message-ID"] = f"<{message.id}@{channel.sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(message.text)
    return made


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {text}"
    return str(error) or type(error).__name__
