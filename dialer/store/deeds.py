"""The trails of deeds in the registry's Redis: what users of the web page did, failed sign-ins."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Final

from dialer.domain.people import Deed, Did
from dialer.store import keys
from dialer.store.entry import pairs
from dialer.store.parameters import one_line
from dialer.store.steps import Arg, Steps

#: Times, ms, until the year 5138. What is greater is not ours.
_TIME: Final = re.compile(r"[0-9]{1,14}")

_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


async def add_deed(steps: Steps, deed: Deed) -> None:
    """Add a deed to its trail, at the time of Redis."""
    trail, kept = keys.DEEDS, keys.DEEDS_KEPT
    if deed.did is Did.SIGN_IN_FAILED:
        trail, kept = keys.SIGN_IN_FAILURES, keys.FAILURES_KEPT
    args: list[Arg] = [one_line(deed.by), deed.did, one_line(deed.what), one_line(deed.why)]
    names = [trail, keys.deed_reply(secrets.token_hex(16))]
    await steps.run("deed", names, [*args, kept, keys.DEED_REPLY_RETENTION_S])


async def newest_deeds(steps: Steps, trail: str, at_most: int, before: str | None) -> list[Deed]:
    """Return the newest deeds of a trail first; with `before`, those before that `id`.

    What cannot be read is left out: fewer than `at_most` are the last ones.
    """
    upper = f"({before}" if before and _ID.fullmatch(before) else "+"
    found: list[Deed] = []
    while rows := await steps.run("changes", [trail], [upper, "-", at_most]):
        found += [deed for row in rows if (deed := _deed(*row)) is not None]
        if len(found) >= at_most:
            break
        upper = f"({rows[-1][0].decode()}"
    return found[:at_most]


def _deed(raw_id: bytes, flat: Sequence[bytes]) -> Deed | None:
    """Return a deed of the trail, None if it is not ours."""
    try:
        stored = {name.decode(): value.decode() for name, value in pairs(flat).items()}
        if not _TIME.fullmatch(stored["at_ms"]):
            return None
        return Deed(
            id=raw_id.decode(),
            at_ms=int(stored["at_ms"]),
            by=one_line(stored["by"]),
            did=Did(stored["did"]),
            what=one_line(stored["what"]),
            why=one_line(stored["why"]),
        )
    except (ValueError, KeyError):
        return None
