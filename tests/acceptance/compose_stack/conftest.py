"""docker-compose.yml, up for the tests of this folder and down after the last of them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.acceptance.compose_stack.compose import ComposeSite
from tests.acceptance.lab.lab import Lab

#: What the tests add to the settings that we ship: room for a load, and a cell of each kind.
MORE_CELLS = """
[[cells]]
nome = "SHORT"
threads = 400
pbxs = ["pbx01", "pbx02"]
context = "ura-aviso"
exten = "t"

[[cells]]
nome = "QUEUE22"
threads = 10
pbxs = ["pbx01"]
queue = "COBRANCA"
amd = "hangup"

[[cells]]
nome = "QUEUE16"
threads = 10
pbxs = ["pbx02"]
queue = "COBRANCA"
amd = "hangup"

[[cells]]
nome = "PASS22"
threads = 10
pbxs = ["pbx01"]
queue = "COBRANCA"
amd = "pass"

[[cells]]
nome = "PASS16"
threads = 10
pbxs = ["pbx02"]
queue = "COBRANCA"
amd = "pass"

[[cells]]
nome = "NOTICE22"
threads = 10
pbxs = ["pbx01"]
context = "ura-aviso"
amd = "message"
amd_message = "/etc/asterisk/site/sounds/recado"

[[cells]]
nome = "NOTICE16"
threads = 10
pbxs = ["pbx02"]
context = "ura-aviso"
amd = "message"
amd_message = "/etc/asterisk/site/sounds/recado"
"""
MORE_ROOM = {
    "max_calls = 40\ncps = 10\n": "max_calls = 200\ncps = 60\n",
    "max_calls = 20\ncps = 5\n": "max_calls = 100\ncps = 30\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What `docker compose --profile demo up` showed, as it is shipped. Times in seconds."""

    up_s: float
    calls_s: float
    said: str

    @property
    def pbxs(self) -> set[str]:
        """The PBXs that Multcall heard of."""
        return {pbx for pbx, calls in re.findall(r"(pbx\d+) (\d+)", self.said) if int(calls)}


@pytest.fixture(scope="package")
def shown_stack(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shown, ComposeSite]]:
    """The stack as it is shipped, started, until calls have come back from both PBXs."""
    stack = ComposeSite(tmp_path_factory.mktemp("compose"))
    began = time.monotonic()
    try:
        stack.down()  # what a run that was killed left: its calls would be those of this one
        up_s = stack.up()
        said = ""

        def both_pbxs_answered() -> bool:
            nonlocal said
            said = stack.logs("multcall", lines=1).strip().rpartition("| ")[2]
            return "pbx01" in said and "pbx02" in said

        stack.wait_until(both_pbxs_answered, "calls have come back from both PBXs", 120.0)
        yield Shown(up_s=up_s, calls_s=time.monotonic() - began, said=said), stack
    finally:
        stack.down()


@pytest.fixture(scope="package")
def shown(shown_stack: tuple[Shown, ComposeSite]) -> Shown:
    """What was seen when the stack came up."""
    return shown_stack[0]


@pytest.fixture(scope="package")
def stack(shown_stack: tuple[Shown, ComposeSite]) -> ComposeSite:
    """The stack without its own Multcall, with the tests' cells and more room."""
    _, stack = shown_stack
    stack.compose("--profile", "demo", "stop", "multcall")
    settings = stack.toml.read_text(encoding="utf-8")
    for shipped, roomy in MORE_ROOM.items():
        assert shipped in settings
        settings = settings.replace(shipped, roomy)
    stack.toml.write_text(settings + MORE_CELLS, encoding="utf-8")
    stack.reread()
    stack.compose("restart", "worker-pbx01", "worker-pbx02")
    for pbx in ("pbx01", "pbx02"):
        stack.wait_link(pbx, "up")
    return stack
