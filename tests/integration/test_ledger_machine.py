"""The ledger and `dialer.domain.call.advance` agree on every sequence of events."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, ClassVar, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from dialer.domain.call import (
    Accepted,
    Answered,
    Call,
    Claimed,
    CodeCame,
    CodeState,
    CodeTimedOut,
    Effect,
    Ended,
    Ending,
    Event,
    IllegalTransition,
    Queued,
    Result,
    State,
    Unclaimed,
    advance,
)
from dialer.domain.request import CallRequest, call_id
from dialer.multcall.request import parse_request
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting
from tests.integration.cell_rig import T0, Site, code_element, element

T = TypeVar("T")
Step = Callable[[], Coroutine[Any, Any, object]]

_cells = itertools.count(1)
_moments = st.integers(0, 3600).map(lambda s: T0 + timedelta(seconds=s))
PBXS = ("pbx01", "pbx02")
_pbxs = st.sampled_from(PBXS)


class LedgerMachine(RuleBasedStateMachine):
    url: ClassVar[str]
    push: ClassVar[Literal["right", "left"]]

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.site = Site(self.url, cell=f"C{next(_cells)}", push=self.push)
        self.run(self.site.__aenter__())
        self.run(self.empty())
        self.calls: dict[str, Call] = {}
        self.requests: dict[str, CallRequest] = {}
        self.tokens: dict[str, str] = {}
        self.acks: list[str] = []
        self.responses: list[tuple[str, str, str]] = []

    def teardown(self) -> None:
        self.run(self.site.__aexit__())
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def empty(self) -> None:
        await self.site.redis.flushdb()

    def both(self, name: str, event: Event, step: Step, *, repeatable: bool = True) -> None:
        """Apply an event to the call and run its step: both accept it, or neither does."""
        try:
            after, effects = advance(self.calls[name], event)
        except IllegalTransition:
            before = self.run(self.site.snapshot())
            assert not self.run(step()), event
            after_it = self.run(self.site.snapshot())
            assert _without_dead(after_it) == _without_dead(before), event
            return
        assert self.run(step()), event
        self.calls[name] = after
        self.acks += [name] * effects.count(Effect.SEND_ACK)
        if Effect.SEND_RESPONSE in effects:
            assert after.ending is not None
            self.responses.append((name, after.ending.result, after.code_json))
        if repeatable:
            settled = self.run(self.site.snapshot())
            self.run(step())
            assert self.run(self.site.snapshot()) == settled, f"{event} again"

    @rule(target=names, pbx=_pbxs)
    def admit(self, pbx: str) -> str:
        name = f"r-{len(self.calls)}"
        if len(self.calls) == 3:  # more calls only cost time
            return "r-0"
        raw = element(name)
        self.requests[name] = parse_request(raw, cell=self.site.cell)
        self.run(self.site.admitted(name, pbx=pbx, raw=raw))
        fresh = Call(call_id=call_id(self.site.cell, name))
        self.calls[name], _ = advance(fresh, Queued(pbx=pbx))
        return name

    @rule(name=names, pbx=_pbxs)
    def place(self, name: str, pbx: str) -> None:
        call = self.calls[name]
        waiting = Waiting(call_id=call.call_id, state=call.state, epoch=call.epoch, pbx=call.pbx)
        self.both(name, Queued(pbx=pbx), lambda: self.site.ledger.assign(waiting, pbx))

    @rule(name=names, pbx=_pbxs, back=st.integers(0, 1), at=_moments)
    def claim(self, name: str, pbx: str, back: int, at: Any) -> None:
        epoch, token = self.calls[name].epoch - back, secrets.token_hex(4)
        if self.calls[name].state is State.QUEUED:
            self.tokens[name] = token
        self.both(
            name,
            Claimed(pbx=pbx, epoch=epoch, at=at),
            lambda: self.site.claimed(name, pbx=pbx, epoch=epoch, token=token, at=at),
        )

    @rule(name=names)
    def claim_as_told(self, name: str) -> None:
        self.claim(name, self.calls[name].pbx or "pbx01", 0, T0)

    @rule(name=names)
    def come_to_its_ack(self, name: str) -> None:
        """A sequence that random rules reach too rarely."""
        self.claim_as_told(name)
        self.accept(name, T0, 1)

    @rule(name=names)
    def unclaim(self, name: str) -> None:
        call, token = self.calls[name], self.tokens.get(name, "")
        self.both(
            name,
            Unclaimed(),
            lambda: self.site.ledger.unclaim(call.call_id, pbx=call.pbx or "", token=token),
        )

    @rule(name=names, at=_moments, attempts=st.integers(1, 3))
    def accept(self, name: str, at: Any, attempts: int) -> None:
        call = self.calls[name]
        if call.uniqueid is not None:  # the step reports a repeat as accepted
            return
        self.both(
            name,
            Accepted(at=at, uniqueid=call.call_id, attempts=attempts),
            lambda: self.site.ledger.accept(
                self.requests[name],
                pbx=call.pbx or "",
                uniqueid=call.call_id,
                attempts=attempts,
                at=at,
                code_wait_s=600,
            ),
        )

    @rule(name=names, at=_moments)
    def answer(self, name: str, at: Any) -> None:
        call = self.calls[name]
        self.both(name, Answered(at=at), lambda: self.site.ledger.answer(call.call_id, at=at))

    @rule(name=names, result=st.sampled_from(Result), at=_moments)
    def end(self, name: str, result: Result, at: Any) -> None:
        call, ending = self.calls[name], Ending(result=result, ended_at=at)

        async def step() -> bool:
            return await self.site.ledger.end(call, self.requests[name], ending) != "void"

        self.both(name, Ended(ending=ending), step)

    @rule(name=names, code=st.sampled_from(['"C-1"', "7", '"ç"']))
    def code(self, name: str, code: str) -> None:
        raw = code_element(name, code="?").replace(b'"?"', code.encode())

        async def step() -> bool:
            return await self.site.code(raw) in ("stored", "done")

        self.both(name, CodeCame(code_json=code), step, repeatable=False)

    @rule(name=names)
    def late_code(self, name: str) -> None:
        ledger, call = self.site.ledger, self.calls[name]

        async def step() -> list[str]:
            await self.site.redis.zadd(ledger.keys.awaiting, {call.call_id: 1}, xx=True)
            return await ledger.late_codes()

        self.both(name, CodeTimedOut(), step)

    @invariant()
    def the_ledger_shows_what_the_calls_say(self) -> None:
        shown = self.run(self.site.snapshot())
        for name, call in self.calls.items():
            self.stands_alike(shown, name, call)
        self.indexes_and_counters_are_in_step(shown)
        self.sent_is_what_had_to_be_sent(shown)

    def stands_alike(self, shown: dict[bytes, Any], name: str, call: Call) -> None:
        fields = shown[self.site.ledger.keys.call(call.call_id).encode()]
        if call.state is State.DONE:
            assert fields.keys() == {b"state", b"result", b"ended_ms", b"story"}
            assert call.ending is not None
            assert fields[b"result"] == call.ending.result.encode()
            return
        told = {"state": call.state, "epoch": str(call.epoch), "code_state": call.code_state}
        for field, value in told.items():
            assert fields[field.encode()] == value.encode(), (name, field)
        assert fields.get(b"pbx") == (call.pbx.encode() if call.pbx else None)
        assert b"request" in fields
        if call.state is not State.ENDED:
            assert Entry.from_hash(call.call_id, fields).call == call

    def indexes_and_counters_are_in_step(self, shown: dict[bytes, Any]) -> None:
        keys, wire, calls = self.site.ledger.keys, self.site.ledger.wire, self.calls.values()

        def members(key: str, holds: Callable[[Call], bool]) -> int:
            expected = {c.call_id.encode() for c in calls if holds(c)}
            assert set(shown.get(key.encode(), ())) == expected, key
            return len(expected)

        live = members(keys.live, lambda c: c.state is not State.DONE)
        awaiting = members(keys.awaiting, lambda c: c.code_state is CodeState.AWAITED)
        members(keys.queued, lambda c: c.state in (State.ADMITTED, State.QUEUED))
        up = (State.ORIGINATING, State.ACCEPTED, State.ANSWERED)
        for pbx in PBXS:
            members(keys.claimed(pbx), lambda c, pbx=pbx: c.pbx == pbx and c.state in up)  # type: ignore[misc]
        assert int(shown.get(wire.counter.encode(), 0)) == live
        assert int(shown.get(wire.counter_ack.encode(), 0)) == awaiting

    def sent_is_what_had_to_be_sent(self, shown: dict[bytes, Any]) -> None:
        turn = 1 if self.push == "right" else -1
        acks = shown.get(self.site.ledger.wire.ack.encode(), [])[::turn]
        for raw, name in zip(acks, self.acks, strict=True):
            assert f'"IdRequisicao":"{name}"'.encode() in raw
        sent = shown.get(self.site.ledger.wire.response.encode(), [])[::turn]
        for raw, (name, result, code_json) in zip(sent, self.responses, strict=True):
            text = raw.decode()
            assert f'"IdRequisicao":"{name}"' in text
            assert f'"CodLigacao":{code_json}' in text
            assert f'"Resultado":"{result}"' in text


def _without_dead(snapshot: dict[bytes, Any]) -> dict[bytes, Any]:
    """Drop the dead list: a refused code goes there, and it is no part of a call."""
    return {k: v for k, v in snapshot.items() if not k.startswith(b"dialer:dead:")}


@pytest.mark.hypothesis
@pytest.mark.parametrize(("push", "lives"), [("right", 30), ("left", 8)])
def test_ledger_agrees_with_the_state_machine(
    redis_url: str, push: Literal["right", "left"], lives: int
) -> None:
    class Machine(LedgerMachine):
        pass

    Machine.url, Machine.push = redis_url, push
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=lives * settings().max_examples // 100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
