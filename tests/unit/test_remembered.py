"""What the worker keeps of calls that are over."""

from __future__ import annotations

from datetime import UTC, datetime

from dialer.domain.call import Call, Ending, Result
from dialer.store.keys import DONE_RETENTION_S
from workers.calls.remembered import RECENT, Remembered

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


def test_a_call_is_forgotten_when_the_ledger_forgets_it_too() -> None:
    now = 100.0
    remembered = Remembered(clock=lambda: now)
    remembered.note(Call(call_id="ASR_TIM:1"), BUSY)
    now += DONE_RETENTION_S - 1
    remembered.note(Call(call_id="ASR_TIM:2"), BUSY)
    assert remembered.get("ASR_TIM:1") is not None
    now += 1
    assert list(remembered.recent("ASR_TIM")) == ["ASR_TIM:2"]
    assert remembered.get("ASR_TIM:1") is None
    assert remembered.get("ASR_TIM:2") is not None
    assert len(remembered) == 1


def test_call_with_a_reused_id_is_as_young_as_its_last_end() -> None:
    remembered = Remembered(most=2)
    for call_id in ("ASR_TIM:1", "ASR_TIM:2", "ASR_TIM:1", "ASR_TIM:3"):
        remembered.note(Call(call_id=call_id), BUSY)
    assert list(remembered.recent("ASR_TIM")) == ["ASR_TIM:3", "ASR_TIM:1"]
