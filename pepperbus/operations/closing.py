"""A queue or a topic that takes no new jobs any more, and goes once everything in it has run.

Floor 4. That it is closed stands in the queue's file (`closed`), so it holds over a restart; the gateways refuse pushes to a
closed queue and leave a closed topic out. The sidecar calls `finish` now and then.
"""

from __future__ import annotations

from configobj import ConfigObjError

from pepperbus.accounts.model import Right
from pepperbus.config.load import queue_file
from pepperbus.config.model import Config
from pepperbus.errors import NotFound
from pepperbus.operations import queues
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import parsed, text_of
from pepperbus.operations.results import QueueFile
from pepperbus.operations.rights import operation


@operation(Right.ADMIN, "name", audited=False)  # the change writes itself down
def close(office: Office, name: str, remove: bool = False) -> QueueFile:
    """`queue`, or a `queue/topic`, takes no new jobs from now on; what lies there still runs. `remove`: it goes once it is
    empty.

    Raises NotFound, ConfigError: not every topic of a queue can go, then the queue itself is to be closed.
    """
    queue, topic, key = _words(name)
    return queues.change(office, queue, {key: "remove" if remove else "yes"}, standing=[topic] if topic else [])


@operation(Right.ADMIN, "name", audited=False)  # the change writes itself down
def reopen(office: Office, name: str) -> QueueFile:
    """It takes new jobs again. Raises NotFound, and UsageError when it is not closed."""
    queue, topic, key = _words(name)
    return queues.change(office, queue, {}, [key], standing=[topic] if topic else [])


@operation(Right.ADMIN, "name", audited=False)
def finish(office: Office, name: str) -> bool:
    """Remove the queue or topic if it waits for that and nothing lies there any more, dead jobs neither; whether it went."""
    if name not in leaving(office.config) or not _waits(office, name) or queues.lying(office, name):
        return False
    queues.remove(office, name)
    return True


def leaving(config: Config) -> list[str]:
    """The queues and topics that are removed once they are empty; of a queue that goes none of its topics."""
    found = []
    for queue in config.queues.values():
        if queue.closed == "remove":
            found.append(queue.name)
        else:
            found += [topic.full_name for topic in queue.topics.values() if topic.closed == "remove"]
    return found


def _words(name: str) -> tuple[str, str, str]:
    """The queue, the topic or "", and where in the file it stands that it is closed."""
    queue, _slash, topic = name.partition("/")
    return queue, topic, f"{topic}/closed" if topic else "closed"


def _waits(office: Office, name: str) -> bool:
    """Whether its file says so too: somebody may have opened it again and the bus not have taken that yet."""
    queue, topic, _key = _words(name)
    try:
        tree = parsed(text_of(queue_file(queue, office.config), queue))
    except (NotFound, ConfigObjError):
        return False
    section = tree.get("topics", {}).get(topic, {}) if topic else tree
    return str(section.get("closed")) == "remove"
