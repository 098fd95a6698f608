"""Loading: what the files mean, where they are looked for, and that nothing but ConfigError ever comes out."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pepperbus.config import reference
from pepperbus.config.backoff import Backoff
from pepperbus.config.load import find, load, load_queue_text, notes, queue_file, spec
from pepperbus.config.model import Config
from pepperbus.config.notes import span, timetable
from pepperbus.config.source import Document, read
from pepperbus.errors import ConfigError
from pepperbus.ids import LAST_MS

ETC = Path(__file__).resolve().parents[2] / "etc"
NODE = "[fastcgi]\n[[php]]\naddress = unix:php.sock\n"
QUEUE = "password = secret\n[topics]\n[[mail]]\npool = php\nscript = /app/job.php\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "pepperbus.conf").write_text(NODE)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE)
    return tmp_path


def loaded(place: Path, node: str | None = None, queue: str | None = None) -> Config:
    if node is not None:
        (place / "pepperbus.conf").write_text(node)
    if queue is not None:
        (place / "queues.d" / "orders.conf").write_text(queue)
    return load(place / "pepperbus.conf", {})


def test_what_stands_for_itself_when_nothing_is_said(place: Path) -> None:
    config = loaded(place)
    queue = config.queues["orders"]
    topic = queue.topics["mail"]
    assert config.storages["local"].type == "embedded"
    assert config.storages["local"].path == place.parent / "var/data/local"
    assert (config.bus.shard, config.bus.grace, config.bus.run_dir) == (2, 30.0, place.parent / "var/run")
    assert config.pools["php"].address == f"unix:{place}/php.sock"
    assert (config.pools["php"].max_connections, config.pools["php"].keepalive) == (4, False)
    assert (queue.durability, queue.reply, queue.rpush, queue.group, queue.open) == (
        "process",
        "auto",
        "front",
        "orders",
        False,
    )
    assert queue.file == place / "queues.d/orders.conf"
    assert (topic.run, topic.contract, topic.ping, topic.storage) == ("fastcgi", "sdk", True, "local")
    assert (topic.attempts, topic.timeout, topic.max_age) == (20, 3600.0, 3 * 86400.0)
    assert topic.backoff == Backoff("exponential", (5.0, 3600.0), True)
    assert topic.dead_on == (400, 413, 415, 422)


def test_the_defaults_of_the_schema_are_those_of_the_model(place: Path) -> None:
    from pepperbus.config import model
    from pepperbus.config.secret import Secret

    config = loaded(
        place,
        "[bus]\nnode = n\n[fastcgi]\n[[php]]\naddress = unix:/a",
        "password = x\n[topics]\n[[t]]\npool=php\nscript=/a",
    )
    assert config.gateway == model.Gateway()
    assert config.web == model.Web()
    assert config.log == model.Log()
    assert config.journal == model.Journal()
    assert config.pools["php"] == model.FastcgiPool("php", "unix:/a")
    assert config.bus == model.Bus("n", data_dir=config.bus.data_dir, run_dir=config.bus.run_dir)
    topic = config.queues["orders"].topics["t"]
    assert topic == model.Topic("orders", "t", "local", "fastcgi", "php", "/a")
    assert config.queues["orders"] == model.Queue(
        "orders", Secret("x"), {"t": topic}, "local", file=place / "queues.d/orders.conf"
    )


def test_a_topics_key_at_the_queues_level_is_the_default_of_its_topics(place: Path) -> None:
    text = """\
password = queue-secret
run = http
url = http://a/, http://b/
timeout = 5s
tags = live
[headers]
    X-Team = shop
[topics]
    [[one]]
    [[two]]
        url = "https://c/"
        timeout = 1m30s
        password = topic-secret
        tags = test
        [[[headers]]]
            Authorization = "Bearer x, y"
"""
    queue = loaded(place, queue=text).queues["orders"]
    one, two = queue.topics["one"], queue.topics["two"]
    assert (one.urls, one.timeout, one.tags, one.headers) == (
        ("http://a/", "http://b/"),
        5.0,
        ("live",),
        (("X-Team", "shop"),),
    )
    assert (two.urls, two.timeout, two.tags) == (("https://c/",), 90.0, ("test",))
    assert two.headers == (("Authorization", "Bearer x, y"),)
    assert (one.password.reveal(), two.password.reveal()) == ("", "topic-secret")
    assert queue.tags == ("live",)


@pytest.mark.parametrize(
    ("lines", "contract", "ping"),
    [
        ("", "sdk", True),
        ("body = raw", "status", False),
        ("contract = status", "status", False),
        ("body = raw\ncontract = sdk", "sdk", True),
        ("ping = off", "sdk", False),
        ("contract = status\nping = on", "status", True),
    ],
)
def test_contract_and_ping_follow_the_body(place: Path, lines: str, contract: str, ping: bool) -> None:
    topic = loaded(place, queue=QUEUE + lines).queues["orders"].topics["mail"]
    assert (topic.contract, topic.ping) == (contract, ping)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exponential 5s..1h jitter", Backoff("exponential", (5.0, 3600.0), True)),
        ("exponential 100ms..10s", Backoff("exponential", (0.1, 10.0), False)),
        ("linear 30s", Backoff("linear", (30.0,), False)),
        ("fixed 1h30m jitter", Backoff("fixed", (5400.0,), True)),
        ("1s, 10s, 1m", Backoff("list", (1.0, 10.0, 60.0), False)),
        ("10s", Backoff("list", (10.0,), False)),
    ],
)
def test_backoff(place: Path, text: str, expected: Backoff) -> None:
    assert loaded(place, queue=QUEUE + f"backoff = {text}").queues["orders"].topics["mail"].backoff == expected


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("p@ss:word%(x)s$y", "p@ss:word%(x)s$y"),
        ('"a, b # c"', "a, b # c"),
        ("'say \"hi\"'", 'say "hi"'),
        ("secret # a comment", "secret"),
        ("it's", "it's"),
        ("密码", "密码"),
    ],
)
def test_a_text_arrives_as_it_was_meant(place: Path, text: str, password: str) -> None:
    config = loaded(place, queue=QUEUE.replace("secret", text))
    assert config.queues["orders"].password.reveal() == password


def test_open_loopback_and_logins(place: Path) -> None:
    node = NODE + "[logins]\nshop = pw, push|pop, orders*, mail\n"
    config = loaded(place, node, QUEUE.replace("password = secret", "open = loopback"))
    assert config.queues["orders"].open
    login = config.logins["shop"]
    assert (login.name, login.password.reveal(), login.push, login.pop) == ("shop", "pw", True, True)
    assert login.queues == ("orders*", "mail")


def test_windows_lines_and_a_byte_order_mark_are_no_trouble(place: Path) -> None:
    (place / "queues.d/orders.conf").write_bytes(b"\xef\xbb\xbf" + QUEUE.replace("\n", "\r\n").encode())
    assert loaded(place).queues["orders"].password.reveal() == "secret"


def test_equal_means_nothing_to_reload(place: Path) -> None:
    first, again = loaded(place), loaded(place)
    assert first == again
    assert pickle.loads(pickle.dumps(first)) == first
    changed = loaded(place, queue=QUEUE + "concurrency = 5\n")
    assert changed != first
    assert changed.queues["orders"] != first.queues["orders"]
    assert changed.gateway == first.gateway
    assert loaded(place, queue=QUEUE.replace("secret", "other")) != first


def test_a_printed_configuration_shows_no_secret(place: Path) -> None:
    config = loaded(place, NODE + "[logins]\nshop = hunter2, push, *\n", QUEUE.replace("secret", "hunter2"))
    assert "hunter2" not in repr(config)


def test_where_the_file_is_looked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("pepperbus.config.load.SEARCHED", (Path("etc/pepperbus.conf"), place / "system.conf"))
    with pytest.raises(ConfigError, match="no configuration found"):
        find(None, {})
    (place / "system.conf").touch()
    assert find(None, {}) == place / "system.conf"
    (place / "etc").mkdir()
    (place / "etc/pepperbus.conf").touch()
    assert find(None, {}) == Path("etc/pepperbus.conf")
    assert find(None, {"PEPPERBUS_CONF": "/x"}) == Path("/x")
    assert find(Path("/y"), {"PEPPERBUS_CONF": "/x"}) == Path("/y")


def test_a_relative_way_to_the_file_gives_the_same_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = loaded(place)
    monkeypatch.chdir(place.parent)
    assert load(Path(place.name) / "pepperbus.conf", {}) == absolute


def test_an_edited_queue_is_validated_beside_the_others(place: Path) -> None:
    config = loaded(place, queue="keys = old\n" + QUEUE)
    assert load_queue_text(QUEUE, "orders", config).keys == ()
    assert queue_file("orders", config) == place / "queues.d/orders.conf"
    assert queue_file("fresh", config) == place / "queues.d/fresh.conf"
    assert load_queue_text(QUEUE, "fresh", config).name == "fresh"
    with pytest.raises(ConfigError) as caught:
        load_queue_text("keys = old, orders\n" + QUEUE + "pool = none\n", "fresh", config)
    assert [mistake.partition("fresh.conf:")[2] for mistake in caught.value.mistakes] == [
        "1: keys = old, orders: 'old' is a key of queue orders too",
        "1: keys = old, orders: 'orders' already means the queue orders",
        "7: [topics] [[mail]] pool: this key stands already in line 5; keep one of them",
    ]
    with pytest.raises(ConfigError, match="NUL"):
        load_queue_text("password = \0", "fresh", config)
    with pytest.raises(ConfigError, match="'old' is already one of the keys of queue orders"):
        load_queue_text(QUEUE, "old", config)


@pytest.mark.parametrize("name", sorted(path.name for path in ETC.glob("*.conf")))
def test_every_node_file_of_etc_is_valid(name: str) -> None:
    assert load(ETC / name, {}).queues


def test_etc_is_where_the_parametrised_test_looks() -> None:
    assert {"pepperbus.conf", "minimal.conf"} <= {path.name for path in ETC.glob("*.conf")}


def test_generated_files_are_fresh() -> None:
    assert reference.stale() == []


def test_stale_files_are_named(tmp_path: Path) -> None:
    assert reference.stale(tmp_path) == ["etc/pepperbus.conf", "etc/queues.d/orders.conf", "docs/CONFIG.md"]


def test_the_sample_says_what_the_defaults_are(tmp_path: Path) -> None:
    """Every commented default of the sample may be uncommented: nothing changes and nothing is wrong."""
    (tmp_path / "queues.d").mkdir()
    elsewhere = ("dead_on", "lease", "feed", "children", "max_task", "max_memory")  # with another `run` or `contract`
    for name, make in (("pepperbus.conf", reference.node_sample), ("queues.d/orders.conf", reference.queue_sample)):
        defaults = {f"# {option.key} = {option.default}" for option in spec() if option.default}
        lines, commented = [], False
        for line in make().split("\n"):
            if line.strip().startswith(("[", "# [")):
                commented = line.strip().startswith("# [")  # what stands in such a section belongs to it alone
            is_default = line.strip() in defaults and not commented
            lines.append(line.replace("# ", "", 1) if is_default else line)
        lines = [line for line in lines if not line.strip().startswith(elsewhere)]
        (tmp_path / name).write_text("\n".join(line for line in lines if line.strip() != "mode = redis"))
    uncommented = load(tmp_path / "pepperbus.conf", {})
    (tmp_path / "pepperbus.conf").write_text(reference.node_sample())
    (tmp_path / "queues.d/orders.conf").write_text(reference.queue_sample())
    assert uncommented == load(tmp_path / "pepperbus.conf", {})


def test_every_option_has_help_and_a_valid_default() -> None:
    found = spec()
    assert len(found) > 60
    for option in found:
        assert option.help, option.key
        option.default_value()
    assert {(o.section, o.key) for o in found} >= {("", "queue_files"), ("[topics] [[NAME]]", "timeout"), ("", "keys")}


def test_the_timetable_says_which_limit_ends_the_retries(place: Path) -> None:
    def table(lines: str) -> str:
        return timetable(loaded(place, queue=QUEUE + lines).queues["orders"].topics["mail"])

    assert table("attempts = 1") == "orders/mail: 1 attempt, a failed job is dead at once"
    assert (
        table("attempts = 4\nbackoff = fixed 1m")
        == "orders/mail: 4 attempts over 3 min plus run time, ended by attempts"
    )
    assert table("attempts = 1000\nbackoff = linear 30s\nmax_age = 1h") == (
        "orders/mail: 16 attempts over 60 min plus run time, ended by max_age"
    )
    assert (
        table("attempts = 3\nbackoff = 1s, 10s") == "orders/mail: 3 attempts over 11 s plus run time, ended by attempts"
    )


def test_notes_name_what_may_hurt(place: Path) -> None:
    (place / "queues.d/orders.conf").chmod(0o644)
    found = notes(loaded(place, NODE + "[logins]\nx = pw, push, ordres\n", QUEUE + "concurrency = 9\n"), LAST_MS - 1000)
    assert found[0].startswith("job ids can be given out until 2036-01-")
    assert (
        f"{place}/queues.d/orders.conf holds secrets and everybody on this machine can read it: chmod o-r " in found[2]
    )
    assert "[logins] x: ordres matches no queue" in found
    assert "[fastcgi] [[php]]: its topics ask for 9 attempts at once, max_connections allows 4; they share" in found
    for name in ("pepperbus.conf", "queues.d/orders.conf"):
        (place / name).chmod(0o640)
    (place / "php.sock").touch()
    (place / "queues.d/job.php").touch()
    quiet = notes(loaded(place, NODE, QUEUE.replace("/app/job.php", "job.php")), LAST_MS - 10 * 365 * 86_400_000)
    assert len(quiet) == 1
    assert quiet[0].startswith("orders/mail: 20 attempts over ")


def test_notes_name_who_needs_no_login(place: Path) -> None:
    web = "[web]\nlegacy_loopback = yes\n"
    found = [note for note in notes(loaded(place, NODE + web, QUEUE)) if "legacy_loopback" in note]
    assert len(found) == 1
    assert "everybody on this machine" in found[0]
    for more in ("hosts = bus.example.com", "proxies = 127.0.0.1", "listen = 127.0.0.1:19840, unix:/run/web.sock"):
        found = [note for note in notes(loaded(place, NODE + web + more, QUEUE)) if "legacy_loopback" in note]
        assert "behind a proxy" in found[1], more
        assert more.rpartition(", ")[2].rpartition(" = ")[2] in found[1]
    assert not [note for note in notes(loaded(place, NODE + "[web]\n" + more, QUEUE)) if "legacy_loopback" in note]


def test_notes_name_what_is_not_there(place: Path) -> None:
    node = "[fastcgi]\n[[php]]\naddress = unix:/nowhere/php.sock\n"
    found = notes(loaded(place, node, QUEUE))
    assert "[fastcgi] [[php]]: there is no unix:/nowhere/php.sock now; its topics wait until php-fpm makes it" in found
    assert any("there is no /app/job.php on this machine" in note for note in found)


def test_notes_name_the_socket_that_may_have_been_meant(tmp_path: Path, place: Path) -> None:
    """`php-fpm.sock` in the examples, `php8.2-fpm.sock` on Debian."""
    there = tmp_path / "php8.2-fpm.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(there))
        (tmp_path / "no-socket.sock").touch()
        found = notes(loaded(place, f"[fastcgi]\n[[php]]\naddress = unix:{tmp_path}/php-fpm.sock\n", QUEUE))
    assert any(f"php-fpm.sock now (but unix:{there}); its topics wait" in note for note in found)


def test_a_file_that_is_not_there_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "pepperbus.conf", {})
    assert caught.value.mistakes == (f"{tmp_path}/pepperbus.conf: cannot be read: No such file or directory",)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (0.5, "0.5 s"), (720, "12 min"), (32400, "9 h"), (259200, "3 d")]
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def mistakes_of(place: Path) -> tuple[str, ...]:
    """What loading complains of; any other exception than ConfigError fails the test."""
    try:
        load(place / "pepperbus.conf", {})
    except ConfigError as error:
        return error.mistakes or ("an error without a word",)
    return ()


_LINES = st.sampled_from(
    ["[bus]", "[[a]]", "[topics]", "[[[params]]]", "a = b", "password = 'x", "x = \"a\"b", "x = a#b", "x = ,", "x = ''' y",
     "]", "[", "= ", "url = http://[/", "timeout = 1e9s", "keys = a,,b", "[a", "[[a]", "'a' = b", "\ufeff", "run = http",
     "[headers]", "topics = 1", "listen = [::1]:99999", "storage = ", "password", "backoff = exponential ..", "chunk = ٣"]
)  # fmt: skip
_TEXT = st.one_of(st.text(max_size=200), st.lists(st.one_of(_LINES, st.text(max_size=20)), max_size=12).map("\n".join))
_SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_SETTINGS
@given(node=_TEXT, queue=_TEXT)
def test_no_text_raises_anything_but_a_config_error(place: Path, node: str, queue: str) -> None:
    (place / "pepperbus.conf").write_bytes(node.encode("utf-8", "surrogatepass"))
    (place / "queues.d/orders.conf").write_bytes(queue.encode("utf-8", "surrogatepass"))
    for mistake in mistakes_of(place):
        assert "\n" not in mistake
        assert ": " in mistake


@_SETTINGS
@given(data=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_config_error(place: Path, data: bytes) -> None:
    (place / "queues.d/orders.conf").write_bytes(data)
    mistakes_of(place)


_WORD = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\"'"), min_size=1, max_size=30)


@_SETTINGS
@given(value=_WORD)
def test_a_quoted_value_is_read_as_it_stands(place: Path, value: str) -> None:
    document = Document(place / "x.conf", f'[a]\nkey = "{value}"  # said\nother = 1\n')
    assert document.mistakes == []
    assert document.value(("a", "key")) == value
    assert document.lines[("a", "other")] == 3


def test_many_quotes_cost_no_time(place: Path) -> None:
    (place / "x.conf").write_text("x = " + '"a",' * 40_000 + '"b" c\n')
    assert "text after the closing quote" in read(place / "x.conf").mistakes[0]
