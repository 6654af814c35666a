"""AMI frames: split a stream of bytes, and read the headers of a frame. Pure.

No bytes raise here. Whatever a carrier, a dialplan or another AMI user puts into an event, it can
only be read as some headers, or be skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

END: Final = b"\r\n\r\n"

#: Longest frame that is read, in bytes. Asterisk's longest, the reply to ListCommands, has 20 kB.
FRAME_MAX_BYTES: Final = 128 * 1024


@dataclass(slots=True)
class Splitter:
    """Splits what arrives into frames; skips a frame that is too long, up to its end.

    `skipped` counts those. Keeps at most FRAME_MAX_BYTES.
    """

    skipped: int = 0
    _rest: bytes = b""
    _is_skipping: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes, without their ends."""
        *frames, rest = (self._rest + data).split(END)
        if self._is_skipping and frames:
            del frames[0]
            self._is_skipping = False
        if len(rest) > FRAME_MAX_BYTES:
            self.skipped += not self._is_skipping
            self._is_skipping = True
        self._rest = rest[-len(END) :] if self._is_skipping else rest
        fitting = [frame for frame in frames if len(frame) <= FRAME_MAX_BYTES]
        self.skipped += len(frames) - len(fitting)
        return fitting


def headers_of(frame: bytes) -> dict[str, str]:
    """Return the headers by Asterisk's names; the first of repeated headers counts.

    Bytes that are not UTF-8 become U+FFFD. Lines without `: ` are not headers.
    """
    headers: dict[str, str] = {}
    for line in frame.decode("utf-8", "replace").strip().split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            headers.setdefault(name, value)
    return headers
