"""What php-fpm and PHP say about a call: on stderr, and in a shared pool in the body.

Floor 2. Pure: bytes in, one line for people out, or None. It must not know what follows from it: that is `verdict`.
The words are php-fpm's own, measured on 8.2; PHP 7 says the same with fewer prefixes.
"""

from __future__ import annotations

import re
from itertools import islice

_REASON = 300  # characters of a reason

# A script may print anything, and whoever looks here holds up its whole worker: every repeat has a bound, and none is
# followed by another that could take the same bytes.
_SCRIPT = re.compile(
    rb"(?:Primary script unknown|Access to the script '[^\n]{0,4096}' has been denied|Unable to open primary script)[^\n]*"
)
_POST_SIZE = re.compile(rb"POST Content-Length of (\d{1,20}) bytes exceeds the limit of (\d{1,20}) bytes")
_SHOWN_POST_SIZE = re.compile(_POST_SIZE.pattern + rb" in (?:<b>)?Unknown(?:</b>)? on line (?:<b>)?0")
_FATAL = re.compile(rb"PHP ((?:Fatal|Parse|Recoverable fatal) error): *(.{0,4000})", re.DOTALL)
_SHOWN_FATAL = re.compile(rb"(?:^|\n|>)(?:PHP )?(?:<b>)?((?:Fatal|Parse|Recoverable fatal) error)(?:</b>)?: ")
_ON_LINE = re.compile(rb" on line (?:<b>)?\d{1,20}")
_LONGEST, _MOST_SHOWN = 4000, 100  # bytes of a message; beginnings of one that are looked at
_PLACE = re.compile(r"(.*?) in ([^\n]*?)(?::(\d+)(?=\n|$)| on line (\d+))", re.DOTALL)
_TAGS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


def script_refused(stderr: bytes) -> str | None:
    """php-fpm's words for a path it does not serve: nothing ran."""
    found = _SCRIPT.search(stderr) if stderr else None
    return one_line(text(found.group())) if found else None


def post_refused(stderr: bytes, body: bytes = b"") -> tuple[int, int] | None:
    """(bytes sent, bytes allowed) when the form went over post_max_size. `body`: where it may be displayed instead."""
    found = _POST_SIZE.search(stderr) or (body and _SHOWN_POST_SIZE.search(body)) or None
    return (int(found.group(1)), int(found.group(2))) if found else None


def fatal(stderr: bytes) -> str | None:
    """The first fatal or parse error on stderr as `PHP Fatal error: message in FILE:LINE`."""
    found = _FATAL.search(stderr) if stderr else None
    if found is None:
        return None
    return _placed(found.group(1).decode(), text(found.group(2)).split("PHP message:")[0])


def shown_fatal(body: bytes) -> str | None:
    """The same, displayed in the body as HTML or plain text (display_errors = 1)."""
    if b" error" not in body:
        return None
    for found in islice(_SHOWN_FATAL.finditer(body), _MOST_SHOWN):
        message = body[found.end() : found.end() + _LONGEST].lstrip(b" ")
        if (end := _ON_LINE.search(message)) is not None:
            return _placed(found.group(1).decode(), _TAGS.sub("", text(message[: end.end()])))
    return None


def _placed(kind: str, message: str) -> str:
    place = _PLACE.match(message)
    if place is None:
        return one_line(f"PHP {kind}: {message.splitlines()[0] if message else ''}")
    where = one_line(f"in {place.group(2)}:{place.group(3) or place.group(4)}")
    return one_line(f"PHP {kind}: {place.group(1)}") + " " + where


def one_line(message: str, limit: int = _REASON) -> str:
    """For people: blanks run together, control characters spelled out, cut at `limit` characters."""
    line = " ".join(message[: limit * 8].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def text(data: bytes) -> str:
    """The start of `data` as text."""
    return data[:65536].decode("utf-8", "replace")
