"""One configuration file as text: ConfigObj's tree of values, where each stands, and the traps of the syntax.

Floor 1. Knows the syntax, not the options. ConfigObj cuts an unquoted value at a `#`, tolerates much around quotes and
tells no line for a value; so each line is looked at here first, and a line that ConfigObj would misread never
reaches it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError, DuplicateError, NestingError

from pepperbus.config.content import Content, content

MAX_SECTION, MAX_BRACKETS = (
    200,
    16,
)  # of a [section] line: its syntax takes more than linear time, here and in ConfigObj
QUOTE_HINT = "put the whole value in quotes"
_SECTION = re.compile(r"\s*((?:\[\s*)+)(.*?)((?:\s*\])+)\s*(?:#.*)?\Z")
_KEY = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|[^'\"=\s][^=]*?)\s*=\s*(.*?)\s*\Z")
_SECRETS = ("password", "sign")
_SECRET_SECTIONS = ("logins", "headers", "params")

KeyPath = tuple[str, ...]


class Document:
    """A file that was read. `tree` holds text, lists of text and dicts; `mistakes` fills while it is looked at.

    `broken`: some line could not be read, so something that seems to be missing may only be misspelled.
    `refers`: a value came from elsewhere, so it may be another one although the text is the same.
    """

    def __init__(self, file: Path, text: str, environ: Mapping[str, str] = os.environ) -> None:
        self.file = file
        self.environ = environ
        self.secret_files: list[Path] = []  # files that hold a secret for this one
        self._mistakes: list[tuple[int, str]] = []
        self._repeated: list[KeyPath] = []
        self.broken = self.refers = False
        self.lines: dict[KeyPath, int] = {}
        self.tree: dict[str, Any] = {}
        self._parse(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"))

    def mistake(self, path: KeyPath, message: str, known: bool = True) -> None:
        """Note that what stands (or is missing) at `path` is wrong: `file:line: [a] [[b]] key = value: message`.

        A key that is not `known` may be any word for a password: its value is not shown.
        """
        value = self.value(path)
        if path and not known:
            words = [_brackets(path[:-1]), path[-1]]
        elif path and value is not None and not isinstance(value, dict):
            words = [_brackets(path[:-1]), f"{path[-1]} = {_shown(path, value)}"]
        else:
            words = [_brackets(path if value is not None else path[:-1])]
        self._note(self._line(path), " ".join(words).strip(), message)

    @property
    def mistakes(self) -> list[str]:
        """One line each, in the order of the file."""
        return [text for _, text in sorted(self._mistakes, key=lambda mistake: mistake[0])]

    def unreadable(self, trouble: str) -> None:
        """Note that the file as a whole is no configuration."""
        self.broken = True
        self._mistakes.append((0, f"{self.file}: {trouble}"))

    def value(self, path: KeyPath) -> Any:
        """The text, list or dict at `path`; None when there is none."""
        found: Any = self.tree
        for name in path:
            if not isinstance(found, dict) or name not in found:
                return None
            found = found[name]
        return found

    def _line(self, path: KeyPath) -> int:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def _note(self, line: int, what: str, message: str) -> None:
        self._mistakes.append((line, _printable(f"{self.file}:{line}: {what + ': ' if what else ''}{message}")))

    def _syntax(self, number: int, what: str, message: str) -> None:
        self.broken = True
        self._note(number, what, message)

    def _parse(self, lines: list[str]) -> None:
        good = self._scan(lines)
        try:
            parsed = ConfigObj(good, list_values=True, interpolation=False, raise_errors=False, file_error=True)
        except ConfigObjError as error:
            parsed = error.config
            for mistake in getattr(error, "errors", None) or [error]:
                self._syntax(mistake.line_number or 1, _line_shown(mistake.line or ""), _in_words(mistake))
        self.tree = parsed.dict()
        for path in self._repeated:
            around = self.value(path[:-1])
            if isinstance(around, dict):
                around.pop(path[-1], None)

    def _scan(self, lines: list[str]) -> list[str]:
        """Fill `lines`, note what the syntax would hide, and return the lines ConfigObj may read."""
        good, until = list(lines), ""
        path: KeyPath = ()
        for number, line in enumerate(lines, 1):
            if until:
                until = "" if until in line else until
                continue
            start = line.lstrip()[:1]
            if start in ("", "#"):
                continue
            if start == "[" and (len(line) > MAX_SECTION or line.count("[") > MAX_BRACKETS):
                self._syntax(
                    number, "", f"a [section] has {MAX_SECTION} characters and {MAX_BRACKETS} brackets at most"
                )
                good[number - 1] = ""
            elif start == "[" and (section := _SECTION.match(line)):
                path = self._enter(path, section, number, good)
            elif (pair := _KEY.match(line)) and not pair[2].startswith(('"""', "'''")):
                self._pair((*path, _bare(pair[1])), pair[2], number, good)
            elif pair:
                self.lines.setdefault((*path, _bare(pair[1])), number)
                until = "" if pair[2][:3] in pair[2][3:] else pair[2][:3]
        return good

    def _enter(self, path: KeyPath, section: re.Match[str], number: int, good: list[str]) -> KeyPath:
        depth, name = section[1].count("["), _bare(section[2])
        path = (*path[: depth - 1], name)
        if path in self.lines and depth == section[3].count("]"):
            self._syntax(
                number, _brackets(path), f"this section stands already in line {self.lines[path]}; make it one"
            )
            path = (*path[:-1], f"{name} in line {number}")
            good[number - 1] = f"{'[' * depth}{path[-1]}{']' * depth}"
            self._repeated.append(path)
        self.lines[path] = number
        return path

    def _pair(self, path: KeyPath, value: str, number: int, good: list[str]) -> None:
        trap, again = _trap(value), path in self.lines
        if again:
            trap = f"this key stands already in line {self.lines[path]}; keep one of them"
        if trap:
            # What stands there again may be any word for a password.
            what = path[-1] if again else f"{path[-1]} = {_shown(path, value)}"
            self._syntax(number, f"{_brackets(path[:-1])} {what}".strip(), trap)
            good[number - 1] = ""
        self.lines.setdefault(path, number)


def read(file: Path, environ: Mapping[str, str] = os.environ, found: Content | None = None) -> Document:
    """The file as a document; one that cannot be read has one mistake and an empty tree. `found`: what was read of it."""
    found = found or content(file)
    document = Document(file, found.text, environ)
    if found.trouble:
        document.unreadable(found.trouble)
    return document


def _bare(name: str) -> str:
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name


def _brackets(path: KeyPath) -> str:
    return " ".join(f"{'[' * depth}{name}{']' * depth}" for depth, name in enumerate(path, 1))


def _trap(value: str) -> str:
    """What ConfigObj would silently misread in the text after `=`; "" when there is nothing."""
    at, end = 0, len(value)
    while at < end:
        at += len(value[at:]) - len(value[at:].lstrip())
        if value[at : at + 1] in ('"', "'"):
            close = value.find(value[at], at + 1)
            if close < 0:
                return f"the quote is never closed; {QUOTE_HINT}"
            at = close + 1
            at += len(value[at:]) - len(value[at:].lstrip())
            if at < end and value[at] not in ",#":
                return f"text after the closing quote; {QUOTE_HINT}"
        else:
            start = at
            while at < end and value[at] not in ",#":
                at += 1
            comment = (at == start and not value[at + 1 : at + 2].strip()) or (at > start and value[at - 1].isspace())
            if value[at : at + 1] == "#" and not comment:
                return f"everything from # on would be a comment; {QUOTE_HINT}"
        if at < end and value[at] == "#":
            return ""
        at += 1
    return ""


def _shown(path: KeyPath, value: str | list[str]) -> str:
    """The value as a message may show it: one line, short, without secrets."""
    if value and (_sounds_secret(path[-1]) or any(section in _SECRET_SECTIONS for section in path[:-1])):
        return "***"
    if path[-1] == "url" and "channels" in path[:-1]:  # whoever knows the address of a chat's robot speaks as it
        return "***"
    text = ", ".join(value) if isinstance(value, list) else value
    if "=" in text and (_sounds_secret(text) or re.search(r"\s=|=\s", text)):  # two keys in one line
        return "***"
    text = re.sub(r"://[^/\s]*@", "://***@", text)
    text = _printable(text)
    return text if len(text) <= 80 else text[:77] + "..."


def _sounds_secret(key: str) -> bool:
    """Also a misspelled `password`, and what other programs call it: the value behind it is no less secret."""
    word = key.lower()
    return any(part in word for part in ("pass", "pwd", "secret", "sign", "token")) or bool(
        get_close_matches(word, _SECRETS, 1, 0.6)
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _line_shown(line: str) -> str:
    """A line that is no setting: its key. Whatever follows may be a secret, behind a colon as well."""
    if found := re.match(r"\s*([\w.-]{1,80})\s*([:=])", line):
        return f"{found[1]}{':' if found[2] == ':' else ' ='} ***"
    key, equals, _ = line.partition("=")
    return f"{key.strip()[:80]} = ***" if equals else key.strip()[:80]


def _in_words(error: ConfigObjError) -> str:
    if isinstance(error, NestingError):
        return "brackets of this section do not fit: [section], [[one inside it]], [[[one inside that]]]"
    if isinstance(error, DuplicateError):
        return "this name is used twice here, as a key or as a section; keep one of them"
    line = (error.line or "").strip()
    if line.startswith((";", "//", "--")):
        return "neither `key = value` nor `[section]`; a comment begins with #"
    if re.match(r"[\w.-]+\s*:", line):
        return "neither `key = value` nor `[section]`; = is wanted, not a colon"
    return "neither `key = value` nor `[section]`"
