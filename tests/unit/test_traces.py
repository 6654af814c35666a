"""Traces: the spans of a call, by its story."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from dialer.domain.story import Story, story_of
from dialer.monitor.traces import spans_of

NAME = "ASR:r-1"
BUSY = {
    "state": "done",
    "result": "BUSY",
    "ended_ms": "9000",
    "story": "pbx01 1 none 1000 500 1500 -",
}


def story(**fields: str) -> Story:
    return story_of(NAME, {**BUSY, **fields})


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_a_call_is_one_span_with_one_for_each_state() -> None:
    found = spans_of(story(story="pbx01 1 came 1000 500 1500 4000"))
    assert [(span.name, seconds(span)) for span in found] == [
        ("call", (1.0, 9.0)),
        ("wait for the worker", (1.0, 1.5)),
        ("originate", (1.5, 2.5)),
        ("ring", (2.5, 5.0)),
        ("talk", (5.0, 9.0)),
    ]
    ids = [(span.context.trace_id, span.context.span_id) for span in found if span.context]
    assert len(set(ids)) == 5
    assert len({trace for trace, _ in ids}) == 1
    parents = [(one.parent.trace_id, one.parent.span_id) for one in found if one.parent]
    assert parents == [ids[0]] * 4


def test_the_trace_id_is_the_sha256_of_the_call_id() -> None:
    context = spans_of(story())[0].context
    assert context is not None
    # printf %s ASR:r-1 | sha256sum | head -c 32
    assert f"{context.trace_id:032x}" == "8208063b5fac2541585ef63d44762bef"


def test_a_call_is_the_same_trace_each_time() -> None:
    def ids() -> list[tuple[int, int]]:
        return [(c.trace_id, c.span_id) for s in spans_of(story()) if (c := s.context) is not None]

    assert ids() == ids()


def test_the_call_says_what_became_of_it() -> None:
    whole = spans_of(story(error="pbx_lost", result="UNKNOWN"))[0]
    assert whole.attributes == {
        "dialer.call_id": NAME,
        "dialer.request_id": "r-1",
        "dialer.cell": "ASR",
        "dialer.pbx": "pbx01",
        "dialer.result": "UNKNOWN",
        "dialer.error": "pbx_lost",
    }
    assert (whole.status.status_code, whole.status.description) == (StatusCode.ERROR, "pbx_lost")
    assert spans_of(story())[0].status.status_code is StatusCode.UNSET, "busy is no error"


@pytest.mark.parametrize("dialed_ms", ["-700", "-1"])
def test_no_span_ends_before_it_began(dialed_ms: str) -> None:
    for span in spans_of(story(story=f"pbx01 1 none 1000 {dialed_ms} 100 -")):
        start, end = seconds(span)
        assert start <= end


def test_a_call_that_was_not_dialed_has_the_wait_only() -> None:
    found = spans_of(story(story="pbx01 2 none 1000 - - -", result="EXPIRED"))
    assert [span.name for span in found] == ["call", "wait for the worker"]


def test_a_call_without_times_has_no_spans() -> None:
    assert spans_of(story_of(NAME, {"state": "done"})) == []
