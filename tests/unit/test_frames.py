"""Any bytes are frames with headers, or are skipped; nothing raises."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from workers.ami.frames import FRAME_MAX_BYTES, Splitter, headers_of

GOOD = b"Event: Hangup\r\nUniqueid: A"


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.lists(st.binary().map(lambda b: b.replace(b"\n", b"")), max_size=9), st.integers(1, 9))
def test_frames_are_the_same_however_they_are_cut(frames: list[bytes], size: int) -> None:
    splitter = Splitter()
    stream = b"".join(frame + b"\r\n\r\n" for frame in frames)
    got = [frame for piece in cut(stream, size) for frame in splitter.feed(piece)]
    assert b"\r\n\r\n".join(got) == b"\r\n\r\n".join(frames)
    assert splitter.skipped == 0


@given(st.binary())
def test_any_bytes_have_headers(frame: bytes) -> None:
    assert all(isinstance(one, str) for pair in headers_of(frame).items() for one in pair)


def test_the_first_of_repeated_headers_counts() -> None:
    assert headers_of(b"Event: A\r\nEvent: B\r\nActionID: 1\r\nActionID: 2") == {
        "Event": "A",
        "ActionID": "1",
    }


def test_lines_that_are_no_headers_are_left_out() -> None:
    frame = b"Event: A\r\nno header\r\nName:value\r\n\r\nEmpty: \r\n: x"
    assert headers_of(frame) == {"Event": "A", "Empty": "", "": "x"}


def test_a_frame_of_the_greatest_length_is_read() -> None:
    longest = b"x" * FRAME_MAX_BYTES
    splitter = Splitter()
    assert splitter.feed(longest) == []
    assert splitter.feed(b"\r\n\r\n") == [longest]
    assert splitter.feed(longest + b"\r\n\r\n") == [longest]
    assert splitter.skipped == 0


def test_a_frame_that_is_too_long_is_skipped_alone() -> None:
    for size in (1000, 65_536, 10**7):
        splitter = Splitter()
        long = b"X: " + b"y" * (8 * FRAME_MAX_BYTES)
        stream = b"\r\n\r\n".join([GOOD, long, GOOD, long, long, GOOD, b""])
        assert [f for piece in cut(stream, size) for f in splitter.feed(piece)] == [GOOD] * 3
        assert splitter.skipped == 3


def test_an_endless_frame_needs_no_memory_and_no_time() -> None:
    splitter, piece = Splitter(), b"z" * 65_536
    began = time.process_time()
    for _ in range(2_000):  # 131 MB
        assert splitter.feed(piece) == []
        assert len(splitter._rest) <= FRAME_MAX_BYTES
    assert time.process_time() - began < 5
    assert splitter.feed(b"end\r\n\r\n" + GOOD + b"\r\n\r\n") == [GOOD]
    assert splitter.skipped == 1


def test_the_end_of_a_skipped_frame_may_be_cut() -> None:
    for at in range(1, 4):
        splitter = Splitter()
        splitter.feed(b"x" * (FRAME_MAX_BYTES + 1))
        end = b"\r\n\r\n"
        splitter.feed(b"y" * 100 + end[:at])
        assert splitter.feed(end[at:] + GOOD + end) == [GOOD]
