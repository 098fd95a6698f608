"""What teams run today becomes queues' files that `check` takes, and what has no place in them is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.errors import ConfigError, PepperbusError, UsageError
from pepperbus.moving import crontab, go, supervisor
from pepperbus.moving.draft import text
from pepperbus.operations import exports, imports
from pepperbus.operations.office import Office

STORAGE = {"type": "redis", "address": "10.0.0.5:6379", "auth": "s3,c#r'et", "max_conn_num": 30}
MAIL = {"name": "mail", "password": "pw#1", "retry_times": 3, "run_type": 0, "storage": STORAGE, "num_of_workers": 10}
MAIL |= {"script_entry": "/data/app/consume.php", "cgi_config_key": "local", "is_retry": True, "retry_time": 600}
AUDIT = {
    "name": "audit",
    "password": "other",
    "run_type": 1,
    "storage": STORAGE,
    "num_of_workers": 2,
    "is_retry": False,
}
AUDIT |= {"script_entry": "http://127.0.0.1:8080/run", "http_config": '{"host":"audit.example.com"}'}
SHELL = {"name": "shell", "password": "pw#1", "run_type": 2, "storage": STORAGE, "script": "/data/app/worker.php"}
SHELL |= {"entry": "Worker,run", "max_children": 3, "max_task": 100, "is_retry": True, "retry_time": 5}
GO = {
    "queue_config": {
        "orders": {"queue_name": "orders", "password": "pw#1", "topic": {"mail": MAIL, "audit": AUDIT, "shell": SHELL}},
        "odd name": {"password": "x", "topic": {}},
    },
    "tags_mapping": {"live": {"orders": ["mail", "audit"]}, "eu": {"orders": ["audit"]}},
    "cgi_config": {"local": {"address": "127.0.0.1:9000", "connect_timeout": 1_500_000_000, "max_conn_num": 512}},
    "http_config": {"request_timeout": 30_000_000_000},
    "tags": ["live"],
}
KEEPER = '''\
# a keeper's file
[DEFAULT]
queue_config json = """%s
"""
tags_mapping json = %s
cgi_config json = %s
consumer_disable bool = true
[127.0.0.1:19840]
consumer_disable bool = false
'''


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "queues.d").mkdir()
    node = (
        "[bus]\ndata_dir = data\nrun_dir = run\n[fastcgi]  # pools\n    # ours\n    [[php]]\naddress = unix:/php.sock\n"
    )
    (tmp_path / "pepperbus.conf").write_text(node)
    return Office(load(tmp_path / "pepperbus.conf"))


def files(tmp_path: Path, **texts: object) -> list[str]:
    found = []
    for name, content in texts.items():
        path = tmp_path / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        found.append(str(path))
    return found


def test_the_go_systems_configuration_loads_as_ours(office: Office, tmp_path: Path) -> None:
    paths = files(
        tmp_path, **{f"{key}__json": GO[key] for key in ("queue_config", "tags_mapping", "cgi_config", "http_config")}
    )
    made = imports.bring(office, "go", paths)
    assert made.written
    assert made.names == ["orders"]
    config = load(tmp_path / "pepperbus.conf")
    orders = config.queues["orders"]
    mail, audit, shell = (orders.topics[name] for name in ("mail", "audit", "shell"))
    assert (orders.password.reveal(), orders.reply, orders.system) == ("pw#1", "json", "")
    assert (mail.run, mail.pool, mail.script, mail.concurrency) == ("fastcgi", "local", "/data/app/consume.php", 10)
    assert (mail.attempts, mail.max_age, mail.tags, mail.paused) == (1000, 600.0, ("live",), False)
    assert [mail.backoff.wait_s(n) for n in (1, 2, 3)] == [30.0, 60.0, 90.0]
    assert (audit.run, audit.urls, audit.host, audit.timeout) == (
        "http",
        ("http://127.0.0.1:8080/run",),
        "audit.example.com",
        30.0,
    )
    assert (audit.attempts, audit.tags, audit.password.reveal()) == (1, ("live", "eu"), "other")
    assert (shell.run, shell.feed, shell.command, shell.entry) == (
        "command",
        "pull",
        ("php", "/data/app/worker.php"),
        "Worker,run",
    )
    assert (shell.concurrency, shell.max_task, shell.paused, shell.max_age) == (3, 100, True, 30.0)
    assert (config.pools["local"].address, config.pools["local"].max_connections) == ("127.0.0.1:9000", 10)
    assert config.pools["local"].connect_timeout == 1.5
    (intake,) = [one for one in orders.intakes if one.topic == "mail"]
    assert (intake.key, intake.format, intake.failed) == ("orders::mail::list", "pepperbus", True)
    assert intake.url.reveal() == "redis://:s3%2Cc%23r%27et@10.0.0.5:6379/0"
    assert any("odd name" in line for line in made.left)
    assert "# ours" in (tmp_path / "pepperbus.conf").read_text(), "the node's file keeps what stood in it"


def test_what_is_there_is_never_touched_and_dry_runs_write_nothing(office: Office, tmp_path: Path) -> None:
    paths = files(tmp_path, all__json=GO)
    before = (tmp_path / "pepperbus.conf").read_text()
    made = imports.bring(office, "go", paths, dry_run=True)
    assert "format = pepperbus" in made.files[0].text
    assert not list((tmp_path / "queues.d").iterdir())
    assert (tmp_path / "pepperbus.conf").read_text() == before
    (tmp_path / "queues.d" / "orders.conf").write_text("mine")
    made = imports.bring(office, "go", paths, intakes=False)
    assert [one.what for one in made.files] == ["there"]
    assert (tmp_path / "queues.d" / "orders.conf").read_text() == "mine"


def test_keepers_files_and_what_the_admin_address_answers(office: Office, tmp_path: Path) -> None:
    text = KEEPER % (
        json.dumps(GO["queue_config"], indent=1),
        json.dumps(GO["tags_mapping"]),
        json.dumps(GO["cgi_config"]),
    )
    keeper = go.parse("queue.conf", text)
    assert keeper == {key: GO[key] for key in ("queue_config", "tags_mapping", "cgi_config")} | {
        "consumer_disable": "true"
    }
    assert any("consumer = off" in line for line in go.read(keeper).left)
    answer = json.dumps({"error_code": 0, "error": "", "data": GO["queue_config"]})
    assert go.parse("x.json", answer) == {"queue_config": GO["queue_config"]}
    with pytest.raises(PepperbusError, match="no queue_config"):
        imports.bring(office, "go", files(tmp_path, tags__json=["live"]))
    with pytest.raises(PepperbusError, match=r"broken\.json"):
        imports.bring(office, "go", files(tmp_path, broken__json='{"queue_config": '))


def test_and_back_to_the_go_system(office: Office, tmp_path: Path) -> None:
    imports.bring(office, "go", files(tmp_path, all__json=GO))
    back = exports.configuration(Office(load(tmp_path / "pepperbus.conf")))
    theirs = back.config["queue_config"]["orders"]["topic"]
    for name, given in (("mail", MAIL), ("audit", AUDIT), ("shell", SHELL)):
        for key in (
            "password",
            "run_type",
            "is_retry",
            "entry",
            "max_children",
            "http_config",
            "script_entry",
            "cgi_config_key",
        ):
            if given.get(key):
                assert json.loads(json.dumps(theirs[name][key])) == given[key] or json.loads(given[key]) == json.loads(
                    theirs[name][key]
                )
        assert theirs[name]["storage"] == {"type": "redis", "address": "10.0.0.5:6379", "auth": "s3,c#r'et"}
    assert theirs["mail"]["retry_time"] == 600
    assert back.config["tags_mapping"] == {"live": {"orders": ["mail", "audit"]}, "eu": {"orders": ["audit"]}}
    assert back.config["cgi_config"]["local"]["address"] == "127.0.0.1:9000"


CRONTAB = """\
MAILTO=ops@example.com
PATH=/usr/bin:/bin
CRON_TZ=Asia/Shanghai
30 3 * * 1-5 php /data/app/artisan report:daily --to=ops
*/5 * * * * cd /data/app && php cron/clean.php >> /var/log/clean.log 2>&1
@daily /usr/local/bin/backup.sh
0 0 1 * * mysql -N%select 1, 'two'
0 4 * * * php /data/app/cron/clean.php \\%full
@reboot /usr/local/bin/warm.sh
"""


def test_a_crontabs_lines_are_schedules(office: Office, tmp_path: Path) -> None:
    made = imports.bring(office, "crontab", files(tmp_path, crontab=CRONTAB))
    queues = load(tmp_path / "pepperbus.conf").queues
    assert sorted(queues) == ["backup", "clean", "clean-2", "mysql", "report-daily"]
    words = {name: queue.topics["run"].command for name, queue in queues.items()}
    assert words["report-daily"] == ("php", "/data/app/artisan", "report:daily", "--to=ops")
    assert words["clean"] == ("/bin/sh", "-c", "cd /data/app && php cron/clean.php >> /var/log/clean.log 2>&1")
    assert words["clean-2"] == ("php", "/data/app/cron/clean.php", "%full")
    schedules = {name: queue.schedule["cron"] for name, queue in queues.items()}
    assert schedules["report-daily"].timing.expression == "30 3 * * 1-5"
    assert schedules["backup"].timing.zone == "Asia/Shanghai"
    assert schedules["mysql"].payload == "select 1, 'two'"
    topic = queues["backup"].topics["run"]
    assert (topic.feed, topic.attempts, dict(topic.environment)) == ("exec", 1, {"PATH": "/usr/bin:/bin"})
    assert [line.partition(": ")[0].rpartition("/")[2] for line in made.left] == ["crontab:1", "crontab:9", "crontab"]


def test_a_system_crontab_names_users() -> None:
    draft = crontab.read("SHELL=/bin/bash\n0 * * * * deploy /data/app/run.sh\nnonsense\n", "/etc/crontab", system=True)
    topic = draft.queues["run"]["topics"]["run"]
    assert (topic["user"], topic["command"]) == ("deploy", "/bin/bash -c /data/app/run.sh")
    assert [line.partition(": ")[0] for line in draft.left] == ["/etc/crontab:3"]


SUPERVISOR = """\
[supervisord]
nodaemon = false
[program:mailer]
command=php /data/app/mailer.php --queue=mail ; the daemon
numprocs=3
process_name=%(program_name)s_%(process_num)02d
directory=/data/app
environment=APP_ENV="production",GREETING='a, b',APP_DEBUG=0
stdout_logfile=/var/log/mailer.log
[program:sync]
command=php sync.php | logger -t sync
autostart=false
[group:all]
programs=mailer,sync
[include]
files = conf.d/*.conf
"""


def test_supervisords_programs_are_kept_alive(office: Office, tmp_path: Path) -> None:
    made = imports.bring(office, "supervisor", files(tmp_path, supervisord__conf=SUPERVISOR))
    queues = load(tmp_path / "pepperbus.conf").queues
    mailer, sync = queues["mailer"].topics["daemon"], queues["sync"].topics["daemon"]
    assert (mailer.run, mailer.feed, mailer.concurrency, mailer.directory) == ("command", "none", 3, "/data/app")
    assert mailer.command == ("php", "/data/app/mailer.php", "--queue=mail")
    assert dict(mailer.environment) == {"APP_ENV": "production", "GREETING": "a, b", "APP_DEBUG": "0"}
    assert (sync.command, sync.paused) == (("sh", "-c", "php sync.php | logger -t sync"), True)
    assert [line.split()[0] for line in made.left] == ["[program:mailer]", "[group:all]:", "[include]"]
    with pytest.raises(ValueError, match="section"):
        supervisor.read("command = x\n")


def test_several_storages_need_a_word(office: Office, tmp_path: Path) -> None:
    config = tmp_path / "pepperbus.conf"
    config.write_text(config.read_text() + "[storages]\n[[one]]\ntype = embedded\n[[two]]\ntype = embedded\n")
    office = Office(load(config))
    with pytest.raises(UsageError, match="--storage"):
        imports.bring(office, "crontab", files(tmp_path, crontab=CRONTAB))
    imports.bring(office, "crontab", files(tmp_path, crontab=CRONTAB), storage="two")
    assert load(config).queues["backup"].topics["run"].storage == "two"


def test_all_is_written_or_nothing(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills after the first file; somebody who makes one of the queues at the same moment."""
    paths = files(tmp_path, all__json=GO)
    made = imports.bring(office, "go", paths, dry_run=True)
    before = office.config.file.read_text()
    last = Path(made.files[-1].file)
    blocks = last.with_name(f".{last.name}.new")
    blocks.mkdir()
    with pytest.raises(PepperbusError, match=re.escape(blocks.name)):
        imports.bring(office, "go", paths)
    assert (office.config.file.read_text(), list(last.parent.glob("*.conf"))) == (before, [])
    blocks.rmdir()

    tried = imports._tried
    monkeypatch.setattr(imports, "_tried", lambda *words: (tried(*words), last.write_text("of somebody else"))[0])
    with pytest.raises(PepperbusError, match="somebody changed the files meanwhile; nothing is written"):
        imports.bring(office, "go", paths)
    assert (office.config.file.read_text(), list(last.parent.glob("*.conf"))) == (before, [last])
    assert last.read_text() == "of somebody else"


def test_what_would_not_load_is_not_written(office: Office, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="61 \\* \\* \\* \\*"):
        imports.bring(office, "crontab", files(tmp_path, crontab="61 * * * * true\n* * * * * fine\n"))
    assert not list((tmp_path / "queues.d").iterdir())


@pytest.mark.parametrize(
    "value", ["plain", "a, b", "a #b", "it's", 'say "x"', 'it\'s "x"', "", " edges ", "-c 'x' \"y\"#,"]
)
def test_every_value_is_read_back_as_it_was(value: str) -> None:
    from configobj import ConfigObj

    written = text("", {"topics": {"t": {"key": value}}})
    assert ConfigObj(written.splitlines(), list_values=True, interpolation=False)["topics"]["t"]["key"] == value
