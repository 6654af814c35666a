"""Plans: the cells that a bridge serves with one version of the settings, and their Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dialer.domain.numbers import BY_DIGITS, Numbering
from dialer.domain.room import PbxLimits
from dialer.errors import ConfigError
from dialer.multcall.wire import STRICT, Wire
from dialer.settings import Cell, Pbx, Settings
from dialer.settings.live import Live


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """One cell of the settings. `all_pbxs` names every PBX of the settings.

    `draining`: the cell was removed from the settings. Its calls are finished and no new request is
    fetched. `paused` says who paused the cell, '' if nobody did; `drained` has for each drained PBX
    who did that.
    """

    cell: Cell
    pbxs: tuple[Pbx, ...]
    all_pbxs: tuple[str, ...]
    redis_url: str
    push: Literal["right", "left"]
    pbx_lost_after_s: float
    wire: Wire = STRICT
    numbering: Numbering = BY_DIGITS
    draining: bool = False
    paused: str = ""
    drained: Mapping[str, str] = field(default_factory=dict)

    @property
    def limits(self) -> tuple[PbxLimits, ...]:
        """What the cell's PBXs allow."""
        return tuple(replace(p.limits, drained=self.drained.get(p.name, "")) for p in self.pbxs)

    @property
    def ledger_id(self) -> tuple[str, str]:
        """Identity of the ledger: the same cell on another Redis has another ledger."""
        return self.cell.name, self.redis_url


def plans_of(settings: Settings, chosen: Sequence[str]) -> list[CellPlan]:
    """Return the plans of the named cells; of all cells if none is named.

    Raises:
        ConfigError: there is no cell of that name.
    """
    known = {cell.name for cell in settings.cells}
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"there is no cell {name!r} in the configuration; "
                f"cells are {', '.join(sorted(known))}"
            )
    return [
        plan_of(settings, cell, settings.cell_redis_url(cell))
        for cell in settings.cells
        if not chosen or cell.name in chosen
    ]


def plan_of(settings: Settings, cell: Cell, redis_url: str, *, draining: bool = False) -> CellPlan:
    """Return the plan of one cell; the cell may be missing in the settings."""
    known = [pbx.name for pbx in settings.pbxs]  # a removed cell may name a removed PBX
    return CellPlan(
        cell=cell,
        pbxs=tuple(settings.pbx(name) for name in cell.pbxs if name in known),
        all_pbxs=tuple(known),
        redis_url=redis_url,
        push=settings.multcall.push,
        pbx_lost_after_s=settings.recovery.pbx_lost_after,
        wire=settings.multcall.wire,
        numbering=settings.numbers.numbering,
        draining=draining,
    )


def in_force(plan: CellPlan, live: Live) -> CellPlan:
    """Return the plan with the live parameters in force. A removed cell has only its pause."""
    settings, cell = live.settings, plan.cell
    if not plan.draining:
        cell = settings.cell(cell.name)
    known = {pbx.name: pbx for pbx in settings.pbxs}
    return replace(
        plan,
        cell=cell,
        pbxs=tuple(known[name] for name in cell.pbxs if name in known),
        paused=live.pauses.get(cell.name, ""),  # as the workers, which may still have the cell
        drained=live.drains,
    )


def removed_cells(old: Iterable[CellPlan], new: Iterable[CellPlan]) -> list[CellPlan]:
    """Return the old cells that the new settings do not have, to drain them."""
    staying = {plan.ledger_id for plan in new}
    return [replace(plan, draining=True) for plan in old if plan.ledger_id not in staying]
