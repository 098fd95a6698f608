"""`[http] allow` and `deny`: which addresses a consumer may have, in every spelling of an address."""

from __future__ import annotations

import pytest

from pepperbus.config.model import Http
from pepperbus.config.reach import place, refusal

NOTHING = Http()


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ],
)
def test_what_no_consumer_has_is_refused_without_any_setting(address: str) -> None:
    why = refusal(NOTHING, "innocent.example.com", address)
    assert address in why
    assert "[http] allow" in why


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "fd00::1", "93.184.216.34"])
def test_where_consumers_usually_are_is_open(address: str) -> None:
    assert refusal(NOTHING, "service", address) == ""


def test_an_address_that_is_named_is_let_through_and_a_name_is_not_enough() -> None:
    assert refusal(Http(allow=("169.254.169.254",)), "metadata", "169.254.169.254") == ""
    assert "link-local" in refusal(Http(allow=("metadata",)), "metadata", "169.254.169.254")


def test_deny_goes_before_allow() -> None:
    both = Http(allow=("10.0.0.0/8",), deny=("10.0.0.5",))
    assert refusal(both, "a", "10.0.0.4") == ""
    assert "deny (10.0.0.5)" in refusal(both, "a", "10.0.0.5")
    assert "deny (10.0.0.5)" in refusal(both, "a", "::ffff:10.0.0.5")


def test_an_allow_list_lets_nothing_else_through() -> None:
    only = Http(allow=("*.example.com", "10.0.0.0/8"))
    assert refusal(only, "a.example.com", "93.184.216.34") == ""
    assert refusal(only, "A.Example.COM.", "93.184.216.34") == ""
    assert refusal(only, "service", "10.9.9.9") == ""
    assert "not in [http] allow" in refusal(only, "example.org", "93.184.216.34")
    assert "not in [http] allow" in refusal(only, "a.example.com.evil.org", "93.184.216.34")


def test_a_name_alone_is_judged_as_far_as_it_can_be() -> None:
    assert "not in [http] allow" in refusal(Http(allow=("a.example.com",)), "b.example.com", "")
    assert refusal(Http(allow=("10.0.0.0/8",)), "b.example.com", "") == ""  # its address decides, at each connect
    assert "link-local" in refusal(NOTHING, "169.254.169.254", "")
    assert "link-local" in refusal(NOTHING, "::ffff:169.254.169.254", "")


@pytest.mark.parametrize("word", ["10.0.0.1/8", "300.1.1.1", "a b", "*", "http://x", "1.2.3"])
def test_a_word_that_could_never_match_is_a_mistake(word: str) -> None:
    with pytest.raises(ValueError, match="is wanted"):
        place(word)
