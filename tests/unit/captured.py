"""What the tests read out of the captures: one recorded connection, message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Version = Literal["16", "22"]

VERSIONS: tuple[Version, ...] = ("16", "22")
FOLDER = Path(__file__).resolve().parents[1] / "captures"
CALL_ID = "ASR_TIM:1001"
UNIQUEID = "asr-tim.iavsbj64m5n3nyxbt4x4"


def raw(version: Version, scenario: str) -> bytes:
    """All that Asterisk said, as it came."""
    return (FOLDER / f"asterisk{version}" / f"{scenario}.ami").read_bytes()


def messages(version: Version, scenario: str) -> list[dict[str, str]]:
    """The headers of each message; of a repeated header the first."""
    parsed = []
    for block in raw(version, scenario).decode().split("\r\n\r\n"):
        headers: dict[str, str] = {}
        for line in block.split("\r\n"):
            name, colon, value = line.partition(": ")
            if colon:
                headers.setdefault(name, value)
        parsed.append(headers)
    return parsed


def scenarios() -> list[str]:
    """The names of all scenarios, which both versions have."""
    names = [{path.stem for path in (FOLDER / f"asterisk{v}").glob("*.ami")} for v in VERSIONS]
    assert names[0] == names[1]
    return sorted(names[0])
