"""What others told when they were asked last: kept, dated, and asked for again behind whoever looks. Floor 5.

Nobody looks, nobody is asked. Knows neither nodes nor errands: a question is a key and a function that answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from time import monotonic
from typing import Any, Generic, TypeVar

import gevent

from pepperbus.errors import PepperbusError

_MOST = 200  # answers that are kept

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Told(Generic[Value]):
    """An answer. `value` None: nothing yet. `error`: why the last question got none; then `value` is that of an earlier one."""

    def __init__(self) -> None:
        self.value: Value | None = None
        self.error = ""
        self.asked_at = 0.0
        self._told_at = 0.0
        self._asking: Any = None  # the greenlet

    @property
    def age_s(self) -> float:
        """How old the answer is; while there is none, how long it has been waited for."""
        return monotonic() - (self._told_at if self.value is not None else self.asked_at)

    def ask(self, answer: Callable[[], Value]) -> None:
        """Ask, behind whoever calls."""
        self.asked_at = monotonic()
        self._asking = gevent.spawn(self._ask, answer)

    def is_fresh(self, fresh_s: float, again_s: float) -> bool:
        """Whether there is no need to ask (again): it is young, or it is being asked."""
        if self.value is None and not self.error:
            return self._asking is not None
        return self._asking is not None or monotonic() - self.asked_at < (again_s if self.error else fresh_s)

    def wait(self, until: float) -> None:
        """For the first answer, at most until then (monotonic)."""
        if self.value is None and not self.error and self._asking is not None:
            self._asking.join(max(until - monotonic(), 0.0))

    def _ask(self, answer: Callable[[], Value]) -> None:
        try:
            self.value, self.error, self._told_at = answer(), "", monotonic()
        except PepperbusError as error:
            self.error = str(error) or type(error).__name__
        finally:
            self._asking = None


class Round(Generic[Key, Value]):
    """Answers by key. `fresh_s`: how old one may be; `again_s`: after a failure."""

    def __init__(self, answer: Callable[[Key], Value], fresh_s: Callable[[Key], float], again_s: float) -> None:
        self._answer = answer
        self._fresh_s = fresh_s
        self._again_s = again_s
        self._told: dict[Key, Told[Value]] = {}  # in the order in which they were looked at last

    def look(self, key: Key) -> Told[Value]:
        """What is known; asked for behind the answer when it is old."""
        told = self._told.pop(key, None) or Told()
        self._told[key] = told
        while len(self._told) > _MOST:
            del self._told[next(iter(self._told))]
        if not told.is_fresh(self._fresh_s(key), self._again_s):
            told.ask(lambda: self._answer(key))
        return told

    def all(self, keys: Iterable[Key], first_s: float = 0.0) -> dict[Key, Told[Value]]:
        """The same of several; those never answered before are waited for, `first_s` together."""
        found = {key: self.look(key) for key in keys}
        until = monotonic() + first_s
        for told in found.values() if first_s else ():
            told.wait(until)
        return found
