"""The Lua text of every step.

A file whose name begins with `_` contains functions for several steps. A step lists the files
that it needs in a line `-- Include: _time _dead`; their text is put before its own.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Final

_INCLUDE: Final = re.compile(r"^-- Include: (.+)$", re.MULTILINE)


def _read_sources() -> dict[str, str]:
    folder = resources.files("dialer.store") / "lua"
    texts = {
        entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }
    return {name: _with_includes(texts, name) for name in texts if not name.startswith("_")}


def _with_includes(texts: dict[str, str], name: str) -> str:
    found = _INCLUDE.search(texts[name])
    included = found.group(1).split() if found else []
    return "\n".join([*(texts[shared] for shared in included), texts[name]])


#: Step to Lua text. Read once at import, so that an upgrade does not change a running program.
SOURCES: Final = _read_sources()

#: Step to the name by which EVALSHA calls its text.
DIGESTS: Final = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    for name, text in SOURCES.items()
}
