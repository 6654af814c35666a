"""The messages between Multcall and the dialer: read what comes, write what goes.

This is the package's front; what stands behind it is one file a concern.
"""

from __future__ import annotations

from dialer.multcall.answers import (
    DeadReason,
    ResponseParts,
    ack,
    dead,
    invalid_response,
    response_parts,
)
from dialer.multcall.code import CallCode, parse_code
from dialer.multcall.identity import request_id_of
from dialer.multcall.request import admissible_request, parse_request

__all__ = [
    "CallCode",
    "DeadReason",
    "ResponseParts",
    "ack",
    "admissible_request",
    "dead",
    "invalid_response",
    "parse_code",
    "parse_request",
    "request_id_of",
    "response_parts",
]
