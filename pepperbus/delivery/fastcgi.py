"""Jobs to PHP scripts through FastCGI: the `run = fastcgi` back end.

Floor 3. Callbacks on gevent's hub, no greenlet per attempt: that is a quarter less CPU per job. One connection per
attempt, closed at END_REQUEST, unless the pool is ours and says `keepalive`. It judges nothing: see `delivery.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from gevent import get_hub
from gevent.event import AsyncResult

from pepperbus.config.model import Config, Topic
from pepperbus.delivery import form
from pepperbus.delivery.contract import Answer, Request, Sender, Transport
from pepperbus.delivery.deadlines import UnderWay
from pepperbus.delivery.fastcgi_exchange import Exchange
from pepperbus.delivery.fastcgi_params import Params
from pepperbus.delivery.fastcgi_pool import pool_of
from pepperbus.delivery.fastcgi_single import Flights, Single
from pepperbus.errors import ProtocolError
from pepperbus.wire import fastcgi

_REACH_S = 2.0


class FastcgiConsumer:
    """One topic's php-fpm script. Implements `delivery.contract.Consumer` and `Relay`; make it after the fork."""

    def __init__(self, topic: Topic, config: Config) -> None:
        settings = config.pools[topic.pool]
        self.address = settings.address
        self.dedicated = settings.dedicated
        self._topic = topic
        self._params = Params(topic, settings.dedicated)
        self._pool = pool_of(settings)
        is_form = topic.body != "raw"
        self._single = Single(topic, self._params, self._pool.keepalive) if is_form else None
        self._loop = get_hub().loop
        self._under_way = UnderWay(self._loop)

    def pack(self, request: Request) -> Flights | Answer:
        """The flights, or why they cannot be sent."""
        if len(request.jobs) == 1 and request.jobs[0].attempt == 1 and self._single is not None:
            job, _, first_due_ms = request.jobs[0]
            made = self._single.of(job, request.trace, first_due_ms, request.now_ms)
            if made is not None:
                return made
        try:
            body, _ = form.body(request, self._topic)
            opening = fastcgi.opening(self._params.of(request, body), self._pool.keepalive)
            return Flights(opening + fastcgi.closing(body), len(opening))
        except (ProtocolError, ValueError) as error:
            return Answer(Transport.UNSENDABLE, detail=str(error))

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        """See the contract. Returns at once, whatever the server does."""
        self._begin(request, done, packed)

    def relay(self, sender: Sender) -> None:
        """See the contract."""
        self._begin(sender.request, sender.answered, sender.packed, sender)

    def call(self, request: Request) -> Answer:
        """The same, waiting in the calling greenlet. If that is killed the exchange is cut."""
        answer: AsyncResult[Answer] = AsyncResult()  # unlike a Waiter, `close` may set it from any greenlet
        began = monotonic()
        exchange = self._begin(request, answer.set)
        try:
            found = _said(answer)
            return found if found.total_ms else replace(found, total_ms=(monotonic() - began) * 1000)
        finally:
            if exchange is not None:
                exchange.abandon()

    def reachable(self) -> bool:
        """Only connect and close again. For contracts without a ping: no request is ever invented."""
        answer: AsyncResult[Answer] = AsyncResult()
        exchange = Exchange(self._pool, None, _REACH_S, answer.set, self._under_way)
        try:
            exchange.start()
            return _said(answer).transport is Transport.ANSWERED
        finally:
            exchange.abandon()

    def close(self) -> None:
        """Drop idle connections and cut what is under way; each cut exchange still reports, once."""
        for exchange in self._under_way:
            exchange.cut("the bus stopped")
        self._under_way.close()
        self._pool.drop_idle()

    def _begin(
        self, request: Request, done: Callable[[Answer], None], packed: object = None, sender: Sender | None = None
    ) -> Exchange | None:
        made = packed or self.pack(request)
        if isinstance(made, Answer):
            self._loop.run_callback(done, made)
            return None
        assert isinstance(made, Flights)
        exchange = Exchange(self._pool, made, request.deadline_s, done, self._under_way, sender)
        exchange.start()
        return exchange


def _said(answer: AsyncResult[Answer]) -> Answer:
    found = answer.get()
    assert found is not None
    return found
