"""A configuration that is read again: only what changed is built anew, and nothing else comes of it than of a first reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepperbus.config.known import Known
from pepperbus.config.load import load
from pepperbus.errors import ConfigError

NODE = "[bus]\nnode = n\n[fastcgi]\n[[php]]\naddress = 127.0.0.1:9000\n"
QUEUE = "password = word\nrun = fastcgi\npool = php\nscript = /app/w.php\n[topics]\n[[t]]\n"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "queues.d").mkdir()
    for name in ("a", "b", "c"):
        write(tmp_path, name, QUEUE)
    (tmp_path / "pepperbus.conf").write_text(NODE)
    return tmp_path / "pepperbus.conf"


def write(directory: Path, name: str, text: str) -> None:
    (directory / "queues.d" / f"{name}.conf").write_text(text)


def mistakes(conf: Path, known: Known | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(conf, known=known)
    return list(refused.value.mistakes)


def test_only_what_changed_is_built(conf: Path) -> None:
    known = Known()
    first = load(conf, known=known)
    write(conf.parent, "b", "attempts = 3\n" + QUEUE)
    (conf.parent / "queues.d" / "c.conf").unlink()
    write(conf.parent, "d", QUEUE)
    second = load(conf, known=known)
    assert second == load(conf)
    assert list(second.queues) == ["a", "b", "d"]
    assert second.queues["a"] is first.queues["a"]
    assert second.queues["b"].topics["t"].attempts == 3
    write(conf.parent, "c", QUEUE.replace("= word", "= other"))  # what was gone is not remembered
    assert load(conf, known=known).queues["c"].password.reveal() == "other"


def test_a_bad_file_is_told_as_at_first_and_forgets_nothing(conf: Path) -> None:
    known = Known()
    first = load(conf, known=known)
    write(conf.parent, "b", "no_such = 1\n" + QUEUE)
    (told,) = mistakes(conf, known)
    assert [told] == mistakes(conf)
    assert "b.conf:1" in told
    write(conf.parent, "b", QUEUE)
    assert load(conf, known=known).queues["b"] is first.queues["b"]


@pytest.mark.parametrize("text", ["keys = same\n", "keys = c\n"])
def test_a_key_of_two_queues_is_told_of_the_same_one(conf: Path, text: str) -> None:
    """Also of one that is known: which of two is to blame does not hang on which was read before."""
    write(conf.parent, "c", "keys = same\n" + QUEUE)
    known = Known()
    load(conf, known=known)
    write(conf.parent, "a", text + QUEUE)
    assert mistakes(conf, known) == mistakes(conf)


def test_a_login_that_takes_the_name_of_a_known_queue(conf: Path) -> None:
    known = Known()
    load(conf, known=known)
    conf.write_text(NODE + "[logins]\na = secret, push, *\n")
    assert mistakes(conf, known) == mistakes(conf)


def test_every_queue_is_held_against_a_changed_node(conf: Path) -> None:
    known = Known()
    load(conf, known=known)
    conf.write_text(NODE.replace("[[php]]", "[[other]]"))
    assert len(mistakes(conf, known)) == 3
    conf.write_text(NODE + "script_root = /elsewhere\n")
    assert len(mistakes(conf, known)) == 3
    conf.write_text(NODE)
    assert len(load(conf, known=known).queues) == 3


def test_what_a_value_names_is_looked_at_each_time(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = conf.parent / "secret"
    secret.write_text("one")
    monkeypatch.setenv("B_PASSWORD", "two")
    write(conf.parent, "a", QUEUE.replace("= word", f"= file:{secret}"))
    write(conf.parent, "b", QUEUE.replace("= word", "= env:B_PASSWORD"))
    known = Known()
    load(conf, known=known)
    secret.write_text("three")
    monkeypatch.setenv("B_PASSWORD", "four")
    config = load(conf, known=known)
    assert [config.queues[name].password.reveal() for name in "ab"] == ["three", "four"]
    assert config.secret_files == (secret,)
    assert config == load(conf)
