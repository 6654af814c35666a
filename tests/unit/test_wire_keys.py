from __future__ import annotations

from dialer.multcall.keys import CellKeys


def test_six_keys_contain_the_cells_exact_name() -> None:
    keys = CellKeys("ura-novoteste2")
    assert keys.request == "ZancURA2.0-Request-ura-novoteste2"
    assert keys.ack == "ZancURA2.0-ACK-ura-novoteste2"
    assert keys.code == "ZancURA2.0-CODLIGACAO-ura-novoteste2"
    assert keys.response == "ZancURA2.0-Response-ura-novoteste2"
    assert keys.counter == "ZancURA2.0-Counter-ura-novoteste2"
    assert keys.counter_ack == "ZancURA2.0-CounterACK-ura-novoteste2"
    assert keys.agents == "ZancURA2.0-Operadores-ura-novoteste2"
