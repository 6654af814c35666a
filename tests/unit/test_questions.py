"""Questions about targets: what is asked, and what Asterisk 16 and 22 reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.ami import AmiLink
from workers.pbx.questions import Limits, Questions


class Message(dict[str, str]):
    """A message as panoramisk gives it: headers as attributes in lower case, else empty."""

    def __getattr__(self, name: str) -> str:
        return next((value for key, value in self.items() if key.lower() == name), "")


@dataclass(slots=True)
class Link:
    """Replies to dialplan functions and actions as the test says."""

    values: dict[str, str] = field(default_factory=dict)
    actions: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def ask(self, action: dict[str, str], *, as_list: bool | None = None) -> Any:
        self.asked.append(action["Action"])
        assert (as_list is None) is (action["Action"] == "QueueStatus"), "only that is a list"
        assert not as_list
        if action["Action"] == "Getvar":
            return SimpleNamespace(value=self.values.get(action["Variable"], ""))
        return self.actions[action["Action"]]


def questions(link: Link) -> Questions:
    return Questions(cast(AmiLink, link))


def member(status: int, *, paused: bool = False) -> Message:
    return Message(Event="QueueMember", Status=str(status), Paused=str(int(paused)))


async def test_the_limits_are_numbers() -> None:
    settings = Message(CoreMaxCalls="120", CoreMaxLoadAvg="4.500000")
    status = Message(CoreCurrentCalls="7")
    link = Link(actions={"CoreSettings": settings, "CoreStatus": status})
    assert await questions(link).limits() == Limits(max_calls=120, max_load=4.5, calls=7)
    silent = Link(actions={"CoreSettings": Message(), "CoreStatus": Message()})
    assert await questions(silent).limits() == Limits(max_calls=0, max_load=0.0, calls=0)


async def test_the_load_is_unknown_without_its_function() -> None:
    assert await questions(Link({"SYSINFO(loadavg)": "9.416504"})).load() == 9.416504
    assert await questions(Link()).load() is None


async def test_a_free_member_needs_no_list() -> None:
    link = Link({"QUEUE_MEMBER(Q,free)": "2"})
    assert await questions(link).has_operator("Q")
    assert link.asked == ["Getvar"]


async def test_a_queue_without_reachable_members_needs_no_list() -> None:
    link = Link({"QUEUE_MEMBER(Q,free)": "0", "QUEUE_MEMBER(Q,logged)": "0"})
    assert not await questions(link).has_operator("Q")
    assert "QueueStatus" not in link.asked


@pytest.mark.parametrize(
    ("members", "has_one"),
    [
        ([member(2)], True),  # in use: takes the next call after this one
        ([member(3)], True),  # busy
        ([member(6)], True),  # ringing
        ([member(8)], True),  # on hold
        ([member(2, paused=True)], False),
        ([member(1, paused=True), member(5)], False),
        ([member(4), member(5)], False),
        ([member(5), member(2)], True),
        ([], False),
    ],
)
async def test_a_busy_operator_counts_a_paused_one_does_not(
    members: list[Message], has_one: bool
) -> None:
    values = {"QUEUE_MEMBER(Q,free)": "0", "QUEUE_MEMBER(Q,logged)": "1"}
    listed = [Message(Response="Success"), Message(Event="QueueParams"), *members]
    link = Link(values, {"QueueStatus": listed})
    assert await questions(link).has_operator("Q") is has_one


async def test_a_place_or_the_extension_i_is_enough() -> None:
    place, other = "DIALPLAN_EXISTS(ivr,s,1)", "DIALPLAN_EXISTS(ivr,i,1)"
    for values, found in [
        ({place: "1", other: "0"}, True),
        ({place: "0", other: "1"}, True),
        ({place: "0", other: "0"}, False),
        ({}, True),  # without func_dialplan
    ]:
        assert await questions(Link(values)).has_place("ivr", "s", 1) is found


async def test_the_redirect_method_is_the_endpoints() -> None:
    link = Link({"PJSIP_ENDPOINT(tim,redirect_method)": "uri_core"})
    assert await questions(link).redirect_method("tim") == "uri_core"
    assert await questions(link).redirect_method("vivo") == ""


async def test_without_its_function_a_queue_is_listed() -> None:
    listed = [member(1)]
    link = Link({"QUEUE_MEMBER(Q,free)": ""}, {"QueueStatus": listed})
    assert await questions(link).has_operator("Q")
    assert link.asked[-1] == "QueueStatus"
