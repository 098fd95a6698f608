"""What `status` calls wrong, from facts made by hand; the bus itself is asked in the process tests."""

from pepperbus.operations.results import QueueStatus, Status, StorageStatus, TopicStatus
from pepperbus.operations.status import problems


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
