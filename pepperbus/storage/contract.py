"""The storage contract: the one page the author of a back end reads.

Floor 2: knows floor 0 only. Every method may block the calling greenlet (never the hub) and raises only
`StorageUnavailable` (definite: nothing happened) or `StorageUnknown` (it may have happened; repeating it with
the same ids is safe). `tests/contract/` is this page made executable; a back end is done when that suite passes.

Words: a *topic* is written `queue/topic`; an *owner* is one incarnation of one process (`names.owner_name`), never
reused; ids are the ints of `ids.py`; times are wall time in ms; a job is in exactly one `State` per topic.

How attempts are counted. A leased job's attempt counts from the moment of the lease. Settling says whether it was
spent (`Settle.spent`). If the owner dies, `release` gives the jobs back: those named in `started` (or all, when nobody
can know) keep the attempt spent and get one *crash*; the others are as if never leased.

Order. First attempts start in push order. A job given back (`Outcome.BACK`, `release`) goes ahead of all that waits.
A delayed job that becomes due takes its place in the line behind what was ready by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, overload

from pepperbus.job import State

#: Durability levels, weakest first: what an answered push survives.
MEMORY, PROCESS, POWER = "memory", "process", "power"
LEVELS = (MEMORY, PROCESS, POWER)

#: A job whose owner died this often while it was running is dead with that reason.
CRASH_LIMIT = 3


class Past(NamedTuple):
    """What a job has behind it when it comes from another storage: attempts spent, crashes, when it was first due."""

    attempts: int = 0
    crashes: int = 0
    first_due_ms: int = 0


class Push(NamedTuple):
    """One job for `topics` (all in this storage). `due_ms` > 0: not before then. `front`: ahead of all waiting jobs.

    `dead`: the reason it comes in as a dead one, brought along from elsewhere; `limits` do not count it. `past`: it was
    tried elsewhere; its budget goes on from there.
    """

    job_id: int
    body: bytes
    topics: tuple[str, ...]
    due_ms: int = 0
    front: bool = False
    dead: str = ""
    past: Past | None = None


class Once(NamedTuple):
    """A push that is stored unless another job holds `name`, which this one then holds for `ttl_ms`.

    `alive`: no longer than that other job waits or runs in one of the push's topics (done or dead, it holds nothing).
    """

    push: Push
    name: str
    ttl_ms: int
    alive: bool = False


class Claim(NamedTuple):
    """Job `job_id` holds `name` from now on for `ttl_ms`, whoever held it before: see `Once`."""

    name: str
    job_id: int
    ttl_ms: int


class Line(NamedTuple):
    """New jobs that just join the lines of the same topics, as columns; ids rise."""

    topics: tuple[str, ...]
    ids: list[int]
    bodies: list[bytes]


class Lines(Sequence[Push]):
    """A batch of pushes that is held as columns. To an engine that does not look at `lines` it is like any other."""

    __slots__ = ("_count", "lines")

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self._count = sum(len(line.ids) for line in lines)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Push]:
        for topics, ids, bodies in self.lines:
            for job_id, body in zip(ids, bodies, strict=True):
                yield Push(job_id, body, topics)

    @overload
    def __getitem__(self, index: int) -> Push: ...
    @overload
    def __getitem__(self, index: slice) -> list[Push]: ...
    def __getitem__(self, index: int | slice) -> Push | list[Push]:
        return list(self)[index]


class Leased(NamedTuple):
    """A job handed to an owner. `attempt` is this attempt's number, 1 first. `first_due_ms`: 0, or when it was due."""

    topic: str
    job_id: int
    body: bytes
    attempt: int
    crashes: int = 0
    first_due_ms: int = 0


class Outcome(Enum):
    DONE = "done"  # leaves the storage
    RETRY = "retry"  # delayed until `due_ms`
    DEAD = "dead"  # kept, with `reason`
    BACK = "back"  # ready again, ahead of everything that waits


class Settle(NamedTuple):
    """What becomes of one leased job. `spent`: attempts under this lease; False: it never ran and is not counted."""

    topic: str
    job_id: int
    outcome: Outcome
    due_ms: int = 0
    reason: str = ""
    spent: int = True


class Released(NamedTuple):
    """A job taken back from a dead owner. `dead`: it reached CRASH_LIMIT and is dead now."""

    topic: str
    job_id: int
    attempt: int
    started: bool
    dead: bool


class Depth(NamedTuple):
    """How many jobs of a topic are where. `oldest_ms`: accept time of the job next in line, 0 if none is ready."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    oldest_ms: int = 0


class Stored(NamedTuple):
    """One job as it lies in a topic. `attempts`: spent so far. `due_ms`: delayed; `reason`, `dead_ms`: dead."""

    topic: str
    job_id: int
    state: State
    body: bytes
    attempts: int = 0
    crashes: int = 0
    due_ms: int = 0
    reason: str = ""
    dead_ms: int = 0
    owner: str = ""
    first_due_ms: int = 0


class Page(NamedTuple):
    """A piece of a listing; `cursor` "" means there is no more."""

    jobs: list[Stored]
    cursor: str


class Health(NamedTuple):
    """`used`/`limit` in bytes (limit 0 = unknown); `detail` is one line for people.

    `operations`: how many it has done so far, in the engine's own count; `clients`: who has it open. 0 = unknown.
    """

    alive: bool
    version: str
    durability: str
    used: int
    limit: int
    detail: str
    operations: int = 0
    clients: int = 0


class Storage(Protocol):
    """One named storage of the configuration, opened in this process (after the fork, never before)."""

    name: str
    durability: str  # one of LEVELS; known after open()

    def open(self) -> None:
        """Connect, ask the engine for its version, settings and durability. Idempotent.

        Raises StorageUnavailable when it cannot be reached, StorageRefused (with the setting to change) when it must
        not be used as it is: an eviction policy, a shard claimed by another node, a file of a later version.
        """

    def close(self) -> None:
        """Let go of files and connections. Idempotent."""

    def push(self, batch: Sequence[Push], limits: Mapping[str, int] | None = None) -> Collection[int]:
        """Store every job of `batch` in each of its topics, at this storage's durability, then return.

        All or nothing where the engine can (`embedded`: the batch, over all topics). Returns the indexes of the pushes
        refused whole because one of their topics would exceed `limits[topic]` (ready + delayed), empty when none.
        A push whose job id is already there is ignored for that topic: repeating a push never doubles a job.
        """

    def push_once(self, batch: Sequence[Once], limits: Mapping[str, int] | None = None) -> list[int]:
        """Store each push whose name is free. Returns for each the id that holds its name; 0: refused by `limits`.

        Claiming the name and storing the job are one step. Another id than the push's own says that nothing of it was
        stored. Repeating a push with the same id and name is harmless: it holds the name already. Names: 400 bytes at most.
        """

    def recall(self, name: str) -> str:
        """The small text that `swap` left under `name`; "" when there is none."""

    def swap(self, name: str, old: str, new: str, batch: Sequence[Push] = (), claims: Sequence[Claim] = ()) -> str:
        """If the text under `name` is still `old`, make it `new`, store `batch` and note `claims`, in one step.

        Returns what is there now.

        `new`: it was done, now or by an earlier call whose answer was lost (so `new` must be text that nobody else
        writes); else another was quicker and nothing was done. "" as `new` takes the name out. Names: 400 bytes at most.
        """

    def lease(self, topic: str, n: int, owner: str) -> list[Leased]:
        """Move up to `n` ready jobs to `owner`, oldest first. Atomic per job. Empty list when there are none."""

    def settle(self, owner: str, batch: Sequence[Settle]) -> int:
        """Decide what becomes of leased jobs. Returns how many took effect.

        DONE takes effect whoever holds the job now (it was done). RETRY, DEAD and BACK take effect only while `owner`
        still holds it: a late verdict of an owner that was released changes nothing. Repeating is harmless.
        """

    def settle_and_lease(
        self, owner: str, batch: Sequence[Settle], topic: str, n: int
    ) -> tuple[int, list[Leased] | None]:
        """`settle`, then `lease`, in fewer trips or commits where the engine can; one after the other where it cannot.

        Raises what `settle` would. Leased None: the verdicts took effect, but leasing failed; ask `lease` why.
        """

    def release(self, owner: str, started: Collection[tuple[str, int]] | None) -> list[Released]:
        """Take back all that a dead owner holds. `started`: the (topic, job id) that may have run; None: unknown, all.

        Started jobs keep the attempt, count one crash, and are DEAD at CRASH_LIMIT. Idempotent and safe to interrupt.
        """

    def owners(self) -> list[str]:
        """Every owner that holds, or may hold, a lease."""

    def heartbeat(self, node: str) -> None:
        """Say that this node lives (every 5 s)."""

    def lost_nodes(self, older_ms: int) -> list[str]:
        """Nodes that own leases and have not said for `older_ms`, by the storage's own clock, that they live."""

    def leave(self, node: str) -> None:
        """Say that this node ends on purpose: until its next heartbeat it is none of `nodes`. Its leases stay."""

    def nodes(self) -> dict[str, int]:
        """Every node that shares this storage, this one too -> ms, by the storage's clock, since it last said it lives.

        Empty where only one node can reach the engine. A node that is silent for a day is forgotten.
        """

    def claim_shard(self, shard: int, node: str) -> None:
        """Record that ids with `shard` are made by `node`. Raises StorageRefused naming the other claimant."""

    def promote(self, topic: str, now_ms: int, n: int = 1000) -> tuple[int, int]:
        """Make up to `n` delayed jobs that are due ready. Returns (how many, when the next is due or 0)."""

    def depth(self, topic: str) -> Depth:
        """Counts of one topic; all zero for one that was never pushed to. Cheap: called every second."""

    def depths(self, topics: Collection[str]) -> dict[str, Depth]:
        """`depth` of many topics, in a few trips or one look for all of them.

        A topic whose counts alone cannot be told is left out: `depth` says why. Raises only when none can be told.
        """

    def topics(self) -> list[str]:
        """Every topic that holds jobs here, configured or not."""

    def peek(self, topic: str, state: State, cursor: str = "", n: int = 100) -> Page:
        """Look at jobs without touching them: next in line first (dead: newest first)."""

    def find(self, job_id: int, topics: Sequence[str]) -> list[Stored]:
        """The job with this id in each of `topics` that has it."""

    def replay(self, topic: str, job_ids: Sequence[int]) -> int:
        """Dead or delayed jobs become ready at once, with a fresh budget of attempts and crashes. Returns how many."""

    def remove(self, topic: str, job_ids: Sequence[int]) -> int:
        """Delete ready, delayed or dead jobs. A leased one stays. Returns how many were deleted."""

    def set_paused(self, topic: str, paused: bool) -> None:
        """Pause is state of the storage: it survives restarts and every node sees it. Pushes go on."""

    def paused(self) -> set[str]:
        """Topics that are paused here."""

    def health(self) -> Health:
        """How the storage is. Never raises; `alive` False and the reason instead."""

    def advice(self, level: str) -> str:
        """The lines to type so that the engine honours `level`; "" when it does already. Known after `open`."""

    def upkeep(self) -> None:
        """Whatever small housekeeping the engine wants once a minute; called by one process of the node. May block."""

    def watch(self, topics: Sequence[str], wake: Callable[[str], None]) -> None:
        """Call `wake(topic)` when another node pushes to one of `topics`, or may have; "" = look at all.

        Calls replace each other.

        An engine that only this node can reach does nothing: the gateway's eventfd says it all.
        """
