"""Secrets that stand elsewhere: `env:NAME` and `file:/path` in the place of a password.

Floor 1. Reads what is named and nothing else; what is read never appears in a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

#: Kinds of options whose value may be a reference.
KINDS = ("secret", "signing", "login", "storage_url", "private")
MOST_BYTES = 64 << 10
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def resolve(value: str | list[str], base: Path, environ: Mapping[str, str]) -> str | list[str]:
    """`value` with its reference (of a list: that of its first word) replaced. Raises ValueError."""
    if isinstance(value, list):
        return [_one(value[0], base, environ), *value[1:]] if value else value
    return _one(value, base, environ)


def is_reference(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("env:", "file:"))


def referred_file(value: str | list[str], base: Path) -> Path | None:
    """The file that `value` names, None when it names none."""
    text = value[0] if isinstance(value, list) and value else value
    if not isinstance(text, str) or not text.startswith("file:"):
        return None
    return Path(os.path.normpath(base / text.removeprefix("file:")))


def _one(text: str, base: Path, environ: Mapping[str, str]) -> str:
    if text.startswith("env:"):
        return _variable(text.removeprefix("env:"), environ)
    if (file := referred_file(text, base)) is not None:
        return _content(file)
    return text


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if not _NAME.match(name):
        raise ValueError("env: wants the name of an environment variable, such as env:ORDERS_PASSWORD")
    found = environ.get(name, "")
    if not found:
        raise ValueError(f"the environment variable {name} is not set (or empty) where this runs")
    return found


def _content(file: Path) -> str:
    """The file's text without the line break at its end."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{file} is not UTF-8 text") from None
    if not text:
        raise ValueError(f"{file} is empty")
    if len(data) > MOST_BYTES:
        raise ValueError(f"{file} is no file of a secret: it is too long")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"{file} holds more than one line; the secret alone is wanted")
    return text
