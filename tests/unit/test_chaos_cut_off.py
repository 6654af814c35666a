"""Who counts as cut off in the chaos suite, by what the carrier saw."""

from __future__ import annotations

import pytest

from tests.chaos.deeds import DEEDS
from tests.chaos.faults import KINDS
from tests.chaos.places import was_cut_off


@pytest.mark.parametrize(
    ("last_two", "talked_s", "cut"),
    [
        ("00", None, False),  # the carrier cleared
        ("00", 0.003, True),
        ("55", 4.0, True),  # the PBX would have stayed for 30 s
        ("60", 2.01, False),
        ("60", 0.003, True),
        ("90", 30.0, True),
        ("95", 1.0, False),
        ("95", 0.1, True),
    ],
)
def test_customer_cleared_early_by_the_pbx_was_cut_off(
    last_two: str, talked_s: float | None, cut: bool
) -> None:
    assert was_cut_off(f"+5511900000{last_two}", talked_s) is cut


def test_every_kind_of_fault_can_be_done() -> None:
    assert DEEDS.keys() == {kind.name for kind in KINDS}
