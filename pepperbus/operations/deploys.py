"""Marks on the time line, as people set and see them: deployments, reloads, upgrades, starts. Floor 4."""

from __future__ import annotations

import msgspec

from pepperbus.errors import PepperbusError, UsageError
from pepperbus.journal import deploys as store
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, may, operation


class DeployMark(Result):
    """`kind`: mark (somebody set it), reload, upgrade or start. `queues`: those that a reload changed."""

    at_ms: int
    kind: str
    text: str = ""
    who: str = ""
    system: str = ""
    queues: tuple[str, ...] = ()


@operation(Right.OPERATE, system=lambda given: str(given["system"]), details=("text", "system"))
def mark(office: Office, text: str, system: str = "") -> DeployMark:
    """Set a mark now, of one system or (system "") of all. Raises UsageError for an empty or a long text."""
    text = " ".join(text.split())
    if not 0 < len(text) <= store.TEXT_CAP:
        raise UsageError(f"text: one line of at most {store.TEXT_CAP} characters is wanted")
    if system and system not in {queue.system for queue in office.config.queues.values()}:
        raise UsageError(f"system: no queue belongs to {system!r}")
    made = store.Deploy(office.clock.now_ms(), "mark", text, office.actor.name, system)
    try:
        store.add(office.config.bus.data_dir, made)
    except OSError as error:
        raise PepperbusError(f"{error.filename or store.FILE}: {error.strerror}") from error
    return _shown(made)


@operation(Right.VIEW)
def marks(office: Office, since_ms: int = 0, name: str = "") -> list[DeployMark]:
    """Since then, oldest first; those that concern `queue` or `queue/topic`, or all that this person may see."""
    queue = name.partition("/")[0]
    system = office.config.queues[queue].system if queue in office.config.queues else ""
    found = []
    for deploy in store.read(office.config.bus.data_dir, since_ms):
        made = _shown(deploy)
        if deploy.system and not (office.actor.may(Right.VIEW, deploy.system) and system in ("", deploy.system)):
            continue
        if deploy.queues:
            made.queues = tuple(one for one in deploy.queues if may(office, Right.VIEW, one) and queue in ("", one))
            if not made.queues:
                continue
        found.append(made)
    return found


def _shown(deploy: store.Deploy) -> DeployMark:
    return msgspec.convert({name: getattr(deploy, name) for name in DeployMark.__struct_fields__}, DeployMark)
