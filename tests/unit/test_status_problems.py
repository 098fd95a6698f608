"""What `status` calls wrong, from facts made by hand; the bus itself is asked in the process tests."""

from pathlib import Path

from pepperbus.counted import Reader
from pepperbus.operations.results import QueueStatus, Status, StorageStatus, TopicStatus
from pepperbus.operations.status import problems
from pepperbus.stats import STATES, Writer, read_all


def status(asks: str, gives: str) -> Status:
    queue = QueueStatus("orders", durability=asks, topics=[TopicStatus("orders/mail", "shared")])
    return Status(
        "node",
        0,
        True,
        master={"ready": True},
        queues=[queue],
        storages=[StorageStatus("shared", "redis", True, durability=gives)],
    )


def test_a_queue_that_asks_for_more_than_its_storage_gives() -> None:
    assert problems(status("process", "memory")) == [
        "orders: asks for durability = process, storage shared gives memory: pushes are refused"
    ]


def test_a_storage_that_gives_more_is_fine() -> None:
    assert problems(status("process", "power")) == []
    assert problems(status("process", "process")) == []


def test_a_worker_that_left_says_nothing_of_its_topics_any_more(tmp_path: Path) -> None:
    """A reload gives a changed queue a new slot; the old one must not show its topic as down for ever."""
    left = Writer(tmp_path, "worker.orders.0")
    left.record("orders/mail").set("state", STATES.index("down"))
    left.record("orders/mail").add("in_flight")
    left.record("orders/mail").add("done", 3)
    assert Reader(tmp_path).worker_states() == {"orders/mail": "down"}
    left.close()
    Writer(tmp_path, "worker.orders.1").record("orders/mail").set("state", STATES.index("feeding"))
    assert Reader(tmp_path).worker_states() == {"orders/mail": "feeding"}
    totals = read_all(tmp_path)["orders/mail"]
    assert (totals["done"], totals["in_flight"]) == (3, 0)
