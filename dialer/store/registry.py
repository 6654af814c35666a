"""What all cells share, on one Redis: PBX heartbeats, slots and pace, the do-not-call set."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dialer.domain.request import digits
from dialer.domain.routing import PbxLoad
from dialer.settings.tables import Pbx
from dialer.store import keys
from dialer.store.steps import Arg, Steps

#: A worker says that it lives this often, in seconds.
HEARTBEAT_EVERY_S: Final = 1.0

#: A PBX whose worker was not heard of for this long gets no new calls, in seconds.
PBX_DEAD_AFTER_S: Final = 10.0

#: Numbers in one change of the do-not-call set; Lua unpacks at most about 8,000 arguments.
DNC_BATCH: Final = 1000

Link = Literal["up", "down", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxState:
    """A PBX as its worker's heartbeat shows it.

    `silent_s` is the time since the last heartbeat, `unready_s` since the last one with the
    AMI link up; infinite where there never was one. `instance` changes with every start
    of the worker and every return of its link. `lacking` has a sentence for each cell whose calls
    it does not take for want of their target.
    """

    load: PbxLoad
    instance: str
    link: str
    lacking: Mapping[str, str]
    silent_s: float
    unready_s: float

    @property
    def alive(self) -> bool:
        """True while its worker's heartbeat is fresh."""
        return self.silent_s < PBX_DEAD_AFTER_S and self.link != "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the registry granted: the first `granted` ids; `new` of them held no slot before."""

    granted: int
    new: frozenset[str]


def pacing(cps: float) -> tuple[int, int]:
    """For a rate in calls started a second: µs between starts, and the burst allowed.

    A tenth of a second's calls may start at once, so that a bridge which looks a little
    late does not fall behind the rate.
    """
    return round(1_000_000 / cps), max(1, math.ceil(cps / 10))


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry's steps."""

    steps: Steps

    async def heartbeat(
        self, pbx: str, *, instance: str, link: Link, facts: Mapping[str, str | int]
    ) -> None:
        """The worker's word on itself; `facts` are shown to whoever watches."""
        flat: list[Arg] = [value for pair in facts.items() for value in pair]
        await self.steps.run(
            "heartbeat", [keys.pbx(pbx)], [instance, link, keys.IDLE_RETENTION_S, *flat]
        )

    async def pbxs(self, pbxs: Sequence[Pbx], cell: str | None = None) -> dict[str, PbxState]:
        """How each PBX stands now, for the calls of a cell where one is named."""
        names = [k for p in pbxs for k in (keys.pbx(p.name), keys.slots(p.name), keys.pace(p.name))]
        rates: list[Arg] = [value for p in pbxs for value in pacing(p.cps)]
        now_ms, *flat = await self.steps.run("loads", names, rates)
        told = [flat[i * 7 : i * 7 + 7] for i in range(len(pbxs))]
        return {p.name: _state(p, cell, int(now_ms), t) for p, t in zip(pbxs, told, strict=True)}

    async def lease(self, pbx: Pbx, call_ids: Sequence[str]) -> Lease:
        """Leases slots and starts for calls, in order, as many as there is room for."""
        gap_us, burst = pacing(pbx.cps)
        granted, *new = await self.steps.run(
            "lease",
            [keys.slots(pbx.name), keys.pace(pbx.name)],
            [pbx.max_calls, gap_us, burst, *call_ids],
        )
        return Lease(granted=int(granted), new=frozenset(i.decode() for i in new))

    async def release(self, pbx: str, call_ids: Iterable[str]) -> None:
        """Gives slots back; of calls that hold none, nothing."""
        ids = list(call_ids)
        if ids:
            await self.steps.run("release", [keys.slots(pbx)], ids)

    async def restore_slots(self, pbx: str, call_ids: Iterable[str]) -> int:
        """Gives calls that are up their slots again; returns how many had lost theirs."""
        ids = list(call_ids)
        return int(await self.steps.run("restore_slots", [keys.slots(pbx)], ids)) if ids else 0

    async def unready_s(self, pbx: str) -> float:
        """Seconds since the PBX was last ready; infinite where nothing is known of it."""
        ready, (now_s, _) = await self.steps.read_many(
            [("HGET", keys.pbx(pbx), "ready_ms"), ("TIME",)]
        )
        return float(now_s) - int(ready) / 1000 if ready else math.inf

    async def slots(self, pbx: str, *, older_than_s: float) -> list[str]:
        """The calls that have held a slot of the PBX for that long."""
        ids = await self.steps.run("old_slots", [keys.slots(pbx)], [int(older_than_s * 1000)])
        return [i.decode() for i in ids]

    async def dnc_contains(self, numbers: Sequence[str]) -> list[bool]:
        """For each number whether it is on the do-not-call set."""
        if not numbers:
            return []
        flags = await self.steps.read("SMISMEMBER", keys.DO_NOT_CALL, *map(digits, numbers))
        return [bool(flag) for flag in flags]

    async def dnc_add(self, numbers: Sequence[str]) -> int:
        """Add numbers to the do-not-call set; return how many are new."""
        return await self._change_dnc("SADD", numbers)

    async def dnc_remove(self, numbers: Sequence[str]) -> int:
        """Remove numbers from the do-not-call set; return how many were on it."""
        return await self._change_dnc("SREM", numbers)

    async def _change_dnc(self, command: Literal["SADD", "SREM"], numbers: Sequence[str]) -> int:
        changed = 0
        for start in range(0, len(numbers), DNC_BATCH):
            batch = map(digits, numbers[start : start + DNC_BATCH])
            changed += await self.steps.run(
                "dnc_change",
                [keys.DO_NOT_CALL, keys.dnc_reply(secrets.token_hex(8))],
                [command, keys.DNC_REPLY_RETENTION_S, *batch],
            )
        return changed


def _state(pbx: Pbx, cell: str | None, now_ms: int, fields: Sequence[bytes | int]) -> PbxState:
    seen, link, instance, ready, lacks, calls, starts = fields
    lacking = json.loads(lacks) if isinstance(lacks, bytes) and lacks else {}
    silent_s = (now_ms - int(seen)) / 1000 if seen else math.inf
    word = bytes(link).decode() if isinstance(link, bytes) else ""
    return PbxState(
        load=PbxLoad(
            name=pbx.name,
            ready=silent_s < PBX_DEAD_AFTER_S and word == "up" and cell not in lacking,
            calls=int(calls),
            max_calls=pbx.max_calls,
            starts=int(starts),
            trunks=frozenset(pbx.trunks),
        ),
        instance=instance.decode() if isinstance(instance, bytes) else "",
        link=word,
        lacking=lacking,
        silent_s=silent_s,
        unready_s=(now_ms - int(ready)) / 1000 if ready else math.inf,
    )
