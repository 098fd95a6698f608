"""The registry with invented pids and times."""

from __future__ import annotations

import pytest

from pepperbus.master.children import BACKOFF_CAP_S, BOOT_FAILURES, Children, Phase, Place, Wanted

GATEWAYS = Wanted("gateway", "", 2)


def born(children: Children, name: str, pid: int, now: float = 0.0, *, ready: bool = True) -> Place:
    place = children.places[name]
    children.start(place, f"b.{pid}", 1, now)
    place.pid = pid
    if ready:
        children.ready(place)
    return place


def two_gateways() -> Children:
    children = Children()
    assert children.keep_count(GATEWAYS) == []
    return children


def test_names_say_role_group_and_index() -> None:
    assert Wanted("gateway", "", 1).name(0) == "gateway.0"
    assert Wanted("worker", "orders", 1).name(3) == "worker.orders.3"
    assert Wanted("ticker", "", 1, single=True).name(0) == "ticker"
    assert Wanted("ticker", "", 1, single=True).name(1) == "ticker.1"


def test_missing_places_are_added_and_due_at_once() -> None:
    children = two_gateways()
    assert [place.name for place in children.due(0.0)] == ["gateway.0", "gateway.1"]
    assert len({place.beat for place in children}) == 2


def test_surplus_is_answered_highest_first() -> None:
    children = two_gateways()
    born(children, "gateway.0", 10)
    born(children, "gateway.1", 11)
    assert [place.name for place in children.keep_count(Wanted("gateway", "", 0))] == ["gateway.1", "gateway.0"]


def test_a_retired_place_makes_room_at_once_and_vanishes_at_its_exit() -> None:
    children = two_gateways()
    old = born(children, "gateway.0", 10)
    born(children, "gateway.1", 11)
    children.retire(old)
    assert children.drain(old, 5.0, "changed")
    children.keep_count(GATEWAYS)
    assert sorted(children.places) == ["gateway.0", "gateway.1", "gateway.2"]
    children.exit(old, "exit status 0", 1.0)
    assert sorted(children.places) == ["gateway.1", "gateway.2"]
    assert not old.alive  # whoever still has it in hand sees that
    assert len({place.beat for place in children}) == 2


def test_retiring_what_has_no_process_removes_it() -> None:
    children = two_gateways()
    children.retire(children.places["gateway.1"])
    assert list(children.places) == ["gateway.0"]


def test_pids_are_found_only_while_alive() -> None:
    children = two_gateways()
    place = born(children, "gateway.0", 10)
    assert children.by_pid(10) is place
    children.exit(place, "ended by signal 9", 1.0)
    assert children.by_pid(10) is None
    assert place.restarts == 1
    assert place.reason == "ended by signal 9"


def test_the_wait_doubles_up_to_its_cap_and_is_half_random() -> None:
    children = two_gateways()
    waits = []
    now = 0.0
    for pid in range(10, 20):
        place = born(children, "gateway.0", pid, now)
        children.exit(place, "crash", now + 1.0, random=1.0)
        waits.append(place.next_start - now - 1.0)
        now = place.next_start
    assert waits[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0])
    assert waits[-1] == pytest.approx(BACKOFF_CAP_S)
    assert place.backoff_s(0.0) == pytest.approx(BACKOFF_CAP_S / 2)


def test_a_calm_life_does_not_lengthen_the_wait_and_a_long_one_clears_it() -> None:
    children = two_gateways()
    place = born(children, "gateway.0", 10)
    children.exit(place, "crash", 1.0)
    assert place.short_lives == 1
    born(children, "gateway.0", 11, 2.0)
    children.exit(place, "killed", 10.0)
    assert place.short_lives == 1
    born(children, "gateway.0", 12, 11.0)
    children.exit(place, "killed", 80.0)
    assert place.short_lives == 0
    assert place.next_start == pytest.approx(80.1)


@pytest.mark.parametrize("ready", [False, True])
def test_boot_failures_in_a_row_stop_the_storm(ready: bool) -> None:
    children = two_gateways()
    place = children.places["gateway.0"]
    for pid in range(BOOT_FAILURES):
        assert place.phase is Phase.WAITING
        born(children, "gateway.0", 100 + pid, 50.0 * pid, ready=ready)
        children.exit(place, "no module", 50.0 * pid + 0.1, gave_up=True)
    assert place.phase is Phase.FAILED
    assert place not in children.due(1e9)
    children.forgive()
    assert place in children.due(0.0)
    assert place.boot_failures == 0


def test_being_killed_young_is_no_boot_failure() -> None:
    children = two_gateways()
    place = children.places["gateway.0"]
    for pid in range(10):
        born(children, "gateway.0", 100 + pid, 50.0 * pid)
        children.exit(place, "ended by signal 9", 50.0 * pid + 0.1)
    assert place.phase is Phase.WAITING
    assert place.boot_failures == 0


def test_who_was_asked_to_leave_comes_back_at_once_and_unblamed() -> None:
    children = two_gateways()
    place = born(children, "gateway.0", 10)
    assert children.drain(place, 9.0, "600 MiB of memory")
    assert place.phase is Phase.DRAINING
    children.exit(place, "exit status 0", 3.0)
    assert (place.phase, place.next_start, place.short_lives) == (Phase.WAITING, 3.0, 0)
    assert place.reason == "600 MiB of memory"


def test_a_shorter_drain_wins_and_a_longer_one_does_not() -> None:
    children = two_gateways()
    place = born(children, "gateway.0", 10)
    assert children.drain(place, 30.0, "TERM")
    assert not children.drain(place, 60.0, "again")
    assert children.drain(place, 1.0, "INT")
    assert (place.kill_at, place.reason) == (1.0, "INT")
    assert not children.drain(children.places["gateway.1"], 1.0, "it has no process")


def test_ready_while_draining_stays_draining() -> None:
    children = two_gateways()
    place = born(children, "gateway.0", 10, ready=False)
    children.drain(place, 3.0, "TERM")
    children.ready(place)
    assert place.phase is Phase.DRAINING


def test_settled_when_all_are_ready_or_given_up() -> None:
    children = two_gateways()
    born(children, "gateway.0", 10)
    assert not children.settled()
    children.places["gateway.1"].phase = Phase.FAILED
    assert children.settled()


def test_the_next_deadline() -> None:
    children = two_gateways()
    first = born(children, "gateway.0", 10)
    second = born(children, "gateway.1", 11)
    assert children.next_time() == float("inf")
    children.exit(first, "crash", 7.0, random=1.0)
    assert children.next_time() == pytest.approx(7.5 if first.short_lives else 7.1)
    children.drain(second, 2.0, "fat")
    assert children.next_time() == 2.0


def test_a_gateway_waits_for_an_index_that_fits_into_the_ids():
    """Scaled down and up while the old ones drain: an index beyond 15 could never boot."""
    children = Children()
    wanted = Wanted("gateway", "", 15, indexes=16)
    children.keep_count(wanted)
    for place in children:
        children.start(place, "boot", 0, 0.0)
    for surplus in children.keep_count(Wanted("gateway", "", 1, indexes=16)):
        children.retire(surplus)
        children.drain(surplus, 30.0, "no longer wanted")
    children.keep_count(wanted)
    assert [place.index for place in children.of("gateway")] == [0, 15]
    for place in children:
        if place.retired:
            children.exit(place, "left", 1.0)
    children.keep_count(wanted)
    assert [place.index for place in children.of("gateway")] == [*range(14), 15]
