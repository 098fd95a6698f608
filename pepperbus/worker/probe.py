"""Asking a closed target whether it is back. Floor 4. Blocks: runs in a greenlet of its own.

Under `sdk` the question is a ping, which the script answers without doing any work. Under `status` no request is ever invented:
a down target is asked by connecting, any other by one waiting job.
"""

from __future__ import annotations

from pepperbus.delivery.contract import Request, TargetEffect, Transport
from pepperbus.delivery.target import Closed
from pepperbus.delivery.verdict import judge_ping
from pepperbus.log import Log
from pepperbus.worker.pump import Pump

PING_S = 30.0  # a ping waits for a free php-fpm child like any request


def probe(pump: Pump, log: Log, now_ms: int) -> None:
    """One question to the target of `pump`; wakes the pump when the answer opened it."""
    target = pump.target
    closed = target.closed()
    if closed in (Closed.OPEN, Closed.BUSY):
        return
    target.postpone()  # the other workers of the node need not ask as well
    if target.needs_ping and closed not in (Closed.STRAINED, Closed.HALTED):
        _ping(pump, log, now_ms)
    elif closed is Closed.DOWN:
        if pump.consumer.reachable():
            target.reachable()
    else:
        target.trial = True  # one waiting job finds out
    pump.wake()


def _ping(pump: Pump, log: Log, now_ms: int) -> None:
    topic, target = pump.topic, pump.target
    request = Request(topic.queue, topic.name, "", ping=True, deadline_s=PING_S, now_ms=now_ms)
    answer = pump.consumer.call(request)
    if answer.transport is Transport.NO_LISTENER:
        target.report(TargetEffect.DOWN, answer.detail)
    elif answer.transport is Transport.BUSY:
        target.report(TargetEffect.BUSY, answer.detail)
    else:
        known = target.why
        registered, reason = judge_ping(answer, request)
        if not registered and topic.script and answer.transport is Transport.ANSWERED:
            reason = f"{topic.script}: {reason}"
        target.pinged(registered, reason)
        if not registered and reason != known:
            log.warning("ping_failed", f"topic no register: {reason}", topic=pump.name)
