"""One topic's loop: when to lease, when to start, what the target's answers mean for the next. The heart of the bus.

Floor 4: knows the contracts, never a back end. Everything runs as callbacks in the hub, except leasing (a storage call), which
has a greenlet of its own. The order that keeps jobs safe: leased in the storage, marked as begun, sent, answered, judged,
settled in the storage (see `exchange`); a crash between any two steps leaves a lease that `reclaim` gives back.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import gevent
from gevent.event import Event

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Act, Answer, Consumer, Relay, Sender, TargetEffect, Verdict
from pepperbus.delivery.target import Closed, Target
from pepperbus.delivery.verdict import DONE, judge
from pepperbus.errors import StorageError
from pepperbus.stats import Record
from pepperbus.storage.contract import Leased, Outcome, Settle
from pepperbus.worker.ahead import Ahead
from pepperbus.worker.attempt import Parts
from pepperbus.worker.books import Books
from pepperbus.worker.due import Due
from pepperbus.worker.exchange import Exchange
from pepperbus.worker.lane import Lane

#: Never more than about this many jobs leased ahead (with `chunk` at least four exchanges), and only as many as will start
#: within _AHEAD_S: a job held here cannot be run by another worker. 2,000 at once halved the rate of chunks on redis.
_MOST_AHEAD, _LEAST_AHEAD = 128, 4
_AHEAD_S = 0.05
#: And no more bytes than these, as large as jobs were of late; one exchange's jobs always.
_AHEAD_BYTES = 16 << 20
#: Once nothing has ended or begun for this long, what is held goes back.
_DRAGS_S = 0.3
_STATES = {Closed.BUSY: 1, Closed.UNREGISTERED: 5, Closed.DOWN: 4, Closed.STRAINED: 4, Closed.ABSENT: 5}


class Pump:
    """Drives one topic in one worker."""

    def __init__(
        self, topic: Topic, lane: Lane, target: Target, consumer: Consumer, record: Record, owner: str, parts: Parts
    ) -> None:
        self.topic = topic
        self.name = topic.full_name
        self.target = target
        self.lane = lane
        self.consumer = consumer
        self.relay: Callable[[Sender], None] | None = consumer.relay if isinstance(consumer, Relay) else None
        self._plain: Answer | None = None  # one that means DONE and nothing else
        self.draining = False
        self.record = record
        self._owner = owner
        self.parts = parts
        self._ahead = Ahead(self)
        self._books = Books(self)
        self.under_way = 0  # exchanges
        self._started_at = 0.0  # monotonic, of the youngest
        self._wanted = 0  # how many were last asked for
        self._guess = _LEAST_AHEAD * topic.chunk  # how many there may be: asking for many that are not there costs too
        self._low = 0  # with more than this ahead there is no need to think of leasing
        self._run_s = 0.0  # how long exchanges take, a moving average; 0: none has ended yet
        self._job_bytes = 1.0  # how large jobs are: as the largest of late
        self._may_hold_more = True
        self._leasing = False
        self._along = False  # the lane leases for us, with its next batch
        self._lease_failed = False
        self._timer_set = False
        self._preparing = False
        self._loop = gevent.get_hub().loop
        self.due = Due(self.name, lane.storage, parts.clock, self.wake)
        self.was_closed = False
        self.was_paused = False
        self._hungry = Event()
        self.second_chance: set[int] = set()  # jobs whose 404 cost nothing once
        self._leaser: gevent.Greenlet | None = None  # while there is, or was a moment ago, something to lease
        self.idle = Event()
        self.idle.set()

    # -- waking --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be something to do: a push, a due job, an opened target."""
        self._may_hold_more = True
        self.turn()

    def pushed(self) -> None:
        """Something was pushed, at once or for later, or may have been: look into the storage."""
        self.due.look()  # also while nothing may start: who counts the waiting shall see it as ready
        self.wake()

    def turn(self) -> None:
        """Start what may start, then see that enough is leased ahead."""
        most = self.target.topic.n  # with so many under way their ends ask again: no need to look for a place
        while self._ahead.held and self.under_way < most and self._startable():
            places = self.target.take(self.turn)
            if places is None:
                # other processes hold the places and cannot call us
                self._later(0.02 if self.under_way else random.uniform(0.004, 0.012))
                break
            self._start(places)
        self._feed()

    def _later(self, seconds: float) -> None:
        """One turn from now on, however often it is asked for."""
        if not self._timer_set:
            self._timer_set = True
            gevent.spawn_later(seconds, self._timed_turn)

    def _timed_turn(self) -> None:
        self._timer_set = False
        self.turn()

    def _startable(self) -> bool:
        closed = self.target.closed()
        if closed and not (self.target.trial and not self.under_way):
            if closed is Closed.BUSY:  # it opens by itself, and nobody says so when another process found it full
                self._later(self.target.probe_in() + 0.001)
            return False
        return self._may_start()

    def _may_start(self) -> bool:
        """Whether anything but the target forbids to start a job."""
        lane, parts = self.lane, self.parts
        return (
            lane.open and parts.inflight.free >= self.topic.chunk and not self.draining and self.name not in lane.paused
        )

    def _feed(self) -> None:
        """Ask for jobs when the target could take twice as many as are held: a lease is a round trip, so half a room at once.

        Asking whenever one place was free made a lease of every third job; reckoning the room for every job cost 8 µs.
        """
        held = self._ahead.held
        if self._along and not held and self.lane.leave(self):  # nothing is left to begin while the batch still gathers
            self._along = False
            self._hunger()
        if held > self._low or self._leasing or not self._may_hold_more or not self._startable():
            return
        room = self._room()
        self._low = room // 2
        if room and held <= self._low:
            self._leasing = True
            self._along = held > 0 and self.lane.lease_along(self)
            if not self._along:
                self._hunger()

    def _room(self) -> int:
        """How many jobs to hold beyond those under way: the free places, and what will start within _AHEAD_S."""
        if self.target.trial:
            return 1
        free = max(0, min(self.target.topic.window, self.target.pool.window) - self.under_way)
        return min((free + self._soon()) * self.topic.chunk, max(self.topic.chunk, int(_AHEAD_BYTES / self._job_bytes)))

    def _soon(self) -> int:
        """How many exchanges will find a place within _AHEAD_S. While even the youngest one drags on: few or none."""
        if not self._run_s:
            return 0
        places = min(self.target.topic.n, self.target.pool.n)
        most = max(_LEAST_AHEAD, _MOST_AHEAD // self.topic.chunk)
        return min(most, int(places * _AHEAD_S / max(self._run_s, self._youngest_s())))

    def _youngest_s(self) -> float:
        """Since when nothing has begun, while something is under way."""
        return self.parts.clock.monotonic() - self._started_at if self.under_way else 0.0

    def let_others(self) -> None:
        """Give back what was leased ahead and cannot start soon after all: a slow job came in between."""
        if self._ahead.held and self.under_way and self._youngest_s() > _DRAGS_S:
            self.return_ahead()

    def _hunger(self) -> None:
        """Have the storage asked: by the greenlet that does it, which is made anew for a topic that was idle."""
        self._hungry.set()
        if self._leaser is None:
            self._leaser = gevent.spawn(self._lease_loop)

    def _lease_loop(self) -> None:
        """Until nothing is left to do: of a thousand idle topics each would keep a stack, more than all else of it."""
        while self._hungry.is_set() or not self.idle.is_set():
            self._hungry.wait()
            self._hungry.clear()
            if not self._lease_failed and (self._along or (self.idle.is_set() and not self._leasing)):
                continue  # woken to end
            leased: list[Leased] = []
            try:
                leased = self._lease()
                self._lease_failed = False
            except Exception as error:  # StorageError, or a bug of an engine: this loop is the topic's life
                if not self._lease_failed:  # once an outage, not three times a second
                    text = str(error) if isinstance(error, StorageError) else repr(error)
                    self.parts.log.warning("lease_failed", text, topic=self.name)
                self._lease_failed = True
                if not isinstance(error, StorageError):  # leased, perhaps, and nobody knows: as if it were not caught
                    gevent.get_hub().handle_error(self._leaser, *sys.exc_info())
                gevent.sleep(random.uniform(0.2, 0.5))
                self._may_hold_more = True
                self._hungry.set()  # it may have moved jobs that nobody knows of: ask until there is an answer
            self._received(leased)
        self._leaser = None

    def _rest(self) -> None:
        self.idle.set()
        if self._leaser is not None:
            self._hungry.set()  # its greenlet ends, unless there is something to ask for

    def _lease(self) -> list[Leased]:
        """As many jobs as there is room for, of those that are ready."""
        wanted = self.wanted()
        if wanted:
            return self._count(self.lane.storage.lease(self.name, wanted, self._owner))
        if self._lease_failed:
            self._clear_up()
        return []

    def _clear_up(self) -> None:
        """Nothing may start now, and what a claim without an answer moved is for others."""
        self._give_back(self.lane.storage.lease(self.name, _MOST_AHEAD, self._owner))

    def wanted(self) -> int:
        """How many jobs to lease now. The lane asks too, for `leased`."""
        if not self._startable():
            return 0
        self._wanted = min(self._guess, max(0, self._room() - self._ahead.held))
        if self._wanted:
            self._may_hold_more = False  # a push from here on says so again
        return self._wanted

    def leased(self, jobs: list[Leased] | None) -> None:
        """What the lane got along with a batch of outcomes; None: nothing for certain, so ask the storage again."""
        self._along = False
        if jobs is None:
            self._may_hold_more = True
            self._hunger()
        else:
            self._received(self._count(jobs))

    def _count(self, leased: list[Leased]) -> list[Leased]:
        """Learn from what came how much more there may be, and how large jobs are."""
        if len(leased) >= self._wanted:
            self._may_hold_more = True
            self._guess = min(self._guess * 2, max(_MOST_AHEAD, _LEAST_AHEAD * self.topic.chunk))
        else:
            self._guess = max(2 * len(leased), _LEAST_AHEAD * self.topic.chunk)
        if leased:
            largest = max([len(one.body) for one in leased])
            self._job_bytes = max(largest, self._job_bytes + (largest - self._job_bytes) * 0.1)
        return leased

    def _received(self, leased: list[Leased]) -> None:
        self._leasing = False
        if self.draining:
            self._give_back(leased)
        else:
            self._ahead.add(leased)
            if leased:
                self.idle.clear()
            self.turn()
        if not self._ahead.held and not self.under_way:
            self._rest()

    # -- exchanges ---------------------------------------------------------------------------------------------------

    def _start(self, places: tuple[int, int]) -> None:
        """The next request in these places."""
        exchange = self._ahead.next()
        if exchange is None:
            self.target.give(places)
            return
        self.under_way += 1
        if not self._preparing and self._ahead.held:
            self._preparing = True
            self._loop.run_callback(self._prepare)
        self.target.trial = False
        exchange.begin(places)
        self._started_at = exchange.started

    def hand_on(self, exchange: Exchange, answer: Answer) -> Exchange | None:
        """What `ended` comes to for nearly every job, in a third of the calls: done, and the next one in its places.

        `answer` came before, byte for byte. None: something is not as usual, and `ended` has to be called.
        """
        if answer is not self._plain:
            if judge(answer, exchange.request, self.topic, dedicated=self.consumer.dedicated) is not DONE:
                return None
            self._plain = answer
        ahead = self._ahead
        if not ahead.held or not self.target.hands_on() or not self._may_start():
            return None
        following = ahead.next()
        if following is None:
            return None
        following.mark(exchange.places)
        self._started_at = now = following.started
        took_s = now - exchange.started
        self._run_s += (max(took_s, 1e-5) - self._run_s) * (0.05 if self._run_s else 1.0)
        self._books.enter(exchange, answer, took_s)
        if not self._preparing and ahead.held:
            self._preparing = True
            self._loop.run_callback(self._prepare)
        if ahead.held <= self._low:
            self._feed()
        return following

    def ended(self, exchange: Exchange, answer: Answer, verdict: Verdict, took_s: float) -> None:
        """Its jobs are handed in to be settled: what does it say of the target, and what is next in its places?"""
        self.under_way -= 1
        self._run_s += (max(took_s, 1e-5) - self._run_s) * (0.05 if self._run_s else 1.0)
        if verdict is DONE and not answer.reconnected:
            self.target.fine()
        else:
            self._report(answer, verdict)
        if verdict is DONE and self._ahead.held and self._may_start() and self.target.hands_on():
            self._start(exchange.places)
            self._feed()
        elif verdict.zombie and self.topic.zombie_grace > 0 and not self.draining:
            # The script may still run: its place stays taken, or the next job would find no free child.
            gevent.spawn_later(self.topic.zombie_grace, self._free, exchange.places)
            self.turn()
        else:
            self._free(exchange.places)
        if not self._ahead.held and not self.under_way:
            self._rest()

    def _prepare(self) -> None:
        """What is ready to be read has been read, and the next jobs are on their way: make the requests after them."""
        self._preparing = False
        if not self.draining and self.name not in self.lane.paused:
            self._ahead.prepare()

    def _free(self, places: tuple[int, int]) -> None:
        self.target.give(places)
        self.turn()

    def _report(self, answer: Answer, verdict: Verdict) -> None:
        if verdict.spent and verdict.act is not Act.DONE and self.target.failed(verdict.reason):
            self.parts.log.warning("topic_halted", self.target.why, topic=self.name)
            self.was_closed = True
            self.return_ahead()
        if verdict.effect is TargetEffect.FINE and not (answer.reconnected or verdict.pause):
            self.target.fine()
            return
        log = self.parts.log
        was = self.target.closed()
        if verdict.act is Act.UNREGISTERED:
            self.target.unregister(verdict.reason)
        else:
            self.target.report(verdict.effect, verdict.reason)
        now = self.target.closed()
        if now is Closed.BUSY:
            self._may_hold_more = True
        if now and now is not was and now not in (Closed.BUSY, Closed.UNREGISTERED):
            log.warning("target_closed", verdict.reason, topic=self.name, why=now.name.lower())
        if now not in (Closed.OPEN, Closed.BUSY):
            self.was_closed = True
            self.return_ahead()
        if answer.reconnected:
            log.warning("reconnected", "request to cgi fail eof retry", topic=self.name)
        if verdict.pause:
            log.warning("paused_by_consumer", topic=self.name)
            gevent.spawn(self._pause)

    def _pause(self) -> None:
        self.lane.paused.add(self.name)
        try:
            self.lane.storage.set_paused(self.name, True)
        except StorageError as error:
            self.parts.log.warning("pause_failed", str(error), topic=self.name)

    # -- what others ask ---------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        return self.name in self.lane.paused

    @property
    def busy(self) -> bool:
        """Something to do here, or closed when it was last attended to. Asked of every pump twice a second."""
        return bool(self._ahead.held or self.under_way or self.was_closed)

    @property
    def resting(self) -> bool:
        """Nothing to do, nothing closed, and paused or not as when it was last attended to."""
        return not self.busy and not self.target.closed() and self.was_paused == self.paused

    def state(self) -> int:
        """The `state` gauge of stats.COUNTERS."""
        if self.name in self.lane.paused:
            return 2
        closed = self.target.closed()
        if closed is Closed.OPEN:
            return 1 if self.under_way else 0
        return _STATES.get(closed, 3)

    # -- leaving ----------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take nothing new and give back what was not begun; what runs goes on. `idle` is set when all is settled."""
        self.draining = True
        self.return_ahead()
        if self._leasing or self.under_way:
            self.idle.clear()
        else:
            self.idle.set()

    def return_ahead(self) -> None:
        """What is held but not begun goes back to the storage: others may run it, or nobody while the target is closed."""
        if self._ahead.held:
            self._give_back(self._ahead.take_all())
            self._may_hold_more = True

    def _give_back(self, jobs: list[Leased]) -> None:
        if jobs:  # the first of a batch becomes the first of the line
            self.lane.settle([Settle(self.name, one.job_id, Outcome.BACK, spent=False) for one in jobs])
