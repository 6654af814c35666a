"""What several runs did, what became of their calls, and which promises were broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dialer.domain.call import Result
from dialer.simulation.multcall.checker import Played, Summary
from tests.chaos.chaos import Chaos

#: What must not happen, in the words of the table.
PROMISES = (
    *("lost", "twice", "rang twice", "cut off", "leaked", "UNKNOWN and its PBX lived", "crashed"),
    "not as its fault's own check wants it",
)

#: How the checker calls them.
_KINDS = {"no_response": "lost", "second_response": "twice", "rang_twice": "rang twice"}


@dataclass(slots=True)
class Book:
    """What several runs did and what became of their calls."""

    times: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    blamed: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in PROMISES})
    calls: int = 0
    touched: int = 0

    def add(self, chaos: Chaos, summary: Summary) -> None:
        """Enters one run."""
        assert chaos.checker is not None
        last: dict[str, str] = {}
        for done in chaos.done:
            self.times[done.kind] += 1
            self.up[done.kind] += len(done.up)
            last |= {call_id.partition(":")[2]: done.kind for call_id in done.up}
        self.calls += summary.calls
        self.touched += len(last)
        for violation in summary.violations:
            kind = _KINDS.get(violation.kind, violation.kind)
            self.wrong.setdefault(kind, []).append(str(violation))
        self.wrong["crashed"] += chaos.crashes
        self.wrong["leaked"] += chaos.leaks
        self.wrong["not as its fault's own check wants it"] += chaos.missed
        self.judged += chaos.judged
        for played in chaos.checker.calls.values():
            self._enter(played, last, chaos)

    def _enter(self, played: Played, last: dict[str, str], chaos: Chaos) -> None:
        response, asked = played.response, played.asked
        if response is None:
            return
        self.results[response.result] += 1
        code = response.error.code if response.error else "none"
        self.errors[code] += 1
        text = f"{asked.request_id}: {response.result} {code} at {response.pbx}, {asked.number}"
        if response.result is Result.UNKNOWN:
            self.unknown[code] += 1
            self.blamed[last.get(asked.request_id, "none seen")] += 1
            if asked.request_id not in chaos.lost:
                self.wrong["UNKNOWN and its PBX lived"].append(text)
        if asked.number in chaos.cut_off and code != "not_handed_over":
            self.wrong["cut off"].append(text)
        answers = Result.ANSWERED in asked.results
        if response.result is Result.FAILED and answers and chaos.rung.get(asked.number):
            self.wrong.setdefault("told wrongly", []).append(f"{text} rang and answers")

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"{'fault':<38}{'times':>6}{'calls up':>10}{'unknown':>9}{'checks':>8}"
        for kind, times in sorted(self.times.items()):
            counts = f"{times:>6}{self.up[kind]:>10}{self.blamed[kind]:>9}"
            yield f"{kind:<38}{counts}{self.judged[kind] or '':>8}"
        counts = f"{self.times.total():>6}{self.up.total():>10}{self.unknown.total():>9}"
        yield f"{'all':<38}{counts}{self.judged.total():>8}"
        yield f"calls {self.calls}, of which {self.touched} were up during a fault"
        yield f"Resultado {_counts(self.results)}"
        yield f"Erro.Codigo {_counts(self.errors)}"
        yield f"UNKNOWN by Erro.Codigo {_counts(self.unknown)}"
        for kind, texts in self.wrong.items():
            yield f"{kind} {len(texts)}" + "".join(f"\n    {text}" for text in texts[:10])

    @property
    def is_broken(self) -> bool:
        """True where a promise was broken."""
        return any(texts for kind, texts in self.wrong.items() if kind != "told wrongly")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counter.most_common()) or "none"
