"""The situation of a cell, from what its Redis and the registry say: bridge and monitor agree."""

from __future__ import annotations

from collections.abc import Sequence

from dialer.domain.limits import Limit
from dialer.domain.why import Obstacle, Situation, Took, of_operators
from dialer.store.ledger import CellState
from dialer.store.registry import PbxState


def situation_of(
    cell: str,
    state: CellState,
    pbxs: Sequence[PbxState],
    *,
    threads: int,
    paused: str = "",
    closed: str = "",
    redis: Obstacle | None = None,
    broker: str = "",
    bridge_silent_s: float = 0.0,
    took: Took | None = None,
    per_agent: float = 0.0,
) -> Situation:
    """Return the situation of a cell; `took` is what a bridge did besides what the state says.

    `per_agent`: it gets so many calls for each free operator that Multcall tells, 0 if it does not
    ask Multcall.
    """
    if state.unreadable and redis is None:
        redis = Obstacle(
            limit=Limit.REDIS_REFUSES,
            reason=f"the keys of {cell} in Redis cannot be used ({state.unreadable}): delete the "
            "one of a wrong type",
        )
    live, agents = state.counts.live, None
    if per_agent and not state.unreadable:
        agents = of_operators(state.operators.team, per_agent, live)
    late = {pbx: one.oldest_s for pbx, one in state.late.items()}
    return Situation(
        cell=cell,
        threads=threads,
        live=live,
        agents=agents,
        waiting=state.counts.waiting,
        parked=state.counts.parked,
        paused=paused,
        closed=closed,
        redis=redis,
        broker=broker,
        bridge_silent_s=bridge_silent_s,
        pbxs=[one.facts(cell, late_s=late.get(one.load.name, 0.0)) for one in pbxs],
        took=state.took.and_(took) if took is not None else state.took,
    )
