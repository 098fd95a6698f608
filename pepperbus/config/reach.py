"""Where HTTP consumers may be: `[http] allow` and `deny`, and the addresses that no consumer has.

Floor 1. Pure: a host as it stands in a URL and an address it was resolved to in, a reason for refusing out. It never
resolves a name; who connects must ask for the very address it connects to.
"""

from __future__ import annotations

import ipaddress
import re
from fnmatch import fnmatchcase
from functools import lru_cache

from pepperbus.config.model import Http

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?\Z")
#: The addresses of clouds' metadata services that are not link-local; they hand out the machine's own keys.
_METADATA = ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd20:ce::254/128")
#: What nobody is reached at, or what only this machine's own cloud answers at. Loopback and private networks are where
#: consumers usually are; `deny` closes them.
_NEVER: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(text), why)
    for why, texts in (
        ("link-local, where clouds keep their metadata", ("169.254.0.0/16", "fe80::/10")),
        ("a cloud's metadata service", _METADATA),
        ("not one machine's address", ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8")),
    )
    for text in texts
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


def refusal(http: Http, host: str, address: str, port: int = 0) -> str:
    """Why `host` must not be reached at `address` (numeric), "" when it may. `address` "": judge the name alone."""
    name = host.lower().rstrip(".")
    found = parse_address(address) if address else parse_address(name)
    if port in http.own and (name == "localhost" or (found is not None and found.is_loopback)):
        return f"{_shown(host, address)}:{port} is this bus itself"
    if rule := _match(http.deny, name, found):
        return f"{_shown(host, address)} is refused by [http] deny ({rule})"
    allowed = _match(http.allow, name, found)
    if found is not None and (why := _never(found)) and not _match(http.allow, "", found):
        return f"{_shown(host, address)} is {why}; only [http] allow = {found} would let it through"
    if http.allow and not allowed and (address or found is not None or not _has_networks(http.allow)):
        return f"{_shown(host, address)} is not in [http] allow"
    return ""


def parse_address(text: str) -> Address | None:
    """The address that is really meant: of IPv6 forms that carry an IPv4 address, that one. None for a name."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if inner := found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None):
        return inner
    if found in _NAT64 or (found in _COMPATIBLE and int(found) > 1):
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found


def place(text: str) -> str:
    """One word of `allow` or `deny`: a host name, `*.example.com`, an address or a network. Raises ValueError."""
    word = text.lower().rstrip(".")
    try:
        return str(ipaddress.ip_network(word, strict=True)) if "/" in word else str(ipaddress.ip_address(word))
    except ValueError as error:
        if _PATTERN.match(word) and not re.fullmatch(r"[0-9.]+", word):
            return word
        why = f": {error}" if "/" in word else ""
        wanted = "a host name, *.example.com, an address or a network such as 10.0.0.0/8 is wanted"
        raise ValueError(f"{text!r}: {wanted}{why}") from None


@lru_cache(4096)
def _network(word: str) -> Network | None:
    try:
        return ipaddress.ip_network(word)
    except ValueError:
        return None


def _match(words: tuple[str, ...], name: str, address: Address | None) -> str:
    """The first word that means this name or address; "" when none does."""
    for word in words:
        network = _network(word)
        if network is None:
            if name and fnmatchcase(name, word):
                return word
        elif address is not None and address in network:
            return word
    return ""


def _has_networks(words: tuple[str, ...]) -> bool:
    return any(_network(word) is not None for word in words)


def _never(address: Address) -> str:
    for network, why in _NEVER:
        if address in network:
            return why
    return ""


def _shown(host: str, address: str) -> str:
    return f"{host} ({address})" if address and address != host.strip("[]") else host
