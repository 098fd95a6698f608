"""Names that leave the process are spelled here and nowhere else: queues, topics, storage keys, channels.

Floor 0. A queue is `orders`, a topic is written `orders/mail` everywhere (in storages, journal, logs, API).
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
NAME_RULE = "1 to 128 of A-Z a-z 0-9 . _ - and the first a letter or digit"

#: `queue/@json` is answered in JSON whatever the queue's `reply` says; no topic can have that name.
JSON_KEY = "@json"


#: In the run directory: where the ticker has moved what the configuration gives as a range.
SCALING = "scaling.json"


def is_name(text: str) -> bool:
    """Whether `text` can name a queue, a topic, a storage, a pool or a node."""
    return _NAME.match(text) is not None


def topic_name(queue: str, topic: str) -> str:
    return f"{queue}/{topic}"


def split_topic(name: str) -> tuple[str, str]:
    """`orders/mail` -> (`orders`, `mail`). Raises ValueError when there is no slash or a part is no name."""
    queue, slash, topic = name.partition("/")
    if not slash or not is_name(queue) or not is_name(topic):
        raise ValueError(f"{name!r} is not QUEUE/TOPIC")
    return queue, topic


def is_topic(text: str) -> bool:
    """Whether `text` is QUEUE/TOPIC."""
    queue, _, topic = text.partition("/")
    return is_name(queue) and is_name(topic)


def redis_key(topic: str, what: str) -> str:
    """The key of one part (`job`, `ready`, `att` …) of a topic. The hash tag keeps a topic in one slot."""
    return f"pb:{{{topic}}}:{what}"


#: Keys of a Redis storage that belong to no topic: topics ever pushed to, paused ones, shard -> node.
REDIS_TOPICS, REDIS_PAUSED, REDIS_SHARDS = "pb:topics", "pb:paused", "pb:shards"


def redis_once(name: str) -> str:
    """The key that holds the id of the job under that name."""
    return f"pb:once:{name}"


def redis_text(name: str) -> str:
    """The key of a small text."""
    return f"pb:text:{name}"


#: What an intake adds to the name of the list it takes from: where elements lie while they are being stored.
INTAKE_SUFFIX = "::pepperbus"


def redis_node(node: str) -> str:
    """The key whose age says when `node` last said that it lives."""
    return f"pb:node:{node}"


def wake_channel(topic: str) -> str:
    """The pub/sub channel on which pushes to `topic` are announced through a shared Redis."""
    return f"pb:wake:{topic}"


def owner_name(node: str, process: str, boot: str) -> str:
    """Who holds a lease: one incarnation of one process. `boot` is new at each start and never reused."""
    return f"{node}/{process}/{boot}"


def is_owner(text: str) -> bool:
    """Whether `text` is of the form that `owner_name` gives."""
    return text.count("/") == 2


def split_owner(owner: str) -> tuple[str, str, str]:
    node, process, boot = owner.split("/")
    return node, process, boot
