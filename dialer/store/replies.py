"""Texts and JSON in keys of ours. Whatever another program left there raises no error."""

from __future__ import annotations

import json
from typing import Any


def text_of(value: bytes) -> str:
    """Return a text; bytes that are no UTF-8 are replaced."""
    return value.decode(errors="replace")


def object_in(text: str) -> dict[str, Any]:
    """Return a JSON object; empty if it is missing or no object."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
