"""The Go system's configuration, and back: queue_config, tags_mapping, tags, cgi_config, http_config.

Floor 1. Its numbers: times are nanoseconds, retry_time is seconds, run_type is 0 php-fpm, 1 HTTP, 2 a supervised command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pepperbus.moving.draft import Draft, Section
from pepperbus.names import is_name

KEYS = (
    "queue_config",
    "tags_mapping",
    "tags",
    "cgi_config",
    "http_config",
    "consumer_disable",
    "gateway_ip",
    "gateway_port",
)
_NS = 1_000_000_000
_LINE = re.compile(r"([\w.]+)\s+(\S+)\s*=\s*(.*)\Z", re.S)
_RUN = {0: "fastcgi", 1: "http", 2: "command"}


def parse(name: str, text: str) -> dict[str, Any]:
    """What one file holds: JSON with these keys, the JSON of the key it is named after, or a keeper's .conf.

    Raises ValueError for what is none of these.
    """
    stem = name.rpartition("/")[2].partition(".")[0]
    stripped = text.lstrip()
    if not stripped.startswith(("{", "[")):
        return {key: _inner(value) for key, value in _keeper(text).items() if key in KEYS}
    found = json.loads(text)
    if isinstance(found, dict) and found.keys() & set(KEYS):
        return {key: _inner(value) for key, value in found.items() if key in KEYS}
    if isinstance(found, dict) and "error_code" in found:
        return {"queue_config": found["data"]}  # what /QueueConfig answers
    if stem in KEYS:
        return {stem: found}
    raise ValueError(f"name the file after what it holds ({', '.join(KEYS[:5])}), or make these its keys")


def _inner(value: Any) -> Any:
    """JSON within a text is meant as what it says."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return json.loads(value)
    return value


def _keeper(text: str) -> dict[str, str]:
    """`key type = value` of the section DEFAULT (or none); \"\"\" spans lines. Other sections are nodes of their own."""
    found: dict[str, str] = {}
    section, key, gathered = "DEFAULT", "", []
    for line in text.splitlines():
        if key:
            before, end, _ = line.partition('"""')
            gathered.append(before)
            if end:
                found[key], key = "\n".join(gathered), ""
        elif line.strip().startswith("["):
            section = line.strip().strip("[]")
        elif section == "DEFAULT" and not line.lstrip().startswith("#") and (match := _LINE.match(line.strip())):
            value = match[3]
            if value.startswith('"""') and '"""' not in value[3:]:
                key, gathered = match[1], [value[3:]]
            else:
                found[match[1]] = value.strip('"')
    return found


def read(config: Mapping[str, Any], intakes: bool = True) -> Draft:
    """The queues' files for a whole configuration (`parse` of all files, merged).

    `intakes`: also take over what lies in its Redis.
    """
    draft = Draft()
    tags = _tags(config.get("tags_mapping") or {})
    http = config.get("http_config") or {}
    for name, queue in (config.get("queue_config") or {}).items():
        if not is_name(name):
            draft.left.append(f"queue {name}: not a name here; rename it by hand")
            continue
        draft.queues[name] = _queue(draft, name, queue, tags.get(name, {}), http, intakes)
        draft.about[name] = "Written by `pepperbus import go`."
    _pools(draft, config.get("cgi_config") or {})
    _node(draft, config)
    return draft


def _tags(mapping: Mapping[str, Mapping[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    """queue -> topic ("" = all) -> the tags that feed it."""
    found: dict[str, dict[str, list[str]]] = {}
    for tag, queues in mapping.items():
        for queue, topics in queues.items():
            for topic in topics or [""]:
                found.setdefault(queue, {}).setdefault(topic, []).append(tag)
    return found


def _queue(
    draft: Draft,
    name: str,
    queue: Mapping[str, Any],
    tags: Mapping[str, list[str]],
    http: Mapping[str, Any],
    intakes: bool,
) -> Section:
    made: Section = {"password": str(queue.get("password") or "")}
    if not made["password"]:
        made = {"open": "loopback"}
        draft.left.append(f"queue {name}: it has no password; open = loopback lets in this machine only")
    known = sorted({tag for some in tags.values() for tag in some})
    if len(known) == 1:
        made["system"] = known[0]
    made["reply"] = "json"
    topics, lists = {}, {}
    for topic, settings in (queue.get("topic") or {}).items():
        if not is_name(topic):
            draft.left.append(f"{name}/{topic}: not a name here; rename it by hand")
            continue
        topics[topic] = _topic(draft, f"{name}/{topic}", settings, http, made.get("password", ""))
        if mine := [*tags.get("", ()), *tags.get(topic, ())]:
            topics[topic]["tags"] = list(dict.fromkeys(mine))
        else:
            topics[topic]["paused"] = "yes"
            draft.left.append(f"{name}/{topic}: no tag maps it, so it is paused")
        if place := _place(settings.get("storage") or {}):
            lists[topic] = {
                "url": place,
                "key": f"{name}::{topic}::list",
                "format": "pepperbus",
                "topic": topic,
                "failed": "yes",
            }
    if not topics:
        draft.left.append(f"queue {name}: it has no topics; a queue needs at least one")
    return made | ({"intakes": lists} if intakes and lists else {}) | {"topics": topics}


def _place(storage: Mapping[str, Any]) -> str:
    address, auth = str(storage.get("address") or ""), str(storage.get("auth") or "")
    return f"redis://{':' + quote(auth, safe='') + '@' if auth else ''}{address}/0" if address else ""


def _topic(draft: Draft, name: str, settings: Mapping[str, Any], http: Mapping[str, Any], password: str) -> Section:
    run = _RUN.get(int(settings.get("run_type") or 0), "fastcgi")
    made: Section = {"run": run}
    if run == "fastcgi":
        made |= {
            "pool": str(settings.get("cgi_config_key") or "local"),
            "script": str(settings.get("script_entry") or ""),
        }
    elif run == "http":
        made |= _http(settings, http)
    else:
        made |= {"feed": "pull", "command": f"php {settings.get('script') or settings.get('script_entry') or ''}"}
        for theirs, ours in (("entry", "entry"), ("max_children", "children"), ("max_task", "max_task")):
            if settings.get(theirs):
                made[ours] = str(settings[theirs])
    if run != "command":
        made["concurrency"] = str(max(int(settings.get("num_of_workers") or 1), 1))
    if (own := str(settings.get("password") or "")) and own != password:
        made["password"] = own
    return made | _retries(draft, name, settings)


def _http(settings: Mapping[str, Any], http: Mapping[str, Any]) -> Section:
    made: Section = {"url": str(settings.get("script_entry") or "")}
    own = _inner(settings.get("http_config") or {})
    if isinstance(own, Mapping) and own.get("host"):
        made["host"] = str(own["host"])
    if nanoseconds := int(http.get("request_timeout") or 0):
        made["timeout"] = _duration(nanoseconds)
    return made


def _retries(draft: Draft, name: str, settings: Mapping[str, Any]) -> Section:
    seconds = int(settings.get("retry_time") or 0)
    if not settings.get("is_retry") or seconds <= 0:
        return {"attempts": "1"}
    if seconds < 30:
        draft.left.append(f"{name}: retry_time = {seconds} is shorter than the first wait of 30 s; max_age = 30s")
    return {"attempts": "1000", "backoff": "linear 30s", "max_age": f"{max(seconds, 30)}s"}


def _pools(draft: Draft, pools: Mapping[str, Mapping[str, Any]]) -> None:
    used = {topic.get("pool") for queue in draft.queues.values() for topic in queue["topics"].values()}
    for name, settings in pools.items():
        most = min(int(settings.get("max_conn_num") or 4), _workers(draft, name) or 4)
        made: Section = {"address": str(settings.get("address") or ""), "max_connections": str(max(most, 1))}
        if wait := int(settings.get("connect_timeout") or 0):
            made["connect_timeout"] = _duration(min(max(wait, _NS // 100), 60 * _NS))
        draft.pools[name] = made
    for name in sorted(used - {None} - draft.pools.keys()):
        draft.pools[str(name)] = {"address": "127.0.0.1:9000"}
        draft.left.append(f"cgi_config {name}: not in what was given; its address here is a guess, 127.0.0.1:9000")
    if draft.pools:
        draft.left.append(
            "cgi_config: read_timeout and write_timeout had no effect; a topic's timeout is 60m unless you set it"
        )
        draft.left.append(
            "max_connections is what num_of_workers add up to; `pepperbus check fpm` holds it against php-fpm's children"
        )


def _workers(draft: Draft, pool: str) -> int:
    topics = [topic for queue in draft.queues.values() for topic in queue["topics"].values()]
    return sum(int(topic["concurrency"]) for topic in topics if topic.get("pool") == pool)


def _node(draft: Draft, config: Mapping[str, Any]) -> None:
    """What belongs to one node and is therefore said, not written."""
    tags = config.get("tags")
    if tags:
        words = tags if isinstance(tags, list) else str(tags).split(",")
        draft.left.append(f"tags: per node; type into pepperbus.conf: [bus] tags = {', '.join(map(str, words))}")
    if str(config.get("consumer_disable", "")).lower() == "true":
        draft.left.append("consumer_disable: per node; type into pepperbus.conf: [bus] consumer = off")
    if port := config.get("gateway_port"):
        where = f"{config.get('gateway_ip') or '127.0.0.1'}:{port}"
        draft.left.append(f"gateway_port: producers know {where}; type into pepperbus.conf: [gateway] listen = {where}")


def _duration(nanoseconds: int) -> str:
    ms = max(nanoseconds // 1_000_000, 1)
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms}ms"
