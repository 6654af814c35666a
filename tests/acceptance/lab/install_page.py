"""docs/install.md as a list of steps: what is to be given, and what is then to be seen.

Of the page's blocks only ```sh is run; ```bash depends on the site. A ```text block after one
is what it shows: each line, in any place of the output, with … for what differs from host to
host. A block that begins with "# terminal" goes on until it is interrupted; one that reads the
journal may be given again until it shows what is to be seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "install.md"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Nothing is fetched: the tree under test lies already where the page clones it to.
_LEFT_OUT = ("git clone ", "git pull")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One block of commands, and the lines that it is to show."""

    script: str
    seen: tuple[str, ...] = ()

    @property
    def is_terminal(self) -> bool:
        """Whether it is a program that stays in its terminal."""
        return self.script.startswith("# terminal")

    @property
    def only_looks(self) -> bool:
        """Whether it may be given any number of times."""
        return self.script.startswith("journalctl")

    @property
    def lasting(self) -> str:
        """The commands whose effect the next block finds in the same shell."""
        lines = self.script.splitlines()
        return "\n".join(line for line in lines if line.startswith(("cd ", "export ")))

    def missing(self, output: str) -> list[str]:
        """The lines that are to be seen and are not in `output`; spaces do not count."""
        shown = " ".join(output.split())
        return [line for line in self.seen if re.search(_pattern(line), shown) is None]


def sections() -> dict[str, list[Step]]:
    """The steps under each heading of the page, in its order."""
    _, *parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0]: _steps(part) for part in parts}


def _steps(text: str) -> list[Step]:
    steps: list[Step] = []
    for kind, body in _FENCE.findall(text):
        if kind == "sh":
            lines = body.splitlines(keepends=True)
            steps.append(Step(script="".join(x for x in lines if not x.startswith(_LEFT_OUT))))
        elif kind == "text" and steps:
            steps[-1] = Step(script=steps[-1].script, seen=tuple(body.splitlines()))
    return steps


def _pattern(line: str) -> str:
    return ".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
