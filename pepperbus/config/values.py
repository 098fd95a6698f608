"""The kinds of value an option can have: from text to value, or a ValueError that says what is allowed.

Floor 1. Each function is a check of schema.ini under its own name (`duration(min=1s)`): it gets what ConfigObj read, a
text or a list of texts, and the arguments as they stand in the schema.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from base64 import b64decode
from urllib.parse import parse_qs, urlsplit

from pepperbus.config.backoff import Backoff
from pepperbus.config.model import Login, Span
from pepperbus.config.reach import place
from pepperbus.config.secret import Secret
from pepperbus.names import NAME_RULE, is_name

Raw = str | list[str]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd])){1,5}\Z")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?\Z", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?\Z")
_BOOLEANS = {"yes": True, "on": True, "true": True, "1": True, "no": False, "off": False, "false": False, "0": False}
HASH = "$argon2"  # how a hashed password begins
_HASH = re.compile(r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+\Z")
LONGEST = 10 * 365 * 86400.0
SOCKET_PATH_BYTES = 107
OUR_ENGINES = ("embedded", "redis")


def text(value: Raw) -> str:
    if isinstance(value, list):
        raise ValueError("the comma makes this a list, and a single text is wanted: put the whole value in quotes")
    if _CONTROL.search(value):
        raise ValueError("holds a control character (line break, tab, NUL …); one line of plain text is allowed")
    return value


def texts(value: Raw) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(text(part.strip()) for part in parts if part.strip())


def secret(value: Raw) -> Secret:
    return Secret(_password(text(value)))


def _password(found: str) -> str:
    if found.startswith(HASH) and not _HASH.match(found):
        raise ValueError(
            "this hash is cut short or no argon2id; take the whole line of `pepperbus password`, in quotes"
        )
    return found


def private(value: Raw) -> str:
    """Text that may hold a secret, and may say `env:NAME` or `file:/path` instead."""
    return text(value)


def signing(value: Raw) -> Secret:
    """A key as it stands, or `whsec_` and the key in base64 (Standard Webhooks)."""
    found = text(value)
    try:
        b64decode(found.removeprefix("whsec_") if found.startswith("whsec_") else "", validate=True)
    except ValueError:
        raise ValueError("what follows whsec_ must be base64; or write the key itself without whsec_") from None
    return Secret(found)


def name(value: Raw) -> str:
    found = text(value)
    if found and not is_name(found):
        raise ValueError(f"not a name; allowed: {NAME_RULE}")
    return found


def names(value: Raw) -> tuple[str, ...]:
    found = texts(value)
    for one in found:
        if not is_name(one):
            raise ValueError(f"{one!r} is not a name; allowed: {NAME_RULE}")
    return found


def paths(value: Raw) -> tuple[str, ...]:
    """Names in JSON documents, with dots between."""
    found = texts(value)
    for one in found:
        if not re.fullmatch(r"[^\s.=]+(\.[^\s.=]+)*", one) or len(one) > 128:
            raise ValueError(f"{one!r} is not a path into JSON; names with dots between are wanted: order_id, user.id")
    if len(found) > 8:
        raise ValueError(f"{len(found)} paths; 8 at most")
    return found


def integer(value: Raw, min: str = "0", max: str = "1000000000") -> int:
    found = text(value)
    if not re.fullmatch(r"-?\d{1,18}", found, re.ASCII) or not int(min) <= int(found) <= int(max):
        raise ValueError(f"a whole number from {min} to {max} is wanted")
    return int(found)


def span(value: Raw, min: str = "0", max: str = "1000000000") -> Span:
    """`4`, or `2..16`: the bus moves between these."""
    found = text(value)
    ends = [end.strip() for end in found.split("..")]
    if len(ends) > 2 or not all(re.fullmatch(r"\d{1,18}", end, re.ASCII) for end in ends):
        raise ValueError(f"a whole number from {min} to {max} is wanted, or a range such as 2..16")
    least, most = integer(ends[0], min, max), integer(ends[-1], min, max)
    if least > most:
        raise ValueError("the first number of the range is larger than the last; write SMALL..LARGE")
    return Span(least, most)


def command(value: Raw) -> tuple[str, ...]:
    """The words of a command line, split as a shell splits them; there is no shell: no $, *, | or > in it."""
    found = text(value)
    try:
        words = tuple(shlex.split(found))
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}") from None
    if words and set(words) & {"|", "||", "&", "&&", ">", ">>", "<", ";"}:
        raise ValueError('no shell reads this; for pipes and redirections write sh -c "…" (the whole value in quotes)')
    return words


def entry(value: Raw) -> str:
    """`Class,method`: this comma makes no list."""
    return text(",".join(value) if isinstance(value, list) else value)


def integers(value: Raw, min: str = "0", max: str = "1000000000") -> tuple[int, ...]:
    return tuple(integer(one, min, max) for one in texts(value))


def boolean(value: Raw) -> bool:
    found = _BOOLEANS.get(text(value).lower())
    if found is None:
        raise ValueError("yes or no is wanted (also on, off, true, false, 1, 0)")
    return found


def option(value: Raw, *words: str, later: str = "") -> str:
    """One of `words`. `later`: words of a coming version, `|` between them."""
    found = text(value)
    if found in later.split("|") and found:
        raise ValueError(f"not yet known to this version; allowed: {', '.join(words)}")
    if found not in words:
        raise ValueError(f"allowed: {', '.join(words)}{_meant(found, words)}")
    return found


def engine(value: Raw) -> str:
    """A type of storage: ours, or one that an installed package adds through the entry-point group pepperbus.storage."""
    if value in OUR_ENGINES:
        return text(value)
    from importlib.metadata import entry_points  # reads every installed package

    return option(value, *OUR_ENGINES, *sorted(entry.name for entry in entry_points(group="pepperbus.storage")))


def duration(value: Raw, min: str = "0s", max: str = "3650d") -> float:
    """Seconds. `500ms`, `30s`, `1h30m`, `3d`; a bare 0 is zero."""
    found = seconds(text(value))
    if not seconds(min) <= found <= seconds(max):
        raise ValueError(f"a duration from {min} to {max} is wanted")
    return found


def seconds(found: str) -> float:
    """A duration in its written form."""
    if found == "0":
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", found, re.ASCII):
        raise ValueError(f"a duration needs its unit: {found}s, {found}m, {found}h (ms, s, m, h, d are known)")
    if len(found) > 60 or not _DURATION.match(found) or not found.isascii():
        raise ValueError("a duration is wanted, such as 500ms, 30s, 5m, 1h30m or 3d")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(found))
    if total > LONGEST:
        raise ValueError("a duration up to 3650d is wanted")
    return total


def size(value: Raw, min: str = "0", max: str = "1048576TiB") -> int:
    """Bytes. `512`, `64KiB`, `8M`, `2GiB`; K, M, G, T count in 1024s."""
    found = _bytes(text(value))
    if not _bytes(min) <= found <= _bytes(max):
        raise ValueError(f"a size from {min} to {max} is wanted")
    return found


def _bytes(found: str) -> int:
    match = _SIZE.match(found) if found.isascii() and len(found) < 30 else None
    if match is None:
        raise ValueError("a size is wanted, such as 1024, 64KiB, 8MiB or 2GiB")
    return int(float(match[1]) * 1024 ** (" KMGT".index((match[2] or " ").upper())))


def backoff(value: Raw) -> Backoff:
    """`exponential 5s..1h`, `linear 30s`, `fixed 30s`, each with `jitter` after it if wanted, or a list of waits."""
    parts = value if isinstance(value, list) else value.split(",")
    if len(parts) > 1:
        waits = tuple(duration(part.strip(), max="30d") for part in parts if part.strip())
        if not waits:
            raise ValueError("at least one wait is wanted, such as 1s, 10s, 1m")
        return Backoff("list", waits, False)
    words = text(parts[0] if parts else "").split()
    jitter = words[-1:] == ["jitter"]
    words = words[:-1] if jitter else words
    match words:
        case ["exponential", span] if span.count("..") == 1:
            low, high = (duration(end, "10ms", "30d") for end in span.split(".."))
            if low > high:
                raise ValueError("the first wait is longer than the last; write exponential SHORT..LONG")
            return Backoff("exponential", (low, high), jitter)
        case ["linear" | "fixed" as kind, step]:
            return Backoff(kind, (duration(step, "10ms", "30d"),), jitter)
        case [one] if one[0].isdigit():
            return Backoff("list", (duration(one, max="30d"),), jitter)
    raise ValueError("allowed: exponential 5s..1h [jitter], linear 30s, fixed 30s, or a list such as 1s, 10s, 1m")


def address(value: Raw) -> str:
    """`host:port`, `[v6]:port` or `unix:/path`."""
    found = text(value)
    if found.startswith("unix:"):
        if not found.removeprefix("unix:").strip("/"):
            raise ValueError("a path is missing after unix:")
        return found
    host, colon, port = found.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else ""
    good = is_address(inner) and ":" in inner if inner else bool(_HOST.match(host))
    if not colon or not good or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        hint = "; write [v6]:port for an IPv6 address" if host.count(":") and not inner else ""
        hint = hint or (f"; did you mean unix:{found}?" if found.startswith("/") else "")
        raise ValueError(f"an address is wanted: host:port (port 1 to 65535), [v6]:port or unix:/path{hint}")
    return found


def addresses(value: Raw) -> tuple[str, ...]:
    found = tuple(address(one) for one in texts(value))
    if not found:
        raise ValueError("at least one address is wanted: host:port, [v6]:port or unix:/path")
    for one in found:
        if found.count(one) > 1:
            raise ValueError(f"{one} is named twice")
    return found


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach the address."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def urls(value: Raw) -> tuple[str, ...]:
    return tuple(_url(one) for one in texts(value))


def _url(found: str) -> str:
    wanted = "http://host[:port]/path is wanted"
    try:
        parts = urlsplit(found)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not found.isascii():
        raise ValueError(f"{wanted} (https:// as well; ASCII, other characters percent-encoded)")
    if " " in found or parts.fragment:
        raise ValueError(f"{wanted}: no blank and no #fragment")
    if parts.username is not None:
        raise ValueError("no login inside the URL, it would be shown; send it in [[[headers]]] Authorization")
    return found


def storage_url(value: Raw) -> Secret:
    """`redis://[user:password@]host[:port][/db]`, `rediss://` or `unix:///path[?db=n]`; secret: it may hold a password."""
    found = text(value)
    try:
        parts = urlsplit(found)
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        fine = parts.port != 0 and query.keys() <= {"db", "password", "ca"}
    except ValueError:
        fine = False
    if fine and parts.scheme in ("redis", "rediss"):
        fine = bool(parts.hostname) and bool(re.fullmatch(r"/?\d{0,5}", parts.path, re.ASCII))
    elif fine:
        fine = parts.scheme == "unix" and not parts.hostname and parts.path.startswith("/")
    if found and not fine:
        raise ValueError(
            "redis://[user:password@]host:port/db, rediss://… (TLS) or unix:///path/redis.sock?db=0 is wanted"
            " (other characters of a password percent-encoded)"
        )
    return Secret(found)


def places(value: Raw) -> tuple[str, ...]:
    """Host names, `*.example.com`, addresses and networks."""
    return tuple(place(one) for one in texts(value))


def script(value: Raw) -> str:
    """A path as php-fpm sees it, maybe on another host: never looked at from here."""
    found = text(value)
    if found.endswith("/"):
        raise ValueError("the path of a script as php-fpm sees it is wanted, such as /data/app/consume.php")
    return found


def host(value: Raw) -> str:
    found = text(value)
    if found and not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", found):
        raise ValueError("a host name for the Host header is wanted, such as www.example.com")
    return found


def login(value: Raw) -> Login:
    """`password, push|pop, pattern, pattern …`; the name is the key's."""
    parts = texts(value)
    shape = "NAME = password, push|pop, queue patterns is wanted, such as: shop = s3cret, push, orders*, mail"
    if len(parts) < 3 or not parts[0]:
        raise ValueError(shape)
    rights = {word.strip() for word in parts[1].split("|")}
    if not rights <= {"push", "pop"}:
        raise ValueError(f"the second word is a right: push, pop or push|pop; {shape}")
    return Login("", Secret(_password(parts[0])), "push" in rights, "pop" in rights, parts[2:])


def later(value: Raw) -> None:
    raise ValueError("not yet known to this version; remove it")


def _meant(found: str, words: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(found.lower(), words, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""
