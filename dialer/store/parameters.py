"""Live parameters in the registry's Redis, with their audit trail, and the watch for new ones."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from dialer.domain.parameters import Change, Edit, Parameters, Setting, Subject
from dialer.errors import DialerError, StoreUnfit
from dialer.store import keys
from dialer.store.entry import pairs
from dialer.store.steps import Arg, Steps

logger = logging.getLogger(__name__)

#: The version is looked at this often, in seconds: a change is in force everywhere within a second.
LOOK_EVERY_S: Final = 0.4

#: Pause after Redis refused to tell the version, in seconds.
REFUSED_PAUSE_S: Final = 5.0

#: Fields of the hash that are no live parameters.
_OWN_FIELDS: Final = frozenset({b"version", b"mark"})

#: Numbers of changes and times, ms, until the year 5138. What is greater is not ours.
_NUMBER: Final = re.compile(r"[0-9]{1,14}")

#: Longest reason of a change, in characters.
WHY_AT_MOST: Final = 200


class AnotherCameFirst(DialerError):
    """Somebody else changed live parameters at the same moment: look at them, and try again."""

    code = "another_came_first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was read: `mark` is that of the last change, `is_lost`: a known change is lost."""

    parameters: Parameters
    mark: str
    is_lost: bool


@dataclass(frozen=True, slots=True)
class ParameterStore:
    """The live parameters. `steps` are those of the registry's Redis."""

    steps: Steps

    async def read(self) -> Parameters:
        """Return all live parameters. What is no live parameter of ours is ignored, with a log."""
        return (await self.look("")).parameters

    async def look(self, known: str) -> Looked:
        """Return all live parameters, and whether Redis lost the change with the mark `known`."""
        reply = await self.steps.run("parameters", [keys.PARAMETERS, keys.CHANGES], [known])
        version, is_lost, *flat = reply
        fields = pairs(flat)
        mark = fields.get(b"mark", b"").decode(errors="replace")
        parameters = self._parameters(int(version), fields)
        return Looked(parameters=parameters, mark=mark, is_lost=bool(is_lost))

    def _parameters(self, version: int, fields: Mapping[bytes, bytes]) -> Parameters:
        found: dict[Subject, dict[str, Setting]] = {}
        ended: dict[Subject, dict[str, tuple[int, int]]] = {}
        for raw_name, raw in fields.items():
            if raw_name in _OWN_FIELDS:
                continue
            read = _read(raw_name, raw)
            if read is None:
                name = raw_name.decode(errors="replace")
                logger.warning("A live parameter cannot be read; ignored", extra={"field": name})
                continue
            subject, name, stored = read
            if isinstance(stored, Setting):
                found.setdefault(subject, {})[name] = stored
            else:
                ended.setdefault(subject, {})[name] = stored
        return Parameters(version=version, of=found, ended=ended)

    async def mark(self) -> bytes:
        """Return what differs after each change; cheap."""
        try:
            return await self.steps.read("HGET", keys.PARAMETERS, "mark") or b""
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return b""  # as if there were none; the next change deletes it

    async def change(
        self,
        subject: Subject,
        edits: Sequence[Edit],
        *,
        version: int,
        by: str,
        why: str = "",
        undoes: int = 0,
    ) -> int:
        """Make a change, and return its number. It is in force everywhere within a second.

        Args:
            subject: the cell or PBX.
            edits: what changes.
            version: that of the parameters for which the edits were made.
            by: who makes it.
            why: the reason, for the audit trail.
            undoes: number of the change that this one undoes, 0 if none.

        Raises:
            AnotherCameFirst: the version is not the present one any longer.
        """
        about: dict[str, Any] = {"kind": subject.kind, "name": subject.name, "by": by}
        about |= {"why": why} if why else {}
        about |= {"undoes": undoes} if undoes else {}
        args: list[Arg] = [secrets.token_hex(8), version, keys.CHANGES_KEPT]
        args.append(json.dumps({**about, "edits": [asdict(edit) for edit in edits]}))
        for edit in edits:
            args.append(f"{subject.kind}:{subject.name}:{edit.name}")
            args.append(_stored(edit.new, by, why) if edit.is_live else "")
        is_made, number = await self.steps.run("change", [keys.PARAMETERS, keys.CHANGES], args)
        if not is_made:
            raise AnotherCameFirst(
                "somebody else changed live parameters at the same moment: look at them, and try "
                "again"
            )
        return int(number)

    async def restore(self, remembered: Parameters, mark: str) -> bool:
        """Restore the parameters of a Redis that lost its last writes; false if it has them.

        `mark` is that of the last change that is remembered.
        """
        args: list[Arg] = [mark, remembered.version, secrets.token_hex(8)]
        for subject, settings in remembered.of.items():
            for name, one in settings.items():
                args += [f"{subject.kind}:{subject.name}:{name}", one.at_ms]
                args.append(f"{one.change} {one.at_ms} {_stored(one.value, one.by, one.why)}")
        for subject, values in remembered.ended.items():
            for name, (change, at_ms) in values.items():
                args += [f"{subject.kind}:{subject.name}:{name}", at_ms, f"{change} {at_ms} "]
        names = [keys.PARAMETERS, keys.CHANGES]
        return bool(await self.steps.run("restore_parameters", names, args))

    async def changes(self, *, at_most: int, below: int = 0) -> list[Change]:
        """Return the newest changes, the last one first; with `below`, those before that number."""
        upper = f"{below - 1}-0" if below else "+"
        rows = await self.steps.run("changes", [keys.CHANGES], [upper, "-", at_most])
        return [change for row in rows if (change := _change(*row)) is not None]

    async def change_at(self, number: int) -> Change | None:
        """Return the change of that number; None if there is none, or it is too old."""
        rows = await self.steps.run("changes", [keys.CHANGES], [f"{number}-0", f"{number}-0", 1])
        return _change(*rows[0]) if rows else None


@dataclass(slots=True)
class Watch:
    """The live parameters as last read. While Redis is away, these stay in force.

    `news` says for the log what the last reading changed, and who did it. `restores`: if Redis has
    lost changes, they are restored from memory. Belongs to one event loop.
    """

    store: ParameterStore
    restores: bool = True
    parameters: Parameters = field(default_factory=Parameters)
    news: Sequence[str] = ()
    _mark: bytes | None = None

    async def begin(self) -> None:
        """Read the parameters before anything is dialed: a cell may be paused.

        Raises:
            StoreUnfit: Redis refuses to tell them.
        """
        try:
            await self.look()
        except RedisError as error:
            raise StoreUnfit(f"the registry's Redis refuses a command: {error}") from error

    async def look(self) -> bool:
        """Read the parameters if they differ; return true if they did."""
        mark = await self.store.mark()
        if mark == self._mark:
            return False
        known = (self._mark or b"").decode(errors="replace")
        looked = await self.store.look(known)
        if looked.is_lost and self.restores and await self.store.restore(self.parameters, known):
            logger.error(
                "Redis had lost live parameters; they are restored, but not their audit trail",
                extra={"change": self.parameters.version, "found": looked.parameters.version},
            )
            looked = await self.store.look("")
        if self._mark is not None:
            self.news = [*_news(looked.parameters, self.parameters.version)]
        self.parameters, self._mark = looked.parameters, looked.mark.encode()
        return True

    def take_over(self, other: Watch) -> None:
        """Know what another watch of the same Redis knows, if it has looked later."""
        if other.parameters.version > self.parameters.version:
            self.parameters, self.news, self._mark = other.parameters, other.news, other._mark

    async def run(self, on_change: Callable[[Parameters], None]) -> None:
        """Call `on_change` whenever they differ, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if await self.look():
                    on_change(self.parameters)
            except RedisError as error:
                logger.error(  # noqa: TRY400  # needs no traceback
                    "Redis refused a command; trying again",
                    extra={
                        "redis": "the registry's Redis",
                        "part": "live parameters",
                        "error": str(error),
                    },
                )
                await asyncio.sleep(REFUSED_PAUSE_S)


def _news(found: Parameters, version: int) -> Iterator[str]:
    for subject, settings in found.of.items():
        for name, one in settings.items():
            if one.change > version:
                yield f"{name} of {subject} = {json.dumps(one.value)} by {one.by}"
    for subject, values in found.ended.items():
        for name, (change, _) in values.items():
            if change > version:
                yield f"{name} of {subject} as in dialer.toml"


def _stored(value: Any, by: str, why: str) -> str:
    return json.dumps({"value": value, "by": by, "why": why})


def one_line(text: object) -> str:
    """Return a text of another program as one line for a terminal: no control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))[:WHY_AT_MOST]


def _read(raw_name: bytes, raw: bytes) -> tuple[Subject, str, Setting | tuple[int, int]] | None:
    """Return the subject, the name and the live value, or when it ended; None if it is not ours."""
    try:
        kind, subject, name = raw_name.decode().split(":")
        change, at_ms, text = raw.decode().split(" ", 2)
        if not (_NUMBER.fullmatch(change) and _NUMBER.fullmatch(at_ms) and _is_plain(name)):
            return None
        stored: Setting | tuple[int, int] = (int(change), int(at_ms))
        if text:
            about = json.loads(text)
            stored = Setting(
                value=about["value"],
                change=int(change),
                at_ms=int(at_ms),
                by=one_line(about["by"]),
                why=one_line(about.get("why", "")),
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if kind == "cell":
        return Subject("cell", subject), name, stored
    return (Subject("pbx", subject), name, stored) if kind == "pbx" else None


def _is_plain(name: str) -> bool:
    """True if a name is safe to print."""
    return name.isprintable() and len(name) <= WHY_AT_MOST


def _change(raw_id: bytes, flat: Sequence[bytes]) -> Change | None:
    """Return a change of the trail, None if it is not ours."""
    try:
        number, _, _ = raw_id.decode().partition("-")
        stored = {name.decode(): value.decode() for name, value in pairs(flat).items()}
        about: Mapping[str, Any] = json.loads(stored["change"])
        kind, name, at_ms = about["kind"], str(about["name"]), stored["at_ms"]
        edits = [Edit(**edit) for edit in about["edits"]]
        names = [name, *(edit.name for edit in edits)]
        numbers = [_NUMBER.fullmatch(text) for text in (number, at_ms)]
        if kind not in ("cell", "pbx") or not all([*numbers, *map(_is_plain, names)]):
            return None
        return Change(
            number=int(number),
            at_ms=int(at_ms),
            subject=Subject("cell" if kind == "cell" else "pbx", name),
            edits=edits,
            by=one_line(about["by"]),
            why=one_line(about.get("why", "")),
            undoes=int(about.get("undoes", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
