"""What `pepperbus doctor` and `check fpm` find, each finding once; and what they say when they cannot look."""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from pepperbus.cli.top import view
from pepperbus.config.load import load
from pepperbus.config.model import Config, FastcgiPool, Journal, StorageConfig
from pepperbus.config.secret import Secret
from pepperbus.errors import NotFound
from pepperbus.operations import doctor, doctor_fpm, doctor_machine, fpm_files
from pepperbus.operations.findings import HARMS, Diagnosis, Finding
from pepperbus.operations.office import Office
from pepperbus.operations.results import QueueStatus, Status, TopicStatus
from tests.fixtures.ports import free_port

NODE = """
queue_files = queues.d/*.conf
[bus]
    node = n1
    data_dir = data
    run_dir = run
[fastcgi]
    [[php]]
        address = unix:@DIR@/php.sock
        max_connections = 4
[storages]
    [[local]]
        type = embedded
"""
QUEUE = """
password = p
storage = local
[topics]
    [[mail]]
        run = fastcgi
        pool = php
        script = /x.php
        timeout = 60s
        @MORE@
"""
POOL = """
[global]
[www]
; listen = /elsewhere
listen = @DIR@/$pool.sock
pm.max_children = 2
request_terminate_timeout = 30s
php_admin_value[post_max_size] = 8M ; too small
"""


def config(directory: Path, more: str = "") -> Config:
    (directory / "queues.d").mkdir(exist_ok=True)
    (directory / "node.conf").write_text(NODE.replace("@DIR@", str(directory)))
    (directory / "queues.d" / "orders.conf").write_text(QUEUE.replace("@MORE@", more))
    for file in (directory / "node.conf", directory / "queues.d" / "orders.conf"):
        file.chmod(0o640)
    return load(directory / "node.conf", {})


def only(findings: object) -> tuple[str, str, str]:
    found = list(findings)  # type: ignore[call-overload]
    assert len(found) == 1, found
    return found[0].harm, found[0].what, found[0].change


@pytest.fixture
def php(tmp_path: Path) -> object:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "php.sock"))
        listening.listen(8)
        yield listening


@pytest.mark.usefixtures("php")
def test_a_node_that_fits_has_no_findings_of_its_own_settings(tmp_path: Path) -> None:
    one = config(tmp_path)
    assert [*doctor.topics(one), *doctor.files(one)] == []
    assert doctor_fpm.reach(one.pools["php"]) is None


def test_more_concurrency_than_connections(tmp_path: Path) -> None:
    one = config(tmp_path, "concurrency = 9")
    pool = one.pools["php"]
    harm, what, change = only(doctor_fpm._own(pool, doctor_fpm.topics_of(one, pool), [pool]))
    assert (harm, change) == ("slow", "[fastcgi] [[php]] max_connections = 9")
    assert "9 attempts at once, it takes 4" in what


def test_two_pools_of_ours_in_one_of_php_fpm(tmp_path: Path) -> None:
    kept = FastcgiPool("kept", "unix:/x", 4, dedicated=True, keepalive=True)
    fresh = FastcgiPool("fresh", "unix:/x", 4)
    assert "make each other wait" in only(doctor_fpm._own(kept, [], [kept, fresh]))[1]
    assert list(doctor_fpm._own(kept, [], [kept])) == []
    file = fpm_files.PoolFile(tmp_path, "www", {"pm.max_children": "6"})
    assert only(doctor_fpm._children(kept, file, 8))[2].endswith("pm.max_children = 10")
    assert list(doctor_fpm._children(kept, file, 4)) == []


def test_a_topic_nobody_here_feeds(tmp_path: Path) -> None:
    assert only(doctor.topics(config(tmp_path, "consumer = no")))[0] == "stop"


def test_a_single_attempt_longer_than_the_grace(tmp_path: Path) -> None:
    harm, _, change = only(doctor.topics(config(tmp_path, "attempts = 1")))
    assert harm == "loss"
    assert "[bus] grace = 60s" in change


def test_passwords_that_everybody_reads(tmp_path: Path) -> None:
    one = config(tmp_path)
    (tmp_path / "queues.d" / "orders.conf").chmod(0o644)
    harm, _, change = only(doctor.files(one))
    assert harm == "open"
    assert change.startswith("chmod o-r")


def test_a_proxy_that_may_hide_who_asks(tmp_path: Path) -> None:
    one = config(tmp_path)
    alone = replace(one, web=replace(one.web, legacy_loopback=True))
    assert list(doctor.files(alone)) == [], "an operator's own decision"
    behind = replace(one, web=replace(alone.web, hosts=("bus.example.com",)))
    harm, what, change = only(doctor.files(behind))
    assert (harm, change) == ("open", "[web] legacy_loopback = no, or a proxy that adds X-Forwarded-For")
    assert "hosts = bus.example.com" in what


def test_what_strangers_may_do_hurts_more_than_what_is_late() -> None:
    assert HARMS.index("open") < HARMS.index("slow")


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ({"paused": True, "state": "paused", "ready": 3}, "is paused and 3 jobs wait"),
        ({"state": "stopped", "why": "EACCES"}, "its consumer is stopped: EACCES"),
        ({"dead": 1000}, "1000 dead jobs"),
    ],
)
def test_what_the_figures_say(topic: dict[str, object], text: str) -> None:
    status = Status("n1", 0, running=True)
    status.queues = [QueueStatus("orders", "", (), "process", topics=[TopicStatus("orders/mail", "local", **topic)])]  # type: ignore[arg-type]
    assert text in only(doctor.state(status))[1]
    status.queues = [QueueStatus("orders", "", (), "process", topics=[TopicStatus("orders/mail", "local", dead=999)])]
    assert list(doctor.state(status)) == []


def test_a_detached_topic() -> None:
    status = Status("n1", 0, running=True)
    status.detached = [TopicStatus("orders/old", "local", ready=1, dead=2)]
    assert "3 jobs in local" in only(doctor.state(status))[1]


def test_the_kernel(tmp_path: Path) -> None:
    one = config(tmp_path)
    files = {
        "proc/sys/net/core/somaxconn": "128\n",
        "proc/sys/vm/overcommit_memory": "0\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert "somaxconn is 128" in only(doctor_machine.kernel(one, tmp_path, 1 << 20))[1]
    (tmp_path / "proc/sys/net/core/somaxconn").write_text("4096\n")
    assert list(doctor_machine.kernel(one, tmp_path, 1 << 20)) == []
    assert "1024 open files are allowed" in only(doctor_machine.kernel(one, tmp_path, 1024))[1]
    near = replace(one, storages={"r": StorageConfig("r", "redis", Secret("redis://u:p@127.0.0.1:6379/0"))})
    far = replace(one, storages={"r": StorageConfig("r", "redis", Secret("redis://u:p@10.0.0.1:6379/0"))})
    first, second = doctor_machine.kernel(near, tmp_path, 1 << 20)
    assert ("overcommit_memory" in first.what, "huge pages" in second.what) == (True, True)
    assert list(doctor_machine.kernel(far, tmp_path, 1 << 20)) == []


def test_the_limit_that_counts_is_the_running_bus_own() -> None:
    import resource

    assert doctor_machine.open_files(os.getpid()) == max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 0)
    assert doctor_machine.open_files(0) == 0


def test_the_clock() -> None:
    assert list(doctor_machine.clock(True)) == []
    assert "timedatectl" in only(doctor_machine.clock(False))[2]
    assert doctor_machine.clock_is_kept() in (True, False)  # this kernel tells


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(config(tmp_path), journal=Journal(max_bytes=1 << 20))
    one.bus.data_dir.mkdir(parents=True)
    monkeypatch.setattr(doctor_machine, "_LEAST_FREE", 0.0)
    assert [f for f in doctor_machine.disks(one) if "lies in memory" not in f.what] == []
    monkeypatch.setattr(doctor_machine, "_LEAST_FREE", 1.1)
    assert "of the disk" in next(iter(doctor_machine.disks(one))).what
    huge = replace(one, journal=Journal(max_bytes=1 << 60))
    assert any("the journal may take" in finding.what for finding in doctor_machine.disks(huge))


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is no file system of its own here")
def test_data_in_memory(tmp_path: Path) -> None:
    one = config(tmp_path)
    one = replace(one, bus=replace(one.bus, data_dir=Path("/dev/shm/pepperbus/data")))
    found = [finding for finding in doctor_machine.disks(one) if finding.harm == "loss"]
    assert "lies in memory (tmpfs)" in found[0].what


def test_data_on_a_network_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {tmp_path}/a\\040b rw shared:1 - nfs4 host:/x rw\n"
    )
    assert doctor_machine.filesystem(tmp_path / "a b" / "data", mounts) == "nfs4"
    assert doctor_machine.filesystem(tmp_path / "ab", mounts) == "ext4"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("timeout = 2h\n        max_age = 1h", "max_age is 3600 s: no second one"),
        ("attempts = 1000\n        max_age = 10m", "max_age ends a job long before its 1000 attempts"),
        ("attempts = 1000\n        backoff = fixed 100ms", "a failing consumer is stormed"),
        ("chunk = 9\n        contract = status", "one failed job of 9"),
    ],
)
def test_attempts_waits_and_ages_that_do_not_go_together(tmp_path: Path, more: str, text: str) -> None:
    one = config(tmp_path, more if "timeout" not in more else "").queues["orders"].topics["mail"]
    if "timeout" in more:
        one = replace(one, timeout=7200.0, max_age=3600.0)
    assert text in only(doctor._timetable(one))[1]


def test_a_storage_below_the_promised_durability_and_one_that_does_not_open(tmp_path: Path) -> None:
    one = config(tmp_path)
    redis = StorageConfig("local", "redis", Secret(f"unix://{tmp_path}/nobody.sock"), store_timeout=0.2)
    office = Office(replace(one, storages={"local": redis}))
    try:
        assert only(doctor._storage(office, "local", Diagnosis()))[0] == "stop"
    finally:
        office.close()


@pytest.mark.usefixtures("php")
def test_php_fpm_s_own_file(tmp_path: Path) -> None:
    one = config(tmp_path)
    pools = tmp_path / "etc" / "8.2/fpm/pool.d"
    pools.mkdir(parents=True)
    (pools / "www.conf").write_text(POOL.replace("@DIR@", str(tmp_path)).replace("[www]", "[php]"))
    told = doctor.check_fpm(Office(one), "php", tmp_path / "etc")
    changes = [(finding.harm, finding.change.partition(": ")[2]) for finding in told.findings[:-1]]
    assert changes == [
        ("stop", "pm.max_children = 6"),
        ("stop", "php_admin_value[post_max_size] = 24M"),
        ("slow", "request_terminate_timeout = 58s; or timeout = 32s in the topic"),
        ("slow", "php_admin_value[output_buffering] = 65536"),
        ("slow", "php_admin_flag[display_errors] = off"),
        ("blind", "slowlog = /var/log/php-fpm-slow.log and request_slowlog_timeout = 10s"),
    ]
    assert "pm.status_listen = 127.0.0.1:9001" in told.findings[-1].change
    assert told.unknown == []


def test_a_pool_that_is_not_known_here(tmp_path: Path) -> None:
    told = doctor.check_fpm(Office(config(tmp_path)), "", tmp_path / "nowhere")
    assert "No such file" in told.findings[0].what
    assert "its limits are unknown" in told.unknown[0]
    with pytest.raises(NotFound, match="no \\[fastcgi\\] pool 'x'"):
        doctor.check_fpm(Office(config(tmp_path)), "x")


@pytest.mark.usefixtures("php")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_a_socket_this_account_may_not_use() -> None:
    with tempfile.TemporaryDirectory(prefix="pepperbus-doctor-") as name, socket.socket(socket.AF_UNIX) as listening:
        path = Path(name, "php.sock")
        path.parent.chmod(0o755)
        listening.bind(str(path))
        listening.listen(1)
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            finding = doctor_fpm.reach(FastcgiPool("php", f"unix:{path}"))
        finally:
            os.seteuid(0)
    assert finding is not None
    assert "EACCES" in finding.what
    assert "listen.mode" in finding.change


def test_an_address_without_anybody_and_one_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = doctor_fpm.reach(FastcgiPool("php", f"unix:{tmp_path}/file"))
    assert finding
    assert "is no socket" in finding.what
    finding = doctor_fpm.reach(FastcgiPool("php", f"127.0.0.1:{free_port()}"))
    assert finding
    assert "refused" in finding.what


def test_a_pool_file_is_read_as_php_fpm_reads_it(tmp_path: Path) -> None:
    text = '[a]\nx = 1\nx = 2m ; minutes\nphp_admin_value[y] = "8M"\n#z = 1\n[b]\n'
    pool = fpm_files.parse(tmp_path, text)[0]
    assert (pool.seconds("x"), pool.php_size("y", "1M"), pool.number("x"), pool.number("z")) == (120.0, 8 << 20, 0, 0)
    assert pool.php_size("none", "1M") == 1 << 20


def test_the_worst_comes_first() -> None:
    told = Diagnosis([Finding(harm, "", "") for harm in ("blind", "open", "slow", "loss", "stop")])
    assert tuple(finding.harm for finding in told.sort().findings) == HARMS


def test_top_puts_the_largest_backlog_first() -> None:
    from rich.console import Console

    status = Status("n1", 0, running=True)
    small, large = TopicStatus("a/small", "local", ready=1), TopicStatus("b/large", "local", ready=9, why="\x1b[2J")
    status.queues = [QueueStatus("q", "", (), "process", topics=[small, large])]
    status.problems = ["\x1b[2J trouble"]
    console = Console(width=160, record=True, file=open(os.devnull, "w"))
    console.print(view(status))
    text = console.export_text()
    assert text.index("b/large") < text.index("a/small")
    assert "\x1b" not in text
