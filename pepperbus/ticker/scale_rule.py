"""How many attempts at once a topic gets that says `concurrency = 2..16`, look by look. Floor 4, pure: no clock, no storage.

It begins at the least and tries more while the backlog would take long. A trial is kept only if it made things faster:
beyond the knee of a target more attempts only wait inside it. What did not help is remembered, and tried again later
and later, so it settles instead of swinging. What the target says by itself (refusals, its own status) counts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Seconds between two looks, as the ticker takes them.
LOOK_S = 3.0
#: A backlog that is gone within this time needs nothing.
CLEAR_S = 10.0
#: A trial is judged by the mean of so many looks, the first after the change not among them.
_JUDGED = 2
#: Of the gain that n times as many could bring, this share must come; going down, so much of the rate must stay.
_GAIN, _STAYS = 0.35, 0.93
#: Attempts that take so many times as long as at best: are they more than the target stands, or longer by nature?
_SLOW = 2.0
#: Looks with less than half in use before one step down.
_CALM_LOOKS = 10
#: What did not help is not tried again for the first time, doubling up to the last (s).
_HOLD_S = (60.0, 3600.0)


@dataclass(frozen=True)
class Seen:
    """One look. Rates are per second, since the look before."""

    waiting: int  # jobs
    rate: float  # attempts that ended
    run_s: float = 0.0  # how long they took, the mean; 0: none ended
    busy: float = 0.0  # attempts under way, the mean
    refused: int = 0  # jobs that came back because the target was full
    full: str = ""  # what the target says of itself, when that is that it is full


@dataclass(frozen=True)
class Trial:
    """`before` was the limit, at `rate` jobs a second; now another is tried."""

    before: int
    rate: float
    looks: int = 0
    total: float = 0.0  # of the rates since


@dataclass(frozen=True)
class Stand:
    """Where a topic stands and what was learnt. `why` is for people. Times are monotonic seconds."""

    limit: int
    why: str = "begins low"
    knee: int = 0  # more than this did not help; 0: not known
    knee_until: float = 0.0
    floor: int = 0  # less than this was too little
    floor_until: float = 0.0
    failures: int = 0  # trials that were taken back, in a row
    stride: int = 0  # how far the last good trial went; 0: the first ones, which go far
    rate: float = 0.0  # while there was enough to do at this limit, smoothed
    best_run_s: float = 0.0
    calm: int = 0  # looks
    lowered: float = 0.0  # when
    trial: Trial | None = None


def clears_in(seen: Seen) -> float:
    """Seconds until the backlog would be gone at this rate."""
    if not seen.waiting:
        return 0.0
    return seen.waiting / seen.rate if seen.rate else float("inf")


def step(stand: Stand, seen: Seen, least: int, most: int, now: float) -> Stand:
    """Where it stands after one more look."""
    stand = replace(stand, limit=min(max(stand.limit, least), most))
    if seen.refused or seen.full:
        return _refused(stand, seen, least, now)
    needed = seen.waiting > 0 and clears_in(seen) > CLEAR_S and seen.busy >= 0.75 * stand.limit
    if stand.trial is not None:
        return _judge(stand, stand.trial, seen, needed, now)
    stand = _learn(stand, seen)
    if needed:
        rate = stand.rate + 0.3 * (seen.rate - stand.rate) if stand.rate else seen.rate
        return _more(replace(stand, calm=0, rate=rate), seen, least, most, now)
    return _perhaps_less(stand, seen, least, now)


def _refused(stand: Stand, seen: Seen, least: int, now: float) -> Stand:
    why = seen.full or f"{seen.refused} were refused by the target"
    if stand.trial is not None and stand.trial.before < stand.limit:
        return _take_back(stand, stand.trial, f"{stand.limit} at once: {why}", now)
    limit = max(least, stand.limit - max(1, stand.limit // 4))
    return _hold(replace(stand, limit=limit, trial=None, why=f"less: {why}", calm=0), limit, now)


def _learn(stand: Stand, seen: Seen) -> Stand:
    """How long attempts take when all is well: the least of late, forgotten slowly."""
    if not seen.run_s:
        return stand
    best = min(seen.run_s, stand.best_run_s * 1.005) if stand.best_run_s else seen.run_s
    return replace(stand, best_run_s=best)


def _more(stand: Stand, seen: Seen, least: int, most: int, now: float) -> Stand:
    wait = clears_in(seen)
    text = f"{seen.waiting} wait, " + (f"{wait:.0f} s to clear" if wait < 1e6 else "nothing ends")
    if stand.lowered and now - stand.lowered < 20 * LOOK_S and stand.floor <= stand.limit:
        stand = _too_low(stand, now)
    held = stand.knee if now < stand.knee_until else 0
    if held and stand.limit >= held:
        if seen.run_s > _SLOW * stand.best_run_s > 0 and stand.limit > least:
            return _try(stand, max(least, stand.limit * 3 // 4), seen, f"{text}, but each takes {seen.run_s:.2g} s")
        return replace(stand, why=f"{text}; more than {held} at once was no faster")
    most = min(most, held) if held else most
    if stand.limit >= most:
        return replace(stand, why=f"{text}; this is the most it may have")
    stride = min(2 * stand.stride, stand.limit // 2) if stand.stride else stand.limit // (8 if stand.failures else 2)
    stand = replace(stand, stride=max(1, stride) if stand.failures or stand.stride else 0)
    return _try(stand, min(most, stand.limit + max(1, stride)), seen, text)


def _try(stand: Stand, limit: int, seen: Seen, text: str) -> Stand:
    word = "more" if limit > stand.limit else "less"
    # Going down because of a change: what was smoothed is from before it.
    trial = Trial(stand.limit, stand.rate if limit > stand.limit and stand.rate else seen.rate)
    return replace(stand, limit=limit, rate=0.0, trial=trial, why=f"{word}: {text}")


def _judge(stand: Stand, trial: Trial, seen: Seen, needed: bool, now: float) -> Stand:
    """Did the trial help? Only looks with enough to do tell; the first one is half of the time before."""
    if not needed and stand.limit > trial.before:
        return replace(stand, trial=None, why=f"{stand.limit} at once keep up with what comes")
    looks, total = trial.looks + 1, trial.total + (seen.rate if trial.looks else 0.0)
    if looks <= _JUDGED:
        return replace(stand, trial=replace(trial, looks=looks, total=total))
    rate = total / _JUDGED
    ratio = stand.limit / trial.before
    if ratio > 1 and rate < trial.rate * (1 + _GAIN * (ratio - 1)):
        return _take_back(stand, trial, f"{stand.limit} at once were no faster than {trial.before}", now)
    if ratio < 1 and rate < trial.rate * _STAYS:
        learnt = replace(stand, best_run_s=seen.run_s or stand.best_run_s)  # longer by nature, then
        return _take_back(learnt, trial, f"{stand.limit} at once were slower than {trial.before}", now)
    done = replace(
        stand,
        trial=None,
        rate=rate,
        why=f"{stand.limit} at once do {rate:.3g} a second, {trial.before} did {trial.rate:.3g}",
    )
    if ratio < 1:
        return _hold(done, stand.limit, now)
    return replace(done, knee=stand.knee if stand.knee > stand.limit else 0)


def _take_back(stand: Stand, trial: Trial, why: str, now: float) -> Stand:
    return _hold(replace(stand, limit=trial.before, trial=None, stride=0, why=why), trial.before, now)


def _hold(stand: Stand, knee: int, now: float) -> Stand:
    """More than `knee` is not tried for a while; each time in a row for longer."""
    first, longest = _HOLD_S
    wait = min(longest, first * 2.0 ** min(stand.failures, 10))
    return replace(stand, knee=knee, knee_until=now + wait, failures=stand.failures + 1)


def _too_low(stand: Stand, now: float) -> Stand:
    """The last step down was one too many: the limit before it is not left for a while."""
    first, longest = _HOLD_S
    floor = stand.limit + 1
    wait = min(longest, 4 * first * (2.0 if stand.floor else 1.0))
    return replace(stand, floor=floor, floor_until=now + wait, lowered=0.0)


def _perhaps_less(stand: Stand, seen: Seen, least: int, now: float) -> Stand:
    lowest = max(least, stand.floor) if now < stand.floor_until else least
    if stand.limit <= lowest or seen.busy > stand.limit / 2 or clears_in(seen) > CLEAR_S / 2:
        text = stand.why if stand.calm == 0 and not seen.rate else f"keeps up: {seen.busy:.1f} of {stand.limit} in use"
        return replace(stand, calm=0, why=text if stand.limit > least else "little to do")
    if stand.calm + 1 < _CALM_LOOKS:
        return replace(stand, calm=stand.calm + 1)
    limit = max(lowest, stand.limit - max(1, stand.limit // 4))
    return replace(stand, limit=limit, calm=0, lowered=now, why=f"less: only {seen.busy:.1f} of {stand.limit} in use")


def workers(
    now: int, least: int, most: int, waiting: int, cores: float, free: float, calm: int
) -> tuple[int, int, str]:
    """How many worker processes; the looks with little to do so far; why.

    `cores`: what the workers use together, in cores. `free`: cores of the machine that nobody uses. A worker process is
    one core at most: only where they are short of that is another of any use.
    """
    now = min(max(now, least), most)
    share = cores / now
    if waiting and share > 0.8:
        if now == most:
            return now, 0, f"{share:.0%} of a core each; this is the most it may have"
        if free < 0.5:
            return now, 0, f"{share:.0%} of a core each, but this machine has no core free"
        return now + 1, 0, f"more: {waiting} wait, {share:.0%} of a core each"
    if now > least and cores / (now - 1) < 0.5:
        if calm + 1 >= 2 * _CALM_LOOKS:
            return now - 1, 0, f"less: {share:.0%} of a core each"
        return now, calm + 1, f"{share:.0%} of a core each"
    return now, 0, f"{share:.0%} of a core each"
