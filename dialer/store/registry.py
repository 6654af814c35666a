"""What all cells share, on one Redis: PBX heartbeats, slots and pace, the do-not-call set.

`dialer.domain.room` computes from these numbers how many calls may start.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from dialer.domain.agents import Team
from dialer.domain.governor import Governed, TrunkLimit
from dialer.domain.limits import Limit
from dialer.domain.numbers import BY_DIGITS, Numbering
from dialer.domain.room import START_COUNTS_S, PbxLimits, PbxLoad, recent_starts, trunk_pace
from dialer.domain.taking import (
    TRIAL_LOST_AFTER_MS,
    TRIAL_PAUSE_MS,
    Results,
    Verdict,
)
from dialer.domain.why import LATE_HEARTBEAT_S, Obstacle, PbxFacts
from dialer.store import keys
from dialer.store.agents import told_in
from dialer.store.replies import object_in, text_of
from dialer.store.steps import Arg, Steps

#: A worker sends its heartbeat this often, in seconds.
HEARTBEAT_EVERY_S: Final = 1.0

#: A PBX whose last heartbeat is older than this gets no new calls, in seconds.
PBX_SILENT_AFTER_S: Final = 5.0

#: A worker whose last heartbeat is older than this is dead, in seconds.
PBX_DEAD_AFTER_S: Final = 10.0

#: A worker that wanted a PBX that another one has is named for so long, in seconds. The service
#: manager starts it again sooner.
RIVAL_SHOWN_S: Final = 30.0

#: A clock that differs more from Redis is a trouble, in seconds.
SKEW_WARNED_S: Final = 2.0

#: A PBX whose host has a clock that differs more from Redis gets no calls, in seconds.
SKEW_MAX_S: Final = 30.0

#: A limit of a governor outside these, in calls a second, is not ours. As in `_governed.lua`.
LEAST_RATE: Final = 0.001
MOST_RATE: Final = 1_000_000

#: Numbers in one change of the do-not-call set; Lua unpacks at most about 8,000 arguments.
DNC_BATCH: Final = 1000

Link = Literal["up", "down", "stopping"]

# Whatever is in a key must not end a bridge or a worker: `inf`, `1e400`, 5,000 digits.
_WHOLE: Final = re.compile(r"-?[0-9]{1,16}")
_DECIMAL: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxState:
    """State of a PBX according to its worker's heartbeat.

    `silent_s` is the time since the last heartbeat, `unready_s` since the last one with the
    AMI link up; infinite if there never was one. `instance` names the worker. `lacking` has a
    sentence for each cell whose calls the PBX does not take: the target that is missing.
    `trouble` says why the worker takes no calls at all although its link may be up, '' if it does.
    `skew_s` is how far its host's clock is ahead of Redis. `cap` is how many calls asterisk.conf
    leaves room for, 0 for no limit; `max_calls` is that of the settings. `verdict`: the bridges
    found that it takes no calls; `lifted` are the results until the last verdict was lifted.
    `governed` is what the worker's governor limits. `drained` says who drained the PBX. `limits`
    has the limit that `trouble` is, as that of '', and those of cells that lack something, if it is
    no target. `rival` is another worker that wants this PBX, '' if there was none in the last
    `RIVAL_SHOWN_S`. `teams` has the agents of each queue of its cells,
    `rooms` how many more calls they allow each cell that reserves them.
    Workers of older releases write none of `trouble`, `skew_s`, `cap`, `results`, `governed`,
    `limits` and `teams`.
    """

    load: PbxLoad
    instance: str
    link: str
    lacking: Mapping[str, str]
    silent_s: float
    unready_s: float
    trouble: str = ""
    skew_s: float = 0.0
    cap: int = 0
    results: Results = field(default_factory=Results)
    max_calls: int = 0
    cps: float = 0.0
    governed: Governed = field(default_factory=Governed)
    verdict: Verdict | None = None
    lifted: Results = field(default_factory=Results)
    drained: str = ""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    rival: str = ""
    teams: Mapping[str, Team] = field(default_factory=dict)
    rooms: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """True if the worker's heartbeat is recent and the worker is not stopping."""
        return self.silent_s < PBX_DEAD_AFTER_S and self.link != "stopping"

    def team(self, queue: str | None) -> Team | None:
        """Return the agents of a queue here, None if it is not known; silent ones are stale."""
        team = self.teams.get(queue or "")
        if team is None or (self.link == "up" and self.silent_s < PBX_SILENT_AFTER_S):
            return team
        return Team(stale=team.logged_in, gone=team.gone)

    def for_cell(self, cell: str | None) -> PbxState:
        """Return the state for the calls of one cell: not ready if it lacks a target of it."""
        if cell in self.lacking:
            return replace(self, load=replace(self.load, ready=False))
        room = self.rooms.get(cell or "")
        return self if room is None else replace(self, load=replace(self.load, agents=room))

    def reserving(self, cell: str) -> PbxState:
        """Return the state for a cell that dials for operators: none if the worker tells of none.

        It is of an older release, or knows the cell in another mode.
        """
        if cell in self.rooms or cell in self.lacking or not self.load.ready:
            return self
        reason = (
            f"the worker of {self.load.name} does not tell which operators are free for {cell}: "
            "restart it, with the same mode in its dialer.toml"
        )
        return replace(
            self,
            load=replace(self.load, ready=False),
            lacking={**self.lacking, cell: reason},
            limits={**self.limits, cell: Limit.STALE_AGENTS},
        )

    def why_not_taking(self, cell: str | None = None) -> str:
        """Return why the PBX takes no calls, or none of that cell; '' if it takes them.

        Multcall gets these words, so they do not say which operator did something.
        """
        found = self._obstacle(cell, PBX_SILENT_AFTER_S)
        return found.reason if found is not None else ""

    def facts(self, cell: str, *, late_s: float = 0.0) -> PbxFacts:
        """Return the PBX as a cell sees it. `late_s`: how long a call of it is unclaimed here."""
        return PbxFacts(
            load=replace(self.load, agents=self.rooms.get(cell)),
            obstacle=self.obstacle(cell),
            cps=self.cps,
            governed=self.governed.rate,
            late_s=late_s,
            is_capped=0 < self.cap < self.max_calls,
        )

    def obstacle(self, cell: str | None = None) -> Obstacle | None:
        """Return why the PBX takes no calls of a cell, for operators; None if it takes them.

        A heartbeat that is late is named, although the PBX may still get calls.
        """
        found = self._obstacle(cell, LATE_HEARTBEAT_S)
        if found is not None and (cure := self._cure(found)):
            found = replace(found, reason=f"{found.reason}: {cure}")
        if found is None or found.limit is Limit.DRAINED:
            return found and replace(found, reason=self.drained)
        if self.rival and found.limit is not Limit.NO_WORKER:
            reason = (
                f"{found.reason}; another worker, {self.rival}, wants it: one PBX has one worker"
            )
            return Obstacle(limit=Limit.TWO_WORKERS, reason=reason)
        return found

    def _cure(self, found: Obstacle) -> str:
        """Return what to do on the PBX's host, '' if the reason says it."""
        name = self.load.name
        if found.limit is Limit.NO_WORKER and not self.instance:
            return f"start 'celery -A dialer worker -Q {name}' on its host"
        if found.limit is Limit.NO_WORKER:
            return f"'systemctl status dialer-worker@{name}' on its host"
        if found.limit is Limit.AMI_DOWN:
            return "is its Asterisk up, and the AMI user in manager.conf?"
        return ""

    def _obstacle(self, cell: str | None, silent_s: float) -> Obstacle | None:
        """Return the first reason, None if there is none."""
        if self.drained:
            return Obstacle(limit=Limit.DRAINED, reason="an operator drained it")
        if not self.instance:
            return Obstacle(limit=Limit.NO_WORKER, reason="no worker of it ever came")
        if self.link == "stopping":
            return Obstacle(limit=Limit.NO_WORKER, reason="its worker was stopped")
        if self.silent_s >= silent_s:
            reason = f"no heartbeat of its worker for {self.silent_s:.0f} s"
            return Obstacle(limit=Limit.NO_WORKER, reason=reason)
        if self.trouble:
            return Obstacle(limit=self.limits.get("", Limit.AMI_DOWN), reason=self.trouble)
        if self.link != "up":
            return Obstacle(limit=Limit.AMI_DOWN, reason=f"no AMI link for {self.unready_s:.0f} s")
        if abs(self.skew_s) > SKEW_MAX_S:
            return Obstacle(limit=Limit.CLOCK_SKEW, reason=skew_words(self.skew_s))
        if cell is not None and cell in self.lacking:
            limit = self.limits.get(cell, Limit.MISSING_TARGET)
            return Obstacle(limit=limit, reason=self.lacking[cell])
        if self.verdict is not None:
            return Obstacle(limit=Limit.NOT_CLAIMING, reason=self.verdict.reason)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeState:
    """What a bridge says of itself. `broker`: why it cannot publish, '' if it can.

    `skew_s` is how far its host's clock is ahead of the registry's Redis.
    """

    skew_s: float
    broker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Result of `lease`: the first `granted` ids have a slot; those in `new` had none before."""

    granted: int
    new: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker that has the lease of a PBX, or wants it.

    `place` says where a process can see if it lives, see `workers.pbx.lease`.
    """

    name: str
    host: str
    pid: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Reply to `hold`: `fence` is the new fencing number, or 0 if `holder` has the lease.

    `link`, `asterisk` and `seen_ms` are from the heartbeat of that holder.
    """

    now_ms: int
    fence: int
    holder: Holder
    link: str = ""
    asterisk: str = ""
    seen_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Reply to a heartbeat. `is_holder` is false if another worker has the lease by now."""

    now_ms: int
    is_holder: bool


@dataclass(slots=True)
class _Readings:
    """Last readings, for callers that accept an old one. Times are of the event loop.

    `reading` is locked while one caller reads for all.
    """

    states: dict[PbxLimits, tuple[float, PbxState]] = field(default_factory=dict)
    with_slots: dict[tuple[str, ...], tuple[float, frozenset[str]]] = field(default_factory=dict)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry's steps. `numbering` says which numbers are the same telephone."""

    steps: Steps
    numbering: Numbering = BY_DIGITS
    _read: _Readings = field(default_factory=_Readings, compare=False)

    async def hold(self, pbx: str, worker: Holder, *, dead: str = "", above: int = 0) -> Held:
        """Take the lease of a PBX for `worker`, unless another worker has it and lives.

        Args:
            pbx: name of the PBX.
            worker: who wants it.
            dead: name of a holder that is known to be dead.
            above: the fencing number must be greater than this.
        """
        now_ms, number, *other = await self.steps.run(
            "hold",
            [keys.pbx(pbx)],
            [
                *(worker.name, worker.host, worker.pid, worker.place),
                *(dead, int(PBX_DEAD_AFTER_S * 1000), above, keys.IDLE_RETENTION_S),
            ],
        )
        if number:
            return Held(now_ms=int(now_ms), fence=int(number), holder=worker)
        name, host, pid, place, link, asterisk, seen_ms = map(text_of, other)
        holder = Holder(name=name, host=host, pid=pid, place=place)
        return Held(
            now_ms=int(now_ms),
            fence=0,
            holder=holder,
            link=link,
            asterisk=asterisk,
            seen_ms=_number(seen_ms),
        )

    async def let_go(self, pbx: str, holder: str) -> None:
        """Return the lease of a PBX, so that another worker can take it at once."""
        await self.steps.run("let_go", [keys.pbx(pbx)], [holder])

    async def heartbeat(
        self,
        pbx: str,
        *,
        instance: str,
        link: Link,
        facts: Mapping[str, str | int],
        holder: str = "",
        fence: int = 0,
    ) -> Beat:
        """Store a worker's heartbeat and renew its lease; `facts` are shown by the monitor."""
        flat: list[Arg] = [value for pair in facts.items() for value in pair]
        now_ms, number = await self.steps.run(
            "heartbeat",
            [keys.pbx(pbx)],
            [instance, link, keys.IDLE_RETENTION_S, holder, fence, *flat],
        )
        return Beat(now_ms=int(now_ms), is_holder=not holder or bool(number))

    async def bridge_beat(self, bridge: str, state: BridgeState) -> None:
        """Store what a bridge says of itself."""
        await self.steps.run(
            "bridge_beat",
            [keys.bridge(bridge)],
            [
                keys.BRIDGE_SHOWN_S,
                *("skew_ms", int(state.skew_s * 1000)),
                *("broker", state.broker),
            ],
        )

    async def bridges(self, names: Sequence[str]) -> dict[str, BridgeState]:
        """Return what these bridges say of themselves; those that said nothing are missing."""
        rows = await self.steps.read_many(
            [("HMGET", keys.bridge(name), "skew_ms", "broker") for name in names]
        )
        return {
            name: BridgeState(
                skew_s=_number(text_of(skew_ms)) / 1000, broker=text_of(broker or b"")
            )
            for name, (skew_ms, broker) in zip(names, rows, strict=True)
            if skew_ms is not None
        }

    async def pbxs(
        self, pbxs: Sequence[PbxLimits], cell: str | None = None, *, max_age_s: float = 0.0
    ) -> dict[str, PbxState]:
        """Read the state of each PBX; with `cell`, its readiness for the calls of that cell.

        A state that was read `max_age_s` ago is not read again.
        """
        if max_age_s:
            async with self._read.reading:
                await self._read_pbxs([p for p in pbxs if self._age_s(p) > max_age_s])
        else:
            await self._read_pbxs(pbxs)
        return {p.name: self._read.states[p][1].for_cell(cell) for p in pbxs}

    def _age_s(self, pbx: PbxLimits) -> float:
        read = self._read.states.get(pbx)
        return asyncio.get_running_loop().time() - read[0] if read else math.inf

    async def _read_pbxs(self, pbxs: Sequence[PbxLimits]) -> None:
        if not pbxs:
            return
        now = asyncio.get_running_loop().time()
        names = [key for p in pbxs for key in _pbx_keys(p.name)]
        now_us, *rows = await self.steps.run("loads", names)
        for p, row in zip(pbxs, rows, strict=True):
            self._read.states[p] = now, _state(p, int(now_us), row)

    async def lease(
        self, pbx: PbxLimits, call_ids: Sequence[str], trunks: Sequence[str | None] = ()
    ) -> Lease:
        """Lease slots and starts for calls, in order, as many as the PBX has room for.

        `trunks` has the trunk that each call needs, None for any; without it no trunk's limit
        counts.
        """
        ways = [trunk or pbx.default_trunk for trunk in trunks] or [""] * len(call_ids)
        names, args = lease_parts(pbx)
        pairs = (text for pair in zip(call_ids, ways, strict=True) for text in pair)
        granted, *new = await self.steps.run("lease", names, [*args, *pairs])
        return Lease(granted=int(granted), new=frozenset(i.decode() for i in new))

    async def condemn(self, state: PbxState, reason: str) -> bool:
        """Record that a PBX takes no calls; return false if that stands or its worker is new."""
        pbx = state.load.name
        condemned = await self.steps.run(
            "condemn",
            [keys.verdict(pbx), keys.pbx(pbx)],
            [reason, state.instance, keys.VERDICT_RETENTION_S],
        )
        return bool(condemned)

    async def try_with(self, pbx: str, call_id: str) -> bool:
        """Make a call that is queued to the PBX its trial call; return false if none is due."""
        is_trial = await self.steps.run(
            "try", [keys.verdict(pbx)], [call_id, TRIAL_PAUSE_MS, TRIAL_LOST_AFTER_MS]
        )
        return bool(is_trial)

    async def tried(self, pbx: str, call_id: str, *, success: bool) -> bool:
        """Record how a trial call went; a success lifts the verdict.

        Return false if that call is not the trial of the PBX.
        """
        was_trial = await self.steps.run(
            "tried",
            [keys.verdict(pbx), keys.pbx(pbx)],
            [call_id, int(success), keys.VERDICT_RETENTION_S, keys.RESULTS_OF_S],
        )
        return bool(was_trial)

    async def asterisk(self, pbx: str) -> str:
        """Return the Asterisk that last served a PBX, as its worker names it; '' if unknown."""
        return text_of(await self.steps.read("HGET", keys.pbx(pbx), "asterisk") or b"")

    async def release(self, pbx: str, call_ids: Iterable[str], *, fence: int = 0) -> None:
        """Release the slots of calls. Calls without a slot are ignored.

        `fence` is the fencing number of a worker; nothing is released if there is a newer one.
        """
        ids = list(call_ids)
        if ids:
            await self.steps.run("release", [keys.slots(pbx), keys.pbx(pbx)], [fence or "", *ids])

    async def restore_slots(self, pbx: str, call_ids: Iterable[str]) -> int:
        """Restore missing slots of calls that are up; return how many were missing."""
        ids = list(call_ids)
        return int(await self.steps.run("restore_slots", [keys.slots(pbx)], ids)) if ids else 0

    async def unready_s(self, pbx: str) -> float:
        """Return the seconds since the PBX was last ready; infinite if it never was."""
        ready, (now_s, _) = await self.steps.read_many(
            [("HGET", keys.pbx(pbx), "ready_ms"), ("TIME",)]
        )
        return float(now_s) - _number(text_of(ready)) / 1000 if ready else math.inf

    async def slots(
        self, pbxs: Sequence[str], cell: str, *, older_than_s: float
    ) -> dict[str, list[str]]:
        """Return the calls of one cell whose slot is older than that, by PBX."""
        rows = await self.steps.run(
            "old_slots", [keys.slots(p) for p in pbxs], [int(older_than_s * 1000), f"{cell}:"]
        )
        return {p: [text_of(i) for i in row] for p, row in zip(pbxs, rows, strict=True)}

    async def cells_with_slots(self, pbxs: Sequence[str], *, max_age_s: float) -> frozenset[str]:
        """Return the cells that have slots of these PBXs, as read at most `max_age_s` ago."""
        async with self._read.reading:
            now, asked = asyncio.get_running_loop().time(), tuple(pbxs)
            read_at, found = self._read.with_slots.get(asked, (-math.inf, frozenset()))
            if now - read_at > max_age_s:
                reply = await self.steps.run("slot_cells", [keys.slots(p) for p in pbxs])
                found = frozenset(map(text_of, reply))
                self._read.with_slots[asked] = now, found
            return found

    async def dnc_contains(self, numbers: Sequence[str]) -> list[bool]:
        """Return for each number true if it is in the do-not-call set, in any spelling."""
        found: list[bool] = []
        for start in range(0, len(numbers), DNC_BATCH):
            forms = [self.numbering.spellings(n) for n in numbers[start : start + DNC_BATCH]]
            flat = [form for some in forms for form in some]
            flags = await self.steps.read("SMISMEMBER", keys.DO_NOT_CALL, *flat)
            listed = {form for form, flag in zip(flat, flags, strict=True) if flag}
            found += [not listed.isdisjoint(some) for some in forms]
        return found

    async def dnc_add(self, numbers: Sequence[str]) -> int:
        """Add numbers to the do-not-call set as they are; return how many are new."""
        by_form = {self.numbering.same(number): number for number in reversed(numbers)}
        fresh = list(reversed(by_form.values()))
        listed = await self.dnc_contains(fresh)
        added = [n for n, is_listed in zip(fresh, listed, strict=True) if not is_listed]
        return await self._change_dnc("SADD", [self.numbering.stored(number) for number in added])

    async def dnc_remove(self, numbers: Sequence[str]) -> int:
        """Remove numbers from the do-not-call set, in every spelling; return how many were in."""
        fresh = list({self.numbering.same(number): number for number in numbers}.values())
        listed = await self.dnc_contains(fresh)
        await self._change_dnc("SREM", [f for n in fresh for f in self.numbering.spellings(n)])
        return sum(listed)

    async def _change_dnc(self, command: Literal["SADD", "SREM"], forms: Sequence[str]) -> int:
        changed = 0
        for start in range(0, len(forms), DNC_BATCH):
            changed += await self.steps.run(
                "dnc_change",
                [keys.DO_NOT_CALL, keys.dnc_reply(secrets.token_hex(8))],
                [command, keys.DNC_REPLY_RETENTION_S, *forms[start : start + DNC_BATCH]],
            )
        return changed


def lease_parts(pbx: PbxLimits) -> tuple[list[str], list[Arg]]:
    """Return the keys and arguments of a PBX that `_lease.lua` takes."""
    pace, name = pbx.pace, pbx.name
    names = [keys.slots(name), keys.pace(name), keys.pbx(name), keys.verdict(name)]
    args: list[Arg] = [pbx.max_calls, pace.gap_us, pace.burst, int(START_COUNTS_S * 1e6)]
    args += [keys.STARTS_RETENTION_S, TRIAL_PAUSE_MS, TRIAL_LOST_AFTER_MS]
    return [*names, keys.starts(name)], args


def skew_words(skew_s: float) -> str:
    """Return how the clock of a host differs from Redis, with the cure."""
    way = "ahead of" if skew_s > 0 else "behind"
    by = f"{abs(skew_s):.0f} s {way}"
    return f"the clock of its host is {by} that of Redis; run chrony or ntpd on both"


def _pbx_keys(pbx: str) -> tuple[str, ...]:
    """Return the keys that `loads` reads of each PBX."""
    return keys.pbx(pbx), keys.slots(pbx), keys.pace(pbx), keys.starts(pbx), keys.verdict(pbx)


def _state(pbx: PbxLimits, now_us: int, row: Sequence[Any]) -> PbxState:
    beat, calls, latest_us, (started, started_us), judged, trunks = row
    latest_of = dict(zip(map(text_of, trunks[::2]), trunks[1::2], strict=True))
    seen, link, instance, ready, lacks, trouble, skew_ms, cap, results, governor, *later = map(
        text_of, beat
    )
    limits, rival, rival_ms, agents = later
    lacking = object_in(lacks)
    teams, rooms = told_in(agents, instance)
    wanted_s = now_us / 1e6 - _number(rival_ms) / 1e3
    silent_s = now_us / 1e6 - _number(seen) / 1e3 if seen else math.inf
    skew_s = _number(skew_ms) / 1000
    can_place = link == "up" and not trouble and abs(skew_s) <= SKEW_MAX_S and not pbx.drained
    verdict = _verdict(judged, instance, now_us / 1e6)
    governed = _governed(governor, instance)
    pace = pbx.pace_at(governed.rate)
    return PbxState(
        load=PbxLoad(
            name=pbx.name,
            ready=silent_s < PBX_SILENT_AFTER_S and can_place,
            calls=int(calls),
            max_calls=min(pbx.max_calls, _number(cap) or pbx.max_calls),
            starts=pace.starts(_number(latest_us), now_us),
            trunks=pbx.trunks,
            recent_starts=recent_starts(_decimal(started), _number(started_us), now_us),
            is_held=verdict is not None,
            is_trial_due=verdict is not None and verdict.is_trial_due,
            start_in_s=max(0, pace.next_start_us(_number(latest_us), now_us) - now_us) / 1e6,
            default_trunk=pbx.default_trunk,
            trunk_starts={
                name: trunk_pace(trunk.rate).starts(_number(latest_of.get(f"trunk:{name}")), now_us)
                for name, trunk in governed.trunks.items()
            },
        ),
        instance=instance,
        link=link,
        lacking={name: str(sentence) for name, sentence in lacking.items()},
        silent_s=silent_s,
        unready_s=now_us / 1e6 - _number(ready) / 1e3 if ready else math.inf,
        trouble=trouble,
        skew_s=skew_s,
        cap=_number(cap),
        max_calls=pbx.max_calls,
        cps=pbx.cps,
        governed=governed,
        results=_results(results),
        verdict=verdict,
        lifted=_results(text_of(judged[-1])),
        drained=pbx.drained,
        limits=_limits(limits, instance),
        rival=rival if 0 <= wanted_s < RIVAL_SHOWN_S else "",
        teams=teams,
        rooms=rooms,
    )


def _verdict(judged: Sequence[bytes], instance: str, now_s: float) -> Verdict | None:
    """Return the verdict, None if there is none or the worker was restarted since."""
    reason, judged_instance, since_ms, trial, trial_ms, trials, _ = map(text_of, judged)
    if not reason or judged_instance != instance:
        return None
    return Verdict(
        reason=reason,
        instance=instance,
        age_s=now_s - _number(since_ms) / 1000,
        trial=trial,
        trial_age_s=now_s - _number(trial_ms) / 1000,
        trials=_number(trials),
    )


def _governed(text: str, instance: str) -> Governed:
    """Return what a governor limits; nothing if an older release's worker has taken its place."""
    found = object_in(text)
    if found.get("instance") != instance:
        return Governed()
    trunks = found.get("trunks")
    limited = {
        str(name): TrunkLimit(rate=rate, share=_rate(trunk.get("share")))
        for name, trunk in (trunks.items() if isinstance(trunks, dict) else ())
        if isinstance(trunk, dict) and (rate := _rate(trunk.get("limit")))
    }
    return Governed(
        rate=_rate(found.get("limit")),
        starts=_rate(found.get("starts")),
        answer_s=_rate(found.get("answer_ms")) / 1000,
        normal_s=_rate(found.get("normal_ms")) / 1000,
        trunks=limited,
    )


def _limits(text: str, instance: str) -> dict[str, Limit]:
    """Return what the troubles of a heartbeat are; nothing if another worker wrote it."""
    found = object_in(text)
    of = found.get("of")
    if found.get("instance") != instance or not isinstance(of, dict):
        return {}
    known = {str(one): one for one in Limit if one is not Limit.NONE}
    return {name: known[limit] for name, limit in of.items() if str(limit) in known}


def _rate(value: object) -> float:
    """Return a number from a governor, 0 if it is missing, or no number that is ours."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if LEAST_RATE <= value <= MOST_RATE else 0.0


def _results(text: str) -> Results:
    """Return the results of a heartbeat. Unknown names of a newer worker are ignored."""
    found = object_in(text)
    names = [f.name for f in fields(Results)]
    return Results(**{name: _number(found.get(name, 0)) for name in names})


def _number(value: object) -> int:
    """Return a whole number of a heartbeat; 0 if it is missing, or no number that is ours."""
    text = text_of(value) if isinstance(value, bytes) else str(value)
    return int(text) if _WHOLE.fullmatch(text) else 0


def _decimal(value: bytes) -> float:
    """Return a number of starts, 0 if it is missing, or no number that is ours."""
    text = text_of(value)
    return float(text) if _DECIMAL.fullmatch(text) else 0.0
