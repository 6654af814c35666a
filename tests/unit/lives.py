"""A followed call in virtual time: `follow` with timers and questions answered, no event loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dialer.domain.call import Call, Ending, Result, State
from dialer.domain.channel import AmiEvent, Record
from dialer.domain.follow import follow
from dialer.domain.follow_events import (
    AskChannel,
    AskList,
    AskRecord,
    ChannelMissing,
    ChannelNotListed,
    ChannelThere,
    ChannelUnavailable,
    FollowEffect,
    FollowEvent,
    OriginateAccepted,
    OriginateSent,
    RecordRead,
    RecordUnavailable,
    StartTimer,
    Timeouts,
    Timer,
    WriteEnd,
)
from dialer.domain.followed import Followed
from dialer.domain.request import CallRequest
from tests.unit.captured import CALL_ID, VERSIONS, Version, messages
from tests.unit.test_translate import ANSWERED, NO_CHANNEL, REFUSALS
from workers.ami.events import translate

T0 = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CELL = "ASR_TIM"
REQUEST = CallRequest(cell=CELL, request_id="1001", request_id_json="1001", number="5511987650")

#: How each recorded call ended on Multcall's wire.
RESULTS: dict[str, Result] = {
    "busy": Result.BUSY,
    "rejected_403": Result.REJECTED,
    "rejected_603": Result.REJECTED,
    "unknown_number_404": Result.INVALID_NUMBER,
    "congestion_503": Result.CONGESTION,
    "rings_out": Result.NO_ANSWER,
    "local_busy": Result.BUSY,
    "local_rings_out": Result.NO_ANSWER,
    **dict.fromkeys(ANSWERED, Result.ANSWERED),
    **dict.fromkeys(NO_CHANNEL, Result.FAILED),
}


def expected_cause(version: Version, scenario: str) -> int | None:
    if scenario in NO_CHANNEL:
        return None
    causes = REFUSALS[scenario][2] if scenario in REFUSALS else ANSWERED[scenario]
    return causes[VERSIONS.index(version)]


def told(version: Version, scenario: str) -> list[AmiEvent]:
    """The call events of a recorded connection."""
    return [event for m in messages(version, scenario) if (event := translate(m)) is not None]


def claimed(**fields: Any) -> Followed:
    """A call that was claimed a moment ago."""
    call = Call(
        call_id=CALL_ID,
        state=State.ORIGINATING,
        epoch=1,
        pbx="pbx01",
        attempts=1,
        dialed_at=T0,
    )
    return Followed(call=call, request=REQUEST, boot="b", **fields)


@dataclass(slots=True)
class Life:
    """One call and everything that came of it.

    `record` is what its record says; `boot` names the Asterisk that is asked. `answers`: what is
    asked is answered at once; `in_use`: a channel with the call's ChannelId is up. `effects` are all
    effects in order, `timers` those that run.
    """

    followed: Followed = field(default_factory=claimed)
    record: Record | None = None
    has_include: bool = True
    boot: str = "b"
    answers: bool = True
    in_use: bool = False
    now: datetime = T0
    effects: list[FollowEffect] = field(default_factory=list)
    timers: list[tuple[datetime, Timer]] = field(default_factory=list)

    def feed(self, *events: FollowEvent, after_s: float = 0.0) -> Life:
        for event in events:
            self.now += timedelta(seconds=after_s)
            self.followed, effects = follow(self.followed, event, self.now)
            self.effects += effects
            for effect in effects:
                self._carry_out(effect)
        return self

    def dial(self) -> Life:
        return self.feed(OriginateSent(attempt=1), OriginateAccepted())

    def _carry_out(self, effect: FollowEffect) -> None:
        match effect:
            case StartTimer(timer=timer):
                due = self.now + timedelta(seconds=Timeouts().of(timer))
                self.timers.append((due, timer))
            case AskRecord():
                record = RecordRead(record=self.record, has_include=self.has_include)
                self.feed(record if self.answers else RecordUnavailable())
            case AskChannel() if self.followed.has_failed_without_channel:
                answer = ChannelThere() if self.in_use else ChannelMissing()
                self.feed(answer if self.answers else ChannelUnavailable())
            case AskList() if self.answers and not self.in_use:
                self.feed(ChannelNotListed(boot=self.boot))

    def run_timers(self, at_most: int = 100) -> Life:
        """Let every timer run out, also those that a timer starts."""
        for _ in range(at_most):
            if not self.timers:
                break
            self.timers.sort(key=lambda timer: timer[0])
            at, timer = self.timers.pop(0)
            self.now = max(self.now, at)
            self.feed(timer)
        return self

    def effects_of(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def endings(self) -> list[Ending]:
        return [effect.ending for effect in self.effects_of(WriteEnd)]

    @property
    def ending(self) -> Ending:
        """The one ending, after all timers."""
        (ending,) = self.run_timers().endings
        return ending

    @property
    def names(self) -> list[str]:
        return [type(effect).__name__ for effect in self.effects]


def lived(events: Iterable[FollowEvent], **fields: Any) -> Life:
    """A dialed call after these events."""
    return Life(**fields).dial().feed(*events)
