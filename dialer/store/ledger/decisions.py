"""The decision log of one cell, and what its bridges did with its requests lately.

Bridges write both in one step for many cells. An entry of the log is the limit that bound the cell
from its time on, until the time of the next entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dialer.domain.limits import Limit
from dialer.domain.why import LATELY_S, Decision, Took
from dialer.store.keys import (
    DECISIONS_MAX,
    DECISIONS_RETENTION_S,
    IDLE_RETENTION_S,
    LOGGERS,
    TOOK_S,
    LedgerKeys,
)
from dialer.store.ledger.reads import scored
from dialer.store.steps import Arg, Steps

#: A log that no bridge kept for so long has a gap, and another bridge keeps it, in seconds.
UNKEPT_AFTER_S: Final = 3.0

#: Cells in one step, so that other clients of Redis do not wait long.
CELLS_AT_ONCE: Final = 50

#: Times are before the year 5138; what is greater is not ours. In ms.
TIME_MAX_MS: Final = 1e14

#: Longest reason in the log, in characters.
REASON_MAX: Final = 500

#: An entry: its time in ms, its limit, and the rest as JSON.
_ENTRY: Final = re.compile(r"([0-9]{1,14}) (\S+) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One entry of the log: what bound the cell from `at` on."""

    at: datetime
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a bridge writes of one cell. `at_ms` is the time of `took`.

    `decision` is logged if its limit is another one than that of the newest entry; None for none.
    """

    cell: LedgerKeys
    took: Took
    at_ms: int
    decision: Decision | None = None


async def write_news(
    steps: Steps, bridge: str, news: Sequence[News], *, gap: Decision | None = None
) -> list[bool | str]:
    """Write what `bridge` did and decided, and that it keeps logs.

    `gap`: if nobody kept the log of a cell for a while, that is what was then; None: do not look.

    Return for each cell true if its log is right now, false if another bridge keeps it, or why it
    cannot be written.
    """
    kept: list[bool | str] = []
    for start in range(0, max(1, len(news)), CELLS_AT_ONCE):
        some = news[start : start + CELLS_AT_ONCE]
        is_last = start + CELLS_AT_ONCE >= len(news)
        args: list[Arg] = [
            *(bridge, TOOK_S, int(UNKEPT_AFTER_S * 1000)),
            *(DECISIONS_RETENTION_S * 1000, DECISIONS_MAX, IDLE_RETENTION_S),
            *(int(gap is not None), *_limit_and_text(gap), int(is_last)),
        ]
        for one in some:
            args += [_took_text(one), *_limit_and_text(one.decision)]
        names = [key for n in some for key in (n.cell.bridges, n.cell.took, n.cell.decisions)]
        replies = await steps.run("decided", [LOGGERS, *names], args)
        kept += [
            reply.decode(errors="replace") if isinstance(reply, bytes) else bool(reply)
            for reply in replies
        ]
    return kept


@dataclass(frozen=True, slots=True)
class DecisionReads:
    """The decision log of one cell."""

    steps: Steps
    cell: str

    async def in_force_at(self, at: datetime) -> tuple[Logged | None, Logged | None]:
        """Return the entry that was in force at that time, and the one after it; None for none."""
        before, after = await self.steps.read_many(
            [
                ("ZRANGE", self._keys.decisions, _ms(at), "-inf", "BYSCORE", "REV", "LIMIT", 0, 1),
                ("ZRANGE", self._keys.decisions, f"({_ms(at)}", "+inf", "BYSCORE", "LIMIT", 0, 1),
            ]
        )
        return _first(self.cell, before), _first(self.cell, after)

    async def kept_until(self) -> datetime | None:
        """Return when a bridge of the cell last kept its log, None if none ever did."""
        bridges, kept = await self.steps.read_many(
            [
                ("ZRANGE", self._keys.bridges, 0, -1),
                ("ZRANGE", LOGGERS, 0, -1, "WITHSCORES"),
            ]
        )
        times = [ms for name, ms in scored(kept) if name.encode() in bridges]
        last = max((ms for ms in times if ms < TIME_MAX_MS), default=0.0)
        return datetime.fromtimestamp(last / 1000, UTC) if last > 0 else None

    @property
    def _keys(self) -> LedgerKeys:
        return LedgerKeys(self.cell)


def together(rows: Sequence[bytes], now_ms: int) -> Took:
    """Return what all bridges of a cell together did lately; `rows` has what each of them wrote."""
    found = Took()
    for raw in rows:
        found = found.and_(_took(raw, now_ms))
    return found


def entry_in(cell: str, member: bytes) -> Logged | None:
    """Return an entry of the log, None if it is not ours."""
    found = _ENTRY.fullmatch(member.decode(errors="replace"))
    if found is None or found[2] not in set(Limit):
        return None
    return Logged(
        at=datetime.fromtimestamp(int(found[1]) / 1000, UTC),
        decision=_decision(cell, Limit(found[2]), found[3]),
    )


def _first(cell: str, members: Sequence[bytes]) -> Logged | None:
    return entry_in(cell, members[0]) if members else None


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _limit_and_text(decision: Decision | None) -> tuple[str, str]:
    if decision is None:
        return "", ""
    parts = {"reason": decision.reason[:REASON_MAX], "numbers": decision.numbers}
    return decision.limit.value, json.dumps(parts, separators=(",", ":"))


def _decision(cell: str, limit: Limit, text: str) -> Decision:
    parts = _object(text)
    reason, numbers = parts.get("reason"), parts.get("numbers")
    return Decision(
        cell=cell,
        limit=limit,
        reason=reason if isinstance(reason, str) else "",
        numbers=numbers if isinstance(numbers, dict) else {},
    )


def _took_text(news: News) -> str:
    took = news.took
    if took == Took():
        return ""
    parts = {
        "at_ms": news.at_ms,
        "started": took.has_started,
        "stopped_by": took.stopped_by,
        "refused": took.refused,
    }
    return json.dumps(parts, separators=(",", ":"))


def _took(raw: bytes, now_ms: int) -> Took:
    """Return what one bridge did; nothing if that is no longer present, or not ours."""
    parts = _object(raw.decode(errors="replace"))
    at_ms, stopped_by, refused = parts.get("at_ms"), parts.get("stopped_by"), parts.get("refused")
    if not isinstance(at_ms, int) or now_ms - at_ms > 2 * LATELY_S * 1000:
        return Took()
    counts = refused if isinstance(refused, dict) else {}
    return Took(
        has_started=parts.get("started") is True,
        stopped_by=next((one for one in Limit if one == stopped_by), Limit.NONE),
        refused={
            Limit(limit): n
            for limit, n in counts.items()
            if limit in set(Limit) and isinstance(n, int)
        },
    )


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
