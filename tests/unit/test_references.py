"""Secrets that stand elsewhere: `env:` and `file:` in a configuration, and what is said when they cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.config.notes import notes
from pepperbus.errors import ConfigError, UsageError
from pepperbus.operations import queues
from pepperbus.operations.office import Office
from tests.fixtures.bus import NODE

QUEUE = """
password = env:ORDERS
storage = local
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:1/
        password = file:../secrets/mail
        sign = file:../secrets/mail
        [[[headers]]]
            X-Plain = plain
            X-Api = env:ORDERS
"""
MORE = """
    [[far]]
        type = redis
        url = file:secrets/redis
[logins]
    shop = file:secrets/mail, push, "*"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "secrets").mkdir(mode=0o750)
    (tmp_path / "node.conf").write_text(NODE.replace("@PORT@", "12017").replace("@WEB@", "19840") + MORE)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE)
    for name, text in (("mail", "s e#c,r=et\n"), ("redis", "redis://:pw@127.0.0.1:1/0")):
        (tmp_path / "secrets" / name).write_text(text)
        (tmp_path / "secrets" / name).chmod(0o640)
    return tmp_path


def loaded(place: Path, **environ: str) -> Config:
    return load(place / "node.conf", {"ORDERS": "from-env", **environ})


def test_every_secret_may_stand_elsewhere(place: Path) -> None:
    config = loaded(place)
    topic = config.queues["orders"].topics["mail"]
    assert config.queues["orders"].password.reveal() == "from-env"
    assert (topic.password.reveal(), topic.sign.reveal()) == ("s e#c,r=et", "s e#c,r=et")
    assert topic.headers == (("X-Plain", "plain"), ("X-Api", "from-env"))
    assert config.storages["far"].url.reveal() == "redis://:pw@127.0.0.1:1/0"
    assert config.logins["shop"].password.reveal() == "s e#c,r=et"


def test_a_value_that_came_by_reference_is_not_shown(place: Path) -> None:
    shown = queues.info(loaded(place).queues["orders"]).topics[0].settings
    assert shown["headers"] == [["X-Plain", "plain"], ["X-Api", "***"]]
    assert "from-env" not in repr(shown)


def test_a_new_content_is_a_change_that_a_reload_sees(place: Path) -> None:
    before = loaded(place)
    assert before == loaded(place)
    (place / "secrets" / "mail").write_text("other")
    assert before.queues != loaded(place).queues


def test_a_secret_file_that_everybody_reads_is_remarked(place: Path) -> None:
    (place / "secrets" / "mail").chmod(0o644)
    assert any(f"chmod o-r {place}/secrets/mail" in note for note in notes(loaded(place)))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("env:NONE", "the environment variable NONE is not set"),
        ("env:9", "wants the name of an environment variable"),
        ("file:../secrets/none", "secrets/none cannot be read: No such file or directory"),
        ("file:../secrets/empty", "secrets/empty is empty"),
        ("file:../secrets/two", "holds more than one line"),
        ("file:../secrets/bytes", "is not UTF-8 text"),
        ("file:../secrets", "cannot be read: Is a directory"),
        ("file:/dev/zero", "no file of a secret: it is too long"),
    ],
)
def test_what_cannot_be_read_is_one_mistake_without_the_secret(place: Path, written: str, text: str) -> None:
    (place / "secrets" / "empty").write_text("\n")
    (place / "secrets" / "two").write_text("hush\nhush\n")
    (place / "secrets" / "bytes").write_bytes(b"\xff\xfe")
    file = place / "queues.d" / "orders.conf"
    file.write_text(QUEUE.replace("env:ORDERS", written, 1))
    with pytest.raises(ConfigError) as error:
        loaded(place)
    (mistake,) = str(error.value).splitlines()
    assert mistake.startswith(f"{file}:2: password = ***: ")
    assert text in mistake
    assert "hush" not in mistake


def test_an_editor_of_queues_cannot_read_files_through_them(place: Path) -> None:
    office = Office(loaded(place))
    for settings in ({"mail/headers/X": "file:/etc/passwd"}, {"password": "env:HOME"}):
        with pytest.raises(UsageError, match="by hand"):
            queues.change(office, "orders", settings)


def test_what_a_reference_holds_never_stands_in_a_mistake(place: Path) -> None:
    (place / "secrets" / "redis").write_text("nonsense hush")
    with pytest.raises(ConfigError) as error:
        loaded(place)
    assert "url = file:secrets/redis: redis://" in str(error.value)
    assert "hush" not in str(error.value)
