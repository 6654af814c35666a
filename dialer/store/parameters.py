"""Live parameters in the registry's Redis, with their audit trail, and the watch for new ones."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError

from dialer.domain.parameters import Change, Edit, Parameters, Setting, Subject
from dialer.errors import DialerError
from dialer.store import keys
from dialer.store.entry import pairs
from dialer.store.steps import Arg, Steps

logger = logging.getLogger(__name__)

#: The version is looked at this often, in seconds: a change is in force everywhere within a second.
LOOK_EVERY_S: Final = 0.4

#: Pause after Redis refused to tell the version, in seconds.
REFUSED_PAUSE_S: Final = 5.0


#: Longest reason of a change, in characters.
WHY_AT_MOST: Final = 200


class AnotherCameFirst(DialerError):
    """Somebody else changed live parameters at the same moment: look at them, and try again."""

    code = "another_came_first"


@dataclass(frozen=True, slots=True)
class ParameterStore:
    """The live parameters. `steps` are those of the registry's Redis."""

    steps: Steps

    async def read(self) -> Parameters:
        """Return all live parameters. What is no live parameter of ours is ignored, with a log."""
        version, *flat = await self.steps.run("parameters", [keys.PARAMETERS, keys.CHANGES])
        found: dict[Subject, dict[str, Setting]] = {}
        ended: dict[Subject, dict[str, tuple[int, int]]] = {}
        for raw_name, raw in pairs(flat).items():
            if raw_name == b"version":
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
        return Parameters(version=int(version), of=found, ended=ended)

    async def mark(self) -> bytes:
        """Return what differs after each change; cheap."""
        return await self.steps.read("HGET", keys.PARAMETERS, "version") or b""

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

    async def restore(self, remembered: Parameters) -> bool:
        """Restore the parameters of a Redis that lost its last writes; false if it has them."""
        args: list[Arg] = [remembered.version]
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

    `news` says for the log what the last reading changed, and who did it.
    Belongs to one event loop.
    """

    store: ParameterStore
    parameters: Parameters = field(default_factory=Parameters)
    news: Sequence[str] = ()
    _mark: bytes | None = None

    async def look(self) -> bool:
        """Read the parameters if they differ; return true if they did."""
        mark = await self.store.mark()
        if mark == self._mark:
            return False
        found = await self.store.read()
        if found.version < self.parameters.version and await self.store.restore(self.parameters):
            logger.error(
                "Redis had lost live parameters; they are restored, but not their audit trail",
                extra={"version": self.parameters.version, "found": found.version},
            )
            mark, found = await self.store.mark(), await self.store.read()
        if self._mark is not None:
            self.news = [*_news(found, self.parameters.version)]
        self.parameters, self._mark = found, mark
        return True

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


def _change(raw_id: bytes, flat: Sequence[bytes]) -> Change | None:
    try:
        stored = pairs(flat)
        about: Mapping[str, Any] = json.loads(stored[b"change"])
        return Change(
            number=int(raw_id.partition(b"-")[0]),
            at_ms=int(stored[b"at_ms"]),
            subject=Subject(about["kind"], str(about["name"])),
            edits=[Edit(**edit) for edit in about["edits"]],
            by=one_line(about["by"]),
            why=one_line(about.get("why", "")),
            undoes=int(about.get("undoes", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
