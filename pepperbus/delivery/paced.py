"""Targets of topics with `rate` or `halt`: the same as any other, but closed for reasons of their own as well.

Floor 2. State lies in the words of the topic's `Slots`, so that all workers of the node act as one. Words are written without
a lock: two workers that start in the same instant may be counted as one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pepperbus.config.joboptions import Halt, Rate
from pepperbus.config.model import Topic
from pepperbus.delivery.contract import TargetEffect
from pepperbus.delivery.scaled import topic_target
from pepperbus.delivery.slots import CLOSED_KIND, CLOSED_UNTIL, TRIES, Slots
from pepperbus.delivery.target import Closed, Target

#: Words of the topic's slots, behind those of slots.py and scaled.py.
RATE_AT, HALT_BITS = 13, 14
#: With a rate so much of it may start at once (s): a timer for each of 1,000 a second would cost more than the jobs.
_BURST_S = 0.05


class Rated(Target):
    """Busy until the next job may start. RATE_AT is when all that was started would have been, evenly (monotonic ns)."""

    rate: Rate
    chunk: int

    def closed(self) -> Closed:
        kind = super().closed()
        return Closed.BUSY if kind is Closed.OPEN and self._wait_ns() > 0 else kind

    def probe_in(self) -> float:
        return max(self._wait_ns() / 1e9, 0.0) if super().closed() is Closed.OPEN else super().probe_in()

    def take(self, again: Callable[[], None]) -> tuple[int, int] | None:
        places = super().take(again)
        if places is not None:
            each = int(1e9 * self.chunk / self.rate.per_second)
            self.topic.words[RATE_AT] = max(self.topic.words[RATE_AT], time.monotonic_ns()) + each
        return places

    def hands_on(self) -> bool:
        return False

    def _wait_ns(self) -> int:
        return int(self.topic.words[RATE_AT]) - time.monotonic_ns() - int(_BURST_S * 1e9)


class Halting(Target):
    """Closed when too many of the last attempts failed; one waiting job at a time finds out whether that is over.

    HALT_BITS: the last attempts, one bit each, the youngest lowest; 1: it failed.
    """

    halt: Halt
    _is_failure = False  # the answer that is being reported was one

    @property
    def halted(self) -> bool:
        return bool(self.topic.words[CLOSED_KIND] == Closed.HALTED)

    def failed(self, reason: str) -> bool:
        self._is_failure = True
        if self.halted:
            self._close(self.topic, Closed.HALTED, self.why or reason)
            return False
        bits = self._remember(1)
        if bits.bit_count() < math.ceil(self.halt.share * self.halt.of):
            return False
        text = f"halted: {bits.bit_count()} of the last {self.halt.of} attempts failed, the last with: {reason}"
        self._close(self.topic, Closed.HALTED, text)
        return True

    def fine(self) -> None:
        if self._is_failure:  # it was answered, that is all
            self._is_failure = False
            if not self.halted:
                super().fine()
            return
        if self.halted:
            self.topic.words[HALT_BITS] = 0
        else:
            self._remember(0)
        super().fine()

    def hands_on(self) -> bool:
        return False  # each of its ends is remembered

    def report(self, effect: TargetEffect, reason: str = "") -> None:
        super().report(effect, reason)
        self._is_failure = False

    def _remember(self, bit: int) -> int:
        bits = int(self.topic.words[HALT_BITS]) << 1 & (1 << self.halt.of) - 1 | bit
        self.topic.words[HALT_BITS] = bits
        return bits

    def _close(self, slots: Slots, kind: Closed, reason: str) -> None:
        if kind is not Closed.HALTED:
            super()._close(slots, kind, reason)
            return
        slots.words[TRIES] += 1
        slots.words[CLOSED_UNTIL] = time.monotonic_ns() + int(self.halt.probe * 1e9)
        slots.words[CLOSED_KIND] = kind
        self.why = reason


def paced_target(topic: Topic, pool: Slots, own: Slots) -> Target:
    """The target of `topic` on these places; topics without these options get one that knows nothing of them."""
    plain = topic_target(pool, own, topic.ping)
    kinds = [kind for kind, wanted in ((Halting, topic.halt), (Rated, topic.rate)) if wanted]
    if not kinds:
        return plain
    made: Target = type("PacedTarget", (*kinds, type(plain)), {})(pool, own, topic.ping)
    made.halt, made.rate, made.chunk = topic.halt, topic.rate, topic.chunk  # type: ignore[attr-defined]
    return made
