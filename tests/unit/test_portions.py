"""Lists that change beneath their reader: whoever goes from piece to piece sees every row once that stayed where it was."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import unescape
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus.config.load import load
from pepperbus.errors import UsageError
from pepperbus.web import topics
from pepperbus.web.portion import Place as At
from pepperbus.web.portion import Portion, portion
from tests.unit.test_web import Place, log_in, place  # noqa: F401

TOPIC = "    [[{name}]]\n        run = http\n        url = http://127.0.0.1:9/\n"
QUEUE = "open = loopback\nstorage = local\nsystem = {system}\n[topics]\n{topics}"
MANY = [f"t{n:03d}" for n in range(130)]

#: A row's name -> its figure; what happens between two pieces: rows that come, go, or get another figure.
names = st.text("abc", min_size=1, max_size=3)
lists = st.dictionaries(names, st.integers(-2, 2), max_size=30)
changes = st.lists(st.dictionaries(names, st.none() | st.integers(-2, 2), max_size=6), max_size=12)


def cut(rows: dict[str, int], n: int, falling: bool, **where: str) -> Portion[str]:
    placed: list[tuple[At, str]] = [((float(figure), name, "x"), name) for name, figure in rows.items()]
    return portion(placed, n, falling=falling, **where)


@given(lists, changes, st.integers(1, 7), st.booleans(), st.booleans())
def test_what_stays_where_it_is_is_seen_once(
    rows: dict[str, int], changes: list[dict[str, int | None]], n: int, falling: bool, backwards: bool
) -> None:
    rows, moved, seen = dict(rows), set[str](), list[str]()
    where = {"before": "inf:~:~" if not falling else "-inf::"} if backwards else {}
    for changed in chain(changes, repeat({})):
        found = cut(rows, n, falling, **where)
        assert (found.found, len(found.rows) <= n) == (len(rows), True)
        seen = [*found.rows, *seen] if backwards else [*seen, *found.rows]
        on = found.before if backwards else found.cursor
        if not on:
            break
        where = {"before" if backwards else "cursor": on}
        for name, figure in changed.items():
            moved.add(name)
            rows.pop(name, None)
            if figure is not None:
                rows[name] = figure
    stayed = [name for name in seen if name not in moved]
    assert stayed == sorted(rows.keys() - moved, key=lambda name: (rows[name], name), reverse=falling)


def test_there_and_back_is_the_same_while_nothing_changes() -> None:
    rows = dict.fromkeys("abcdefg", 1)
    first = cut(rows, 3, False)
    second = cut(rows, 3, False, cursor=first.cursor)
    assert (second.rows, second.ahead, second.found) == (["d", "e", "f"], 3, 7)
    assert cut(rows, 3, False, before=second.before) == first
    assert (first.before, cut(rows, 7, False).cursor) == ("", "")
    assert cut({"a": 0}, 3, False, cursor=second.cursor).rows == []


@pytest.mark.parametrize("text", ["x", "1", "1:a", "nan:a:b", "1:a:b:c", "one:a:b", "::"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cursor: "):
        portion([((0.0, "a", "b"), 1)], 1, text)


# -- the page and the API ------------------------------------------------------------------------------------------


def write(place: Place, **queues: list[str]) -> None:  # noqa: F811
    for name, found in queues.items():
        text = QUEUE.format(system=f"of-{name}", topics="".join(TOPIC.format(name=topic) for topic in found))
        (place.directory / "queues.d" / f"{name}.conf").write_text(text)
    place.office.take(load(place.directory / "node.conf", {}))


def rows_of(text: str) -> list[str]:
    return re.findall(r'<tr id="row-([^"]+)"', text)


def link(text: str, label: str) -> str:
    """Where the way through the list leads."""
    found = re.search(rf'<a href="([^"]+)">{label}</a>', text.partition('<div class="pages">')[2])
    return unescape(found[1]) if found else ""


def walk(place: Place, path: str, label: str, meanwhile: Callable[[int], None]) -> list[list[str]]:  # noqa: F811
    pieces = []
    while path:
        text = place.text(path)
        pieces.append(rows_of(text))
        path = link(text, label)
        meanwhile(len(pieces))
    return pieces


@pytest.mark.parametrize("order", ["name", "-name", "-waiting", "state", "-clear", "run", "-oldest"])
def test_the_page_of_queues_neither_skips_nor_repeats(place: Place, order: str) -> None:  # noqa: F811
    """Between two pieces queues come and go, and jobs come to topics that were shown already."""
    write(place, many=MANY)
    expected = {f"many--{name}" for name in MANY[10:]}

    def meanwhile(piece: int) -> None:
        if piece == 1:
            write(place, many=[name for name in MANY if name not in MANY[:10]], aaa=["new"], zzz=["new"])
            place.push(1, "many/t020")
            place.desk.monitor.forget()

    pieces = walk(place, f"/queues?sort={order}&q=many", "Next", meanwhile)
    seen = [row for piece in pieces for row in piece]
    assert [len(piece) for piece in pieces[:2]] == [50, 50]
    assert len(seen) == len(set(seen)), "none twice"
    assert expected <= set(seen), "none left out"
    whole = csv.DictReader(io.StringIO(place.text(f"/queues.csv?sort={order}&q=many&cursor=1:x:y")))
    assert {row["name"].replace("/", "--") for row in whole} == expected, "a file is the whole selection"


def test_back_is_the_way_one_came_and_filters_stay(place: Place) -> None:  # noqa: F811
    write(place, many=MANY)
    last, path, pieces = "", "/queues?q=many&state=idle&sort=-waiting", []
    while path:
        last, text = path, place.text(path)
        pieces.append(rows_of(text))
        path = link(text, "Next")
    assert "q=many" in last
    assert "state=idle" in last
    assert "101–130" in place.text(last)
    assert walk(place, last, "Back", lambda _: None) == pieces[::-1]
    assert link(place.text(last), "Beginning") == "/queues?q=many&state=idle&sort=-waiting"
    assert "cursor" not in re.findall(r'href="([^"]*sort=name[^"]*)"', place.text(last))[0], "another order begins anew"
    place.client.set_cookie("pepperbus_language", "zh")
    assert link(place.text(last), "上一页")


def test_behind_the_last_that_is_gone_there_is_a_way_back(place: Place) -> None:  # noqa: F811
    text = place.text("/queues?cursor=0:zzz/t:local")
    assert "Nothing comes after this any more" in text
    assert '<a class="btn" href="/queues">From the beginning</a>' in text
    for wrong in ("cursor=x", "before=x", "sort=colour"):
        answer = place.client.get(f"/queues?{wrong}", headers={"Accept": "text/html"})
        assert (answer.status_code, "Traceback" in answer.get_data(as_text=True)) == (400, False)


def pieces_of(client: Any, path: str, kind: str) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        page = client.get(f"{path}{'&' if '?' in path else '?'}n=60&cursor={cursor}").get_json()
        found.append([one["name"] for one in page[kind]])
        if not (cursor := page["cursor"]):
            return found


def test_the_api_lists_piece_by_piece_what_one_may_see(place: Place) -> None:  # noqa: F811
    write(place, many=MANY, other=["t"])
    whole = [f"many/{name}" for name in MANY]
    for sort in topics.ORDERS:
        pieces = pieces_of(place.client, f"/api/v1/topics?sort={sort}&system=of-many", "topics")
        assert [len(piece) for piece in pieces] == [60, 60, 10], sort
        assert sorted(name for piece in pieces for name in piece) == whole, sort
    assert pieces_of(place.client, "/api/v1/queues", "queues") == [["many", "orders", "other"]]
    there = place.client.get("/api/v1/queues?n=1&cursor=0:many:").get_json()
    assert (there["queues"][0]["name"], there["found"]) == ("orders", 3)
    back = place.client.get(f"/api/v1/queues?n=1&before={there['before']}").get_json()
    assert [queue["name"] for queue in back["queues"]] == ["many"]
    viewer = log_in(place.app.test_client(), place.desk, "otto", **{"of-other": "viewer"})
    assert pieces_of(viewer, "/api/v1/topics", "topics") == [["other/t"]]
    assert pieces_of(viewer, "/api/v1/queues", "queues") == [["other"]]
    for path in ("topics?n=0", "topics?sort=x", "topics?cursor=x", "queues?before=x", "queues?n=10001"):
        assert place.client.get(f"/api/v1/{path}").status_code == 400, path
