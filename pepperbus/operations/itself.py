"""What a node tells of itself: its processes, and which versions of what run there. Floor 4.

The same for its own pages, for `pepperbus nodes` and, as the answer to an errand, for other nodes.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

import pepperbus
from pepperbus.errors import NotReachable
from pepperbus.journal import deploys
from pepperbus.operations import status
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result, StorageStatus
from pepperbus.operations.rights import Right, operation

_NAMED = 12  # queues of a process that are named
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


class _Vcs(msgspec.Struct):
    commit_id: str = ""


class _Origin(msgspec.Struct):
    """PEP 610, of which only this is read."""

    vcs_info: _Vcs = msgspec.field(default_factory=_Vcs)


class Process(Result):
    """`queues`: those it works for, the first of them; `more`: how many others. `cpu` in percent of a core, `memory` bytes.

    `restarts`: how often another took this place; `reason`: why the last time, or why it does not run.
    """

    name: str
    role: str
    state: str
    pid: int = 0
    uptime_s: float = 0.0
    restarts: int = 0
    memory: int = 0
    cpu: float = 0.0
    reason: str = ""
    queues: list[str] = msgspec.field(default_factory=list)
    more: int = 0


class StorageVersion(Result):
    """`version` "": it does not answer."""

    name: str
    type: str
    version: str = ""


class Itself(Result):
    """`running`: the master answered; else `why` not. `state`: ready, draining, starting. `commit`: of the code that runs,
    where the installation knows it. `deployed`: the last mark that somebody set there, and when.
    """

    node: str
    running: bool
    why: str = ""
    state: str = ""
    version: str = ""
    python: str = ""
    commit: str = ""
    generation: int = 0
    deployed: str = ""
    deployed_ms: int = 0
    storages: list[StorageVersion] = msgspec.field(default_factory=list)
    processes: list[Process] = msgspec.field(default_factory=list)


@operation(Right.VIEW, node=True)
def itself(office: Office) -> Itself:
    """This node, asked now. Never raises for a part that is away."""
    storages = [status.health(office, name) for name in office.config.storages]
    try:
        master = office.ask({"op": "status"})
    except NotReachable as error:
        return told(office, {}, [], storages, str(error))
    return told(office, master, master.get("processes", []), storages)


@operation(Right.VIEW, node=True)
def told(
    office: Office,
    master: Mapping[str, Any],
    processes: Iterable[Mapping[str, Any]],
    storages: Iterable[StorageStatus],
    why: str = "",
) -> Itself:
    """The same of what the master and the storages have said already; `why`: the master did not."""
    marks = [one for one in deploys.read(office.config.bus.data_dir) if one.kind == "mark"]
    groups = {group: [queue.name for queue in queues] for group, queues in office.config.groups().items()}
    return Itself(
        office.config.bus.node,
        bool(master),
        why,
        ""
        if not master
        else "ready"
        if master.get("ready")
        else str(master.get("state", "")).replace("running", "starting"),
        str(master.get("version", "")),
        platform.python_version(),
        COMMIT,
        int(master.get("generation", 0)),
        marks[-1].text if marks else "",
        marks[-1].at_ms if marks else 0,
        [StorageVersion(one.name, one.type, one.version if one.alive else "") for one in storages],
        [_process(one, groups) for one in processes],
    )


def _process(facts: Mapping[str, Any], groups: Mapping[str, list[str]]) -> Process:
    queues = groups.get(facts.get("group", ""), []) if facts["role"] == "worker" else []
    return Process(
        facts["name"],
        facts["role"],
        str(facts["state"]),
        facts.get("pid") or 0,
        facts.get("uptime") or 0.0,
        facts.get("restarts") or 0,
        facts.get("rss") or 0,
        facts.get("cpu") or 0.0,
        facts.get("reason") or "",
        queues[:_NAMED],
        len(queues[_NAMED:]),
    )


def _commit() -> str:
    """Of the code that is imported: as pip noted it (PEP 610), or as the checkout says in which it lies; "" without either."""
    try:
        note = importlib.metadata.distribution("pepperbus").read_text("direct_url.json")
    except (importlib.metadata.PackageNotFoundError, OSError, UnicodeDecodeError):
        note = None
    found = _noted(note or "") or _checked_out(Path(pepperbus.__file__).parents[1] / ".git")
    return found if _COMMIT.fullmatch(found) else ""


def _noted(note: str) -> str:
    """What direct_url.json says; "" of one that says nothing, or is rubbish: the bus runs without."""
    try:
        return msgspec.json.decode(note, type=_Origin).vcs_info.commit_id
    except msgspec.DecodeError:
        return ""


def _checked_out(git: Path) -> str:
    """What `HEAD` of a checkout stands at; a branch is a file of its own or a line of packed-refs."""
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        branch = head.removeprefix("ref: ")
        if (git / branch).exists():
            return (git / branch).read_text().strip()
        lines = (line.split() for line in (git / "packed-refs").read_text().splitlines())
        return next((words[0] for words in lines if words[1:] == [branch]), "")
    except (OSError, UnicodeDecodeError):
        return ""


COMMIT = _commit()  # looked up with the import: what is checked out later is not what runs
