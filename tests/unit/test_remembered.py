"""What the worker keeps of calls that are over."""

from __future__ import annotations

from datetime import UTC, datetime

from dialer.domain.call import Call, Ending, Result
from workers.remembered import RECENT, Remembered

BUSY = Ending(result=Result.BUSY, ended_at=datetime(2026, 5, 4, 12, 0, tzinfo=UTC), cause=17)


def test_the_oldest_calls_are_forgotten_first() -> None:
    remembered = Remembered(most=3)
    for i in range(5):
        remembered.note(Call(call_id=f"ASR_TIM:{i}"), BUSY)
    assert len(remembered) == 3
    assert remembered.get("ASR_TIM:1") is None
    assert remembered.get("ASR_TIM:4") == (Call(call_id="ASR_TIM:4"), BUSY)


def test_the_recent_calls_of_a_cell_are_its_own_the_last_first() -> None:
    remembered = Remembered()
    for i in range(RECENT + 10):
        remembered.note(Call(call_id=f"ASR_TIM:{i}"), BUSY)
        remembered.note(Call(call_id=f"ura-novoteste2:{i}"), BUSY)
    recent = list(remembered.recent("ASR_TIM"))
    assert len(recent) == RECENT
    assert recent[0] == f"ASR_TIM:{RECENT + 9}"
    assert not any(call_id.startswith("ura") for call_id in recent)
