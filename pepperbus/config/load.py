"""Files -> validated -> frozen dataclasses. The door to the configuration for everyone else.

Floor 1. Loading is pure: it reads, and either returns a whole `Config` or raises a `ConfigError` with every mistake.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pepperbus.config import node, queue
from pepperbus.config.content import content
from pepperbus.config.known import Known
from pepperbus.config.model import Config, Queue
from pepperbus.config.notes import notes
from pepperbus.config.source import Document, read
from pepperbus.config.spec import Option, options
from pepperbus.errors import ConfigError, NotFound
from pepperbus.names import is_name

__all__ = ["find", "load", "load_queue_text", "notes", "queue_file", "spec"]

SEARCHED = (Path("etc/pepperbus.conf"), Path("/etc/pepperbus/pepperbus.conf"))


def find(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file to use: `path`, else $PEPPERBUS_CONF, else the first of SEARCHED that exists.

    Raises ConfigError when the search finds none.
    """
    if path is not None:
        return Path(path)
    if environ.get("PEPPERBUS_CONF"):
        return Path(environ["PEPPERBUS_CONF"])
    for candidate in SEARCHED:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(candidate) for candidate in SEARCHED)
    raise ConfigError(f"no configuration found: no -c FILE, $PEPPERBUS_CONF is not set, and none of {looked} exists")


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ, known: Known | None = None) -> Config:
    """The whole configuration. Raises ConfigError with every mistake of every file.

    `known`: what the same caller read before. What it knows is not built again, and afterwards it knows this.
    """
    try:
        return _load(path, environ, Known() if known is None else known)
    except ConfigError:
        if not known:
            raise
    return _load(path, environ, Known())  # also what is known may have to be named, by its file and line


def _load(path: Path | None, environ: Mapping[str, str], known: Known) -> Config:
    main = read(find(path, environ), environ)
    if main.broken and not main.tree:  # all else that seems wrong would follow from it
        raise ConfigError(*main.mistakes)
    config = node.build(main)
    before, made = known.beside(config), Known(config)
    documents: dict[str, Document] = {}
    queues: dict[str, Queue] = {}
    for file in _queue_files(main, config):
        found = content(file)
        same = before.queue(file, found)
        if same is None:
            document = documents[file.stem] = read(file, environ, found)
            same = queue.build(document, file.stem, config)
        if file.stem not in documents or not documents[file.stem].refers:
            made.queues[file] = found, same
        queues[file.stem] = same
    _check_keys(documents, queues)
    _check_logins(main, config, queues)
    mistakes = [mistake for document in (main, *documents.values()) for mistake in document.mistakes]
    if mistakes:
        raise ConfigError(*mistakes)
    known.node, known.queues = made.node, made.queues
    secret_files = {file: None for document in (main, *documents.values()) for file in document.secret_files}
    return replace(config, queues=queues, secret_files=tuple(secret_files))


def load_queue_text(text: str, name: str, config: Config) -> Queue:
    """The queue `name` as `text` would make it beside the other queues of `config`, for an edit before it is written.

    Raises ConfigError with every mistake; the lines in it are those of `text`.
    """
    document = Document(queue_file(name, config), text)
    if "\0" in text:
        document = Document(document.file, "")
        document.unreadable("NUL byte in the text")
    built = queue.build(document, name, config)
    _check_keys({name: document}, {**config.queues, name: built})
    if name in config.logins:
        document.mistake((), f"{name} is a login of [logins]; a queue cannot have the same name")
    if document.mistakes:
        raise ConfigError(*document.mistakes)
    return built


def queue_file(name: str, config: Config) -> Path:
    """Where the file of queue `name` lies, or would lie when it is created.

    Raises NotFound for what can name no queue: such a text could be the way to another file.
    """
    known = config.queues.get(name)
    if known is not None and known.file is not None:
        return known.file
    if not is_name(name):
        raise NotFound(f"no queue {name!r}")
    pattern = Path(config.queue_files)
    return pattern.parent / pattern.name.replace("*", name, 1)


def spec() -> list[Option]:
    """Every option: section, key, kind, default, help."""
    return options()


def _queue_files(main: Document, config: Config) -> list[Path]:
    pattern = main.value(("queue_files",))
    shown = Path(os.path.normpath(main.file.parent / (pattern if isinstance(pattern, str) else "queues.d/*.conf")))
    if "*" not in shown.name or "*" in str(shown.parent) or "**" in shown.name:
        main.mistake(("queue_files",), "DIRECTORY/*.conf is wanted: one * and that in the last part")
        return []
    if not Path(config.queue_files).parent.is_dir():
        main.mistake(
            ("queue_files",), f"there is no directory {shown.parent}; create it, or say where the queues' files lie"
        )
        return []
    return [Path(found) for found in sorted(glob.glob(str(shown)))]


def _check_keys(documents: dict[str, Document], queues: dict[str, Queue]) -> None:
    """A key means one queue. `documents`: those that may be blamed."""
    claimed: dict[str, str] = {}
    for name, found in queues.items():
        for key in found.keys:
            other = claimed.setdefault(key, name)
            blamed = name if name in documents else other
            if other != name and blamed in documents:
                documents[blamed].mistake(
                    ("keys",), f"{key!r} is a key of queue {name if blamed != name else other} too"
                )
            target = key.partition("/")[0]
            if target in queues and key != name:
                if name in documents:
                    documents[name].mistake(("keys",), f"{key!r} already means the queue {target}")
                elif target in documents:
                    documents[target].mistake((), f"{key!r} is already one of the keys of queue {name}")


def _check_logins(main: Document, config: Config, queues: dict[str, Queue]) -> None:
    for name in config.logins:
        if name in queues:
            main.mistake(("logins", name), "there is a queue of this name; choose another name for the login")
