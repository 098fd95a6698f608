"""A queue that takes no pushes any more, and goes once everything in it has run.

Floor 4. That it is closed stands in its file (`closed`), so it holds over a restart; the gateways refuse its pushes. The
sidecar calls `finish` now and then.
"""

from __future__ import annotations

from configobj import ConfigObjError

from pepperbus.accounts.model import Right
from pepperbus.config.load import queue_file
from pepperbus.errors import NotFound
from pepperbus.operations import queues
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import parsed, text_of
from pepperbus.operations.results import QueueFile
from pepperbus.operations.rights import operation


@operation(Right.ADMIN, "name", audited=False)  # the change writes itself down
def close(office: Office, name: str, remove: bool = False) -> QueueFile:
    """Pushes to the queue are refused from now on; what lies there still runs. `remove`: it goes once it is empty.

    Raises NotFound, ConfigError.
    """
    return queues.change(office, name, {"closed": "remove" if remove else "yes"})


@operation(Right.ADMIN, "name", audited=False)  # the change writes itself down
def reopen(office: Office, name: str) -> QueueFile:
    """It takes pushes again. Raises NotFound, and UsageError when it is not closed."""
    return queues.change(office, name, {}, ["closed"])


@operation(Right.ADMIN, "name", audited=False)
def finish(office: Office, name: str) -> bool:
    """Remove the queue if it waits for that and nothing lies there any more, dead jobs neither; whether it went."""
    if office.queue(name).closed != "remove" or not _waits(office, name) or queues.lying(office, name):
        return False
    queues.remove(office, name)
    return True


def _waits(office: Office, name: str) -> bool:
    """Whether its file says so too: somebody may have opened it again and the bus not have taken that yet."""
    try:
        return str(parsed(text_of(queue_file(name, office.config), name)).get("closed")) == "remove"
    except (NotFound, ConfigObjError):
        return False
