"""The params of a request: the template of one job gives byte for byte what packing them one by one gives."""

from hypothesis import given
from hypothesis import strategies as st

from pepperbus.config.model import Topic
from pepperbus.delivery.contract import Delivered, Request
from pepperbus.delivery.fastcgi_params import Params
from pepperbus.errors import ProtocolError
from pepperbus.job import Job

TOPIC = Topic("orders", "mail", "local", "fastcgi", script="/srv/100%b/work.php", params=(("A_%s", "100%"),))
PARAMS = Params(TOPIC, dedicated=True)
LARGEST = (1 << 64) - 1
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@given(
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.integers(1, LARGEST),
    st.integers(1, 10**6),
    st.integers(0, 10**14),
    st.floats(0.1, 10**6),
    st.binary(max_size=300),
    st.sampled_from(("13617577267756007424-2130706433-12017", PARENT, "00-short", "")),
)
def test_the_template_says_what_the_plain_way_says(
    trace: str, job_id: int, attempt: int, now_ms: int, deadline_s: float, body: bytes, pushed: str
) -> None:
    jobs = (Delivered(Job(job_id, pushed, b""), attempt),)
    request = Request("orders", "mail", trace, jobs, deadline_s=deadline_s, now_ms=now_ms)
    try:
        plain = PARAMS._one_by_one(request, body)
    except ProtocolError:
        assert "\0" in trace
        try:
            PARAMS.of(request, body)
        except ProtocolError:
            return
        raise AssertionError("a NUL was packed") from None
    assert PARAMS.of(request, body) == plain
    assert (b"HTTP_TRACEPARENT" + PARENT.encode() in plain) == (pushed == PARENT)
    assert (b"HTTP_TRACEPARENT" in plain) == (pushed == PARENT)
