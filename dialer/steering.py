"""Change live parameters: the operations behind the commands, and what they answer.

Each operation checks the values, makes one change, and records it in the audit trail. Two people
who change different things at the same moment both succeed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dialer.domain.parameters import (
    OF_FILE,
    STATES,
    Edit,
    Parameters,
    Subject,
    Wanted,
    undoing,
)
from dialer.errors import DialerError
from dialer.settings import Settings
from dialer.settings.live import edits
from dialer.settings.typed import shown, value_words
from dialer.store.parameters import WHY_AT_MOST, AnotherCameFirst, ParameterStore, one_line

#: A change is tried again so many times if others come first.
TRIES: Final = 20


class NoSuchChange(DialerError):
    """There is no change of that number; `dialer changes` lists them."""

    code = "no_such_change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What an operation did. `number` is that of its change, 0 if all was as wanted already."""

    number: int
    subject: Subject
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Operations of one person. `file` are the settings of `dialer.toml`, `by` says who it is."""

    store: ParameterStore
    file: Settings
    by: str

    async def require(self, subjects: Iterable[Subject]) -> None:
        """Check that each is in the file, or has live values.

        Raises:
            ConfigError: one is not; the sentence says which there are.
        """
        parameters = await self.store.read()
        for one in subjects:
            if one not in parameters.of:
                self.file.cell(one.name) if one.kind == "cell" else self.file.pbx(one.name)

    async def set(self, subject: Subject, wanted: Mapping[str, Wanted], *, why: str = "") -> Made:
        """Set live values.

        Raises:
            ConfigError: there is no such cell or PBX, or a value is not valid.
            AnotherCameFirst: others make one change after the other.
        """

        async def attempt(parameters: Parameters) -> Made:
            return await self._make(parameters, subject, wanted, why=why)

        return await self._unless_others_come_first(attempt)

    async def stop(self, subject: Subject, *, why: str = "") -> Made:
        """Pause a cell, or drain a PBX: calls that are up go on, no new ones are placed."""
        return await self.set(subject, {STATES[subject.kind]: True}, why=why)

    async def resume(self, subject: Subject, *, why: str = "") -> Made:
        """End the pause of a cell, or the draining of a PBX."""
        return await self.set(subject, {STATES[subject.kind]: OF_FILE}, why=why)

    async def undo(self, number: int, *, why: str = "") -> Made:
        """Undo a change, unless a later one changed the same value.

        Raises:
            NoSuchChange: there is none of that number.
            ChangedSince: a later change changed the same value.
            ConfigError: the cell or PBX is no longer in the file, or the old value not valid.
        """
        change = await self.store.change_at(number)
        if change is None:
            raise NoSuchChange(f"there is no change {number}; `dialer changes` lists them")

        async def attempt(parameters: Parameters) -> Made:
            wanted = undoing(change, parameters)
            return await self._make(parameters, change.subject, wanted, why=why, undoes=number)

        return await self._unless_others_come_first(attempt)

    async def _unless_others_come_first(
        self, attempt: Callable[[Parameters], Awaitable[Made]]
    ) -> Made:
        """Attempt a change by the present parameters, again if others change them first."""
        left = TRIES
        while True:
            try:
                return await attempt(await self.store.read())
            except AnotherCameFirst:
                left -= 1
                if not left:
                    raise

    async def _make(
        self,
        parameters: Parameters,
        subject: Subject,
        wanted: Mapping[str, Wanted],
        *,
        why: str,
        undoes: int = 0,
    ) -> Made:
        if len(why) > WHY_AT_MOST:
            raise DialerError(f"the reason has {len(why)} characters; give at most {WHY_AT_MOST}")
        found = edits(self.file, parameters, subject, wanted)
        if not found:
            return Made(number=0, subject=subject)
        number = await self.store.change(
            subject, found, version=parameters.version, by=self.by, why=one_line(why), undoes=undoes
        )
        return Made(number=number, subject=subject, edits=tuple(found))


def words(subject: Subject, edit: Edit) -> str:
    """Return what a change did to one value, in a few words."""
    if edit.name == STATES[subject.kind]:
        return f"{subject} is {edit.name if edit.is_live else f'no longer {edit.name}'}"
    old, new = (value_words(edit.name, value) for value in (edit.old, edit.new))
    head = f"{shown(edit.name)} of {subject}"
    if edit.old == edit.new:
        now = "now a live value" if edit.is_live else "now the value of dialer.toml"
        return f"{head}: {new} as before, {now}"
    return f"{head}: {old} -> {new}" + ("" if edit.is_live else ", the value of dialer.toml")
