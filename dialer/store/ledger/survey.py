"""What is shown of many cells, read in one step for each server: `dialer monitor`, `dialer why`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from dialer.domain.why import LATE_BRIDGE_S, Took
from dialer.multcall.agents import Operators, operators_in
from dialer.multcall.keys import CellKeys
from dialer.store.entry import pairs
from dialer.store.keys import CALL_PREFIX, LedgerKeys
from dialer.store.ledger.decisions import Logged, entry_in, together
from dialer.store.ledger.outcomes import Minute, Outcomes, minute_in
from dialer.store.steps import Arg, Steps, redis_time

#: A call that waits longer to be claimed is late, in seconds.
LATE_AFTER_S: Final = 1.5

#: A claimed call that Asterisk does not accept for longer is named, in seconds.
UNANSWERED_AFTER_S: Final = 2.0

#: Ages of heartbeats are at most this, in seconds: a dead bridge is forgotten after an hour.
AGE_MAX_S: Final = 24 * 3600.0

#: Late calls of a cell that are looked at.
LATE_LOOKED_AT: Final = 100

#: Claimed calls that are looked at, of one cell on one PBX and in one step.
CLAIMED_LOOKED_AT: Final = 20
CLAIMED_IN_ALL: Final = 1_000

#: Multcall tells nothing of operators.
NO_OPERATORS: Final = Operators()

#: Keys in one step, so that other clients of Redis do not wait long.
KEYS_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Calls that a PBX leaves waiting. `oldest_s` is how long the first of them has waited."""

    calls: int
    oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """Counts of one cell.

    `waiting`: requests in Multcall's list, in the hands of bridges, and parked ones. `parked`: how
    many of them wait for each trunk. `live`: calls that are not done. `unclaimed`: calls that no
    worker has claimed. `awaiting`: calls that wait for their code. `dead`: entries on the dead
    list. `dropped`: entries that the full dead list dropped. `lists`: elements in Multcall's lists,
    and its two counters, by the name of the function.
    """

    waiting: int = 0
    live: int = 0
    unclaimed: int = 0
    awaiting: int = 0
    dead: int = 0
    dropped: int = 0
    parked: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellState:
    """What is known of one cell now.

    `late` are calls that a PBX does not claim, `unanswered` claimed ones that Asterisk does not
    accept, by PBX. `bridges` has the seconds since the last heartbeat of each bridge, `workers` the
    pid and host of each PBX's worker, whatever its registry. `logged` is the last entry of the
    decision log. `outcomes` are those of the last `minutes` of the survey. `operators` are what
    Multcall tells of them. `unreadable` says why the keys cannot be read, '' if they can.
    """

    counts: CellCounts = field(default_factory=CellCounts)
    late: Mapping[str, Late] = field(default_factory=dict)
    unanswered: Mapping[str, Late] = field(default_factory=dict)
    bridges: Mapping[str, float] = field(default_factory=dict)
    workers: Mapping[str, str] = field(default_factory=dict)
    took: Took = field(default_factory=Took)
    logged: Logged | None = None
    outcomes: Outcomes = field(default_factory=Outcomes)
    operators: Operators = NO_OPERATORS
    unreadable: str = ""

    @property
    def is_unserved(self) -> bool:
        """True if no bridge sends heartbeats, as far as can be read."""
        silent_s = min(self.bridges.values(), default=math.inf)
        return not self.unreadable and silent_s >= LATE_BRIDGE_S


@dataclass(slots=True)
class Survey:
    """Reads some cells of one server. `minutes`: how many minutes of outcomes, the present one too.

    A minute that is over is read once more and then kept.
    """

    steps: Steps
    minutes: int = 0
    _kept: dict[str, dict[int, Minute]] = field(default_factory=dict)
    #: The outcomes of each cell since the first reading, and of the minutes before it.
    counted: dict[str, Outcomes] = field(default_factory=dict)
    #: The minutes of each cell that were read last, as they came: most are the same again.
    _rows: dict[str, dict[int, Any]] = field(default_factory=dict)
    #: The sum of a cell's minutes before this one.
    _old: dict[str, tuple[int, Outcomes]] = field(default_factory=dict)

    async def read(self, pbxs_of_cells: Mapping[str, Sequence[str]]) -> dict[str, CellState]:
        """Return the state of these cells, each with the PBXs that it may use."""
        minute = await self._minute() if self.minutes else 0
        found: dict[str, CellState] = {}
        some: dict[str, Sequence[str]] = {}
        n = 0
        for cell, pbxs in pbxs_of_cells.items():
            size = len(_keys(cell, pbxs, self._wanted(cell, minute)))
            if some and n + size > KEYS_AT_ONCE:
                found |= await self._read(some, minute)
                some, n = {}, 0
            some[cell] = pbxs
            n += size
        if some:
            found |= await self._read(some, minute)
        return found

    def by_minute(self, cell: str) -> Mapping[int, Minute]:
        """Return what the last reading had, by minute since 1970."""
        return self._kept.get(cell, {})

    async def _minute(self) -> int:
        return int(await redis_time(self.steps)) // 60

    async def _read(self, cells: Mapping[str, Sequence[str]], minute: int) -> dict[str, CellState]:
        wanted = {cell: self._wanted(cell, minute) for cell in cells}
        names: list[str] = []
        pairs_in_all = max(1, sum(map(len, cells.values())))
        claimed = min(CLAIMED_LOOKED_AT, max(1, CLAIMED_IN_ALL // pairs_in_all))
        args: list[Arg] = [
            *(CALL_PREFIX, int(LATE_AFTER_S * 1000), int(UNANSWERED_AFTER_S * 1000)),
            *(LATE_LOOKED_AT, claimed),
        ]
        for cell, pbxs in cells.items():
            names += _keys(cell, pbxs, wanted[cell])
            keys = LedgerKeys(cell)
            args += [len(pbxs), len(wanted[cell]), keys.parked(""), keys.hand("")]
        now_ms, *rows = await self.steps.run("survey", names, args)
        return {
            cell: self._state(cell, pbxs, wanted[cell], int(now_ms), row)
            for (cell, pbxs), row in zip(cells.items(), rows, strict=True)
        }

    def _wanted(self, cell: str, minute: int) -> list[int]:
        """Return the minutes to read: all but those that were over when they were read."""
        kept = self._kept.get(cell, {})
        open_since = min(minute, max(kept, default=minute)) - 1  # a late Response may come
        last = range(minute - self.minutes + 1, minute + 1)
        return [one for one in last if one not in kept or one >= open_since]

    def _state(
        self, cell: str, pbxs: Sequence[str], wanted: Sequence[int], now_ms: int, row: Any
    ) -> CellState:
        if isinstance(row, bytes):
            return CellState(unreadable=row.decode(errors="replace"))
        lists, sizes, parked, bridges, took, logged, late, of_pbxs, minutes, in_hand, told = row
        return CellState(
            counts=_counts(lists, sizes, parked, in_hand),
            late=_late(late, now_ms),
            unanswered={
                pbx: Late(calls=int(n), oldest_s=(now_ms - _number(dialed_ms)) / 1000)
                for pbx, (_, n, dialed_ms) in zip(pbxs, of_pbxs, strict=True)
                if int(n)
            },
            bridges={
                name.decode(errors="replace"): _age_s(seen_ms, now_ms)
                for name, seen_ms in zip(bridges[::2], bridges[1::2], strict=True)
            },
            workers={
                pbx: words
                for pbx, (worker, *_) in zip(pbxs, of_pbxs, strict=True)
                if (words := _pid_and_host(worker))
            },
            took=together(took[1::2], now_ms),
            logged=entry_in(cell, logged),
            outcomes=self._outcomes(cell, wanted, minutes),
            operators=_operators(told, now_ms),
        )

    def _outcomes(self, cell: str, wanted: Sequence[int], minutes: Sequence[Any]) -> Outcomes:
        if not wanted:
            return Outcomes()
        before, rows = self._kept.get(cell, {}), self._rows.get(cell, {})
        self._rows[cell] = now = dict(zip(wanted, minutes, strict=True))
        fresh = {at: minute_in(pairs(row)) for at, row in now.items() if rows.get(at) != row}
        counted = self.counted.setdefault(cell, Outcomes())
        for at, minute in fresh.items():
            counted += minute.outcomes - before.get(at, Minute()).outcomes
        kept = before | fresh
        last = max(kept)
        self._kept[cell] = kept = {at: n for at, n in kept.items() if at > last - self.minutes}
        old_until, old = self._old.get(cell, (0, Outcomes()))
        if old_until != last - 1:  # the sum of all minutes but the last two changes once a minute
            old = sum((one.outcomes for at, one in kept.items() if at < last - 1), Outcomes())
            self._old[cell] = last - 1, old
        return old + kept.get(last - 1, Minute()).outcomes + kept[last].outcomes


def _keys(cell: str, pbxs: Sequence[str], minutes: Sequence[int]) -> list[str]:
    keys = LedgerKeys(cell)
    return [*_keys_of_now(cell, tuple(pbxs)), *(keys.minute(minute) for minute in minutes)]


@lru_cache(1_000)  # the same each second
def _keys_of_now(cell: str, pbxs: tuple[str, ...]) -> list[str]:
    keys, wire = LedgerKeys(cell), CellKeys(cell)
    return [
        *(wire.request, wire.ack, wire.code, wire.response, wire.counter, wire.counter_ack),
        *(keys.live, keys.queued, keys.awaiting, keys.dead, keys.dropped, keys.parking),
        *(keys.bridges, keys.took, keys.decisions, wire.agents),
        *(key for pbx in pbxs for key in (keys.claimed(pbx), keys.worker(pbx))),
    ]


def _age_s(score: bytes, now_ms: int) -> float:
    """Return how long ago a heartbeat was; what is no time of ours is long ago."""
    age_s = (now_ms - float(score)) / 1000
    return age_s if abs(age_s) < AGE_MAX_S else AGE_MAX_S


def _operators(told: Sequence[bytes] | bytes, now_ms: int) -> Operators:
    if isinstance(told, bytes):
        return Operators(problems=(told.decode(errors="replace"),))
    return operators_in(pairs(told), now_ms / 1000) if told else NO_OPERATORS


def _counts(
    lists: Sequence[Any], sizes: Sequence[Any], parked: Sequence[Any], in_hand: int
) -> CellCounts:
    functions = ("Request", "ACK", "CODLIGACAO", "Response", "Counter", "CounterACK")
    of_lists = dict(zip(functions, map(_number, lists), strict=True))
    live, unclaimed, awaiting, dead, dropped = map(_number, sizes)
    of_trunks = {
        trunk.decode(errors="replace"): int(n)
        for trunk, n in zip(parked[::2], parked[1::2], strict=True)
    }
    return CellCounts(
        waiting=of_lists["Request"] + sum(of_trunks.values()) + in_hand,
        parked=dict(sorted(of_trunks.items())),
        live=live,
        unclaimed=unclaimed,
        awaiting=awaiting,
        dead=dead,
        dropped=dropped,
        lists=of_lists,
    )


def _late(row: Sequence[bytes], now_ms: int) -> dict[str, Late]:
    found: dict[str, Late] = {}
    for name, since_ms in zip(row[::2], row[1::2], strict=True):
        pbx = name.decode(errors="replace")
        before = found.get(pbx)
        oldest_s = before.oldest_s if before else (now_ms - float(since_ms)) / 1000
        found[pbx] = Late(calls=(before.calls if before else 0) + 1, oldest_s=oldest_s)
    return found


def _number(value: bytes | int) -> int:
    """Return a size or a counter; 0 if it is no number that is ours."""
    if isinstance(value, int):
        return value
    text = value.decode(errors="replace")
    return int(text) if len(text) <= 16 and text.removeprefix("-").isdecimal() else 0


@lru_cache(10_000)  # each worker says the same each second
def _pid_and_host(raw: bytes) -> str:
    """Return who a worker says that it is, '' if there is none."""
    try:
        _, host, pid, _ = json.loads(raw or b"[]")
    except (ValueError, TypeError, RecursionError):
        return ""
    return f"pid {pid} on host {host}"
