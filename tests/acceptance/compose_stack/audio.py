"""What can be heard on a recording: how loud one tone is, as a share of all that sounds."""

from __future__ import annotations

import array
import io
import math
import wave

RATE = 8000


def samples(wav: bytes) -> array.array[int]:
    """The samples of a mono 16 bit recording at 8 kHz."""
    with wave.open(io.BytesIO(wav)) as recording:
        assert (recording.getnchannels(), recording.getsampwidth()) == (1, 2)
        assert recording.getframerate() == RATE
        return array.array("h", recording.readframes(recording.getnframes()))


def tone_share(heard: array.array[int], hertz: float) -> float:
    """How much of the loudest half second is that tone: 0 nothing, 1 all of it (Goertzel)."""
    step = RATE // 2
    windows = [heard[at : at + step] for at in range(0, len(heard) - step + 1, step // 2)]
    return max((_share(window, hertz) for window in windows), default=0.0)


def loudness(heard: array.array[int]) -> float:
    """Root mean square of the loudest half second, 0 to 32767."""
    step = RATE // 2
    windows = [heard[at : at + step] for at in range(0, len(heard) - step + 1, step)]
    return max((math.sqrt(_power(window) / step) for window in windows), default=0.0)


def _power(window: array.array[int]) -> float:
    return float(sum(sample * sample for sample in window))


def _share(window: array.array[int], hertz: float) -> float:
    power = _power(window)
    if power < len(window) * 100**2:  # quieter than a whisper
        return 0.0
    turn = 2 * math.pi * hertz / RATE
    factor = 2 * math.cos(turn)
    before, now = 0.0, 0.0
    for sample in window:
        before, now = now, sample + factor * now - before
    energy = before * before + now * now - factor * before * now
    return 2 * energy / (len(window) * power)
