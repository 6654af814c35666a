"""The dead list of one cell: read it, send an element again, discard elements."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from dialer.multcall.keys import CellKeys
from dialer.store.keys import DEAD_TRAIL_KEPT, IDLE_RETENTION_S, LedgerKeys
from dialer.store.steps import Arg, Steps

#: Entries read in one round trip.
SLICE: Final = 500

#: Entries discarded in one step: each may need a look through the whole list.
DISCARDED_AT_ONCE: Final = 10

#: The trail keeps so much of an entry, in characters.
NOTED_MAX: Final = 8_192

#: Times between these years are shown.
_YEARS: Final = (1970, 5138)

#: Characters of the name of an entry.
_NAME_CHARS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadEntry:
    """One entry. `name` is made of its text, so it is the same for everybody who looks at it.

    `at` is ISO 8601. `source` is `request` or `code`. What is not ours in the list has the reason
    `unknown`.
    """

    text: bytes
    at: str
    source: str
    reason: str
    message: str
    raw: bytes

    @property
    def name(self) -> str:
        """The name by which people choose it."""
        return hashlib.sha256(self.text).hexdigest()[:_NAME_CHARS]

    @property
    def when(self) -> datetime | None:
        """The time `at`, None if it is none."""
        return _when(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What a call replaces: the id that the refused request had, '' for none, who sent it and when.

    `entry` is the name of the dead list's entry, `why` is what the operator said.
    """

    replaces: str
    by: str
    at: str
    entry: str
    why: str = ""

    @property
    def when(self) -> datetime | None:
        """The time `at`, None if it is none."""
        return _when(self.at)


@dataclass(frozen=True, slots=True)
class DeadList:
    """The dead list of a cell. `push` is `multcall.push`, where Multcall appends."""

    steps: Steps
    cell: str
    push: Literal["right", "left"] = "right"

    async def newest(
        self,
        at_most: int,
        *,
        reasons: Collection[str] = (),
        names: Collection[str] = (),
        among: int | None = None,
    ) -> list[DeadEntry]:
        """Return the newest entries first; with `reasons` or `names` only those.

        With `among` only so many of the newest are looked at.
        """
        found: list[DeadEntry] = []
        missing = set(names)
        async for entry in self._all(among):
            if (names and entry.name not in missing) or (reasons and entry.reason not in reasons):
                continue
            missing.discard(entry.name)  # of two that are alike, one
            found.append(entry)
            if len(found) >= at_most or (names and not missing):
                break
        return found

    async def size(self) -> int:
        """Return how many entries there are."""
        return int(await self.steps.read("LLEN", self._keys.dead))

    async def _all(self, among: int | None) -> AsyncIterator[DeadEntry]:
        """Yield every entry, the newest first. Entries that are added now may be left out."""
        end = await self.size()
        last = 0 if among is None else max(0, end - among)
        while end > last:
            start = max(last, end - SLICE)
            for text in reversed(await self.steps.read("LRANGE", self._keys.dead, start, end - 1)):
                yield entry_of(text)
            end = start

    async def send(
        self, entry: DeadEntry, element: bytes, *, request_id: str, link: Replacement
    ) -> Literal["sent", "gone", "used"]:
        """Send an element in place of an entry, which leaves the list.

        Return `gone` if somebody sent or discarded the entry, `used` if the id is used; then
        nothing is changed.
        """
        keys, push = self._keys, "RPUSH" if self.push == "right" else "LPUSH"
        call = keys.call(f"{self.cell}:{request_id}")
        reply = await self.steps.run(
            "dead_send",
            [
                *(keys.dead, CellKeys(self.cell).request, call),
                *(keys.replaced(request_id), keys.dead_trail),
            ],
            [
                *(entry.text, element, push, _json(link)),
                *(_noted("sent", entry, link, request_id), DEAD_TRAIL_KEPT, IDLE_RETENTION_S),
            ],
        )
        said: Literal["sent", "gone", "used"] = reply.decode()
        return said

    async def discard(self, entries: Iterable[DeadEntry], *, by: str, at: str, why: str) -> int:
        """Take entries, the newest first, out for good; return how many were there.

        The oldest go first, because Redis looks for them from that end.
        """
        every, n = list(entries)[::-1], 0
        for start in range(0, len(every), DISCARDED_AT_ONCE):
            args: list[Arg] = [DEAD_TRAIL_KEPT, IDLE_RETENTION_S]
            for entry in every[start : start + DISCARDED_AT_ONCE]:
                link = Replacement(replaces="", by=by, at=at, entry=entry.name, why=why)
                args += [entry.text, _noted("discarded", entry, link, "")]
            names = [self._keys.dead, self._keys.dead_trail]
            n += int(await self.steps.run("dead_discard", names, args))
        return n

    async def replaced_by(self, request_id: str) -> Replacement | None:
        """Return what the request of that id replaces, None for nothing."""
        raw = await self.steps.read("GET", self._keys.replaced(request_id))
        found = _object(raw or b"")
        names = ("replaces", "by", "at", "entry", "why")
        if not all(isinstance(found.get(name), str) for name in names):
            return None
        return Replacement(**{name: found[name] for name in names})

    @property
    def _keys(self) -> LedgerKeys:
        return LedgerKeys(self.cell)


def entry_of(text: bytes) -> DeadEntry:
    """Return an entry of the list."""
    found = _object(text)
    known = {name: found.get(name) for name in ("at", "source", "reason", "message")}
    raw = _raw(found)
    if raw is None or not all(isinstance(value, str) for value in known.values()):
        return DeadEntry(text=text, at="", source="", reason="unknown", message="", raw=text)
    return DeadEntry(text=text, raw=raw, **{name: str(value) for name, value in known.items()})


def _when(text: str) -> datetime | None:
    """Return a time that somebody wrote to Redis, None if a page could not show it."""
    try:
        found = datetime.fromisoformat(text)
        return (
            found.astimezone(UTC) if found.tzinfo and _YEARS[0] < found.year < _YEARS[1] else None
        )
    except ValueError:
        return None


def _raw(found: Mapping[str, Any]) -> bytes | None:
    """Return the element of an entry, None if it has none."""
    text, encoded = found.get("raw"), found.get("raw_base64")
    if isinstance(text, str):
        return text.encode("utf-8", "replace")
    if not isinstance(encoded, str):
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        return None


def _noted(did: str, entry: DeadEntry, link: Replacement, request_id: str) -> str:
    """Return what the trail keeps of an entry: who did what to it, and its text."""
    return json.dumps(
        {
            "did": did,
            "at": link.at,
            "by": link.by,
            "why": link.why,
            "sent_as": request_id or None,
            "entry": entry.text.decode(errors="replace")[:NOTED_MAX],
        },
        ensure_ascii=False,
    )


def _json(link: Replacement) -> str:
    parts = {"replaces": link.replaces, "by": link.by, "at": link.at, "entry": link.entry}
    return json.dumps(parts | {"why": link.why}, ensure_ascii=False)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def reasons_of(entries: Sequence[DeadEntry]) -> dict[str, int]:
    """Return how many entries have each reason."""
    found: dict[str, int] = {}
    for entry in entries:
        found[entry.reason] = found.get(entry.reason, 0) + 1
    return found
