"""Questions to Asterisk about what an answered call needs: each reads, and changes nothing.

Names and values are those of Asterisk 16 and 22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dialer.domain.agents import Member
from workers.ami import AmiLink
from workers.ami.agent_events import member_of
from workers.ami.connection import plain

#: Device states (`Status` of QueueMember) of a member who cannot be reached: AST_DEVICE_INVALID
#: and AST_DEVICE_UNAVAILABLE. All others can take a call, now or after their present one.
UNREACHABLE: Final = frozenset({"4", "5"})

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of asterisk.conf, 0 for none, and the calls that Asterisk counts against them now."""

    max_calls: int
    max_load: float
    calls: int


@dataclass(slots=True)
class Questions:
    """Questions over one AMI link.

    Every method raises AmiUnavailable if the link was lost or Asterisk does not reply.
    """

    link: AmiLink

    async def limits(self) -> Limits:
        """Return `maxcalls` and `maxload` of asterisk.conf. AMI does not tell `minmemfree`."""
        settings = await self.link.ask({"Action": "CoreSettings"}, as_list=False)
        status = await self.link.ask({"Action": "CoreStatus"}, as_list=False)
        return Limits(
            max_calls=int(_number(settings.coremaxcalls)),
            max_load=_number(settings.coremaxloadavg),
            calls=int(_number(status.corecurrentcalls)),
        )

    async def load(self) -> float | None:
        """Return the load average of the last minute; None without func_sysinfo."""
        value = await self._value("SYSINFO(loadavg)")
        return _number(value) if _NUMBER.fullmatch(value) else None

    async def has_place(self, context: str, exten: str, priority: int) -> bool:
        """True if the dialplan has that place, or an extension i for what the context lacks.

        Without func_dialplan always True.
        """
        places = (f"{context},{exten},{priority}", f"{context},i,1")
        return any([await self._value(f"DIALPLAN_EXISTS({place})") != "0" for place in places])

    async def has_operator(self, queue: str) -> bool:
        """True if the queue has a member who can take a call now or later.

        That is one who is not paused and whose device can be reached, even if it is busy. The
        members are listed only if none is free: QueueStatus locks the queue.
        """
        if await self._value(f"QUEUE_MEMBER({queue},free)") not in ("", "0"):
            return True
        if await self._value(f"QUEUE_MEMBER({queue},logged)") == "0":
            return False
        return any(can_take_calls(row) for row in await self._listed(queue, "QueueMember"))

    async def members(self, queue: str) -> tuple[list[Member], frozenset[str]]:
        """Return the members of a queue, and the Uniqueids of the callers who wait in it.

        Neither if there is no such queue, or app_queue is not loaded. It locks the queue.
        """
        rows = await self._listed(queue, "QueueMember", "QueueEntry", "QueueParams")
        if not rows:  # the list wants the name as queues.conf has it, everything else does not
            rows = await self._listed("", "QueueMember", "QueueEntry")
        mine = [row for row in rows if str(row.queue).casefold() == queue.casefold()]
        members = [member_of(plain(row)) for row in mine if row.event == "QueueMember"]
        return members, frozenset(str(row.uniqueid) for row in mine if row.event == "QueueEntry")

    async def _listed(self, queue: str, *events: str) -> list[Any]:
        """Return the rows of QueueStatus about a queue, of all if it is ''."""
        which = {"Queue": queue} if queue else {}
        reply = await self.link.ask({"Action": "QueueStatus", **which})
        rows = reply if isinstance(reply, list) else [reply]
        return [row for row in rows if row.event in events]

    async def free_and_ready(self, queue: str) -> tuple[int, int]:
        """Return how many members are free, and how many of them do not wrap up.

        A free one is not in use and not paused. Both are 0 if there is no such queue.
        """
        counts = [await self._value(f"QUEUE_MEMBER({queue},{what})") for what in ("free", "ready")]
        free, ready = (int(_number(count)) for count in counts)
        return free, ready

    async def redirect_method(self, endpoint: str) -> str:
        """Return `redirect_method` of a PJSIP endpoint; empty if Asterisk does not tell it.

        Asterisk 16 does not.
        """
        return await self._value(f"PJSIP_ENDPOINT({endpoint},redirect_method)")

    async def _value(self, function: str) -> str:
        reply = await self.link.ask({"Action": "Getvar", "Variable": function}, as_list=False)
        return str(reply.value)


def can_take_calls(member: Mapping[str, Any]) -> bool:
    """True if the queue member of a QueueMember or QueueMemberStatus event can take calls."""
    return str(member.get("Paused")) != "1" and str(member.get("Status")) not in UNREACHABLE


def _number(text: object) -> float:
    """Return a number of Asterisk's, 0 for anything else."""
    return float(str(text)) if _NUMBER.fullmatch(str(text)) else 0.0
