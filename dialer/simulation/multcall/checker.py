"""Checker that compares the dialer's answers with the requests and lists the violations.

Takes every push and every answer with its time. Uses no Redis and no clock, so the simulated
Multcall, tests and benchmarks can use it. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from dialer.domain.call import Result
from dialer.multcall.answers import Ack, Response
from dialer.multcall.rawjson import RawObject, read_object
from dialer.simulation.multcall.requests import Asked

#: `Erro.Codigo` of calls whose end was not seen because something died.
UNSEEN: Final = frozenset(
    {"pbx_restarted", "end_not_seen", "result_not_seen", "no_word", "pbx_lost"}
)

#: Results that must have an `Erro`; all others must have none.
_WITH_ERROR: Final = frozenset(
    {Result.FAILED, Result.UNKNOWN, Result.EXPIRED, Result.CANCELLED, Result.INVALID_REQUEST}
)

#: Most characters of an answer that a violation quotes.
_SHOWN_CHARS: Final = 200

_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One violation: a stable `kind`, the call's request id if known, and a sentence."""

    kind: str
    request_id: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.request_id}: {self.text}" if self.request_id else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Result of a run. Times in seconds; latencies are None if there was no ACK."""

    calls: int
    acks: int
    codes: int
    responses: int
    results: Mapping[Result, int]
    pbxs: Mapping[str, int]
    amd: Mapping[str, int]
    agents: Mapping[str, int]
    ack_p50_s: float | None
    ack_p99_s: float | None
    ack_max_s: float | None
    pushing_s: float
    duration_s: float
    violations: Sequence[Violation]

    @property
    def is_right(self) -> bool:
        """True if there are no violations."""
        return not self.violations


@dataclass(slots=True, kw_only=True)
class Played:
    """One call and its answers so far, as models and as raw text."""

    asked: Asked
    pushed_at: float
    acked_at: float | None = None
    responded_at: float | None = None
    code_at: float | None = None
    code_json: str | None = None
    ack: Ack | None = None
    response: Response | None = None
    response_raw: RawObject | None = None


@dataclass(slots=True, kw_only=True)
class Checker:
    """Record of one run.

    `disturbed` means that parts of the system are killed during the run: then a call may end
    unseen, with an `Erro` that says so, and a code may be too late. `code_wait_s` is the
    dialer's timeout_command_ack: a code sent later may be null. `clock_slack_s` is the largest
    difference between the clocks of the machines that write the times.
    """

    disturbed: bool = False
    code_wait_s: float = 10.0
    clock_slack_s: float = 0.05
    calls: dict[tuple[str, str], Played] = field(default_factory=dict)
    results: Counter[Result] = field(default_factory=Counter)
    pbxs: Counter[str] = field(default_factory=Counter)
    amd: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    acks: int = 0
    codes: int = 0
    responses: int = 0
    _found: list[Violation] = field(default_factory=list)
    _last_at: float = 0.0

    # --- what happened -------------------------------------------------------------

    def pushed(self, asked: Asked, at: float) -> None:
        """Record that a request is pushed."""
        self.calls[asked.cell, asked.request_id] = Played(asked=asked, pushed_at=at)

    def acked(self, cell: str, raw: bytes, at: float) -> Asked | None:
        """Record an element of the ACK list; return the request whose code is due now."""
        self._last_at = at
        played, ack, found = self._answer(Ack, "ACK", cell, raw)
        if played is None or ack is None:
            return None
        if played.ack is not None:
            self._note("second_ack", played, "a second ACK arrived")
            return None
        self.acks += 1
        played.ack, played.acked_at = ack, at
        self._untouched("ACK", played, found, ("Dados", played.asked.data_json))
        return played.asked

    def code_sent(self, asked: Asked, at: float) -> None:
        """Record that the call's CODLIGACAO is pushed."""
        played = self.calls[asked.cell, asked.request_id]
        played.code_at, played.code_json = at, asked.code_json
        self.codes += 1

    def responded(self, cell: str, raw: bytes, at: float) -> None:
        """Record an element of the Response list."""
        self._last_at = at
        played, response, found = self._answer(Response, "Response", cell, raw)
        if played is None or response is None:
            return
        if played.response is not None:
            self._note("second_response", played, f"a second Response arrived: {_shown(raw)}")
            return
        self.responses += 1
        self.results[response.result] += 1
        self.pbxs[response.pbx or "none"] += 1
        if response.amd is not None:
            self.amd[response.amd] += 1
        if response.agent is not None:
            self.agents[response.agent] += 1
        played.response, played.response_raw, played.responded_at = response, found, at

    def counted(self, cell: str, counter: object, counter_ack: object) -> None:
        """Record the counters after the last call; None counts as 0."""
        for name, value in (("Counter", counter), ("CounterACK", counter_ack)):
            if int(str(value or 0)) != 0:
                text = f"{name}-{cell} is {value} after the last call, instead of 0"
                self._found.append(Violation(kind="counter", request_id=None, text=text))

    def rang(self, rings: Mapping[str, int]) -> None:
        """Record how often each number rang in the whole run, summed over all PBXs."""
        asked = Counter(played.asked.number for played in self.calls.values())
        for number, times in rings.items():
            if times > asked[number]:
                text = f"number {number} rang {times} times but was requested {asked[number]} times"
                self._found.append(Violation(kind="rang_twice", request_id=None, text=text))
        for played in self.calls.values():
            response = played.response
            if (
                response
                and response.result is Result.ANSWERED
                and not rings.get(played.asked.number)
            ):
                self._note("never_rang", played, "Resultado is ANSWERED, but its number never rang")

    @property
    def is_over(self) -> bool:
        """True if there are as many Responses as requests."""
        return self.responses >= len(self.calls)

    # --- what is wrong -------------------------------------------------------------

    def violations(self) -> tuple[Violation, ...]:
        """Return all violations so far, including missing Responses."""
        late = [v for played in self.calls.values() for v in self._of(played)]
        return (*self._found, *late)

    def summary(self) -> Summary:
        """Return the counts, latencies and violations of the run."""
        waits = sorted(
            played.acked_at - played.pushed_at
            for played in self.calls.values()
            if played.acked_at is not None
        )
        pushes = [played.pushed_at for played in self.calls.values()]
        return Summary(
            calls=len(self.calls),
            acks=self.acks,
            codes=self.codes,
            responses=self.responses,
            results=dict(self.results.most_common()),
            pbxs=dict(sorted(self.pbxs.items())),
            amd=dict(sorted(self.amd.items())),
            agents=dict(sorted(self.agents.items())),
            ack_p50_s=percentile(waits, 50),
            ack_p99_s=percentile(waits, 99),
            ack_max_s=percentile(waits, 100),
            pushing_s=max(pushes, default=0.0) - min(pushes, default=0.0),
            duration_s=max(self._last_at - min(pushes, default=0.0), 0.0),
            violations=self.violations(),
        )

    def _answer(
        self, model: type[_Answer], name: str, cell: str, raw: bytes
    ) -> tuple[Played | None, _Answer | None, RawObject]:
        """Parse an answer and find its call; record a violation for what cannot be used."""
        found = read_object(raw)
        played = self.calls.get((cell, str(found.values.get("IdRequisicao"))))
        try:
            answer = model.model_validate_json(json.dumps({**found.values, "Dados": None}))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            text = f"{name} breaks its schema at {first['loc']}: {first['msg']}: {_shown(raw)}"
            self._note("schema", played, text)
            return played, None, found
        if found.fault or "Dados" not in found.values:
            self._note("schema", played, f"{name} is incomplete: {found.fault or 'no Dados'}")
        if played is None:
            self._note("unknown", None, f"{name} for an unknown call: {_shown(raw)}")
        elif found.values.get("Celula") != cell:
            self._note("cell", played, f"{name} on cell {cell} has Celula {found.json('Celula')}")
        return played, answer, found

    def _untouched(
        self, name: str, played: Played, found: RawObject, *more: tuple[str, str]
    ) -> None:
        self._found += _changed(name, played.asked, found, more)

    def _note(self, kind: str, played: Played | None, text: str) -> None:
        request_id = played.asked.request_id if played else None
        self._found.append(Violation(kind=kind, request_id=request_id, text=text))

    def _of(self, played: Played) -> Iterator[Violation]:
        """Yield the violations of one call; all its answers have arrived."""
        response, found, asked = played.response, played.response_raw, played.asked
        if response is None or found is None:
            yield _violation(asked, "no_response", "no Response arrived")
            return
        more = (("Dados", asked.data_json), ("CriadaEm", asked.created_at_json))
        yield from _changed("Response", asked, found, more)
        yield from self._of_code(played, found)
        yield from self._of_result(played, response)
        yield from _of_ack(played, response, disturbed=self.disturbed)
        yield from _of_times(asked, response, self.clock_slack_s)

    def _of_code(self, played: Played, found: RawObject) -> Iterator[Violation]:
        came, sent = found.json("CodLigacao"), played.code_json
        if sent is None and came != "null":
            yield _violation(played.asked, "code", f"CodLigacao is {came}, but none was sent")
        elif sent is not None and came != sent and not (came == "null" and self._late(played)):
            yield _violation(played.asked, "code", f"CodLigacao is {came}, but {sent} was sent")

    def _late(self, played: Played) -> bool:
        if self.disturbed or played.code_at is None or played.acked_at is None:
            return True
        return played.code_at - played.acked_at > self.code_wait_s / 2

    def _of_result(self, played: Played, response: Response) -> Iterator[Violation]:
        asked, result, error = played.asked, response.result, response.error
        unseen = self.disturbed and error is not None and error.code in UNSEEN
        if result not in asked.results and not unseen:
            right = " or ".join(sorted(asked.results))
            detail = f" ({error.code}: {error.message})" if error else ""
            text = f"Resultado is {result}{detail}, but {asked.number} must give {right}"
            yield _violation(asked, "result", text)
        if error is None and result in _WITH_ERROR:
            yield _violation(asked, "error", f"Resultado is {result} without an Erro")
        if error is not None and result not in _WITH_ERROR and not unseen:
            yield _violation(asked, "error", f"Resultado is {result} with Erro {error.code}")
        if result is Result.ANSWERED and response.answered_at is None:
            yield _violation(asked, "result", "Resultado is ANSWERED without AtendidaEm")
        if response.answered_at and result not in (Result.ANSWERED, Result.UNKNOWN):
            yield _violation(asked, "result", f"AtendidaEm is set, but Resultado is {result}")


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the nearest-rank percentile of sorted values; None if there are none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _violation(asked: Asked, kind: str, text: str) -> Violation:
    return Violation(kind=kind, request_id=asked.request_id, text=text)


def _changed(
    name: str, asked: Asked, found: RawObject, more: Sequence[tuple[str, str]]
) -> Iterator[Violation]:
    """Yield a violation per field that did not come back as unchanged text."""
    for key, sent in (("IdRequisicao", asked.request_id_json), *more):
        came = found.json(key)
        if came != sent:
            text = f"{key} of the {name} is {_shown(came)}, but {_shown(sent)} was sent"
            yield _violation(asked, "changed", text)


def _of_ack(played: Played, response: Response, *, disturbed: bool) -> Iterator[Violation]:
    asked, ack = played.asked, played.ack
    if ack is None:
        if response.result is Result.ANSWERED and not disturbed:
            yield _violation(asked, "no_ack", "Resultado is ANSWERED, but no ACK arrived")
        return
    if response.result in (Result.INVALID_REQUEST, Result.EXPIRED, Result.CANCELLED):
        yield _violation(asked, "ack", f"an ACK arrived, but Resultado is {response.result}")
    if (ack.pbx, ack.uniqueid) != (response.pbx, response.uniqueid):
        yield _violation(
            asked,
            "ack",
            f"the ACK names {ack.uniqueid} at {ack.pbx}, the Response "
            f"{response.uniqueid} at {response.pbx}",
        )
    if response.dialed_at is None:
        yield _violation(asked, "ack", "an ACK arrived, but the Response has no DiscadaEm")


def _of_times(asked: Asked, response: Response, slack_s: float) -> Iterator[Violation]:
    """Check CriadaEm ≤ DiscadaEm ≤ AtendidaEm ≤ EncerradaEm, and the durations."""
    moments = {
        "CriadaEm": response.created_at,
        "DiscadaEm": response.dialed_at,
        "AtendidaEm": response.answered_at,
        "EncerradaEm": response.ended_at,
    }
    known = [(name, datetime.fromisoformat(text)) for name, text in moments.items() if text]
    for (before, start), (after, end) in pairwise(known):
        if (end - start).total_seconds() < -slack_s:
            yield _violation(asked, "times", f"{after} {end} is before {before} {start}")
    at = dict(known)
    for name, start_name, value in (
        ("DuracaoSeg", "DiscadaEm", response.duration_s),
        ("FaladoSeg", "AtendidaEm", response.talk_s),
    ):
        since = at.get(start_name)
        length_s = (at["EncerradaEm"] - since).total_seconds() if since else None
        if not _same_length(value, length_s):
            text = f"{name} is {value}, but {start_name} to EncerradaEm is {length_s}"
            yield _violation(asked, "times", text)
    if (response.attempts > 0) is not (response.dialed_at is not None):
        text = f"Tentativas is {response.attempts}, but DiscadaEm is {response.dialed_at}"
        yield _violation(asked, "times", text)


def _same_length(given_s: float | None, length_s: float | None) -> bool:
    if given_s is None or length_s is None:
        return given_s is length_s
    return abs(max(0.0, length_s) - given_s) < 0.0015


def _shown(text: str | bytes) -> str:
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    cut = plain if len(plain) <= _SHOWN_CHARS else f"{plain[:_SHOWN_CHARS]}…"
    return cut.encode("utf-8", "replace").decode().translate({10: "⏎", 13: "⏎"})
