"""What stands in a configuration's file, or why that is no text. Floor 1. Knows nothing of its syntax."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """A file's text, or in `trouble` why it has none."""

    text: str
    trouble: str = ""


def content(file: Path) -> Content:
    """What stands in the file. Never raises."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return Content("", f"the file is larger than {MAX_BYTES >> 20} MiB; this cannot be a configuration")
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        return Content("", f"byte 0x{byte:02x} in line {line} is not UTF-8; save the file as UTF-8")
    except OSError as error:
        return Content("", f"cannot be read: {error.strerror}")
    except ValueError as error:
        return Content("", f"cannot be read: {error}")
    if (nul := text.find("\0")) >= 0:
        return Content("", f"NUL byte in line {text.count(chr(10), 0, nul) + 1}; this is no text file")
    return Content(text)
