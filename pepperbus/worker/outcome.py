"""A verdict against one job's budget: what becomes of this job. Pure: no clock, no storage, no socket.

Floor 4. The verdict says what the consumer meant; here the topic's `attempts`, `backoff`, `max_age` and `zombie_grace` decide
whether there is a next time and when.
"""

from __future__ import annotations

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Act, Verdict
from pepperbus.storage.contract import Leased, Outcome, Settle


def decide(topic: Topic, leased: Leased, accepted_ms: int, verdict: Verdict, now_ms: int, random: float) -> Settle:
    """The settlement of one leased job. `random` in [0, 1) is the jitter. `Act.UNREGISTERED` is the caller's to resolve.

    `max_age` counts from when the job was first due and is looked at only here, after an answer: no job dies untried.
    """
    name, job_id = topic.full_name, leased.job_id
    act, spent, reason = verdict.act, verdict.spent, verdict.reason
    if act is Act.DONE:
        return Settle(name, job_id, Outcome.DONE)
    if act is Act.DEAD:
        return Settle(name, job_id, Outcome.DEAD, reason=reason, spent=spent)
    if (now_ms - (leased.first_due_ms or accepted_ms)) / 1000 > topic.max_age:
        return Settle(name, job_id, Outcome.DEAD, reason=f"max_age: {reason}", spent=spent)
    if act is Act.BACK and verdict.after_s is None:
        return Settle(name, job_id, Outcome.BACK, spent=spent)
    if spent and leased.attempt >= topic.attempts:
        text = f"attempt {leased.attempt} of {topic.attempts} failed: {reason}"
        return Settle(name, job_id, Outcome.DEAD, reason=text, spent=spent)
    wait_s = topic.backoff.wait_s(leased.attempt, random) if verdict.after_s is None else verdict.after_s
    if verdict.zombie:
        wait_s = max(wait_s, topic.zombie_grace)  # not beside a script that may still run
    return Settle(name, job_id, Outcome.RETRY, due_ms=now_ms + int(wait_s * 1000), spent=spent)
