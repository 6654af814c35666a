"""The chaos suite's man in the middle: what it breaks, and what it must let pass."""

from __future__ import annotations

import random
from collections import Counter

from tests.chaos.frames import END, HOSTILE_FRAMES, TRUTH, Breaker, harmless, is_foreign

BANNER = b"Asterisk Call Manager/11.0.0\r\n"
REPLY = b"Response: Success\r\nActionID: 7\r\nMessage: Originate successfully queued"
LISTED = b"Event: CoreShowChannel\r\nActionID: 8\r\nUniqueid: a"
TOLD = [b"Event: %s\r\nUniqueid: ours" % name.encode() for name in sorted(TRUTH)]
FOREIGN = b"Event: NewConnectedLine\r\nUniqueid: ours\r\nExten: s"


def passed(breaker: Breaker, frames: list[bytes], *, part: int = 100) -> list[bytes]:
    """What arrives of these frames, when they come in parts of so many bytes."""
    stream = breaker.connection()
    sent = BANNER + b"".join(frame + END for frame in frames)
    came = b"".join(stream(sent[at : at + part]) for at in range(0, len(sent), part))
    assert came.startswith(BANNER)
    return came.removeprefix(BANNER).split(END)[:-1]


def test_all_passes_as_it_is_while_it_is_off() -> None:
    frames = [REPLY, FOREIGN, LISTED, *TOLD]
    for part in (1, 7, 10_000):
        assert passed(Breaker(random.Random(1)), frames, part=part) == frames


def test_what_tells_of_calls_arrives_whole_and_in_order() -> None:
    told = [REPLY, LISTED, *TOLD] * 5
    mixed = [frame for one in told for frame in (FOREIGN, one)]
    for seed in range(20):
        came = passed(Breaker(random.Random(seed), is_on=True), mixed)
        ours = [frame for frame in came if frame in told]
        first = [frame for n, frame in enumerate(ours) if n == 0 or frame != ours[n - 1]]
        assert first == told


def test_foreign_events_come_broken_twice_or_late() -> None:
    breaker = Breaker(random.Random(2), is_on=True)
    came = Counter(passed(breaker, [FOREIGN] * 400))
    assert 200 < came[FOREIGN] < 400  # a quarter came twice, half came broken
    assert any(hostile in came for hostile in HOSTILE_FRAMES)
    assert breaker.broken > 400


def test_late_frames_come_when_the_fault_is_over() -> None:
    breaker = Breaker(random.Random(3), is_on=True)
    stream = breaker.connection()
    stream(BANNER + (FOREIGN + END) * 50)
    breaker.is_on = False
    assert stream(REPLY + END).startswith(REPLY + END + FOREIGN)
    assert stream(REPLY + END) == REPLY + END


def test_broken_frame_never_becomes_one_about_a_call() -> None:
    assert harmless(b"Event: Hangup\r\nUniqueid: ours") == b""
    assert harmless(b"Event: Wallboard\r\n") == b""  # its end would swallow the next frame's
    assert harmless(b"Event: Wall\x00board") == b"Event: Wall\x00board"


def test_hostile_frames_tell_of_no_call_of_ours() -> None:
    for frame in HOSTILE_FRAMES:
        assert END not in frame + END[:2]
        assert b"ours" not in frame
    assert not is_foreign(TOLD[0])
