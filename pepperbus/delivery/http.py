"""`run = http`: jobs to URLs, over kept connections, spread over several URLs by who is there.

Floor 3. It sends and reads, and judges nothing. Callbacks on a kept connection; a greenlet for an exchange that must connect
first, or speaks TLS. Redirects are never followed, no proxy of the environment is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

import gevent
import h11

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.contract import Answer, Request, Transport
from pepperbus.delivery.deadlines import UnderWay
from pepperbus.delivery.http_answer import Failed, Known
from pepperbus.delivery.http_connection import Connection, connect
from pepperbus.delivery.http_exchange import Exchange
from pepperbus.delivery.http_request import Packed, Requests, Url
from pepperbus.errors import ConfigError

#: A kept connection, or None; and whether one was found closed instead.
_Kept = tuple[Connection | None, bool]
_SKIP_FIRST_S, _SKIP_MOST_S = 1.0, 15.0


class _Endpoint:
    """One URL: its idle connections, and until when it is passed over because it refused."""

    def __init__(self, url: Url) -> None:
        self.url = url
        self.idle: deque[Connection] = deque()
        self.skip_until = 0.0
        self._skip_s = _SKIP_FIRST_S

    def refused(self) -> None:
        self.skip_until = monotonic() + self._skip_s
        self._skip_s = min(self._skip_s * 2, _SKIP_MOST_S)

    def accepted(self) -> None:
        self.skip_until = 0.0
        self._skip_s = _SKIP_FIRST_S

    def take_idle(self) -> _Kept:
        """The youngest idle connection that is still good, and whether one was found closed on the way."""
        found_closed = False
        while self.idle:
            connection = self.idle.pop()
            fresh = not connection.too_old()
            if fresh and connection.quiet():
                return connection, False
            found_closed = found_closed or fresh
            connection.close()
        return None, found_closed


class HttpConsumer:
    """The consumer of one `run = http` topic. Raises ConfigError for URLs or headers that cannot be used."""

    dedicated = True  # PHP's errors are not looked for in bodies: behind a URL there may be anything

    def __init__(self, topic: Topic, config: Config) -> None:
        if not topic.urls:
            raise ConfigError(f"topic {topic.full_name}: run = http needs url")
        self._requests = Requests(topic)
        self._endpoints = [_Endpoint(Url.parse(text)) for text in topic.urls]
        self.address = ", ".join(endpoint.url.shown for endpoint in self._endpoints)
        self._http = config.http
        self._most_idle = topic.concurrency
        self._turn = 0
        self._active: set[Connection] = set()  # of greenlets
        self._under_way = UnderWay(gevent.get_hub().loop)
        self._known = Known()
        self._closed = False

    def pack(self, request: Request) -> Packed | Answer:
        """The request but for its URL, or why it cannot be sent."""
        try:
            return self._requests.pack(request)
        except (h11.LocalProtocolError, ValueError) as error:
            return Answer(Transport.UNSENDABLE, detail=f"{self.address}: cannot be sent: {error}")

    def start(self, request: Request, done: Callable[[Answer], None], packed: object = None) -> None:
        """See the contract."""
        made = packed or self.pack(request)
        if isinstance(made, Answer):
            gevent.get_hub().loop.run_callback(done, made)
            return
        assert isinstance(made, Packed)
        endpoints = self._in_turn()
        first = endpoints[0]
        kept = first.take_idle()
        connection = kept[0]
        if connection is None or connection.url.tls:
            gevent.spawn(lambda: done(self._carried(made, request.deadline_s, endpoints, kept)))
            return

        def ended(exchange: Exchange, answer: Answer) -> None:
            self._give(first, exchange.connection)
            if answer.transport is Transport.ANSWERED:
                first.accepted()
            done(answer)

        out = self._requests.render(made, first.url)
        Exchange(connection, out, request.deadline_s, ended, self._known, self._under_way)

    def call(self, request: Request) -> Answer:
        """See the contract."""
        made = self.pack(request)
        if isinstance(made, Answer):
            return made
        endpoints = self._in_turn()
        return self._carried(made, request.deadline_s, endpoints, endpoints[0].take_idle())

    def reachable(self) -> bool:
        """Whether any of the URLs takes a connection now; nothing is sent."""
        for endpoint in self._endpoints:
            try:
                self._give(endpoint, connect(endpoint.url, monotonic() + 60.0, self._http))
            except Failed:
                endpoint.refused()
            else:
                endpoint.accepted()
                return True
        return False

    def close(self) -> None:
        self._closed = True
        for endpoint in self._endpoints:
            while endpoint.idle:
                endpoint.idle.pop().close()
        for connection in self._active:
            connection.cut()
        for exchange in self._under_way:
            exchange.cut("the worker is leaving")
        self._under_way.close()

    def _carried(self, made: Packed, deadline_s: float, endpoints: list[_Endpoint], kept: _Kept) -> Answer:
        try:
            return self._run(made, deadline_s, endpoints, kept)
        except Exception as error:  # a bug of ours must not leave the job's place taken for ever
            return Answer(Transport.CUT, detail=f"{self.address}: {error!r}")

    def _run(self, made: Packed, deadline_s: float, endpoints: list[_Endpoint], kept: _Kept) -> Answer:
        """The exchange on the first URL that takes a connection; a refusal means that nothing was sent there.

        `kept`: what there was of a connection to the first of them.
        """
        began = monotonic()
        end = began + deadline_s
        failures: list[Failed] = []
        for endpoint in endpoints:
            try:
                answer = self._exchange(endpoint, made, end, kept if endpoint is endpoints[0] else endpoint.take_idle())
            except Failed as failure:
                failures.append(failure)
                if failure.transport is Transport.CUT or failure.transport is Transport.TIMEOUT:
                    break
                endpoint.refused()
            except h11.LocalProtocolError as error:
                return Answer(Transport.UNSENDABLE, detail=f"{endpoint.url.shown}: cannot be sent: {error}")
            else:
                endpoint.accepted()
                answer.total_ms = (monotonic() - began) * 1000
                return answer
        return _worst(failures, (monotonic() - began) * 1000)

    def _in_turn(self) -> list[_Endpoint]:
        """Every URL, beginning with the one whose turn it is; those that refused lately come last."""
        if len(self._endpoints) == 1:
            return self._endpoints
        n = len(self._endpoints)
        first, self._turn = self._turn, (self._turn + 1) % n
        around = [self._endpoints[(first + i) % n] for i in range(n)]
        now = monotonic()
        return sorted(around, key=lambda endpoint: endpoint.skip_until if endpoint.skip_until > now else 0.0)

    def _exchange(self, endpoint: _Endpoint, made: Packed, end: float, kept: _Kept) -> Answer:
        out = self._requests.render(made, endpoint.url)
        began = monotonic()
        connection, reconnected = kept
        if connection is None:
            connection = connect(endpoint.url, end, self._http)
        connect_ms = (monotonic() - began) * 1000
        if self._closed:  # meanwhile
            connection.close()
            raise Failed(Transport.BUSY, f"{endpoint.url.shown}: the worker is leaving")
        self._active.add(connection)
        try:
            answer = connection.exchange(out, end)
        finally:
            self._active.discard(connection)
            self._give(endpoint, connection)
        answer.connect_ms = connect_ms
        answer.reconnected = reconnected
        return answer

    def _give(self, endpoint: _Endpoint, connection: Connection) -> None:
        """Keep a connection for the next exchange, or close it."""
        if connection.reusable and not self._closed and len(endpoint.idle) < self._most_idle:
            endpoint.idle.append(connection)
        else:
            connection.close()


def _worst(failures: list[Failed], total_ms: float) -> Answer:
    """One answer for all that was tried: what may have run first, then what may come back soonest."""
    order = (Transport.CUT, Transport.TIMEOUT, Transport.BUSY, Transport.NO_LISTENER, Transport.FORBIDDEN)
    worst = min(failures, key=lambda failure: order.index(failure.transport))
    detail = "; ".join(dict.fromkeys(failure.detail for failure in failures))
    return Answer(worst.transport, detail=detail, total_ms=total_ms)
