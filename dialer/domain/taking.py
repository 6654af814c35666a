"""Judge whether a PBX that says it is ready takes calls, from what became of its calls.

A PBX can say "ready" and yet place no calls: its consumer was cancelled, its Asterisk answers no
Originate, its clock is wrong. Only the results show it. The registry keeps the verdict, so that
all bridges share it; while it stands, the PBX gets one trial call at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dialer.domain.call import Result, State

#: A PBX that says it is ready must claim a call that is queued to it within this time, in seconds.
CLAIM_WITHIN_S: Final = 10.0

#: So many calls of the last minute must be known before a share of them is judged.
JUDGED_FROM: Final = 10

#: This share of calls that ended at once is unusual.
UNUSUAL_SHARE: Final = 0.3

#: With fewer calls, so many that all ended at once are enough.
ALL_OF: Final = 3

#: A trial call must be claimed within this time, in seconds; then it moves to another PBX.
TRIAL_CLAIM_WITHIN_S: Final = 3.0

#: A trial call that is up so long after Asterisk accepted it is a success, in seconds.
TRIAL_UP_S: Final = 1.0

#: Another trial call follows a failed one after this pause, in ms.
TRIAL_PAUSE_MS: Final = 2_000

#: Another trial call follows one whose end nobody saw after this time, in ms.
TRIAL_LOST_AFTER_MS: Final = 30_000

#: How each kind of call that ended at once is said, in the order in which it is said.
_AT_ONCE: Final[Mapping[str, str]] = {
    "no_word": "got no word from Asterisk",
    "not_handed_over": "were answered and not handed over to their target",
    "expired": "had expired by the clock of its worker",
}

#: Results of calls that Asterisk placed; who was called, or the carrier, decided how they ended.
_PLACED: Final = frozenset(
    {
        Result.ANSWERED,
        Result.BUSY,
        Result.NO_ANSWER,
        Result.CONGESTION,
        Result.REJECTED,
        Result.INVALID_NUMBER,
    }
)

#: `Erro.Codigo` of a call that Asterisk placed and the carrier ended with an unusual cause.
_ENDED_BY_CARRIER: Final = "call_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What became of a PBX's calls in the last minute, as its worker counts them.

    `unannounced` are those of which no message came in time, `congested` those for which the trunk
    or the network had no room.
    """

    claimed: int = 0
    accepted: int = 0
    no_word: int = 0
    not_handed_over: int = 0
    expired: int = 0
    unannounced: int = 0
    congested: int = 0

    @property
    def is_unannounced(self) -> bool:
        """True if most calls had to be found by the worker itself."""
        return self.unannounced >= max(JUDGED_FROM, self.claimed / 2)

    @property
    def is_congested(self) -> bool:
        """True if nearly all calls met a trunk or network without room."""
        return self.congested >= max(JUDGED_FROM, 0.9 * self.claimed)

    @property
    def at_once(self) -> int:
        """How many calls ended at once, without being the called person's or carrier's doing."""
        return self.no_word + self.not_handed_over + self.expired

    def since(self, earlier: Results) -> Results:
        """Return at least how many there were since `earlier`, less than a minute ago."""
        return Results(
            claimed=max(0, self.claimed - earlier.claimed),
            accepted=max(0, self.accepted - earlier.accepted),
            no_word=max(0, self.no_word - earlier.no_word),
            not_handed_over=max(0, self.not_handed_over - earlier.not_handed_over),
            expired=max(0, self.expired - earlier.expired),
            unannounced=max(0, self.unannounced - earlier.unannounced),
            congested=max(0, self.congested - earlier.congested),
        )

    def in_words(self) -> str:
        """Return how many of the calls ended at once, and how; '' if none did."""
        kinds = [
            f"{n} {words}" for name, words in _AT_ONCE.items() if (n := int(getattr(self, name)))
        ]
        return f"of its {self.claimed} calls of the last minute {', '.join(kinds)}" if kinds else ""


def is_unusual(results: Results) -> bool:
    """True if so many calls ended at once that the PBX cannot be said to take calls.

    That is `UNUSUAL_SHARE` of at least `JUDGED_FROM` calls, or all of at least `ALL_OF`.
    """
    if results.claimed >= JUDGED_FROM:
        return results.at_once >= UNUSUAL_SHARE * results.claimed
    return results.claimed >= ALL_OF and results.at_once >= results.claimed


def unclaimed_reason(unclaimed: int) -> str:
    """Return the reason of the verdict on a PBX that left calls unclaimed for too long."""
    calls = f"{unclaimed} call{'s' * (unclaimed > 1)}"
    return f"it did not claim {calls} that waited for {CLAIM_WITHIN_S:g} s, and says it is ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A PBX is not taking calls. `reason` says why, with numbers.

    `instance` is the worker that was judged; a restart of the worker makes the verdict void.
    `trial` is the id of the call that tries the PBX, '' if none does. `trial_age_s` is how long
    ago that call got its slot, or the last trial failed. `trials` is how many failed.
    """

    reason: str
    instance: str
    age_s: float
    trial: str = ""
    trial_age_s: float = 0.0
    trials: int = 0

    @property
    def is_trial_due(self) -> bool:
        """True if another trial call may start now."""
        pause_ms = TRIAL_LOST_AFTER_MS if self.trial else TRIAL_PAUSE_MS
        return self.trial_age_s * 1000 >= pause_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the ledger says of a trial call.

    `state` is None if it has no entry. `waited_s` is how long ago it got its slot; `up_s` how long
    ago Asterisk accepted it. `error` is the code of its `Erro`.
    """

    state: State | None
    pbx: str | None = None
    waited_s: float = 0.0
    up_s: float = 0.0
    result: str = ""
    error: str = ""

    @property
    def is_up(self) -> bool:
        """True if Asterisk accepted it and it has not ended."""
        return self.state in {State.ACCEPTED, State.ANSWERED}

    def is_success(self, pbx: str) -> bool | None:
        """Return true if the trial on `pbx` succeeded, false if it failed, None if it goes on."""
        is_late = self.waited_s >= TRIAL_CLAIM_WITHIN_S
        match self.state:
            case State.ENDED | State.DONE:
                is_placed = self.result in _PLACED and not self.error
                return is_placed or self.error == _ENDED_BY_CARRIER
            case None:
                return False if is_late else None
            case _ if self.pbx != pbx:
                return False
            case State.ACCEPTED | State.ANSWERED:
                return True if self.up_s >= TRIAL_UP_S else None
            case State.QUEUED if is_late:
                return False
            case _:
                return None
