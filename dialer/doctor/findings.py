"""What a check found, and the exit code of a list of findings. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is; also the exit code of `dialer doctor`."""

    GOOD = 0
    DOUBTFUL = 1
    WRONG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    `code` is stable, so programs may compare it. `where` names the thing that was checked. `what`
    says what was seen, `cure` what to do; a good finding has no cure.
    """

    code: str
    level: Level
    where: str
    what: str
    cure: str = ""


def good(code: str, where: str, what: str) -> Finding:
    """Return the finding of a check that found nothing wrong."""
    return Finding(code=code, level=Level.GOOD, where=where, what=what)


def doubtful(code: str, where: str, what: str, cure: str) -> Finding:
    """Return the finding of something with which the programs work, at a risk."""
    return Finding(code=code, level=Level.DOUBTFUL, where=where, what=what, cure=cure)


def wrong(code: str, where: str, what: str, cure: str) -> Finding:
    """Return the finding of something with which the programs do not work, or lose calls."""
    return Finding(code=code, level=Level.WRONG, where=where, what=what, cure=cure)


def split_sentence(sentence: str) -> tuple[str, str]:
    """Split `what happened: the cure` or `what happened; the cure` at the cure."""
    for mark in ("; ", ": "):
        what, found, cure = sentence.rpartition(mark)
        if found:
            return what, cure
    return sentence, ""


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if all is good, 1 if something is doubtful, 2 if something is wrong."""
    return max((int(finding.level) for finding in findings), default=0)
