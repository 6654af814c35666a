"""A carrier that sends calls on: it answers with a 302, or answers and transfers with REFER.

Plain SIP over UDP in a thread, on the address that the lab's containers have for this host.
Retransmissions are answered like the first; it keeps no calls.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from types import TracebackType
from typing import Final, Literal, Self

HOST: Final = os.environ.get("LAB_GATEWAY", "10.213.77.1")
PORT: Final = 5070

#: Pause between two REFERs of one call, in seconds: one of them meets the operator on the line.
REFER_EVERY_S: Final = 0.1

_SDP: Final = "".join(
    f"{line}\r\n"
    for line in (
        *("v=0", f"o=- 1 1 IN IP4 {HOST}", "s=-", f"c=IN IP4 {HOST}"),
        *("t=0 0", "m=audio 30000 RTP/AVP 0"),
    )
)


class Redirector:
    """Send every call on to `target`. A context manager; `heard` are the requests and replies."""

    def __init__(self, how: Literal["302", "REFER"], target: str) -> None:
        self.how, self.target = how, target
        self.heard: list[str] = []
        self._invite = ""
        self._cseq = 0
        self._ended = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, PORT))
        self._socket.settimeout(REFER_EVERY_S)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        asterisk: tuple[str, int] | None = None
        while not self._ended.is_set():
            try:
                raw, asterisk = self._socket.recvfrom(65_536)
            except TimeoutError:
                if asterisk and self._invite:
                    self._socket.sendto(self._refer().encode(), asterisk)
                continue
            message = raw.decode()
            self.heard.append(message.split("\r\n", 1)[0])
            if reply := self._reply(message):
                self._socket.sendto(reply.encode(), asterisk)

    def _reply(self, message: str) -> str:
        method = message.split(" ", 1)[0]
        contact = f"Contact: <sip:x@{HOST}:{PORT}>\r\n"
        if method in ("SIP/2.0", "ACK"):
            return ""
        if method == "INVITE" and self.how == "302":
            to = f"Contact: <sip:{self.target}@{HOST}:{PORT}>\r\n"
            return _answer(message, "302 Moved Temporarily", to)
        if method == "INVITE":
            self._invite = message
            return _answer(message, "200 OK", f"{contact}Content-Type: application/sdp\r\n", _SDP)
        if method == "BYE":
            self._invite = ""
        return _answer(message, "200 OK")

    def _refer(self) -> str:
        self._cseq += 1
        invite = self._invite
        pbx = re.search(r"<(sip:[^>]*)>", _header(invite, "Contact"))
        assert pbx is not None
        return (
            f"REFER {pbx[1]} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {HOST}:{PORT};branch=z9hG4bKrefer{self._cseq};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: {_header(invite, 'To')};tag=r\r\n"
            f"To: {_header(invite, 'From')}\r\nCall-ID: {_header(invite, 'Call-ID')}\r\n"
            f"CSeq: {self._cseq} REFER\r\nContact: <sip:x@{HOST}:{PORT}>\r\n"
            f"Refer-To: <sip:{self.target}@{HOST}>\r\nContent-Length: 0\r\n\r\n"
        )


def _answer(message: str, status: str, more: str = "", body: str = "") -> str:
    vias = re.findall(r"^Via:.*\r\n", message, re.MULTILINE | re.IGNORECASE)
    to = _header(message, "To")
    tagged = to if "tag=" in to else f"{to};tag=r"
    kept = "".join(f"{name}: {_header(message, name)}\r\n" for name in ("From", "Call-ID", "CSeq"))
    return (
        f"SIP/2.0 {status}\r\n{''.join(vias)}{kept}To: {tagged}\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


def _header(message: str, name: str) -> str:
    found = re.search(rf"^{name}:[ \t]*(.*?)\r$", message, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""
