"""Check a configuration; tell the running master to reload, upgrade, stop, reopen its logs, restart a process, scale.

Floor 4. The master's answers are taken as they come: `ok` and a line, and whatever else it says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pepperbus.accounts.model import Right
from pepperbus.config import load
from pepperbus.errors import ConfigError, NotReachable
from pepperbus.operations.office import Office
from pepperbus.operations.results import Checked, Steered
from pepperbus.operations.rights import operation

_LEAVE_S = 20.0  # over the grace: for the processes to go
_REPLACED_S = 60.0  # for one process; the master gives up before


def check(path: Path | None, environ: Mapping[str, str] = os.environ) -> Checked:
    """Whether the configuration is right: every mistake, or what it holds and what is worth knowing. Never raises."""
    try:
        config = load.load(path, environ)
    except ConfigError as error:
        return Checked(False, str(path or ""), mistakes=list(error.mistakes))
    topics = sum(len(queue.topics) for queue in config.queues.values())
    return Checked(True, str(config.file), len(config.queues), topics, len(config.storages), notes=load.notes(config))


@operation(Right.VIEW, node=True)
def check_files(office: Office) -> Checked:
    """The same, of the files this office's configuration was read from."""
    return check(office.config.file)


@operation(Right.ADMIN, tells=("ok", "message"))
def reload(office: Office) -> Steered:
    """The running bus reads its files anew; waits until it took them or refused them. Raises NotReachable."""
    return _steer(office, {"op": "reload"})


@operation(Right.ADMIN, tells=("ok", "message"))
def upgrade(office: Office, wait: bool = True) -> Steered:
    """The running bus becomes the code on disk, or says why not; `wait`: until every process is replaced.

    Raises NotReachable.
    """
    steered = _steer(office, {"op": "upgrade"})
    if not steered.ok or not wait:
        return steered
    facts = steered.answer["upgrade"]
    number, left, deadline = facts["number"], -1, 0.0
    while facts["number"] == number and facts["state"] in ("resting", "replacing"):
        if facts["left"] != left:
            left, deadline = facts["left"], time.monotonic() + _REPLACED_S
        elif time.monotonic() > deadline:
            return Steered("upgrade", False, f"the upgrade stands still: {facts['state']}, {left} left", facts)
        time.sleep(0.1)
        facts = office.ask({"op": "status"}).get("upgrade", {"number": 0})
    if facts["number"] != number:
        return Steered("upgrade", False, "the bus was started anew meanwhile", facts)
    return Steered("upgrade", facts["state"] == "done", facts["reason"], facts)


@operation(Right.ADMIN, details=("now",), tells=("ok", "message"))
def stop(office: Office, now: bool = False, wait: bool = True) -> Steered:
    """The running bus drains and ends; `wait`: until it has. `now`: running attempts get no grace.

    Raises NotReachable.
    """
    steered = _steer(office, {"op": "stop", "grace": 0} if now else {"op": "stop"})
    deadline = time.monotonic() + float(steered.answer.get("grace", 0)) + _LEAVE_S
    while steered.ok and wait:
        try:
            office.ask({"op": "status"})
        except NotReachable:
            break
        if time.monotonic() > deadline:
            return Steered(
                "stop", False, f"the bus (pid {steered.answer.get('pid')}) has not ended yet", steered.answer
            )
        time.sleep(0.05)
    return steered


@operation(Right.ADMIN, tells=("ok", "message"))
def reopen(office: Office) -> Steered:
    """The running bus opens its log files anew. Raises NotReachable."""
    return _steer(office, {"op": "reopen"})


@operation(Right.ADMIN, details=("name",), tells=("ok", "message"))
def restart(office: Office, name: str) -> Steered:
    """The process `name` (`worker.orders.0`) drains within `[bus] grace` and another takes its place.

    What it has leased and cannot end goes back. Raises NotReachable.
    """
    return _steer(office, {"op": "restart", "name": name})


@operation(Right.ADMIN, details=("change",), tells=("ok", "message"))
def scale(office: Office, change: int) -> Steered:
    """One gateway process more (1) or less (-1). Raises NotReachable."""
    return _steer(office, {"op": "scale", "by": change})


def _steer(office: Office, request: dict[str, Any]) -> Steered:
    answer = office.ask(request)
    return Steered(str(request["op"]), bool(answer.get("ok")), trouble(answer), answer)


def trouble(answer: dict[str, Any]) -> str:
    """Why the master said no; "" when it did not."""
    return "\n".join(answer.get("mistakes") or [str(answer.get("error") or "")])
