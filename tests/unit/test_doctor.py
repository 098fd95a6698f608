"""What `pepperbus doctor` and `check fpm` find, each finding once; and what they say when they cannot look."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pepperbus.cli.top import view
from pepperbus.config.load import load
from pepperbus.config.model import Config, FastcgiPool, Secret, StorageConfig
from pepperbus.errors import NotFound
from pepperbus.operations import doctor, fpm_files
from pepperbus.operations.office import Office
from pepperbus.operations.results import QueueStatus, Status, TopicStatus

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
    assert doctor.reach(one.pools["php"]) is None


def test_more_concurrency_than_connections(tmp_path: Path) -> None:
    harm, what, change = only(doctor.topics(config(tmp_path, "concurrency = 9")))
    assert (harm, change) == ("slow", "[fastcgi] [[php]] max_connections = 9")
    assert "9 attempts at once, it takes 4" in what


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
    proc = tmp_path / "sys"
    (proc / "net/core").mkdir(parents=True)
    (proc / "vm").mkdir()
    (proc / "net/core/somaxconn").write_text("128\n")
    (proc / "vm/overcommit_memory").write_text("0\n")
    assert "somaxconn is 128" in only(doctor.kernel(one, proc, 1 << 20))[1]
    (proc / "net/core/somaxconn").write_text("4096\n")
    assert list(doctor.kernel(one, proc, 1 << 20)) == []
    assert "1024 open files are allowed" in only(doctor.kernel(one, proc, 1024))[1]
    redis = StorageConfig("r", "redis", Secret("redis://u:p@127.0.0.1:6379/0"))
    assert "overcommit_memory" in only(doctor.kernel(replace(one, storages={"r": redis}), proc, 1 << 20))[1]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = config(tmp_path)
    one.bus.data_dir.mkdir(parents=True)
    monkeypatch.setattr(doctor, "_LEAST_FREE", 0.0)
    assert list(doctor.disks(one)) == []
    monkeypatch.setattr(doctor, "_LEAST_FREE", 1.1)
    assert "of the disk" in only(doctor.disks(one))[1]


def test_a_storage_below_the_promised_durability_and_one_that_does_not_open(tmp_path: Path) -> None:
    one = config(tmp_path)
    redis = StorageConfig("local", "redis", Secret(f"unix://{tmp_path}/nobody.sock"), store_timeout=0.2)
    office = Office(replace(one, storages={"local": redis}))
    try:
        assert only(doctor._storage(office, "local", doctor.Diagnosis()))[0] == "stop"
    finally:
        office.close()


@pytest.mark.usefixtures("php")
def test_php_fpm_s_own_file(tmp_path: Path) -> None:
    one = config(tmp_path)
    pools = tmp_path / "etc" / "8.2/fpm/pool.d"
    pools.mkdir(parents=True)
    (pools / "www.conf").write_text(POOL.replace("@DIR@", str(tmp_path)).replace("[www]", "[php]"))
    told = doctor.check_fpm(Office(one), "php", tmp_path / "etc")
    assert [finding.harm for finding in told.findings] == ["stop", "stop", "slow"]
    assert [finding.change.partition(": ")[2] for finding in told.findings] == [
        "pm.max_children = 6",
        "php_admin_value[post_max_size] = 24M",
        "request_terminate_timeout = 65s",
    ]
    assert told.unknown == []


def test_a_pool_that_is_not_known_here(tmp_path: Path) -> None:
    told = doctor.check_fpm(Office(config(tmp_path)), "", tmp_path / "nowhere")
    assert "No such file" in told.findings[0].what
    assert "its limits are unknown" in told.unknown[0]
    with pytest.raises(NotFound, match="no \\[fastcgi\\] pool 'x'"):
        doctor.check_fpm(Office(config(tmp_path)), "x")


@pytest.mark.usefixtures("php")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_a_socket_this_account_may_not_use(tmp_path: Path) -> None:
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="pepperbus-doctor-"))
    directory.chmod(0o755)
    path = directory / "php.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            finding = doctor.reach(FastcgiPool("php", f"unix:{path}"))
        finally:
            os.seteuid(0)
    assert finding is not None
    assert "EACCES" in finding.what
    assert "listen.mode" in finding.change


def test_an_address_without_anybody_and_one_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = doctor.reach(FastcgiPool("php", f"unix:{tmp_path}/file"))
    assert finding
    assert "is no socket" in finding.what
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    finding = doctor.reach(FastcgiPool("php", f"127.0.0.1:{port}"))
    assert finding
    assert "refused" in finding.what


def test_a_pool_file_is_read_as_php_fpm_reads_it(tmp_path: Path) -> None:
    pool = fpm_files.parse(tmp_path, '[a]\nx = 1\nx = 2m ; minutes\ny = "8M"\n#z = 1\n[b]\n')[0]
    assert (pool.seconds("x"), pool.size("y"), pool.number("x"), pool.number("z")) == (120.0, 8 << 20, 0, 0)


def test_the_worst_comes_first() -> None:
    told = doctor.Diagnosis([doctor.Finding(harm, "", "") for harm in ("open", "slow", "loss", "stop")])
    assert tuple(finding.harm for finding in told.sort().findings) == doctor.HARMS


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
