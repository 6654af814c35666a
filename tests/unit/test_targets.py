"""What cells need of a PBX: what it lacks is known at every moment, and asked for without waste."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from dialer.errors import AmiUnavailable
from dialer.settings import Cell
from workers.ami import AmiLink
from workers.pbx.targets import Targets


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

    async def has_hand_over(self) -> bool:
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
    return Targets("pbx01", cast("AmiLink", asterisk), lambda: has_include)


def cell(name: str = "C", **fields: Any) -> Cell:
    return Cell(nome=name, threads=1, pbxs=("pbx01",), **fields)


async def test_a_cell_that_lacks_something_does_so_at_every_moment_of_the_next_look() -> None:
    asterisk = Asterisk({"queue Q": False})
    looked = targets(asterisk)
    await looked.look([cell(queue="Q")])
    asterisk.answers.clear()
    looking = asyncio.create_task(looked.look([cell(queue="Q")]))
    for _ in range(5):
        await asyncio.sleep(0)
        assert "C" in looked.lacking
    asterisk.answers.set()
    assert not await looking
    asterisk.lost = True
    with pytest.raises(AmiUnavailable):
        await looked.look([cell(queue="Q")])
    assert "pbx01 has no queue Q" in looked.lacking["C"]


async def test_it_says_when_something_is_missing_and_when_it_is_there_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    asterisk = Asterisk({"queue Q": False})
    looked = targets(asterisk)
    cells = [cell(queue="Q"), cell("D")]
    assert [await looked.look(cells) for _ in range(3)] == [False] * 3
    asterisk.there = {}
    assert [await looked.look(cells) for _ in range(3)] == [True, False, False]
    assert looked.lacking == {}
    assert [r.getMessage() for r in caplog.records] == [
        "Calls of a cell are not dialed here: answered, they would be cut off",
        "Calls of a cell are dialed here again",
    ]


@pytest.mark.parametrize(
    ("missing", "fields", "said"),
    [
        ("hand-over", {"queue": "Q"}, "lacks the dialplan include, or has an old one"),
        ("hand-over", {"amd": "hangup"}, "lacks the dialplan include, or has an old one"),
        ("amd", {"amd": "pass"}, "cannot tell machines from people, as amd of cell C wants"),
        ("queue Q", {"queue": "Q"}, "has no queue Q: add it to queues.conf and load it"),
        ("context ivr", {"context": "ivr"}, "has no context ivr: add it to the dialplan"),
    ],
)
async def test_what_is_missing_is_said_with_the_cure(
    missing: str, fields: dict[str, Any], said: str
) -> None:
    looked = targets(Asterisk({missing: False}))
    await looked.look([cell(**fields)])
    assert looked.lacking["C"].startswith(f"pbx01 {said}")


async def test_a_question_is_asked_once_however_many_cells_share_it() -> None:
    asterisk = Asterisk()
    await targets(asterisk).look([cell(f"C{n}", queue="Q", amd="pass") for n in range(20)])
    assert sorted(asterisk.asked) == ["amd", "hand-over", "include", "queue Q"]


@pytest.mark.parametrize(("had", "has"), [(True, False), (False, True)])
async def test_all_begins_anew_where_the_dialplan_include_came_or_went(
    had: bool, has: bool
) -> None:
    asterisk = Asterisk({"include": has})
    await targets(asterisk, has_include=had).look([cell()])
    (why,) = asterisk.dropped
    assert why == f"the dialplan include is {'there now' if has else 'gone'}"
