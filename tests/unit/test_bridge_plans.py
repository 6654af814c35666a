"""Plans of cells: which are served, with which PBXs, and which are drained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dialer.bridge.plans import CellPlan, plan_of, plans_of, removed_cells
from dialer.errors import ConfigError
from tests.unit.stand_ins import a

TIM, VIVO = a(name="TIM", pbxs=["pbx02", "gone"]), a(name="VIVO", pbxs=["pbx01"])


def settings() -> Any:
    pbxs = [a(name="pbx01"), a(name="pbx02")]
    return a(
        cells=[TIM, VIVO],
        pbxs=pbxs,
        pbx=lambda name: next(p for p in pbxs if p.name == name),
        cell_redis_url=lambda cell: f"redis of {cell.name}",
        multcall=a(push="left", wire="their wire"),
        recovery=a(pbx_lost_after=7.0),
        numbers=a(numbering="their numbers"),
    )


def test_a_plan_has_what_the_settings_say() -> None:
    plan = plan_of(settings(), TIM, "a url", draining=True)
    assert plan == CellPlan(
        cell=TIM,
        pbxs=(a(name="pbx02"),),
        all_pbxs=("pbx01", "pbx02"),
        redis_url="a url",
        push="left",
        pbx_lost_after_s=7.0,
        wire="their wire",  # type: ignore[arg-type]
        numbering="their numbers",  # type: ignore[arg-type]
        draining=True,
    )
    assert plan.ledger_id == ("TIM", "a url")


@pytest.mark.parametrize(
    ("chosen", "names"), [([], ["TIM", "VIVO"]), (["VIVO"], ["VIVO"]), (["TIM"], ["TIM"])]
)
def test_the_chosen_cells_have_plans(chosen: list[str], names: list[str]) -> None:
    plans = plans_of(settings(), chosen)
    assert [plan.cell.name for plan in plans] == names
    assert all(plan.redis_url == f"redis of {plan.cell.name}" for plan in plans)
    assert not any(plan.draining for plan in plans)


def test_a_cell_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no cell 'OI' .* cells are TIM, VIVO"):
        plans_of(settings(), ["TIM", "OI"])


def test_removed_cells_are_drained() -> None:
    tim, vivo = plans_of(settings(), [])
    assert removed_cells([tim, vivo], [tim]) == [replace(vivo, draining=True)]
    moved = replace(tim, redis_url="another Redis")
    assert removed_cells([tim], [moved]) == [replace(tim, draining=True)]
    assert removed_cells([tim], [replace(tim, push="right")]) == []
