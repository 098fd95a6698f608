"""What will hurt: our settings, files, disks, kernel, Redis and php-fpm looked at together, most harmful first.

Floor 4. Only what can honestly be known from here is said; what could not be looked at is in `unknown`. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pepperbus.accounts.model import Right
from pepperbus.config.load import notes
from pepperbus.config.model import Config, Topic
from pepperbus.errors import NotFound, PepperbusError
from pepperbus.operations import doctor_fpm, doctor_machine, doctor_redis, fpm_files
from pepperbus.operations.findings import Diagnosis, Finding
from pepperbus.operations.office import Office
from pepperbus.operations.results import Status
from pepperbus.operations.rights import operation
from pepperbus.operations.status import StatusReader

_DEAD = 1000


@operation(Right.VIEW, node=True)
def diagnose(office: Office, pools: Path = fpm_files.DIRECTORY) -> Diagnosis:
    """Everything. Raises nothing for a part that is away: it is in `unknown`."""
    config, told = office.config, Diagnosis()
    status = StatusReader(office).read()
    for storage in config.storages:
        told.findings += _storage(office, storage, told)
    told.findings += [*state(status), *topics(config), *files(config), *doctor_machine.disks(config)]
    told.findings += doctor_machine.certificate(config)
    master = int(status.master.get("pid", 0)) if status.running else 0
    told.findings += [*doctor_machine.kernel(config, nofile=doctor_machine.open_files(master)), *doctor_machine.clock()]
    if not status.running:
        told.unknown.append("the bus does not run: processes and targets were not asked")
    for pool in config.pools.values():
        told.findings += doctor_fpm.pool(config, pool, told, pools)
    return told.sort()


@operation(Right.VIEW, node=True)
def check_fpm(office: Office, name: str = "", pools: Path = fpm_files.DIRECTORY) -> Diagnosis:
    """The php-fpm pools of the configuration, or one of them. Raises NotFound."""
    known = office.config.pools
    if name and name not in known:
        raise NotFound(f"no [fastcgi] pool {name!r}; the configuration names: {', '.join(known) or 'none'}")
    told = Diagnosis()
    for pool in [known[name]] if name else known.values():
        told.findings += doctor_fpm.pool(office.config, pool, told, pools)
    return told.sort()


def _storage(office: Office, name: str, told: Diagnosis) -> Iterator[Finding]:
    wanted = {q.durability for q in office.config.queues.values() for t in q.topics.values() if t.storage == name}
    if office.config.storages[name].type == "redis":
        yield from doctor_redis.storage(office.config.storages[name], told)
    try:
        storage = office.storage(name)
    except PepperbusError as error:
        yield Finding("stop", f"storage {name}: {error}", f"start it, or mend [storages] [[{name}]]")
        return
    for level in sorted(wanted):
        if advice := storage.advice(level):
            yield Finding("loss", f"storage {name} does not give the durability `{level}`", advice.replace("\n", "; "))


def state(status: Status) -> Iterator[Finding]:
    """What the node's own figures say."""
    for topic in (topic for queue in status.queues for topic in queue.topics):
        if topic.paused and topic.ready:
            yield Finding(
                "stop", f"{topic.name} is paused and {topic.ready} jobs wait", f"pepperbus resume {topic.name}"
            )
        if topic.state in ("stopped", "down"):
            why = f": {topic.why}" if topic.why else ""
            yield Finding("stop", f"{topic.name}: its consumer is {topic.state}{why}", f"pepperbus ping {topic.name}")
        if topic.dead >= _DEAD:
            yield Finding(
                "slow", f"{topic.name}: {topic.dead} dead jobs", f"pepperbus jobs {topic.name}; then replay or purge"
            )
    for topic in status.detached:
        n = topic.ready + topic.delayed + topic.leased + topic.dead
        yield Finding(
            "stop",
            f"{topic.name}: {n} jobs in {topic.storage}, but no queue's file has it",
            "add the topic, or purge it",
        )


def topics(config: Config) -> Iterator[Finding]:
    """Settings that do not fit each other."""
    for queue in config.queues.values():
        for topic in queue.topics.values():
            if not config.consumes(topic) and not topic.pulled:
                change = f"queue {queue.name}, [[{topic.name}]]: consumer = yes, or a tag of this node"
                yield Finding("stop", f"{topic.full_name}: this node does not feed it", change)
            elif topic.timeout > config.bus.grace and topic.attempts == 1:
                what = (
                    f"{topic.full_name}: one attempt of up to {topic.timeout:g} s, a stop waits {config.bus.grace:g} s"
                )
                yield Finding("loss", what, f"[bus] grace = {topic.timeout:g}s, or attempts = 2")
            yield from _timetable(topic)
    if 0 < config.bus.memory_limit < 16 * config.gateway.max_bulk:
        what = f"[bus] memory_limit of {config.bus.memory_limit >> 20} MiB: few of the largest jobs fill a process"
        yield Finding("slow", what, f"[bus] memory_limit = {32 * config.gateway.max_bulk >> 20}MiB")


def _timetable(topic: Topic) -> Iterator[Finding]:
    """Attempts, waits and ages that do not go together."""
    waits = sum(topic.backoff.wait_s(n, 0.0) for n in range(1, min(topic.attempts, 1000)))
    if topic.timeout > topic.max_age:
        what = f"{topic.full_name}: one attempt may take {topic.timeout:g} s, max_age is {topic.max_age:g} s: no second one"
        yield Finding("slow", what, f"max_age = {topic.timeout * 3:g}s in the topic")
    elif topic.attempts > 1 and waits > 4 * topic.max_age:
        what = f"{topic.full_name}: max_age ends a job long before its {topic.attempts} attempts are used up"
        yield Finding("slow", what, "a longer max_age, or fewer attempts, in the topic")
    if topic.chunk > 1 and topic.contract == "status":
        what = f"{topic.full_name}: one failed job of {topic.chunk} makes the others run again"
        yield Finding("slow", what, "chunk = 1, or a script that answers Failed-Jobs")
    quickest = topic.backoff.wait_s(1, 0.0)
    if topic.attempts > 1 and quickest < 0.5 and topic.attempts > 20:
        what = f"{topic.full_name}: {topic.attempts} attempts from {quickest:g} s apart: a failing consumer is stormed"
        yield Finding("slow", what, "backoff = exponential 5s..1h jitter in the topic")


def files(config: Config) -> Iterator[Finding]:
    for note in notes(config):
        if "holds secrets and everybody" in note:
            what, _, change = note.partition(": ")
            yield Finding("open", what, change)
        elif "legacy_loopback = yes behind a proxy" in note:
            yield Finding(
                "open", note.rpartition(": ")[0], "[web] legacy_loopback = no, or a proxy that adds X-Forwarded-For"
            )
        elif "without TLS" in note or "still the sample's" in note:
            yield Finding("open", note, "[gateway] cert and key" if "TLS" in note else "password = one of your own")
