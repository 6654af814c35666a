"""The pulse of a bridge: which cells it asks, and what it does with the answers."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import AuthenticationError, ResponseError

from dialer import watchdog
from dialer.bridge import pulse as module
from dialer.bridge.life import Life
from dialer.bridge.pulse import EVERY_S, Beating, Pulse
from dialer.store.ledger import Pulsed
from tests.unit.stand_ins import Notes, a

REFUSED = "Redis refused a command; trying again"
QUIET = Pulsed(is_quiet=True, can_take_over=False)
BUSY = Pulsed(is_quiet=False, can_take_over=False)


class Site:
    """A pulse of some cells. `replies`: what each cell has; `refusals`: whom Redis refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.notes = Notes()
        self.replies: dict[str, Any] = dict.fromkeys(names, BUSY)
        self.refusals: set[str] = set()
        self.served = set(names)
        steps: Any = a(where="the Redis", is_down=False)
        clock: Any = a(measure=self.notes.of("measure"))
        self.pulse = Pulse("b", steps, clock, [self.beating(name) for name in names])
        monkeypatch.setattr(module, "pulse", self.ask)

    def beating(self, name: str) -> Beating:
        take_over = self.notes.of(f"{name} takes over")
        recovery: Any = a(cell=a(name=name, ledger=a(keys=name)), take_over=take_over)
        return Beating(Life(), recovery, lambda: name in self.served)

    async def ask(self, _: Any, bridge: str, cells: list[str], *, is_renewal: bool) -> list[Any]:
        self.notes.append(("ask", *cells))
        self.renewed = is_renewal
        if refused := self.refusals & set(cells):
            raise ResponseError(f"no rights on {min(refused)}")
        return [self.replies[name] for name in cells]

    def life(self, name: str) -> Life:
        return next(c.life for c in self.pulse.cells if c.name == name)


async def test_the_watchdog_supervises_the_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = Notes()
    monkeypatch.setattr(watchdog, "process", a(keep_beating=beats.of("beat")))
    site = Site(monkeypatch)
    await site.pulse.run()
    ((name, beat, more),) = beats.given("beat")
    assert (name, beat) == ("heartbeat the Redis", site.pulse.beat)
    assert more["every_s"] == EVERY_S
    assert more["is_down"]() is False
    site.pulse.steps.is_down = True  # type: ignore[misc]
    assert more["is_down"]() is True


async def test_a_quiet_cell_has_every_second_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    site.replies["OI"] = QUIET
    for _ in range(3):
        await site.pulse.beat()
    asked = [note[1:] for note in site.notes if note[0] == "ask"]
    assert asked == [("TIM", "OI"), ("TIM",), ("TIM", "OI")]
    assert (site.life("TIM").is_quiet, site.life("OI").is_quiet) == (False, True)
    assert site.notes.names.count("measure") == 3


async def test_the_first_pulse_renews_the_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, "TIM")
    renewed = []
    for _ in range(2):
        await site.pulse.beat()
        renewed.append(site.renewed)
    assert renewed == [True, False]


async def test_a_cell_that_ends_has_no_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    site.served = {"OI"}
    await site.pulse.beat()
    assert ("ask", "OI") in site.notes
    assert not site.life("TIM").is_known


async def test_a_refused_cell_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    await site.pulse.beat()
    site.refusals = {"TIM"}
    for _ in range(2):
        await site.pulse.beat()
    assert site.notes[-3:] == [("ask", "TIM", "OI"), ("ask", "TIM"), ("ask", "OI")]
    assert (site.life("TIM").is_known, site.life("OI").is_known) == (False, True)
    assert caplog.messages == [REFUSED], "once in a while"
    said = vars(caplog.records[0])
    assert (said["cell"], said["part"], said["error"]) == ("TIM", "heartbeat", "no rights on TIM")


async def test_a_server_that_refuses_everything_ends_no_pulse(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    await site.pulse.beat()
    clock: Any = site.pulse.clock
    clock.measure = site.notes.of("measure", AuthenticationError("WRONGPASS"))
    await site.pulse.beat()
    assert [site.life(name).is_known for name in ("TIM", "OI")] == [False, False]
    assert [vars(record)["cell"] for record in caplog.records] == ["TIM", "OI"]
    assert caplog.messages == [REFUSED] * 2


async def test_a_cell_with_a_garbage_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    site.replies["TIM"] = ResponseError("WRONGTYPE")
    await site.pulse.beat()
    assert (site.life("TIM").is_known, site.life("OI").is_known) == (False, True)
    assert [vars(record)["cell"] for record in caplog.records] == ["TIM"]


async def test_a_pulse_takes_over_from_dead_bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, "TIM", "OI")
    site.replies["OI"] = Pulsed(is_quiet=True, can_take_over=True)
    await site.pulse.beat()
    assert site.notes.names[-1] == "OI takes over"
    assert "TIM takes over" not in site.notes.names


async def test_a_refused_takeover_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(monkeypatch, "TIM")
    site.replies["TIM"] = Pulsed(is_quiet=True, can_take_over=True)
    recovery: Any = site.pulse.cells[0].recovery
    recovery.take_over = site.notes.of("take over", ResponseError("no rights"))
    await site.pulse.beat()
    assert caplog.messages == [REFUSED]
    assert not site.life("TIM").is_known
