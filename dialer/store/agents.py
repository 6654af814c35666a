"""Agents of the PBXs' queues, as their workers show them in the registry."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dialer.domain.agents import Agent, AgentState, Team
from dialer.store import keys
from dialer.store.replies import object_in, text_of
from dialer.store.steps import Arg, Steps


@dataclass(frozen=True, slots=True)
class AgentStore:
    """The steps about agents, on the registry's Redis."""

    steps: Steps

    async def show(
        self,
        pbx: str,
        agents: Iterable[Agent],
        *,
        gone: Iterable[str] = (),
        are_all: bool = False,
        fence: int,
    ) -> bool:
        """Show these agents, and the `gone` interfaces no longer; false if another worker does.

        `are_all`: all others go as well. `fence` is the worker's fencing number.
        """
        rows: list[Arg] = [text for agent in agents for text in (agent.interface, _json(agent))]
        rows += [text for interface in gone for text in (interface, "")]
        written = await self.steps.run(
            "agents",
            [keys.pbx(pbx), keys.agents(pbx)],
            [fence, keys.AGENTS_RETENTION_S, int(are_all), *rows],
        )
        return bool(written)

    async def read(self, pbxs: Sequence[str]) -> dict[str, list[Agent]]:
        """Return the agents of each PBX, as its worker last showed them."""
        rows = await self.steps.read_many([("HGETALL", keys.agents(pbx)) for pbx in pbxs])
        return {pbx: agents_in(row) for pbx, row in zip(pbxs, rows, strict=True)}


def agents_in(row: Mapping[bytes, bytes]) -> list[Agent]:
    """Return the agents in a hash of the registry; entries that are none are left out."""
    found = (_agent(text_of(name), text_of(value)) for name, value in row.items())
    return [agent for agent in found if agent is not None]


def told_in(text: str, instance: str) -> tuple[dict[str, Team], dict[str, int]]:
    """Return what a heartbeat tells: the team of each queue, and the room of each cell.

    The room is how many more calls the operators allow. Nothing if another worker wrote it.
    """
    found = object_in(text)
    of, rooms = found.get("of"), found.get("rooms")
    if found.get("instance") != instance or not (isinstance(of, dict) and isinstance(rooms, dict)):
        return {}, {}
    teams = {
        str(queue): Team(**{name: _count(team.get(name)) for name in Team.__slots__})
        for queue, team in of.items()
        if isinstance(team, dict)
    }
    return teams, {str(cell): _count(room) for cell, room in rooms.items()}


def agents_text(teams: Mapping[str, Team], rooms: Mapping[str, int], instance: str) -> str:
    """Return the teams and rooms for a heartbeat; what is 0 of a team is left out."""
    of = {
        queue: {name: n for name in Team.__slots__ if (n := getattr(team, name))}
        for queue, team in teams.items()
    }
    return json.dumps({"instance": instance, "of": of, "rooms": dict(rooms)})


def _json(agent: Agent) -> str:
    return json.dumps(
        {
            "name": agent.name,
            "state": agent.state,
            "since": agent.since,
            "queues": dict(agent.queues),
            "reason": agent.reason,
            "calls": agent.calls,
            "day": agent.day,
            "free_at": agent.free_at,
        },
        ensure_ascii=False,
    )


def _agent(interface: str, text: str) -> Agent | None:
    found = object_in(text)
    state, queues = _state(found.get("state")), found.get("queues")
    if state is None or not isinstance(queues, dict):
        return None
    of_queues = {str(queue): _state(one) for queue, one in queues.items()}
    free_at = _seconds(found.get("free_at"))
    return Agent(
        interface=interface,
        name=str(found.get("name") or interface),
        state=state,
        since=_seconds(found.get("since")) or 0.0,
        queues={queue: one for queue, one in of_queues.items() if one is not None},
        reason=str(found.get("reason") or ""),
        calls=_count(found.get("calls")),
        day=str(found.get("day") or ""),
        free_at=free_at,
    )


def _state(value: object) -> AgentState | None:
    return next((state for state in AgentState if state == value), None)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value < 1e11 else None


def _count(value: object) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9
    return int(str(value)) if is_count else 0
