"""`pepperbus doctor` and `check fpm` in front of a real php-fpm and a real Redis, well set up and badly set up."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from pepperbus.config.model import Config, StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Delivered, Request, Transport
from pepperbus.delivery.fpm_pool import pool_file
from pepperbus.job import Job
from pepperbus.operations import doctor, doctor_fpm, doctor_machine, doctor_redis
from pepperbus.operations.findings import HARMS, Diagnosis, Finding
from pepperbus.operations.office import Office
from tests.fixtures.bus import NODE, Buses
from tests.fixtures.fpm import Fpm, fastcgi_config
from tests.fixtures.ports import free_port
from tests.fixtures.redis import Redis

GOOD_POOL = {"request_terminate_timeout": "58s", "request_slowlog_timeout": "10s", "listen.mode": "0660"}
GOOD_PHP = {
    "log_errors": 1,
    "display_errors": 0,
    "output_buffering": 65536,
    "post_max_size": "24M",
    "memory_limit": "256M",
}
GOOD_REDIS = {"appendonly": "yes", "appendfsync": "always", "maxmemory": "100mb", "maxmemory-policy": "noeviction"}


def look(server: Fpm, directory: Path, **settings: object) -> tuple[Diagnosis, Config]:
    """`check fpm` of a configuration whose pool is that server."""
    etc = directory / "etc" / "8.2/fpm/pool.d"
    etc.mkdir(parents=True, exist_ok=True)
    shutil.copy(server.config, etc / "www.conf")
    _, config = fastcgi_config(server.address, server.script("server.php"), directory, timeout=60.0, **settings)
    return doctor.check_fpm(Office(config), "", directory / "etc"), config


def changes(findings: list[Finding]) -> list[str]:
    return [finding.change.rpartition(": ")[2] for finding in findings]


def test_a_php_fpm_that_is_set_up_well(fpm: Callable[..., Fpm], tmp_path: Path) -> None:
    slow, port = tmp_path / "slow.log", free_port()
    pool = {**GOOD_POOL, "slowlog": slow, "pm.status_listen": f"127.0.0.1:{port}", "pm.status_path": "/status"}
    server = fpm(pool=pool, php=GOOD_PHP, general={"process_control_timeout": "10s"})
    told, _ = look(server, tmp_path, pool_status=f"127.0.0.1:{port}/status", pool_max_connections=4)
    assert [finding.what for finding in told.findings if "run as root" not in finding.what] == []
    assert told.unknown == []


@pytest.mark.parametrize(
    ("pool", "php", "harm", "change"),
    [
        ({"request_terminate_timeout": "0"}, {}, "slow", "request_terminate_timeout = 58s"),
        ({"request_terminate_timeout": "90s"}, {}, "slow", "request_terminate_timeout = 58s"),
        (
            {"request_terminate_timeout": "20s"},
            {},
            "slow",
            "58s; or timeout = 22s in the topic",
        ),
        ({"listen.backlog": "2"}, {}, "slow", "listen.backlog = 511"),
        ({"listen.mode": "0666"}, {}, "open", "listen.mode = 0660"),
        ({"catch_workers_output": "yes"}, {}, "slow", "catch_workers_output = no"),
        ({"security.limit_extensions": ""}, {}, "open", "security.limit_extensions = .php"),
        ({}, {"log_errors": 0}, "loss", "php_admin_flag[log_errors] = on"),
        ({}, {"error_log": "/dev/null"}, "loss", "remove php_admin_value[error_log]"),
        ({}, {"display_errors": 1}, "slow", "php_admin_flag[display_errors] = off"),
        ({}, {"output_buffering": 0}, "slow", "php_admin_value[output_buffering] = 65536"),
        ({}, {"post_max_size": "8M"}, "stop", "php_admin_value[post_max_size] = 24M"),
        ({}, {"memory_limit": "32M"}, "stop", "php_admin_value[memory_limit] = 192M"),
    ],
)
def test_each_line_that_hurts_is_named_with_the_line_that_cures(
    fpm: Callable[..., Fpm], tmp_path: Path, pool: dict[str, str], php: dict[str, object], harm: str, change: str
) -> None:
    good = {**GOOD_POOL, "slowlog": tmp_path / "slow.log"}
    before, _ = look(fpm(pool=good, php=GOOD_PHP, children=4), tmp_path)
    after, _ = look(fpm(pool={**good, **pool}, php={**GOOD_PHP, **php}, children=4), tmp_path)
    assert change not in changes(before.findings)
    assert [finding.harm for finding in after.findings if finding.change.endswith(change)] == [harm], after


def test_php_fpm_s_own_counters_are_asked(fpm: Callable[..., Fpm], tmp_path: Path) -> None:
    """Both children of a pool are busy until php-fpm, which looks once a second, has counted that it could not make more."""
    port = free_port()
    few = {"pm": "dynamic", "pm.start_servers": 1, "pm.min_spare_servers": 1, "pm.max_spare_servers": 2}
    pages = {"pm.status_listen": f"127.0.0.1:{port}", "pm.status_path": "/status"}
    server = fpm(children=2, pool={**few, **pages})
    wait = "while (!is_file(__DIR__ . '/go')) { usleep(5000); clearstatcache(); }"
    script = server.script("nap.php", f"<?php {wait} header('Code: 200');")
    made, config = fastcgi_config(server.address, script, tmp_path, pool_status=f"127.0.0.1:{port}/status")
    pool = config.pools["php"]
    assert list(doctor_fpm._status(pool)) == []

    def run(n: int) -> Transport:
        job = Delivered(Job(n, "t", b"x", 1), 1)
        consumer = make_consumer(made, config)
        try:
            return consumer.call(Request("orders", "mail", str(n), (job,), deadline_s=60.0)).transport
        finally:
            consumer.close()

    greenlets = [gevent.spawn(run, n) for n in (1, 2)]
    with gevent.Timeout(40):
        while not (found := list(doctor_fpm._status(pool))):
            gevent.sleep(0.05)
    (finding,) = found
    assert "out of children" in finding.what
    (server.scripts / "go").touch()
    assert [one.get() for one in greenlets] == [Transport.ANSWERED] * 2
    wrong = next(iter(doctor_fpm._status(replace(pool, status=f"127.0.0.1:{port}/other"))))
    assert (wrong.harm, "does not answer" in wrong.what) == ("blind", True)


def test_what_fpm_pool_prints_pleases_the_doctor(tmp_path: Path) -> None:
    """The advice of one command is not the complaint of another."""
    topic, config = fastcgi_config(
        f"unix:{tmp_path}/php.sock",
        "/x.php",
        tmp_path,
        pool_dedicated=True,
        pool_keepalive=True,
        pool_max_connections=4,
        timeout=3600.0,
        zombie_grace=1300.0,
    )
    etc = tmp_path / "etc" / "8.2/fpm/pool.d"
    etc.mkdir(parents=True)
    (etc / "pepperbus.conf").write_text(pool_file(config.pools["php"], [topic], config.gateway.max_bulk))
    told = doctor.check_fpm(Office(config), "", tmp_path / "etc")
    assert [f.harm for f in told.findings if "No such file" not in f.what] == ["blind", "blind"], told


# -- Redis ----------------------------------------------------------------------------------------------------------


def redis_findings(server: Redis, url: str = "", now: float = 0.0) -> list[Finding]:
    told = Diagnosis()
    config = StorageConfig("main", "redis", Secret(url or server.tcp_url), store_timeout=20.0)
    return list(doctor_redis.storage(config, told, now))


def test_a_redis_that_is_set_up_well(start_redis: Callable[..., Redis]) -> None:
    server = start_redis(**GOOD_REDIS)
    assert redis_findings(server) == []
    assert redis_findings(server, f"unix://{server.path}?db=0") == []


@pytest.mark.parametrize(
    ("setting", "value", "harm", "text"),
    [
        ("maxmemory", "0", "stop", "maxmemory is 0"),
        ("maxmemory", "900kb", "stop", "of maxmemory is used"),
        ("maxmemory-policy", "allkeys-lru", "loss", "Redis deletes jobs"),
        ("appendfsync", "no", "loss", "half a minute of pushes"),
        ("no-appendfsync-on-rewrite", "yes", "loss", "takes `always` back"),
        ("aof-load-truncated", "no", "stop", "does not start by itself"),
        ("save", "60 1", "slow", "cost a fork each"),
        ("maxclients", "50", "stop", "maxclients is 50"),
        ("replicaof", "127.0.0.1 1", "stop", "is a replica"),
    ],
)
def test_each_setting_of_redis_that_hurts(
    start_redis: Callable[..., Redis], setting: str, value: str, harm: str, text: str
) -> None:
    server = start_redis(**GOOD_REDIS)
    assert redis_findings(server) == []
    server.ask("CONFIG", "SET", setting, value) if setting != "replicaof" else server.ask("REPLICAOF", *value.split())
    (finding,) = redis_findings(server)
    assert (finding.harm, text in finding.what) == (harm, True), finding
    assert finding.change


def test_a_redis_that_cannot_write_its_snapshot(start_redis: Callable[..., Redis]) -> None:
    server = start_redis(**{**GOOD_REDIS, "appendonly": "no"})
    server.ask("CONFIG", "SET", "save", "3600 1")
    (server.directory / "dump.rdb").mkdir()  # rename(2) onto a directory fails, for root as well
    server.ask("SET", "x", "1")
    server.ask("BGSAVE")
    end = doctor_redis.time.time() + 40
    while not (found := [f for f in redis_findings(server) if "MISCONF" in f.what]):
        assert doctor_redis.time.time() < end, redis_findings(server)
    assert found[0].harm == "stop"


def test_a_redis_with_another_clock(start_redis: Callable[..., Redis]) -> None:
    server = start_redis(**GOOD_REDIS)
    (finding,) = redis_findings(server, now=doctor_redis.time.time() + 6000)
    assert re.search(r"differ by (600\d|59[5-9]\d) s", finding.what)


def test_a_redis_that_is_away_is_not_asked_for_ever(tmp_path: Path) -> None:
    config = StorageConfig("main", "redis", Secret(f"unix://{tmp_path}/none"), store_timeout=0.2)
    assert list(doctor_redis.storage(config, Diagnosis())) == []


def test_a_far_redis_without_tls_and_password() -> None:
    far = list(doctor_redis._way("main", "redis://10.0.0.1:6379/0", False))
    assert [finding.harm for finding in far] == ["open", "open"]
    assert list(doctor_redis._way("main", "rediss://:pw@10.0.0.1/0", True)) == []


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_on_a_running_bus(buses: Buses) -> None:
    """Most harmful first; the limit of open files is the running bus' own, not this shell's."""

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    bus = buses.make(NODE + "[fastcgi]\n    [[php]]\n        address = unix:@DIR@/none.sock\n")
    bus.start(before=few_files)
    done = bus.cli("--json", "doctor")
    assert done.returncode == 1, done.stderr
    findings = json.loads(done.stdout)["findings"]
    harms = [HARMS.index(finding["harm"]) for finding in findings]
    assert harms == sorted(harms)
    assert all(finding["what"] and finding["change"] for finding in findings)
    by_what = {finding["what"]: finding for finding in findings}
    assert any("none.sock: No such file" in what for what in by_what)
    assert by_what["1024 open files are allowed here, 10200 are needed for [gateway] max_clients"]["harm"] == "slow"
    text = bus.cli("doctor").stdout
    assert text.index("jobs do not run:") < text.index("jobs run late, twice or are refused:")
    assert "not looked at: pool php: no readable file" in text
    assert bus.stop() == 0
    assert "the bus does not run" in bus.cli("doctor").stdout


def test_a_certificate_that_ends_and_a_key_that_everybody_reads(tmp_path: Path) -> None:
    pem = tmp_path / "tls.pem"
    subject = ["-subj", "/CN=localhost", "-days", "30", "-out", str(pem), "-keyout", str(tmp_path / "tls.key")]
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], capture_output=True)
    assert made.returncode == 0, made.stderr
    _, config = fastcgi_config("unix:/x", "/x.php", tmp_path)
    config = replace(config, gateway=replace(config.gateway, cert=pem, key=tmp_path / "tls.key"))
    now = doctor_redis.time.time()
    assert list(doctor_machine.certificate(config, now)) == []
    (soon,) = doctor_machine.certificate(config, now + 20 * 86400)
    assert ("ends in 10 days" in soon.what, soon.harm) == (True, "stop")
    (over,) = doctor_machine.certificate(config, now + 33 * 86400)
    assert "ended 3 days ago" in over.what
    for mode, found in ((0o600, 0), (0o644, 1)):
        (tmp_path / "tls.key").chmod(mode)
        assert len([finding for finding in doctor.files(config) if "tls.key" in finding.change]) == found
