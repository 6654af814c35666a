"""docs/install.md as the acceptance test reads it, and its links."""

from __future__ import annotations

import re

from tests.acceptance.lab.install_page import PAGE, Step, sections


def test_every_link_of_the_page_works() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in sections()}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not _is_there(link, headings)] == []


def test_expected_output_ignores_spaces() -> None:
    step = Step(script="ls", seen=("a … c", "x.y"))
    assert step.missing("-\n a   b\tc x.y\n") == []
    assert step.missing("a b x-y") == ["a … c", "x.y"]


def test_commands_needed_by_the_next_block_are_kept() -> None:
    step = Step(script="cd /tmp\nls\nexport A=b\n")
    assert step.lasting == "cd /tmp\nexport A=b"


def test_page_downloads_only_what_it_installs() -> None:
    scripts = [step.script for steps in sections().values() for step in steps]
    assert len(scripts) > 10
    assert not [script for script in scripts if re.search(r"^(git|apt)", script, re.MULTILINE)]


def _is_there(link: str, headings: set[str]) -> bool:
    if link.startswith("#"):
        return link[1:] in headings
    return (PAGE.parent / link.partition("#")[0]).exists()
