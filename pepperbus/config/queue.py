"""A queue's file as dataclasses: the queue and its topics, with what they need of the node.

Floor 1. A key of a topic that stands at the queue's level is the default of its topics.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pepperbus.config import alarms, canary_check, command, intakes, schedules
from pepperbus.config.check import Values, complete, given
from pepperbus.config.model import Config, Queue, Topic
from pepperbus.config.node import unknown_name
from pepperbus.config.reach import refusal
from pepperbus.config.references import is_reference
from pepperbus.config.source import Document, KeyPath
from pepperbus.config.spec import Spec, schema
from pepperbus.names import NAME_RULE, is_name

#: Keys that mean something for one way of running only.
ONLY = {"fastcgi": ("pool", "script", "params"), "http": ("url", "host", "sign", "headers"), "pull": ("lease",)} | {
    "command": command.KEYS
}
_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_OURS = re.compile(
    r"(PEPPERBUS_|HTTP_X_PEPPERBUS_|REMOTE_|CONTENT_|ORIG_|FCGI_)"
    r"|(SCRIPT_FILENAME|PATH_TRANSLATED|PHP_VALUE|PHP_ADMIN_VALUE|REQUEST_METHOD|HTTP_PROXY|HTTP_CONTENT_LENGTH)\Z"
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_OUR_HEADERS = re.compile(
    r"(x-pepperbus-|ce-|webhook-)|(host|content-length|transfer-encoding|connection|te|trailer|upgrade|expect|"
    r"is[-_]pepper[-_]bus[-_]request)\Z",
    re.IGNORECASE,
)


def build(document: Document, name: str, node: Config) -> Queue:
    """The queue `name` as `document` describes it. Mistakes are in `document` afterwards."""
    if not is_name(name):
        document.mistake((), f"the file's name names the queue, and {name!r} is not a name; allowed: {NAME_RULE}")
    values = given(document, _queue_spec())
    own = complete({key: values[key] for key in values if key in schema()["queue"].options}, schema()["queue"])
    _check_login(document, own)
    sections = values.get("topics", {})
    inherited = {key: values[key] for key in values if key in _topic_keys() and key not in own}
    topics = {}
    for topic, inner in sections.items():
        path = ("topics", topic)
        if not is_name(topic):
            document.mistake(path, f"not a name; allowed: {NAME_RULE}")
        limits = alarms.limits(inherited.get("alarms", {}), inner.get("alarms", {}))
        topics[topic] = _topic(document, path, name, {**inherited, **inner, "alarms": limits}, node)
    if not topics and not document.broken:
        document.mistake(("topics",), "a queue needs at least one topic: [topics], and in it [[NAME]]")
    for made in topics.values():
        command.check_password(document, made, own["password"])
    storage = inherited.get("storage") or next(iter(node.storages))
    own["open"] = own["open"] == "loopback"
    command.settle_workers(own)
    _check_keys(document, name, own["keys"])
    file = Path(os.path.abspath(document.file))
    own["schedule"] = schedules.build(document, name, values.get("schedule", {}))
    own["intakes"] = intakes.build(document, values.get("intakes", {}), topics)
    _check_leaving(document, topics, own)
    _rest(own, topics)
    return Queue(name=name, topics=topics, storage=storage, tags=inherited.get("tags", ()), file=file, **own)


def _check_leaving(document: Document, topics: dict[str, Topic], own: Values) -> None:
    """The file must be right without a topic that is to go."""
    going = [name for name, topic in topics.items() if topic.closed == "remove"] if own["closed"] != "remove" else []
    if going and len(going) == len(topics):
        text = "no topic would be left: close the whole queue instead (closed = remove above [topics])"
        document.mistake(("topics", going[-1], "closed"), text)
    for intake in own["intakes"]:
        if intake.topic in going:
            text = f"intake {intake.name} takes for this topic alone: remove it first, or write yes"
            document.mistake(("topics", intake.topic, "closed"), text)


def _rest(own: Values, topics: dict[str, Topic]) -> None:
    """What would make jobs for nobody rests until somebody takes them again."""
    takers = {name for name, topic in topics.items() if topic.closed == "no"} if own["closed"] == "no" else set()
    if not takers:
        own["schedule"] = {}
    own["intakes"] = tuple(one for one in own["intakes"] if takers and one.topic in {"", *takers})


@cache
def _queue_spec() -> Spec:
    queue, topic = schema()["queue"], schema()["topic"]
    return Spec("queue", "", {**topic.options, **queue.options}, {**topic.sections, **queue.sections})


@cache
def _topic_keys() -> frozenset[str]:
    topic = schema()["topic"]
    return frozenset((*topic.options, *topic.sections))


def _check_login(document: Document, own: Values) -> None:
    written = document.value(("password",)) not in (None, "")  # a wrong value was noted already
    if not (own["password"] or own["open"] == "loopback" or written or document.broken):
        document.mistake(
            ("password",), "password is missing or empty: set one, or open = loopback to need none from this machine"
        )


def _check_keys(document: Document, name: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            document.mistake(("keys",), f"{key!r} is named twice")
            return
        if key == name:
            document.mistake(("keys",), f"{key!r} is the queue's own name and means it anyway; remove it")


def _topic(document: Document, path: KeyPath, queue: str, values: Values, node: Config) -> Topic:
    full = complete(values, schema()["topic"])
    run, auto_contract = full["run"], "sdk" if full["body"] == "form" else "status"
    full["contract"] = auto_contract if full["contract"] == "auto" else full["contract"]
    full["ping"] = full["contract"] == "sdk" if full["ping"] == "auto" else full["ping"] == "on"
    if full["script"]:
        full["script"] = os.path.normpath(os.path.join(os.path.abspath(document.file.parent), full["script"]))
    full["storage"] = _storage(document, path, full["storage"], node)
    _check_run(document, path, run, full, node)
    if run == "command":
        command.check(document, path, full, node)
    command.settle(document, run, full)
    canary_check.check(document, path, full, node)
    _check_job_options(document, path, full)
    if full["chunk"] > 1 and full["body"] == "raw":
        document.mistake((*path, "chunk"), "body = raw carries one job a request; use chunk = 1 or body = form")
    if document.value((*path, "dead_on")) is not None and full["contract"] == "sdk":
        document.mistake((*path, "dead_on"), "dead_on is for contract = status; under sdk the Code header decides")
    if full["attempts"] > 1 and full["max_age"] < full["backoff"].wait_s(1, 0.0):
        document.mistake((*path, "max_age"), "shorter than the first wait of backoff: no second attempt could ever be")
    params, headers = full.pop("params", {}), full.pop("headers", {})
    _check_params(document, (*path, "params"), params)
    _check_headers(document, (*path, "headers"), headers)
    urls = full.pop("url")
    _check_reach(document, path, urls or (), node)
    variables = dict(full["environment"])
    hidden = tuple(name for name in (*params, *headers, *variables) if _is_referred(document, path, name))
    full |= {"params": tuple(params.items()), "headers": tuple(headers.items()), "hidden": hidden}
    return Topic(queue=queue, name=path[-1], urls=urls, **full)


def _check_job_options(document: Document, path: KeyPath, full: Values) -> None:
    """Options of the feeding mean nothing where the consumer fetches its jobs; of an ordered key one job runs at a time."""
    fetched = full["run"] == "pull" or (full["run"] == "command" and full["feed"] in ("pull", "none"))
    for key in ("rate", "quiet", "halt", "order_by"):
        if fetched and full[key] and document.value((*path, key)) is not None:
            document.mistake(
                (*path, key), f"{key} is for topics that the bus feeds; here the consumer fetches its jobs"
            )
    if full["order_by"]:
        where = (*path, "order_by") if document.value((*path, "order_by")) is not None else ("order_by",)
        if full["chunk"] > 1:
            document.mistake(where, "one job at a time of the same value: with chunk > 1 that cannot be")
        if full["pop"] == "leased":
            document.mistake(where, "the bus keeps the order of what it feeds; under pop = leased clients take jobs")


def _is_referred(document: Document, path: KeyPath, name: str) -> bool:
    places = [(*around, section, name) for around in (path, ()) for section in ("params", "headers", "environment")]
    return any(is_reference(document.value(place)) for place in places)


def _storage(document: Document, path: KeyPath, storage: str, node: Config) -> str:
    where = (*path, "storage") if document.value((*path, "storage")) is not None else ("storage",)
    where = where if document.value(where) is not None else path
    if not storage and len(node.storages) > 1:
        document.mistake(where, f"storage is missing: there are several, name one of {', '.join(node.storages)}")
    elif storage and storage not in node.storages:
        document.mistake(where, unknown_name("storage", storage, node.storages, "storages"))
    return storage or next(iter(node.storages))


def _check_run(document: Document, path: KeyPath, run: str, full: Values, node: Config) -> None:
    for other in ONLY.keys() - {run}:
        for key in ONLY[other]:
            if document.value((*path, key)):
                document.mistake((*path, key), f"{key} is for run = {other}; this topic has run = {run}")
    for key in _FED if run == "pull" else ():
        if document.value((*path, key)):
            document.mistake((*path, key), f"{key} is for topics that the bus feeds; this one has run = pull")
    for key in _NEEDS.get(run, ()):
        if not full[key] and _absent(document, path, key):
            document.mistake(path, f"run = {run} needs {key}: {_NEEDED[key]}")
    if run == "fastcgi" and full["pool"] and full["pool"] not in node.pools:
        where = (*path, "pool") if document.value((*path, "pool")) is not None else ("pool",)
        document.mistake(where, unknown_name("pool", full["pool"], node.pools, "fastcgi"))
    roots = node.pools[full["pool"]].script_root if run == "fastcgi" and full["pool"] in node.pools else ()
    if roots and full["script"] and not any(full["script"].startswith(root + "/") for root in roots):
        where = (*path, "script") if document.value((*path, "script")) is not None else ("script",)
        document.mistake(where, f"{full['script']} is not below script_root of the pool ({', '.join(roots)})")


_FED = ("chunk", "rate", "quiet", "halt", "order_by")
_NEEDS = {"fastcgi": ("pool", "script"), "http": ("url",), "command": ("command",)}
_NEEDED = {
    "pool": "the php-fpm pool, a name of [fastcgi] in the node's file",
    "script": "the script's path as php-fpm sees it",
    "command": 'what to run, such as "php /data/app/worker.php"',
    "url": "where to POST, such as http://127.0.0.1:8080/jobs",
}


def _absent(document: Document, path: KeyPath, key: str) -> bool:
    """Not written anywhere it could stand (a wrong value was noted already), and no unreadable line may hold it."""
    texts: list[Any] = [document.value((*path, key)), document.value((key,))]
    return not document.broken and all(text in (None, "") for text in texts)


def _check_reach(document: Document, path: KeyPath, urls: tuple[str, ...], node: Config) -> None:
    """What is already known to be refused; a name's addresses are judged at each connect."""
    where = (*path, "url") if document.value((*path, "url")) is not None else ("url",)
    for url in urls:
        parts = urlsplit(url)
        if why := refusal(node.http, parts.hostname or "", "", parts.port or 0):
            document.mistake(where, why)


def _check_params(document: Document, path: KeyPath, params: dict[str, str]) -> None:
    for name in params:
        if not _PARAM.match(name):
            document.mistake((*path, name), "not a param name; allowed: letters, digits and _, the first no digit")
        elif _OURS.match(name):
            document.mistake((*path, name), "the bus sets this param itself; choose another name")


def _check_headers(document: Document, path: KeyPath, headers: dict[str, str]) -> None:
    for name in headers:
        if not _TOKEN.match(name):
            document.mistake((*path, name), "not a header name (RFC 9110 token)")
        elif _OUR_HEADERS.match(name):
            hint = "; use the topic's key host" if name.lower() == "host" else ""
            document.mistake((*path, name), f"the bus sets this header itself{hint}")
