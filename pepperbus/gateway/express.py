"""The quick way of the commonest push: `LPUSH key value` to a key that was pushed to before.

Knows one route, not sockets. The first push to a key goes the usual way (`commands`, `pushes`), which checks everything; if
it was a plain one to a simple queue, there is an `Express` for that key from then on, and a chunk of such pushes by any
client that may push there becomes one `Handful`, without a command or a reply for each before they are stored. The usual way
is the plain twin: the same bytes stored, the same replies. A new configuration ends it.
"""

from __future__ import annotations

from pepperbus.gateway.handful import Handful, Pusher
from pepperbus.gateway.route import QueueRoute, Target
from pepperbus.wire import plain_push


class Express:
    """What all plain pushes to one key have in common. Its queue is a `simple` one."""

    __slots__ = ("head", "lane", "plain", "route", "routes", "target", "topics")

    def __init__(self, head: bytes, routes: object, target: Target, route: QueueRoute) -> None:
        self.head = head
        self.routes = routes  # whose it is: good for as long as these are the front's
        self.target = target
        self.route = route
        self.plain = target.plain
        self.lane, self.topics = route.lanes[0]

    def take(self, pusher: Pusher, data: bytes) -> tuple[Handful | None, bytes]:
        """Bring in the plain pushes that `data` begins with, if any; and the bytes behind them."""
        values, rest = plain_push.take(data, self.head)
        return self.bring(pusher, values, len(data) - len(rest)) if values else None, rest

    def bring(self, pusher: Pusher, values: list[bytes], size: int) -> Handful:
        """Bring in one push for each of `values`, which came in `size` bytes."""
        handful = Handful(self, pusher, values, size)
        self.lane.join(handful)
        return handful
