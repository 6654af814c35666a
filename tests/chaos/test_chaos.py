"""A short seeded run of the chaos, as CI runs it; `make chaos` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialer.store.scripts import SOURCES
from tests.acceptance.lab.lab import docker_available
from tests.chaos.faults import STEPS
from tests.chaos.run import parsed, rehearse
from tests.conftest import require_service

ARGUMENTS = "--seed 20261123 --runs 1 --faults 40 --calls 350"


def test_every_step_that_writes_is_named_in_steps() -> None:
    named = {step for steps in STEPS.values() for step in steps}
    # No fault brings these.
    elsewhere = {"restore_slots", "dnc_change", "return_parked", "destroyed", "mend"}
    elsewhere |= {
        "change",
        "changes",
        "restore_parameters",
        "survey",
        "agents",
        "dead_send",
        "dead_discard",
    }
    elsewhere |= {"users", "user_set", "user_remove", "deed", "link", "link_make"}
    elsewhere |= {"session", "session_begin", "session_end"}
    assert SOURCES.keys() - elsewhere == named - {"publish", "originate"}


@pytest.mark.chaos
@pytest.mark.timeout(280)
def test_no_call_is_lost_or_dialed_twice_whatever_is_killed(tmp_path: Path) -> None:
    require_service("Docker", docker_available())
    given = parsed([*ARGUMENTS.split(), "--folder", str(tmp_path)])
    book, _ = rehearse(given)
    said = "\n".join(book.lines())
    assert not book.is_broken, said
    assert book.calls == book.results.total() == given.calls
    assert book.times.total() >= given.faults / 2  # the calls may be over before all were made
