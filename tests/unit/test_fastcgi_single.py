"""A plain request in one go: byte for byte what its parts make one after the other, or nothing where it is not plain."""

from hypothesis import given
from hypothesis import strategies as st

from pepperbus.config.model import Topic
from pepperbus.delivery import form
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.fastcgi_params import Params
from pepperbus.delivery.fastcgi_single import Single
from pepperbus.job import Job
from pepperbus.wire import fastcgi

TOPIC = Topic(
    "orders&%b", "mail", "local", "fastcgi", script="/srv/100%b/work.php", params=(("A_%s", "100%"),), max_age=3600.0
)
PARAMS = Params(TOPIC, dedicated=True)
SINGLE = {keep: Single(TOPIC, PARAMS, keep) for keep in (False, True)}
FIRST, LARGEST = 10**19, (1 << 64) - 1  # 20 digits, as all ids of the bus have
NOW_MS = 1_800_000_000_000
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
CONTENT = st.one_of(
    st.binary(max_size=300),
    TEXT.map(str.encode),
    st.text('%&+;= "\\\n{}x', max_size=40).map(str.encode),
    st.integers(60_000, 70_000).map(lambda n: b"x" * n),
)


def plain(job: Job, trace: str, first_due_ms: int, now_ms: int, keep: bool) -> bytes:
    jobs = (Delivered(job, 1, first_due_ms),)
    request = Request(TOPIC.queue, TOPIC.name, trace, jobs, deadline_s=TOPIC.timeout, now_ms=now_ms)
    body, _ = form.body(request, TOPIC)
    return fastcgi.opening(PARAMS.of(request, body), keep) + fastcgi.closing(body)


@given(
    st.integers(FIRST, LARGEST),
    st.integers(FIRST, LARGEST),
    TEXT,
    TEXT,
    CONTENT,
    st.sampled_from((0, NOW_MS - 60_000, NOW_MS, NOW_MS + 5)),
    st.sampled_from((0, NOW_MS - 4_000_000, NOW_MS - 1_500)),
    st.integers(0, 3_000),
    st.booleans(),
)
def test_it_is_what_the_parts_make(
    job_id: int, number: int, mine: str, theirs: str, content: bytes, accepted: int, due: int, later: int, keep: bool
) -> None:
    job = Job(job_id, f"{number}{theirs}", content, accepted)
    trace, now_ms = f"{job_id}{mine}", NOW_MS + later
    made = SINGLE[keep].of(job, trace, due, now_ms)
    if made is None:
        assert (
            "\0" in mine + theirs
            or len((mine + theirs).encode()) > 100
            or len(content) > 50_000
            or not is_text(content)
        )
        return
    assert made.data == plain(job, trace, due, now_ms, keep)
    opening = made.data[: made.cut]
    assert opening == fastcgi.opening(opening[fastcgi.BEGIN_SIZE :], keep), "the cut is where the params end"


def test_what_is_not_plain_is_left_to_others() -> None:
    usual = Job(FIRST, f"{FIRST}-1-bus", b"x", NOW_MS)
    of = SINGLE[True].of
    assert of(usual, f"{FIRST}-bus", 0, NOW_MS) is not None
    traced = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for job in (usual._replace(trace=traced), usual._replace(trace="t"), usual._replace(content=b"\xff")):
        assert of(job, f"{FIRST}-bus", 0, NOW_MS) is None
    assert of(usual, "a\0", 0, NOW_MS) is None
    assert of(usual, f"{FIRST}-{'x' * 120}", 0, NOW_MS) is None


def is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
