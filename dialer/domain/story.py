"""The story of one call: which states it had, when, and who brought it there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dialer.domain.call import CodeState, State

#: Times until the year 5138; what else is in a field is not ours.
_MS: Final = re.compile(r"[0-9]{1,14}")

#: Milliseconds after the admission. The clocks of two hosts may differ.
_AFTER: Final = re.compile(r"-?[0-9]{1,12}")

#: Parts of the story of a done call.
_PARTS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One state of a call. `by` is who brought it there: bridge, worker, Asterisk."""

    state: str
    at: datetime
    by: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is known of one call. `state` is the present one; `result` is '' until it has ended."""

    call_id: str
    state: str
    pbx: str
    result: str
    error: str
    steps: Sequence[Step]

    @property
    def is_dialed(self) -> bool:
        """True if its PBX has it now."""
        return self.state in {State.ORIGINATING, State.ACCEPTED, State.ANSWERED}


def story_of(call_id: str, fields: Mapping[str, str]) -> Story:
    """Return the story by the fields of a call's entry. Times are ms since 1970."""
    fields = {**fields, **_of_done(fields.get("story", ""))}
    pbx, epoch = fields.get("pbx", ""), fields.get("epoch", "1")
    result, error = fields.get("result", ""), fields.get("error", "")
    moved = f", queued {epoch} times" if epoch not in {"", "1"} else ""
    waiting = f"to {pbx}{moved}" if pbx else ""
    steps = [
        _step("queued", fields.get("admitted_ms"), "bridge", waiting),
        _step("originating", fields.get("dialed_ms"), f"worker of {pbx}", "claimed and sent"),
        _step("accepted", fields.get("accepted_ms"), "Asterisk", _code(fields.get("code_state"))),
        _step("answered", fields.get("answered_ms"), "the customer", ""),
        _step("ended", fields.get("ended_ms"), _ended_by(fields), _outcome(result, error)),
    ]
    return Story(
        call_id=call_id,
        state=fields.get("state", ""),
        pbx=pbx,
        result=result,
        error=error,
        steps=[step for step in steps if step is not None],
    )


def _of_done(text: str) -> dict[str, str]:
    """Return the fields that a done call keeps as one text, see `_finish.lua`."""
    parts = text.split(" ")
    if len(parts) != _PARTS or not _MS.fullmatch(parts[3]):
        return {}
    since = int(parts[3])
    names = ("pbx", "epoch", "code_state", "admitted_ms")
    found = dict(zip(names, parts[:4], strict=True))
    for name, after in zip(("dialed_ms", "accepted_ms", "answered_ms"), parts[4:], strict=True):
        if _AFTER.fullmatch(after):
            found[name] = str(since + int(after))
    return {name: value for name, value in found.items() if value != "-"}


def _step(state: str, ms: str | None, by: str, detail: str) -> Step | None:
    if ms is None or not _MS.fullmatch(ms):
        return None
    at = datetime.fromtimestamp(int(ms) / 1000, UTC)
    return Step(state=state, at=at, by=by, detail=detail)


def _code(code_state: str | None) -> str:
    """Return what is known of Multcall's code, for which the ACK asks."""
    return {
        CodeState.AWAITED: "ACK sent, no code yet",
        CodeState.CAME: "ACK sent, the code came",
        CodeState.TIMED_OUT: "ACK sent, no code came in time",
    }.get(CodeState(code_state) if code_state in set(CodeState) else CodeState.NONE, "")


def _ended_by(fields: Mapping[str, str]) -> str:
    """Return who ended it: a bridge if nothing was dialed, or if the PBX was lost."""
    by_bridge = not fields.get("dialed_ms") or fields.get("error") == "pbx_lost"
    return "bridge" if by_bridge else f"worker of {fields.get('pbx', '')}"


def _outcome(result: str, error: str) -> str:
    return f"{result}, {error}" if error else result
