"""Commands that look into a storage: RPOP, LLEN, LREM, LRANGE, HGETALL.

Each checks the login at once and leaves the storage's part to `Later`, which runs in a greenlet after everything the
same client sent before is answered.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from pepperbus.errors import StorageError, StorageUnavailable
from pepperbus.gateway.commit import Lane
from pepperbus.gateway.pushes import NOAUTH
from pepperbus.gateway.route import Target
from pepperbus.gateway.session import Answer, Later, Session
from pepperbus.gateway.taken import surely
from pepperbus.ids import parse_id
from pepperbus.job import Job, State, job_json
from pepperbus.journal.contract import Row
from pepperbus.storage.contract import Leased, Outcome, Settle, Storage, Stored
from pepperbus.wire import resp

MAX_LOOK = 1000  # jobs of one LRANGE
MAX_LOOK_BYTES = 16 << 20  # after so many bytes of jobs it ends as well
_FED = ("concurrency", "timeout")
_SETTINGS = {"pull": ("pop", "lease")}  # what HGETALL tells of a topic that is not fed


def _arity(args: resp.Command) -> bytes:
    return resp.error(f"ERR wrong number of arguments for '{args[0].decode(errors='replace')}' command")


def guarded(read: Callable[[], bytes]) -> Later:
    """A look into a storage; its trouble in Redis' words."""

    def run() -> bytes:
        try:
            return read()
        except StorageUnavailable:
            return resp.error("TRYAGAIN storage unavailable")
        except StorageError as error:
            return resp.error(f"UNKNOWN {error}")

    return Later(run)


def storage_of(session: Session, target: Target, topic: str = "") -> Storage:
    """The open storage of a target's topic. Raises StorageUnavailable while it is not open."""
    return open_lane(session, target, topic).storage


def open_lane(session: Session, target: Target, topic: str = "") -> Lane:
    """The way there. Raises StorageUnavailable while it is not open."""
    route = target.route
    assert route is not None
    lane = session.front.routes.lane(route.queue.topics[topic or target.topic], route.queue)
    if lane.trouble:
        raise StorageUnavailable(lane.trouble)
    return lane


# -- RPOP ----------------------------------------------------------------------------------------------------


def rpop(session: Session, args: resp.Command) -> Answer:
    """`RPOP queue/topic`: the job leaves the bus with this reply (at most once, by nature)."""
    if len(args) < 2:
        return resp.bulk(b"Invalid Args")
    target = session.front.routes.target(args[1])
    if target.bare:
        return resp.bulk(f"ParseJob fail: invalid job meta info: {target.key}".encode())
    if not session.may_pop(target):
        return resp.error(f"NOAUTH {NOAUTH}")
    if session.front.routes.topic(target) is None:
        return resp.bulk(f"topic not exist {target.topic}".encode())
    pop = _Pop(session, target)
    return Later(pop.run, pop.after)


class _Pop:
    """One RPOP: leased, answered, then settled; given back when the answer can no longer be written."""

    __slots__ = ("_job", "_lane", "_leased", "_session", "_target")

    def __init__(self, session: Session, target: Target) -> None:
        self._session = session
        self._target = target
        self._leased: Leased | None = None
        self._lane: Lane | None = None  # that it was leased through
        self._job: Job | None = None  # None for bytes that are no job: kept as dead, never dropped

    def run(self) -> bytes:
        name = f"{self._target.queue}/{self._target.topic}"
        try:
            leased = self._lease(name)
        except StorageUnavailable:
            return resp.error("TRYAGAIN storage unavailable")
        except StorageError as error:
            return resp.error(f"UNKNOWN {error}")
        if not leased:
            return resp.null(self._session.protocol)
        self._leased = leased[0]
        try:
            job = self._job = Job.decode(self._leased.body)
        except ValueError:
            return resp.error(f"ERR job {self._leased.job_id} is damaged in the storage, it is kept as dead")
        return resp.bulk(b'{"jobs":[%b]}' % job_json(job))

    def _lease(self, name: str) -> list[Leased]:
        """Of a topic that no worker looks after also what is due."""
        lane, front = open_lane(self._session, self._target), self._session.front
        place = front.handout.places.get(name)
        self._lane = lane if place is None else place.lane
        if place is None:
            return lane.storage.lease(name, 1, front.process.owner)
        return [leased for leased, _ in front.handout.lease(place, 1)]

    def after(self, written: bool) -> None:
        leased = self._leased
        if leased is None:
            return
        if self._job is None:
            outcome = Settle(leased.topic, leased.job_id, Outcome.DEAD, reason="stored bytes are damaged", spent=False)
        else:
            outcome = Settle(leased.topic, leased.job_id, Outcome.DONE if written else Outcome.BACK, spent=written)
        surely(self._session.process, [outcome], self._lane_now, self._store, self._give_up)
        if written and self._job is not None:
            self._record(leased, self._job)

    def _lane_now(self) -> Lane:
        """The way to where the job is leased; a reload may have made a new one."""
        lane = self._lane
        assert lane is not None
        return self._session.front.routes.lanes.get(lane.config.name, lane)

    def _store(self, lane: Lane, outcomes: list[Settle]) -> None:
        lane.storage.settle(self._session.process.owner, outcomes)

    def _give_up(self, outcome: Settle, why: str) -> None:
        """The lease stays with this process and is released when it ends."""
        self._session.process.log.error("pop_not_settled", why, topic=outcome.topic, job=outcome.job_id)

    def _record(self, leased: Leased, job: Job) -> None:
        process = self._session.process
        assert self._target.route is not None
        self._target.route.count_popped(leased.topic)
        now_ms = process.clock.now_ms()
        process.journal.add(
            Row(
                "popped",
                job.id,
                leased.topic,
                now_ms,
                node=process.node,
                process=process.name,
                outcome="done",
                in_trace=job.trace,
                client=job.client,
                accepted_ms=job.accepted_ms,
                wait_ms=float(max(now_ms - job.accepted_ms, 0)),
                reason=f"popped by {self._session.client.decode()}",
                content=job.content,
            )
        )


# -- looking -------------------------------------------------------------------------------------------------


def readable(session: Session, target: Target, *, pop_only: bool) -> bytes | None:
    """The refusal for someone who may not look there, in Redis' words; None when they may."""
    allowed = session.may_pop(target) or (not pop_only and session.may_push(target))
    if not allowed:
        if session.login is None:
            return resp.error(f"NOAUTH {NOAUTH}")
        return resp.error(f"NOPERM this login may not look into {target.key}")
    if target.route is None or (target.topic and target.topic not in target.route.queue.topics):
        return resp.error(f"NOQUEUE queue or Topic not exist {target.key}")
    if not target.topic and (pop_only or not target.bare):
        return resp.error(f"ERR {target.key} names a queue, this command wants queue/topic")
    return None


def llen(session: Session, args: resp.Command) -> Answer:
    """Ready + delayed jobs of a topic; of a queue: of its longest topic."""
    if len(args) != 2:
        return _arity(args)
    target = session.front.routes.target(args[1])
    if (refusal := readable(session, target, pop_only=False)) is not None:
        return refusal
    assert target.route is not None
    topics = [target.topic] if target.topic else list(target.route.queue.topics)

    def read() -> bytes:
        depths = [storage_of(session, target, t).depth(f"{target.queue}/{t}") for t in topics]
        return resp.integer(max((d.ready + d.delayed for d in depths), default=0))

    return guarded(read)


def lrem(session: Session, args: resp.Command) -> Answer:
    """`LREM queue/topic 0 <job id>`: delete one waiting job; 0 when it is not there or leased."""
    if len(args) != 4:
        return _arity(args)
    target = session.front.routes.target(args[1])
    if (refusal := readable(session, target, pop_only=True)) is not None:
        return refusal
    try:
        job_id = parse_id(args[3].decode(errors="replace"))
    except ValueError as error:
        return resp.error(f"ERR {error}")

    def read() -> bytes:
        removed = storage_of(session, target).remove(f"{target.queue}/{target.topic}", [job_id])
        if removed:
            _record_removed(session, target, job_id)
        return resp.integer(removed)

    return guarded(read)


def _record_removed(session: Session, target: Target, job_id: int) -> None:
    process = session.process
    process.journal.add(
        Row(
            "removed",
            job_id,
            f"{target.queue}/{target.topic}",
            process.clock.now_ms(),
            node=process.node,
            process=process.name,
            reason=f"LREM by {session.client.decode()}",
        )
    )


def lrange(session: Session, args: resp.Command) -> Answer:
    """The jobs' JSON, next in line first, ready then delayed; at most 1000 or 16 MiB at once. Nothing is changed."""
    if len(args) != 4:
        return _arity(args)
    target = session.front.routes.target(args[1])
    if (refusal := readable(session, target, pop_only=True)) is not None:
        return refusal
    try:
        start, stop = int(args[2]), int(args[3])
    except ValueError:
        return resp.error("ERR value is not an integer or out of range")

    def read() -> bytes:
        jobs = jobs_of(session, target, start, stop)
        return resp.array([resp.bulk(job_json(Job.decode(job.body), job.attempts)) for job in jobs])

    return guarded(read)


def jobs_of(session: Session, target: Target, start: int, stop: int) -> list[Stored]:
    """The jobs from `start` to `stop`, next in line first, ready then delayed; negative ones count from the end."""
    storage, name = storage_of(session, target), f"{target.queue}/{target.topic}"
    depth = storage.depth(name)
    total = depth.ready + depth.delayed
    first = max(start if start >= 0 else total + start, 0)
    last = min(stop if stop >= 0 else total + stop, total - 1, first + MAX_LOOK - 1)
    return _slice(storage, name, first, last)


def _slice(storage: Storage, topic: str, first: int, last: int) -> list[Stored]:
    found: list[Stored] = []
    at = size = 0
    if first > last:
        return found
    for state in (State.READY, State.DELAYED):
        cursor, n = "", 8
        while at <= last and size < MAX_LOOK_BYTES:
            gevent.sleep(0)  # the end of a long line is far: others are served on the way
            page = storage.peek(topic, state, cursor, n)
            found += [job for i, job in enumerate(page.jobs, at) if first <= i <= last]
            size = sum(len(job.body) for job in found)
            at += len(page.jobs)
            largest = max((len(job.body) for job in page.jobs), default=0)
            n = min(100, max(8, (1 << 20) // (largest + 1)))
            cursor = page.cursor
            if not cursor:
                break
    return found


def hgetall(session: Session, args: resp.Command) -> Answer:
    """How many jobs of a topic are where, and its main settings; of a queue: its topics summed up."""
    if len(args) != 2:
        return _arity(args)
    target = session.front.routes.target(args[1])
    if (refusal := readable(session, target, pop_only=False)) is not None:
        return refusal
    assert target.route is not None
    queue = target.route.queue
    topics = [target.topic] if target.topic else list(queue.topics)

    def read() -> bytes:
        depths = [storage_of(session, target, t).depth(f"{target.queue}/{t}") for t in topics]
        facts: list[tuple[str, object]] = [
            (state, sum(getattr(d, state) for d in depths)) for state in ("ready", "delayed", "leased", "dead")
        ]
        if target.topic:
            topic = queue.topics[target.topic]
            settings = ("run", *_SETTINGS.get(topic.run, _FED), "attempts", "max_age", "max_length")
            facts += [("storage", topic.storage or queue.storage), *((s, getattr(topic, s)) for s in settings)]
        else:
            facts += [("topics", " ".join(topics)), ("storage", queue.storage)]
        facts += [("durability", queue.durability), ("group", queue.group)]
        pairs = ((name.encode(), resp.bulk(str(value).encode())) for name, value in facts)
        return resp.mapping(pairs, session.protocol)

    return guarded(read)
