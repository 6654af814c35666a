"""AMI framing on Asterisk's side: parser of actions, format of responses.

Pure. Does not know calls; the format of events is in `events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_LINE_BYTES: Final = 1024
"""Longest header line that Asterisk's manager accepts (main/manager.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmiRequest:
    """One action: header names in lower case; the first of repeated headers counts."""

    headers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    has_long_line: bool = False

    def get(self, name: str) -> str:
        """Return the header's value, empty if it is missing. `name` in lower case."""
        return self.headers.get(name, "")

    @property
    def action(self) -> str:
        """The action's name in lower case, empty if it is missing."""
        return self.get("action").lower()


class AmiReader:
    """Splitter of a byte stream into actions. Like Asterisk it accepts a bare LF as line end."""

    __slots__ = ("_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[AmiRequest]:
        """Yield the actions that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            line = raw[:-1] if raw.endswith(b"\r") else raw
            if line:
                self._lines.append(line)
                continue
            request = _request(self._lines)
            self._lines = []
            yield request


def _request(lines: list[bytes]) -> AmiRequest:
    headers: dict[str, str] = {}
    variables: dict[str, str] = {}
    has_long_line = False
    for raw in lines:
        if len(raw) > MAX_LINE_BYTES:
            has_long_line = True
            continue
        name, colon, rest = raw.decode("utf-8", "replace").partition(":")
        if not colon:
            continue
        key, value = name.strip().lower(), rest.lstrip()
        if key == "variable":
            variables.update(_assignments(value))
        headers.setdefault(key, value)
    return AmiRequest(headers=headers, variables=variables, has_long_line=has_long_line)


def _assignments(value: str) -> Iterator[tuple[str, str]]:
    """Split `a=1,b="2,3"` at commas as Asterisk does; quotes and backslashes protect commas."""
    part: list[str] = []
    quoted = escaped = False
    for char in value:
        if escaped:
            part.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            yield _assignment("".join(part))
            part = []
        else:
            part.append(char)
    yield _assignment("".join(part))


def _assignment(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lstrip("_"), value


def action_id_line(request: AmiRequest) -> str:
    """Return the request's ActionID as a header line, empty if it has none."""
    action_id = request.get("actionid")
    return f"ActionID: {action_id}\r\n" if action_id else ""


def response(request: AmiRequest, word: str, lines: str = "") -> str:
    """Return a response; `lines` are its own header lines, each ending in CRLF."""
    return f"Response: {word}\r\n{action_id_line(request)}{lines}\r\n"


def ack(request: AmiRequest, message: str) -> str:
    """Return `Response: Success` with a message."""
    return response(request, "Success", f"Message: {message}\r\n")


def error(request: AmiRequest, message: str) -> str:
    """Return `Response: Error` with a message."""
    return response(request, "Error", f"Message: {message}\r\n")


def list_start(request: AmiRequest, message: str) -> str:
    """Return the response that begins a list of events."""
    return response(request, "Success", f"EventList: start\r\nMessage: {message}\r\n")


def list_item(request: AmiRequest, event: str, lines: str) -> str:
    """Return one event of a list; it has the ActionID and no privilege."""
    return f"Event: {event}\r\n{action_id_line(request)}{lines}\r\n"


def list_end(request: AmiRequest, event: str, items: int) -> str:
    """Return the event that ends a list."""
    return list_item(request, event, f"EventList: Complete\r\nListItems: {items}\r\n")
