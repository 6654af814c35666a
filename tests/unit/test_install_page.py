"""docs/install.md as the acceptance test reads it, and where it points to."""

from __future__ import annotations

import re

from tests.acceptance.lab.install_page import PAGE, Step, sections


def test_every_link_of_the_page_leads_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in sections()}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not _is_there(link, headings)] == []


def test_what_is_to_be_seen_is_found_whatever_the_spaces_and_what_is_not_is_told() -> None:
    step = Step(script="ls", seen=("a … c", "x.y"))
    assert step.missing("-\n a   b\tc x.y\n") == []
    assert step.missing("a b x-y") == ["a … c", "x.y"]


def test_commands_that_the_next_block_builds_on_are_kept() -> None:
    step = Step(script="cd /tmp\nls\nexport A=b\n")
    assert step.lasting == "cd /tmp\nexport A=b"


def test_nothing_is_fetched_but_what_the_page_installs() -> None:
    scripts = [step.script for steps in sections().values() for step in steps]
    assert len(scripts) > 10
    assert not [script for script in scripts if re.search(r"^(git|apt)", script, re.MULTILINE)]


def _is_there(link: str, headings: set[str]) -> bool:
    if link.startswith("#"):
        return link[1:] in headings
    return (PAGE.parent / link.partition("#")[0]).exists()
