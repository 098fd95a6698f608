"""The section [alarms] of the node's file, and of a queue's file: who is told of what.

Floor 1.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from pepperbus.config.alarm_settings import Alarms, Channel, Limits
from pepperbus.config.check import Values, complete, did_you_mean
from pepperbus.config.model import Http
from pepperbus.config.reach import refusal
from pepperbus.config.source import Document, KeyPath
from pepperbus.config.spec import Spec, schema
from pepperbus.config.values import address, is_loopback
from pepperbus.names import NAME_RULE, is_name

#: Keys that mean something for one type of channel only.
_ONLY = {
    "webhook": ("url", "sign"),
    "mail": ("server", "security", "user", "password", "sender", "to"),
    "apprise": ("url",),
}
_NEEDED = {"webhook": ("url",), "mail": ("server", "sender", "to"), "apprise": ("url",)}
#: Services of Apprise that post wherever they are told: our own webhook does that, within [http] allow and deny.
_ANYWHERE = ("json", "jsons", "xml", "xmls", "form", "forms")


def build(document: Document, values: Values, http: Http) -> Alarms:
    """[alarms] of the node's file; mistakes are noted."""
    spec = schema()["node"].sections["alarms"]
    given = values.get("alarms", {})
    own = {key: value for key, value in given.items() if key in spec.options}
    made = complete(own, spec)
    if made["dashboard"]:
        parts = urlsplit(made["dashboard"])
        if parts.scheme not in ("http", "https") or not parts.hostname:
            document.mistake(("alarms", "dashboard"), "http(s)://host[:port] is wanted, as people type it")
        made["dashboard"] = made["dashboard"].rstrip("/")
    channels = [
        _channel(document, name, inner, made["language"], http) for name, inner in given.get("channels", {}).items()
    ]
    rules = complete(given.get("rules", {}), spec.sections["rules"])
    systems = tuple((name, limits(inner)) for name, inner in given.get("systems", {}).items())
    return Alarms(channels=tuple(channels), rules=limits(rules), systems=systems, **made)


def limits(*values: Values) -> Limits:
    """Rule -> limit; of several sections the later one counts, and what is empty there is as before."""
    found: Values = {}
    for one in values:
        found |= {rule: limit for rule, limit in one.items() if limit is not None}
    return tuple(found.items())


def _channel(document: Document, name: str, given: Values, language: str, http: Http) -> Channel:
    path: KeyPath = ("alarms", "channels", name)
    if not is_name(name):
        document.mistake(path, f"not a name; allowed: {NAME_RULE}")
    spec = schema()["node"].sections["alarms"].sections["channels"].any_section
    assert spec is not None
    made = complete(given, spec)
    _check_keys(document, path, given, made, spec)
    known = schema()["node"].sections["alarms"].sections["rules"].options
    for rule in made["rules"]:
        if rule not in known:
            document.mistake(
                (*path, "rules"), f"no rule {rule!r}{did_you_mean(rule, known)}; known: {', '.join(known)}"
            )
    if made["url"]:
        _check_url(document, (*path, "url"), made["type"], made["url"].reveal(), http)
    if made["type"] == "mail":
        _check_mail(document, path, made)
    made["language"] = language if made["language"] == "auto" else made["language"]
    return Channel(name=name, **{field.name: made[field.name] for field in fields(Channel) if field.name != "name"})


def _check_keys(document: Document, path: KeyPath, given: Values, made: Values, spec: Spec) -> None:
    kind = made["type"]
    special = {key for keys in _ONLY.values() for key in keys}
    for key in given:
        if key in special and key not in _ONLY[kind]:
            owner = " or ".join(one for one, keys in _ONLY.items() if key in keys)
            document.mistake((*path, key), f"{key} is for type = {owner}; this channel has type = {kind}")
    for key in _NEEDED[kind]:
        written: Any = document.value((*path, key))
        if not made[key] and written in (None, "") and not document.broken:
            document.mistake(path, f"type = {kind} needs {key}: {spec.options[key].help}")


def _check_url(document: Document, path: KeyPath, kind: str, url: str, http: Http) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port or 0 if kind == "webhook" else 0
    except ValueError:
        document.mistake(path, "not an address")
        return
    if kind == "webhook":
        if parts.scheme not in ("http", "https") or not parts.hostname:
            document.mistake(path, "http://host[:port]/path or https://… is wanted")
        elif why := refusal(http, parts.hostname, "", port):
            document.mistake(path, why)
    elif not parts.scheme:
        document.mistake(
            path, "an address of Apprise is wanted, such as dingtalk://TOKEN, wecombot://KEY or feishu://TOKEN"
        )
    elif parts.scheme.lower() in _ANYWHERE:
        document.mistake(path, f"{parts.scheme}:// is what type = webhook does, within [http] allow and deny; use that")


def _check_mail(document: Document, path: KeyPath, made: Values) -> None:
    try:
        if made["server"]:
            address(made["server"])
    except ValueError as error:
        document.mistake((*path, "server"), str(error))
        return
    if made["security"] == "none" and made["password"] and not is_loopback(made["server"]):
        document.mistake((*path, "security"), "the password would cross the network readable: starttls or tls")
    for key in ("sender", "to"):
        for one in [made[key]] if isinstance(made[key], str) else made[key]:
            if one and not all(one.rpartition("@")):
                document.mistake((*path, key), f"{one!r} is no mail address")
