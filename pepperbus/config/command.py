"""`run = command` in a queue's file: which of its keys fit together.

Floor 1. Pure: whether the command, its directory and its user exist is seen when they are used.
"""

from __future__ import annotations

import os
import re

from pepperbus.config.check import Values
from pepperbus.config.model import Config, Topic
from pepperbus.config.secret import Secret
from pepperbus.config.source import Document, KeyPath
from pepperbus.config.values import HASH

KEYS = ("command", "feed", "children", "max_task", "max_memory", "entry", "directory", "user", "environment")
#: Keys of a topic that speak of requests and their answers, or that `children` stands for.
NOT_HERE = {
    "concurrency": "count children = instead",
    "body": "feed says how a job reaches it",
    "contract": "feed says what its answer means",
    "ping": "there is nobody to ask before it runs",
    "chunk": "each job is one line, or one process",
}
#: Which feeds a key is for.
_FEEDS = {"entry": ("pull",), "max_task": ("stdin", "pull")}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


def check(document: Document, path: KeyPath, full: Values, node: Config) -> None:
    """The keys of one topic with run = command, `full` of values; what they become is put into it."""
    for key, instead in NOT_HERE.items():
        if document.value((*path, key)) is not None:
            document.mistake((*path, key), f"{key} is not for run = command: {instead}")
    for key, feeds in _FEEDS.items():
        if document.value((*path, key)) is not None and full["feed"] not in feeds:
            document.mistake((*path, key), f"{key} is for feed = {' or '.join(feeds)}; this topic has {full['feed']}")
    if document.value((*path, "timeout")) is not None and full["feed"] in ("pull", "none"):
        document.mistake(
            (*path, "timeout"), f"with feed = {full['feed']} the bus does not see when a job begins or ends"
        )
    if full["feed"] == "none" and full["children"] and full["children"].least < full["children"].most:
        text = "feed = none has no backlog that a range could follow; one number is wanted"
        document.mistake((*path, "children"), text)
    for name in full.get("environment") or ():
        if not _VARIABLE.match(name) or name.startswith("PEPPERBUS_"):
            text = "the bus sets this variable itself" if name.startswith("PEPPERBUS_") else "not a variable's name"
            document.mistake((*path, "environment", name), text)
    if full["user"] and node.bus.user and full["user"] != node.bus.user:
        text = f"only root may run it as another user, and [bus] user = {node.bus.user}; remove one of the two"
        document.mistake((*path, "user"), text)
    full["contract"], full["ping"], full["chunk"] = "status", False, 1


def settle(document: Document, run: str, full: Values) -> None:
    """Make of `children` or `concurrency`, whichever this way of running counts, one number and its lower end."""
    span = full.pop("children") if run == "command" else full["concurrency"]
    full.pop("children", None)
    full["concurrency"], full["least"] = span.most, span.least if span.least < span.most else 0
    base = os.path.abspath(document.file.parent)
    full["directory"] = os.path.normpath(os.path.join(base, full["directory"])) if full["directory"] else "/"
    full["environment"] = tuple((full.get("environment") or {}).items())


def settle_workers(own: Values) -> None:
    """The same of a queue's `workers`."""
    span = own["workers"]
    own["workers"], own["least_workers"] = span.most, span.least if span.least < span.most else 0


def check_password(document: Document, topic: Topic, queue: Secret) -> None:
    """feed = pull hands the password to the child, so it must be known."""
    password = (topic.password or queue).reveal()
    if topic.run == "command" and topic.feed == "pull" and (not password or password.startswith(HASH)):
        have = "a hash is not one" if password else "there is none"
        text = f"feed = pull gives the child a password to log in with (-a), and {have}; write one of its own here"
        document.mistake(("topics", topic.name, "password"), text)
