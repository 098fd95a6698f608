"""The text of a queue's file: keys set and unset with comments, order and blanks kept; secrets made stars, and back again.

Floor 4. Knows the schema's kinds; opens nothing but the file it is told to read.
"""

from __future__ import annotations

import re
import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError

from pepperbus.config.load import spec
from pepperbus.config.references import is_reference
from pepperbus.config.spec import schema
from pepperbus.errors import NotFound, UsageError

STARS = "***"
MOST_BYTES = 256 << 10  # of one file: reading more would hold up everybody
_LISTS = ("texts", "names", "paths", "integers", "urls", "backoff", "addresses")
#: Headers, params and variables whose values are shown to nobody: this is where a consumer's login belongs.
_SECRET = re.compile(r"auth|cookie|token|secret|passw|key|signature|credential", re.IGNORECASE)
#: Who may change a queue may not therefore read every file the bus can.
_BY_HAND = "{path}: a reference (env:, file:) is written into the queue's file by hand"
#: In a key, what would make something else of its line than the key and its value.
_NO_KEY = re.compile(r"""[=\[\]"'#\x00-\x1f\x7f]""")
_SECRET_KEYS = ("password", "sign")
#: Sections of the queue itself: `schedule/NAME/KEY`. All other paths of three words are in a topic's section.
_OWN = ("schedule", "intakes")


def edited(text: str, settings: Mapping[str, str], unset: Iterable[str] = ()) -> str:
    """`text` with these keys set and unset, comments and order kept. Raises UsageError for what cannot be a key."""
    tree = parsed(text)
    if not text:
        tree.indent_type = "    "
    _apply(tree, settings, unset)
    try:
        return as_text(tree, text)
    except ConfigObjError as error:
        raise UsageError(f"this cannot be written into a file: {error}") from error


def own_section(path: str) -> bool:
    """Whether `schedule/NAME/KEY` or `intakes/NAME/KEY` is meant, and not a section of a topic that has such a name."""
    words = path.split("/", 2)
    return len(words) == 3 and words[0] in _OWN and words[1] not in schema()["topic"].sections


def text_of(file: Path, name: str) -> str:
    """Raises NotFound."""
    try:
        return file.read_text()
    except FileNotFoundError as error:
        raise NotFound(f"no queue {name!r}: there is no {file}") from error


def parsed(text: str) -> Any:
    """ConfigObj's tree of a queue's file."""
    return ConfigObj(text.splitlines(), list_values=True, interpolation=False, write_empty_values=True)


def parsed_or_empty(text: str) -> Any:
    """The same; of a text that cannot be read an empty one, so that it can be put right from here."""
    try:
        return parsed(text)
    except ConfigObjError:
        return parsed("")


def as_text(tree: Any, before: str) -> str:
    """The tree as text. ConfigObj sets the blanks of every line anew; those that say the same stay as they were."""
    old: dict[str, deque[str]] = defaultdict(deque)
    for line in before.splitlines():
        old[" ".join(line.split())].append(line)
    written = [(line, old.get(" ".join(line.split()))) for line in tree.write()]
    return "\n".join(as_it_was.popleft() if as_it_was else line for line, as_it_was in written) + "\n"


def _apply(tree: Any, settings: Mapping[str, str], unset: Iterable[str]) -> None:
    for path in unset:
        section, key = _find(tree, path, make=False)
        if section is None or key not in section:
            raise UsageError(f"{path} is not set")
        del section[key]
    for path in unset:
        _drop_empty(tree, path)
    for path, value in settings.items():
        section, key = _find(tree, path, make=True)
        section[key] = _value(path, key, value)


def _drop_empty(tree: Any, path: str) -> None:
    """A schedule or intake whose last key was taken out is taken out itself."""
    name, _slash, rest = path.partition("/")
    if own_section(path) and not tree.get(name, {}).get(inner := rest.partition("/")[0], True):
        del tree[name][inner]
        if not tree[name]:
            del tree[name]


def _find(tree: Any, path: str, make: bool) -> tuple[Any, str]:
    """`key`, `topic/key`, `topic/params/KEY`, `schedule/NAME/KEY` -> (the section it stands in, its last word)."""
    words = path.split("/", 2)
    if not all(words) or (make and _NO_KEY.search(path)):
        raise UsageError(f"{path!r}: KEY, TOPIC/KEY, TOPIC/params/KEY or schedule/NAME/KEY is wanted")
    section = tree
    around = ["topics"] if len(words) > 1 and not own_section(path) else []
    for word in [*around, *words[:-1]]:
        if word not in section:
            if not make:
                return None, words[-1]
            section[word] = {}
        section = section[word]
        if not isinstance(section, dict):
            raise UsageError(f"{path!r}: {word} is a key, not a section")
    return section, words[-1]


def _value(path: str, key: str, text: str) -> str | list[str]:
    """Text as the option's kind wants it: lists are split at commas, all else is taken as it stands."""
    if is_reference(text):
        raise UsageError(_BY_HAND.format(path=path))
    if own_section(path):
        return text
    where = "topics" if "/" in path else ""
    kinds = {option.kind for option in spec() if option.key == key and bool(where) == ("topics" in option.section)}
    kinds = kinds or {option.kind for option in spec() if option.key == key}
    if path.count("/") < 2 and kinds & set(_LISTS) and "," in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def staying(text: str, now: str) -> str:
    """`text` in which nothing goes by itself (`closed = remove`) that does not go by itself in `now`."""
    tree = parsed_or_empty(text)
    goes = {path for path, value in _values(parsed_or_empty(now)) if _is_leaving(path, value)}
    unset = [path for path, value in _values(tree) if _is_leaving(path, value) and path not in goes]
    return edited(text, {}, [path.removeprefix("topics/") for path in unset]) if unset else text


def _is_leaving(path: str, value: object) -> bool:
    words = path.split("/")  # a topic's section may hold params and headers of any name
    return (
        value == "remove" and words[-1] == "closed" and (len(words) == 1 or (words[0] == "topics" and len(words) == 3))
    )


def is_secret(name: str) -> bool:
    """Whether a header, param or variable of that name holds a login, whose value is shown to nobody."""
    return _SECRET.search(name) is not None


def has_login(url: str) -> bool:
    return "@" in url or "password" in url or url == STARS


def starred(text: str, stars: Callable[[str], str] = lambda secret: STARS) -> str:
    """`text` as it may be shown and taken along: every secret is stars; references to one stay."""
    tree = parsed(text)
    for section, _path, key in _secrets(tree):
        if section[key] and not is_reference(str(section[key])):
            section[key] = stars(str(section[key]))
    return as_text(tree, text)


def filled(text: str, before: str) -> str:
    """`text` with its stars replaced by what stands there in `before`; a new queue's password of stars is made.

    Text that cannot be read comes back as it is, for the parser to say why. Raises UsageError for stars that stand for
    nothing, for a reference that does not stand there already, and for a text that is too long.
    """
    if len(text) > MOST_BYTES:
        raise UsageError(f"a queue's file of more than {MOST_BYTES >> 10} KiB is none")
    try:
        tree = parsed(text)
    except ConfigObjError:
        return text
    old = parsed_or_empty(before)
    standing = {path: section[key] for section, path, key in _secrets(old)}
    references = {path: value for path, value in _values(old) if is_reference(str(value))}
    for path, value in _values(tree):
        if is_reference(str(value)) and references.get(path) != value:
            raise UsageError(_BY_HAND.format(path=path))
    for section, path, key in _secrets(tree):
        if section[key] != STARS:
            continue
        if path not in standing and path != "password":
            raise UsageError(f"{path} = {STARS}: there is no such secret here yet; write it down")
        section[key] = standing.get(path) or secrets.token_hex(16)
    return as_text(tree, text)


def system_in(text: str) -> str:
    """The system that a queue's text names; "" for none, also where it cannot be read or is too long to be looked at."""
    if len(text) > MOST_BYTES:
        return ""
    try:
        return str(parsed(text).get("system", ""))
    except ConfigObjError:
        return ""


def _secrets(tree: Any) -> Iterator[tuple[Any, str, str]]:
    """Each place of a secret: its section, its path as in `queue set`, its key."""
    for key in tree.scalars:
        if key in _SECRET_KEYS:
            yield tree, key, key
    for topic, section in _sections(tree.get("topics", {})):
        for key in section.scalars:
            if key in _SECRET_KEYS:
                yield section, f"{topic}/{key}", key
        for name, extras in _sections(section):
            yield from ((extras, f"{topic}/{name}/{key}", key) for key in extras.scalars if is_secret(key))
    for name, intake in _sections(tree.get("intakes", {})):
        if has_login(str(intake.get("url", ""))):
            yield intake, f"intakes/{name}/url", "url"


def _sections(tree: Any) -> list[tuple[str, Any]]:
    return [(name, tree[name]) for name in getattr(tree, "sections", ())]


def _values(section: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below, one of a list at a time, with where it stands."""
    for key in section.scalars:
        value = section[key]
        yield from ((f"{path}{key}", one) for one in (value if isinstance(value, list) else [value]))
    for name, inner in _sections(section):
        yield from _values(inner, f"{path}{name}/")
