"""A storage that fails on purpose, for tests of those who call one: the n-th call is delayed, refused or left unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pepperbus.errors import StorageUnavailable, StorageUnknown
from pepperbus.storage.contract import Storage

#: What happens at one call: gets the real call, returns its answer or raises.
Fault = Callable[[Callable[[], Any]], Any]


def refuse(call: Callable[[], Any]) -> Any:
    """Definite: nothing happens."""
    raise StorageUnavailable("refused on purpose")


def lose_question(call: Callable[[], Any]) -> Any:
    """No answer, and it did not happen."""
    raise StorageUnknown("the question was lost on purpose")


def lose_answer(call: Callable[[], Any]) -> Any:
    """No answer, but it happened."""
    call()
    raise StorageUnknown("the answer was lost on purpose")


def delay(wait: Callable[[], Any]) -> Fault:
    """It happens after `wait()` returns: hand in a gevent event's `wait`, or a sleep."""

    def delayed(call: Callable[[], Any]) -> Any:
        wait()
        return call()

    return delayed


class FlakyStorage:
    """`inner`, but calls named by `fail` go wrong. `calls` counts every call of each method from 1."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self._faults: dict[tuple[str, int], Fault] = {}
        self._always: dict[str, Fault] = {}
        self.calls: Counter[str] = Counter()

    def fail(self, method: str, nth: int, fault: Fault = refuse) -> None:
        """The `nth` call of `method` from now on suffers `fault`."""
        self._faults[method, self.calls[method] + nth] = fault

    def fail_all(self, method: str, fault: Fault | None = refuse) -> None:
        """Every call of `method` suffers `fault`, until None is given."""
        self._always.pop(method, None)
        if fault:
            self._always[method] = fault

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*args: Any, **named: Any) -> Any:
            self.calls[name] += 1
            fault = self._faults.pop((name, self.calls[name]), None) or self._always.get(name)
            return fault(lambda: value(*args, **named)) if fault else value(*args, **named)

        return call
