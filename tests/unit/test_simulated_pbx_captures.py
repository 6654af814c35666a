"""The simulated PBX compared with captures of real Asterisk: the same recorder runs both.

Compared is every header's name, place and value, save what no two recordings share (times,
sequence numbers) and what the lab's own dialplan does. Asterisk tells a call from several
threads, which mix differently in each recording; so compared is the order of what each of
them tells: one channel's events, its dialling, the Originate's last word, the answers.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Literal

import pytest

from dialer.simulation.pbx.server import SimulatedPbx
from tests.captures import record

CAPTURES = Path(record.__file__).parent
VERSIONS: tuple[Literal["16", "22"], ...] = ("16", "22")
NEEDS_THE_LABS_CONFIGURATION = {
    "originate_error",
    "no_channel",
    "extension_missing",
    *(name for name in record.SCENARIOS if name.startswith(("queue_", "forwarded_"))),
}
SCENARIOS = sorted({*record.SCENARIOS, "wrong_secret"} - NEEDS_THE_LABS_CONFIGURATION)

Message = tuple[tuple[str, str], ...]

VARIES = re.compile(
    r"Timestamp|Uptime|LastReload|Core\w+(Date|Time)|CoreProcessedCalls|Duration"
    r"|Application|ApplicationData"
)
STATE = re.compile(r"ChannelState(Desc)?$")
DIALPLAN_PLACE = re.compile(r"Context|Exten|Priority")


def messages(path: Path) -> list[Message]:
    banner, _, text = path.read_bytes().decode().partition("\r\n")
    blocks = [block for block in text.split("\r\n\r\n") if block]
    return [(("Banner", banner),), *(comparable(block) for block in blocks)]


def comparable(block: str) -> Message:
    pairs = [(name, value) for name, _, value in (x.partition(": ") for x in block.split("\r\n"))]
    headers = dict(pairs)
    is_far_half = headers.get("Channel", "").endswith(";2")
    in_lab_dialplan = headers.get("ChannelState") == "6" or is_far_half
    if is_far_half or headers.get("Event") == "DialState":
        # Before one thread sends its event, another may have changed the channel.
        pairs = [(name, "*" if STATE.search(name) else value) for name, value in pairs]
    return tuple((name, masked(name, value, in_lab_dialplan)) for name, value in pairs)


def masked(name: str, value: str, in_lab_dialplan: bool) -> str:
    if VARIES.fullmatch(name) or (in_lab_dialplan and DIALPLAN_PLACE.fullmatch(name)):
        return "*"
    value = re.sub(r"-[0-9a-f]{8}(?=$|;)", "-N", value)
    return re.sub(r"\d{9,}\.\d{3}", "T", value)


def told_by(message: Message) -> str:
    """The Asterisk thread that sends this event."""
    headers = dict(message)
    event = headers.get("Event", "")
    if event.startswith("Dial"):
        return f"dialling {headers['DestChannel']}"
    if event == "OriginateResponse":
        return event
    return headers.get("Channel", "answers") if headers.get("Privilege") else "answers"


def by_thread(told: list[Message]) -> dict[str, list[Message]]:
    threads: dict[str, list[Message]] = {}
    for message in told:
        threads.setdefault(told_by(message), []).append(message)
    # Two threads change a Local channel's far half.
    return {name: sorted(t) if name.endswith(";2") else t for name, t in threads.items()}


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of every scenario on simulated PBXs of both versions, run in parallel."""
    folder = tmp_path_factory.mktemp("replayed")

    async def play(version: Literal["16", "22"], scenario: str) -> None:
        pbx = SimulatedPbx(
            version=version,
            secret=record.SECRET,
            ring_time=(0.05, 0.05),
            talk_time=(0.2, 0.2),
            read="system,call,user",
        )
        async with pbx:
            # The recorder reads its port before its first await.
            record.PORTS[f"asterisk{version}"] = pbx.port
            await record.record(f"asterisk{version}", scenario)

    async def play_all() -> None:
        await asyncio.gather(*(play(v, scenario) for v in VERSIONS for scenario in SCENARIOS))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "HERE", folder)
        patch.setattr(record, "PORTS", dict(record.PORTS))
        patch.setattr(record, "QUIET_S", 0.1)
        asyncio.run(play_all())
    return folder


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_simulation_sends_what_asterisk_sent(replayed: Path, version: str, scenario: str) -> None:
    place = Path(f"asterisk{version}") / f"{scenario}.ami"
    simulated, real = messages(replayed / place), messages(CAPTURES / place)
    assert by_thread(simulated) == by_thread(real)


def test_simulation_sends_no_header_unknown_to_asterisk(
    replayed: Path,
) -> None:
    for version in VERSIONS:
        known = {shape(m) for p in (CAPTURES / f"asterisk{version}").iterdir() for m in messages(p)}
        for path in (replayed / f"asterisk{version}").iterdir():
            assert {shape(message) for message in messages(path)} <= known


def shape(message: Message) -> tuple[str, ...]:
    event = dict(message).get("Event", "")
    return (event, *(name for name, _ in message))
