"""Paths that a form or an address names for the way back. They come from anybody."""

from __future__ import annotations

from typing import Final

#: Longest path that a page goes back to.
PATH_MAX: Final = 2_000


def safe_path(text: str, default: str = "/") -> str:
    """Return the text if it is a path of this site, else the default.

    Browsers read "//host", and "/" before a backslash, as another site, and drop tabs and line
    ends before they read.
    """
    is_safe = (
        text.startswith("/")
        and "//" not in text
        and "\\" not in text
        and text.isprintable()  # no control characters, no halves of characters
        and len(text) <= PATH_MAX
    )
    return text if is_safe else default
