"""What all cells share, on one Redis: PBX heartbeats, slots and pace, the do-not-call set.

`dialer.domain.room` computes from these numbers how many calls may start.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dialer.domain.request import digits
from dialer.domain.room import PbxLimits, PbxLoad
from dialer.store import keys
from dialer.store.steps import Arg, Steps

#: A worker sends its heartbeat this often, in seconds.
HEARTBEAT_EVERY_S: Final = 1.0

#: A PBX whose last heartbeat is older than this gets no new calls, in seconds.
PBX_DEAD_AFTER_S: Final = 10.0

#: Numbers in one change of the do-not-call set; Lua unpacks at most about 8,000 arguments.
DNC_BATCH: Final = 1000

Link = Literal["up", "down", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxState:
    """State of a PBX according to its worker's heartbeat.

    `silent_s` is the time since the last heartbeat, `unready_s` since the last one with the
    AMI link up; infinite if there never was one. `instance` changes with every start of the
    worker and every return of its link. `lacking` has a sentence for each cell whose
    calls the PBX does not take: the target that is missing.
    """

    load: PbxLoad
    instance: str
    link: str
    lacking: Mapping[str, str]
    silent_s: float
    unready_s: float

    @property
    def is_alive(self) -> bool:
        """True if the worker's heartbeat is recent and the worker is not stopping."""
        return self.silent_s < PBX_DEAD_AFTER_S and self.link != "stopping"


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


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry's steps."""

    steps: Steps

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
        name, host, pid, place, link, asterisk, seen_ms = (bytes(v).decode() for v in other)
        holder = Holder(name=name, host=host, pid=pid, place=place)
        return Held(
            now_ms=int(now_ms),
            fence=0,
            holder=holder,
            link=link,
            asterisk=asterisk,
            seen_ms=int(seen_ms or 0),
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

    async def pbxs(self, pbxs: Sequence[PbxLimits], cell: str | None = None) -> dict[str, PbxState]:
        """Read the state of each PBX; with `cell`, its readiness for the calls of that cell."""
        names = [k for p in pbxs for k in (keys.pbx(p.name), keys.slots(p.name), keys.pace(p.name))]
        now_us, *flat = await self.steps.run("loads", names)
        rows = [flat[i * 7 : i * 7 + 7] for i in range(len(pbxs))]
        return {
            p.name: _state(p, cell, int(now_us), row) for p, row in zip(pbxs, rows, strict=True)
        }

    async def lease(self, pbx: PbxLimits, call_ids: Sequence[str]) -> Lease:
        """Lease slots and starts for calls, in order, as many as the PBX has room for."""
        pace = pbx.pace
        granted, *new = await self.steps.run(
            "lease",
            [keys.slots(pbx.name), keys.pace(pbx.name)],
            [pbx.max_calls, pace.gap_us, pace.burst, *call_ids],
        )
        return Lease(granted=int(granted), new=frozenset(i.decode() for i in new))

    async def asterisk(self, pbx: str) -> str:
        """Return the Asterisk that last served a PBX, as its worker names it; '' if unknown."""
        return bytes(await self.steps.read("HGET", keys.pbx(pbx), "asterisk") or b"").decode()

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
        return float(now_s) - int(ready) / 1000 if ready else math.inf

    async def slots(
        self, pbxs: Sequence[str], cell: str, *, older_than_s: float
    ) -> dict[str, list[str]]:
        """Return the calls of one cell whose slot is older than that, by PBX."""
        rows = await self.steps.run(
            "old_slots", [keys.slots(p) for p in pbxs], [int(older_than_s * 1000), f"{cell}:"]
        )
        return {p: [i.decode() for i in row] for p, row in zip(pbxs, rows, strict=True)}

    async def dnc_contains(self, numbers: Sequence[str]) -> list[bool]:
        """Return for each number true if it is in the do-not-call set."""
        if not numbers:
            return []
        flags = await self.steps.read("SMISMEMBER", keys.DO_NOT_CALL, *map(digits, numbers))
        return [bool(flag) for flag in flags]

    async def dnc_add(self, numbers: Sequence[str]) -> int:
        """Add numbers to the do-not-call set; return how many are new."""
        return await self._change_dnc("SADD", numbers)

    async def dnc_remove(self, numbers: Sequence[str]) -> int:
        """Remove numbers from the do-not-call set; return how many were in it."""
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


def _state(
    pbx: PbxLimits, cell: str | None, now_us: int, fields: Sequence[bytes | int]
) -> PbxState:
    seen, link, instance, ready, lacks, calls, next_start_us = fields
    lacking = json.loads(lacks) if isinstance(lacks, bytes) and lacks else {}
    silent_s = now_us / 1e6 - int(seen) / 1e3 if seen else math.inf
    link_name = bytes(link).decode() if isinstance(link, bytes) else ""
    is_up = silent_s < PBX_DEAD_AFTER_S and link_name == "up"
    return PbxState(
        load=PbxLoad(
            name=pbx.name,
            ready=is_up and cell not in lacking,
            calls=int(calls),
            max_calls=pbx.max_calls,
            starts=pbx.pace.starts(int(next_start_us), now_us),
            trunks=pbx.trunks,
        ),
        instance=instance.decode() if isinstance(instance, bytes) else "",
        link=link_name,
        lacking=lacking,
        silent_s=silent_s,
        unready_s=now_us / 1e6 - int(ready) / 1e3 if ready else math.inf,
    )
