"""The node's file as operators edit it from afar: comments and order kept, tried as a whole first, then reloaded.

Floor 4. What it was before stays beside the bus' data, as of queues' files. It holds secrets: nobody is shown a line of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.errors import ConfigError, NotReachable, PepperbusError
from pepperbus.operations import versions
from pepperbus.operations.editing import editing, put_text
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import as_text, parsed, text_of
from pepperbus.operations.results import QueueFile
from pepperbus.operations.steer import trouble

KEPT_AS = "@node"  # among `versions`: no queue can have that name


def edit(
    office: Office, name: str, what: str, put: Callable[[Any], None], check: Callable[[Config], None] | None = None
) -> QueueFile:
    """Let `put` change the tree, try the result, write it and reload. `check` may refuse what the parser would take.

    Raises ConfigError in the words of `pepperbus check`, and what `put` and `check` raise; nothing is changed then.
    """
    file = office.config.file
    with editing(file):  # checking takes a while, and another editor's change must not be lost meanwhile
        before = text_of(file, name)
        tree = parsed(before)
        put(tree)
        after = as_text(tree, before)
        if after == before:
            return QueueFile(name, str(file), "unchanged", reloaded=True)
        made = tried(file, after)
        if check:
            check(made)
        with versions.keeping(office, KEPT_AS, file):
            put_text(file, after, office.config.bus)
    done = QueueFile(name, str(file), what)
    try:
        answer = office.ask({"op": "reload"})
    except NotReachable as error:
        done.reload = str(error)
        return done
    done.reloaded = bool(answer.get("ok"))
    done.refused, done.reload = not done.reloaded, trouble(answer)
    return done


def tried(file: Path, text: str) -> Config:
    """The configuration as it would be. Raises ConfigError in the words of `check`."""
    trial = file.with_name(f".{file.name}.trial")
    try:
        fd = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(text)
        return load(trial)
    except ConfigError as error:
        raise ConfigError(*(mistake.replace(trial.name, file.name) for mistake in error.mistakes)) from error
    except OSError as error:
        raise PepperbusError(f"{error.filename or file}: {error.strerror or error}") from error
    finally:
        trial.unlink(missing_ok=True)
