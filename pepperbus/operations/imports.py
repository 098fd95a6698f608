"""Queues' files from what a team runs today: read, held against the whole configuration, written; never over one that is there.

Floor 4. The readers are `moving`'s. The running bus is not told: `check` and `reload` come when the files were looked at.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pepperbus.accounts.model import Right
from pepperbus.config import node
from pepperbus.config.load import load_queue_text, queue_file
from pepperbus.config.model import Config
from pepperbus.config.source import Document
from pepperbus.errors import ConfigError, NotFound, PepperbusError, UsageError
from pepperbus.moving import crontab, go, supervisor
from pepperbus.moving.draft import Draft, text
from pepperbus.operations.editing import editing, put_text
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import operation

KINDS = ("go", "supervisor", "crontab")


class ImportedFile(Result):
    """`what`: new, or there (and left as it is). `text` has passwords in it."""

    name: str
    file: str
    what: str
    text: str = ""


class Imported(Result):
    """`node`: lines that were added to the node's file. `left`: what is not in any file, a line each. `names`: new queues."""

    files: list[ImportedFile] = msgspec.field(default_factory=list)
    node: str = ""
    left: list[str] = msgspec.field(default_factory=list)
    written: bool = False
    names: list[str] = msgspec.field(default_factory=list)


@operation(Right.ADMIN, details=("kind", "paths"), tells=("names",))
def bring(
    office: Office,
    kind: str,
    paths: Sequence[str],
    *,
    storage: str = "",
    intakes: bool = True,
    system: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Write what these files mean as queues. `storage`: where their jobs shall lie; needed when there are several.

    `intakes`: go: also take over what lies in Redis. `system`: crontab: with a user in each line.
    Raises PepperbusError for files that cannot be read, ConfigError when what would be written is not right.
    """
    draft = _read(kind, paths, intakes, system)
    config = office.config
    if storage and storage not in config.storages:
        raise NotFound(f"no storage {storage!r}; there are {', '.join(config.storages)}")
    if not storage and len(config.storages) > 1 and draft.queues:
        raise UsageError(f"say where the jobs shall lie: --storage, one of {', '.join(config.storages)}")
    before = config.file.read_text()
    after, added = _with_pools(config, before, draft)
    made = Imported(node=added, left=draft.left)
    config = _as_node(config, after)
    for name, section in draft.queues.items():
        if not {"password", "open"} & section.keys():
            section = {"password": secrets.token_hex(16), **section}
        if len(config.storages) > 1:
            section = {"storage": storage, **section}
        file = queue_file(name, config)
        there = file.exists()
        made.files.append(ImportedFile(name, str(file), "there" if there else "new", text(draft.about[name], section)))
        made.names += [] if there else [name]
    config = _tried(config, made)
    if not dry_run:
        _write(config, before, after if added else "", made)
    return made


def _read(kind: str, paths: Sequence[str], intakes: bool, system: bool) -> Draft:
    texts = _texts(paths)
    try:
        if kind == "go":
            config: dict[str, Any] = {}
            for path, found in texts.items():
                config |= go.parse(path, found)
            if "queue_config" not in config:
                raise PepperbusError(f"no queue_config in {', '.join(texts) or 'no file'}")
            return go.read(config, intakes)
        drafts = [
            crontab.read(found, path, system or path.startswith("/etc/cron"))
            if kind == "crontab"
            else supervisor.read(found, path)
            for path, found in texts.items()
        ]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise PepperbusError(f"{', '.join(texts)}: {error}") from error
    draft = Draft()
    for one in drafts:
        for name, section in one.queues.items():
            free = draft.free_name(name)
            draft.queues[free], draft.about[free] = section, one.about[name]
        draft.left += one.left
    return draft


def _texts(paths: Sequence[str]) -> dict[str, str]:
    """Files by their path; of a directory its *.json and *.conf."""
    found: dict[str, str] = {}
    for path in paths:
        inside = sorted(glob.glob(os.path.join(path, "*.json")) + glob.glob(os.path.join(path, "*.conf")))
        for file in inside if os.path.isdir(path) else [path]:
            try:
                found[file] = Path(file).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise PepperbusError(f"{file}: {getattr(error, 'strerror', '') or 'not UTF-8 text'}") from error
    return found


def _with_pools(config: Config, before: str, draft: Draft) -> tuple[str, str]:
    """The node's file with the pools it lacks, and the lines that were added."""
    used = {topic.get("pool") for queue in draft.queues.values() for topic in queue["topics"].values()}
    missing = {name: pool for name, pool in draft.pools.items() if name in used and name not in config.pools}
    for name in draft.pools.keys() & config.pools.keys():
        address = str(draft.pools[name]["address"])
        if config.pools[name].address != address:
            draft.left.append(
                f"pool {name}: there is one already, at {config.pools[name].address}; theirs was at {address}"
            )
    if not missing:
        return before, ""
    added = text("", {"fastcgi": missing})
    begin = re.search(r"^[ \t]*\[[ \t]*fastcgi[ \t]*\][ \t]*(#.*)?\n?", before, re.M)
    if begin is None:
        return f"{before.rstrip()}\n{added}", added
    return f"{before[: begin.end()].rstrip()}\n{added.partition(chr(10))[2]}{before[begin.end() :]}", added


def _as_node(config: Config, after: str) -> Config:
    """The configuration with this text as the node's file."""
    document = Document(config.file, after)
    made = node.build(document)
    if document.mistakes:
        raise ConfigError(*document.mistakes)
    return replace(made, queues=config.queues, generation=config.generation)


def _tried(config: Config, made: Imported) -> Config:
    """With the new queues in it. Raises ConfigError with every mistake of all of them."""
    mistakes: list[str] = []
    for one in made.files:
        if one.what == "there":
            made.left.append(f"queue {one.name}: {one.file} is there already and stays as it is")
            continue
        try:
            queue = load_queue_text(one.text, one.name, config)
            config = replace(config, queues={**config.queues, one.name: queue})
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(*mistakes)
    return config


def _write(config: Config, before: str, after: str, made: Imported) -> None:
    """All or nothing, and only over what was looked at. The node's file first: queues' files that name a pool it does not
    have would keep the bus from starting.
    """
    new = {Path(one.file): one.text for one in made.files if one.what == "new"}
    with ExitStack() as locks:
        for place in {file.parent.resolve(): file for file in (config.file, *new)}.values():  # each directory once
            locks.enter_context(editing(place))
        if config.file.read_text() != before or any(file.exists() for file in new):
            raise PepperbusError(
                f"{config.file.parent}: somebody changed the files meanwhile; nothing is written, try again"
            )
        undo = locks.enter_context(ExitStack())
        if after:
            undo.callback(put_text, config.file, before, config.bus)
            put_text(config.file, after, config.bus)
        for file, text in new.items():
            undo.callback(file.unlink, missing_ok=True)
            put_text(file, text, config.bus)
        undo.pop_all()
    made.written = True
