"""What operators do with refused elements: correct one and send it again, or discard it.

Multcall got a Response for the refused request, so the corrected one has a new id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dialer.errors import ConfigError, DialerError, InvalidRequest
from dialer.multcall.correct import corrected, id_of, next_id, typed_value, with_id
from dialer.multcall.identity import readable_id
from dialer.multcall.report import report_of_request
from dialer.multcall.wire import Wire
from dialer.settings import Cell, Settings
from dialer.store.ledger import DeadEntry, DeadList, Replacement
from dialer.store.steps import redis_time

#: New ids that are tried for one element.
IDS_TRIED: Final = 1_000

#: Newest entries among which one is sought by its reason or name, so that a long list costs little.
SOUGHT_AMONG: Final = 10_000


class StillWrong(DialerError):
    """The corrected element would be refused again; the sentence has every problem."""

    code = "still_wrong"


class SentBefore(StillWrong):
    """An entry with the same text was sent again already: its number would ring twice.

    `request_id` is the id that the other one has now. `cure`: how it is sent nevertheless.
    """

    code = "sent_before"

    def __init__(self, request_id: str, cure: str) -> None:
        super().__init__(
            f"one like it was sent again as {request_id}: discard this one; its number may ring "
            f"again: {cure}"
        )
        self.request_id = request_id


class Handled(DialerError):
    """Somebody else sent the entry again, or discarded it."""

    code = "handled"


HANDLED: Final = "somebody else sent or discarded it already"

#: Fields that no two requests have alike, by our names.
_OF_ONE_CALL: Final = ("IdRequisicao", "Telefone")

#: Entries with these reasons may have been dialed: the same id before, or a call of the ledger.
MAY_HAVE_RUNG: Final = frozenset({"duplicate_request", "internal_error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What to change in an element: JSON text by field name, None takes the field out.

    `element` replaces the whole element, if it is not None. `may_ring_again`: send it also if its
    number may have been rung for it already; if `sent_before` is not None, only if it has the ids
    of all that were sent again and have the same text.
    """

    changes: Mapping[str, str | None]
    element: bytes | None = None
    why: str = ""
    may_ring_again: bool = False
    sent_before: Collection[str] | None = None


def changes_in(pairs: Iterable[str], wire: Wire) -> dict[str, str | None]:
    """Return the changes that a person typed as FIELD=VALUE, for a `Correction`.

    Raises:
        ConfigError: one has no `=`.
        InvalidRequest: a value begins like JSON and is none.
    """
    found: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, typed = pair.partition("=")
        if not name or not equals:
            raise ConfigError(f"a change is FIELD=VALUE, not {pair}")
        found[name] = typed_value(name, typed, wire) if typed else None
    return found


def require_for_many(changes: Iterable[str], wire: Wire) -> None:
    """Check that several elements may get these fields with the same values.

    Raises:
        ConfigError: no two requests have one of them alike.
    """
    alike = {wire.fields.name(name) for name in _OF_ONE_CALL} & {*changes}
    if alike:
        raise ConfigError(f"{min(alike)} is for one entry: all would get the same")


@dataclass(frozen=True, slots=True)
class DeadElements:
    """Operations of one person, `by`, on the dead list of one cell of these settings."""

    dead: DeadList
    settings: Settings
    cell: Cell
    by: str

    async def send(self, entry: DeadEntry, correction: Correction) -> str:
        """Send an entry again, corrected; return the id that the request has now.

        Raises:
            StillWrong: it would be refused, or is no request.
            SentBefore: one like it was sent again, and nobody said that it may ring again.
            Handled: somebody else was faster. Nothing is changed then.
        """
        if entry.source != "request":
            raise StillWrong("a CODLIGACAO cannot be sent again")
        if entry.reason in MAY_HAVE_RUNG and not correction.may_ring_again:
            raise StillWrong(
                f"its number may have been rung already ({entry.reason}): look at the call, and "
                "use --may-ring-again if it is to be rung (again)"
            )
        element = self._element(entry, correction)
        wire = self.settings.multcall.wire
        old = id_of(readable_id(entry.raw, wire)) or ""
        given = id_of(readable_id(element, wire)) or ""
        base = await self._base(old or given or entry.name)
        at = await self._now()
        for n in range(IDS_TRIED):
            is_new = n == 0 and given and given != old
            request_id = given if is_new else next_id(base, max(1, n))
            if request_id == old:
                continue
            sent = element if is_new else with_id(element, request_id, wire)
            self._require_right(sent)
            link = Replacement(
                replaces=old, by=self.by, at=at, entry=entry.name, why=correction.why
            )
            match await self.dead.send(entry, sent, request_id=request_id, link=link):
                case "sent":
                    return request_id
                case "gone":
                    raise Handled(HANDLED)
                case "used":
                    await self._require_first(entry, request_id, correction)
                    if is_new:
                        raise StillWrong(f"the id {request_id} was used already: give another one")
        raise StillWrong(f"no id of {base} is free; give one with IdRequisicao=ID")

    async def _require_first(
        self, entry: DeadEntry, request_id: str, correction: Correction
    ) -> None:
        """Check that the request of that id is not one like this entry, or may ring again.

        Raises:
            SentBefore: it is.
            Handled: it is this entry itself.
        """
        link = await self.dead.replaced_by(request_id)
        if link is None or link.entry != entry.name:
            return
        known = correction.sent_before
        if correction.may_ring_again and (known is None or request_id in known):
            return
        if await self.dead.newest(1, names=[entry.name], among=SOUGHT_AMONG):
            raise SentBefore(request_id, "use --may-ring-again if it is to")
        raise Handled(HANDLED)

    async def _base(self, request_id: str) -> str:
        """Return the id that the new ones are made of: that of the first element of a chain."""
        if (link := await self.dead.replaced_by(request_id)) is not None and link.replaces:
            return await self._base(link.replaces) if link.replaces != request_id else request_id
        return request_id

    async def discard(self, entries: list[DeadEntry], why: str) -> int:
        """Take entries out for good; return how many were still there."""
        return await self.dead.discard(entries, by=self.by, at=await self._now(), why=why)

    def _element(self, entry: DeadEntry, correction: Correction) -> bytes:
        raw = entry.raw if correction.element is None else correction.element
        try:
            return corrected(raw, correction.changes, self.settings.multcall.wire)
        except InvalidRequest as error:
            raise StillWrong(str(error)) from None

    def problems(self, element: bytes) -> tuple[str, ...]:
        """Return why the bridge would refuse an element, nothing if it would take it."""
        trunks = [self.settings.pbx(name).trunks for name in self.cell.pbxs]
        return report_of_request(
            element,
            self.settings.multcall.wire,
            cell=self.cell.name,
            allowed=self.cell.allowed,
            trunks=frozenset[str]().union(*trunks),
        ).problems

    def _require_right(self, element: bytes) -> None:
        """Raise `StillWrong` if the bridge would refuse the element."""
        if problems := self.problems(element):
            raise StillWrong(f"it would be refused again: {'; '.join(problems)}")

    async def _now(self) -> str:
        now = datetime.fromtimestamp(await redis_time(self.dead.steps), UTC)
        return now.isoformat(timespec="milliseconds")
