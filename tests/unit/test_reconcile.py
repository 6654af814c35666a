"""The ledger held against Asterisk's channels while Asterisk goes on dialing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dialer.domain.call import Result, State
from tests.unit.captured import CALL_ID
from tests.unit.test_tracker import Scene, make_scene
from workers.ami.events import AmiEvent, ChannelCreated, ChannelUp, HungUp
from workers.calls.tracker import Followed
from workers.recovery import reconcile
from workers.recovery.reconcile import Reconciler

CREATED = ChannelCreated(uniqueid=CALL_ID, channel="PJSIP/carrier-1")


def reconciled(scene: Scene, *, meanwhile: list[AmiEvent], note: str | None = None) -> Reconciler:
    """A reconciler whose Asterisk lists no channel, and tells events while it is asked."""

    async def channels() -> dict[str, dict[str, str]]:
        scene.feed(meanwhile)
        return {}

    async def answer(value: Any) -> Any:
        return value

    link = SimpleNamespace(
        boot=lambda: answer("b"),
        has_include=lambda: answer(True),
        channels=channels,
        note=lambda _: answer(note),
        session=1,
        ready=True,
    )
    reconciler = Reconciler(cast(Any, link), scene.tracker)
    entry = SimpleNamespace(call=scene.followed.call, request=scene.followed.request)

    async def claimed() -> list[Any]:
        return [entry]

    object.__setattr__(scene.followed, "sent", True)
    cast(Any, Reconciler)._claimed = lambda _: claimed()
    return reconciler


@pytest.fixture(autouse=True)
def _claimed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconciler, "_claimed", Reconciler._claimed)


async def test_a_channel_that_comes_while_the_channels_are_listed_is_followed() -> None:
    scene = make_scene()
    await reconciled(scene, meanwhile=[CREATED]).run()
    assert scene.followed.call.state is State.ACCEPTED
    scene.feed([ChannelUp(uniqueid=CALL_ID)])
    scene.tracker.settle = _by_events(scene)
    scene.feed([HungUp(uniqueid=CALL_ID, cause=16, cause_text=None)])
    assert (await scene.ending()).result is Result.ANSWERED


async def test_a_channel_that_was_there_before_and_is_gone_is_answered_for_at_once() -> None:
    scene = make_scene()
    scene.tracker.accept(scene.followed)
    scene.feed([CREATED])
    await reconciled(scene, meanwhile=[]).run()
    ending = await scene.ending()
    assert ending.error is not None
    assert ending.error.code == "end_not_seen"


async def test_a_call_without_a_channel_is_answered_for_only_when_none_can_come_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconcile, "STILL_COMING_S", 0.3)
    scene = make_scene()
    await reconciled(scene, meanwhile=[]).run()
    assert not scene.written.endings
    ending = await scene.ending()
    assert (ending.result, ending.error and ending.error.code) == (Result.FAILED, "end_not_seen")


async def test_a_call_is_answered_for_also_where_its_ledger_is_away() -> None:
    scene = make_scene()
    scene.tracker.accept(scene.followed)
    scene.feed([CREATED])
    reconciler = reconciled(scene, meanwhile=[])

    async def nothing() -> list[Any]:
        return []

    cast(Any, Reconciler)._claimed = lambda _: nothing()
    await reconciler.run()
    assert (await scene.ending()).error is not None


def _by_events(scene: Scene) -> Any:
    async def settle(followed: Followed, at: Any) -> None:
        await asyncio.sleep(0)
        scene.tracker.over(followed, at)

    return settle
