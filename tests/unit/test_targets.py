"""What cells need of a PBX: what it lacks is known at every moment, and asked for without waste."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from dialer.errors import AmiUnavailable
from dialer.settings import Cell
from workers.ami import AmiLink
from workers.pbx.state import PbxState
from workers.pbx.targets import CHECK_EVERY_S, Targets


@dataclass(slots=True)
class Asterisk:
    """Stands where the AMI link does; what is false in `there` is lacking."""

    there: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    def __post_init__(self) -> None:
        self.answers.set()

    async def _ask(self, question: str) -> bool:
        self.asked.append(question)
        await self.answers.wait()
        if self.lost:
            raise AmiUnavailable("no answer within 5 s")
        return self.there.get(question, True)

    async def has_include(self) -> bool:
        return await self._ask("include")

    async def has_current_include(self) -> bool:
        return await self._ask("hand-over")

    async def has_amd(self) -> bool:
        return await self._ask("amd")

    async def has_queue(self, name: str) -> bool:
        return await self._ask(f"queue {name}")

    async def has_context(self, context: str) -> bool:
        return await self._ask(f"context {context}")

    def drop(self, why: str) -> None:
        self.dropped.append(why)


def targets(asterisk: Asterisk, *, has_include: bool = True) -> Targets:
    link = cast("AmiLink", asterisk)
    return Targets(PbxState("pbx01", link, has_include=has_include), link)


def cell(name: str = "C", **fields: Any) -> Cell:
    return Cell(nome=name, threads=1, pbxs=("pbx01",), **fields)


async def test_a_cell_lacks_its_target_during_the_next_check_too() -> None:
    asterisk = Asterisk({"queue Q": False})
    looked = targets(asterisk)
    await looked.check([cell(queue="Q")])
    asterisk.answers.clear()
    looking = asyncio.create_task(looked.check([cell(queue="Q")]))
    for _ in range(5):
        await asyncio.sleep(0)
        assert "C" in looked.state.lacking
    asterisk.answers.set()
    assert not await looking
    asterisk.lost = True
    with pytest.raises(AmiUnavailable):
        await looked.check([cell(queue="Q")])
    assert "pbx01 has no queue Q" in looked.state.lacking["C"]


async def test_a_missing_target_is_logged_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    asterisk = Asterisk({"queue Q": False})
    looked = targets(asterisk)
    cells = [cell(queue="Q"), cell("D")]
    assert [await looked.check(cells) for _ in range(3)] == [False] * 3
    asterisk.there = {}
    assert [await looked.check(cells) for _ in range(3)] == [True, False, False]
    assert looked.state.lacking == {}
    assert [r.getMessage() for r in caplog.records] == [
        "Calls of a cell are not dialed here, because answered calls would be cut off",
        "Calls of a cell are dialed here again",
    ]
    assert {(vars(r)["pbx"], vars(r)["cell"]) for r in caplog.records} == {("pbx01", "C")}


@pytest.mark.parametrize(
    ("missing", "fields", "said"),
    [
        ("hand-over", {"queue": "Q"}, "lacks the dialplan include, or has an old one"),
        ("hand-over", {"amd": "hangup"}, "lacks the dialplan include, or has an old one"),
        ("amd", {"amd": "pass"}, "cannot detect answering machines, but cell C has amd"),
        ("queue Q", {"queue": "Q"}, "has no queue Q: add it to queues.conf and load it"),
        ("context ivr", {"context": "ivr"}, "has no context ivr: add it to the dialplan"),
    ],
)
async def test_a_missing_target_is_named_with_its_cure(
    missing: str, fields: dict[str, Any], said: str
) -> None:
    looked = targets(Asterisk({missing: False}))
    await looked.check([cell(**fields)])
    assert looked.state.lacking["C"].startswith(f"pbx01 {said}")


async def test_cells_share_the_answer_to_a_question() -> None:
    asterisk = Asterisk()
    await targets(asterisk).check([cell(f"C{n}", queue="Q", amd="pass") for n in range(20)])
    assert sorted(asterisk.asked) == ["amd", "hand-over", "include", "queue Q"]


@pytest.mark.parametrize(("had", "has"), [(True, False), (False, True)])
async def test_a_changed_include_drops_the_link(had: bool, has: bool) -> None:
    asterisk = Asterisk({"include": has})
    await targets(asterisk, has_include=had).check([cell()])
    (why,) = asterisk.dropped
    assert why == f"the dialplan include is {'there now' if has else 'gone'}"


async def test_two_hundred_targets_cost_ten_questions_a_second() -> None:
    few = targets(Asterisk())
    await few.check([cell(queue="Q")])
    assert few.pause_s == CHECK_EVERY_S
    asterisk = Asterisk()
    many = targets(asterisk)
    await many.check([cell(f"C{n}", queue=f"Q{n}") for n in range(200)])
    assert len(asterisk.asked) / many.pause_s <= 10.1
