"""Live parameters on the page of a cell or a PBX: what is in force, and the form that sets them.

The form has each value as it was when the page was made, so that only what the person changed is
set: what others change in the meantime stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from dialer.domain.parameters import Kind, Setting, Subject, Wanted
from dialer.domain.roles import Role
from dialer.errors import ConfigError, DialerError
from dialer.settings.live import TABLES, member_of, value_of, with_parameters
from dialer.settings.problems import SettingsRefused
from dialer.settings.tables import Cell, Limits
from dialer.settings.typed import KNOBS, shown, value_words, wanted
from dialer.store.parameters import WHY_AT_MOST
from dialer.web.access import Page
from dialer.web.live import LivePage
from dialer.web.live import shown as shown_page
from dialer.web.pages import steer
from dialer.web.pages.overview import when
from dialer.web.pages.steer import reason, seen_at, sentences, steered
from dialer.web.site import Site, site_of

#: Values that are one of some words.
CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "amd": get_args(Cell.model_fields["amd"].annotation),
    "limits/outside_hours": get_args(Limits.model_fields["outside_hours"].annotation),
    "governor": ("true", "false"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody typed, by knob, and why. `troubles` are sentences, `wrong` names of fields."""

    typed: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    troubles: Sequence[str] = ()
    wrong: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One parameter. `value` is in force, as an operator types it; `typed` is in the form.

    `setting` says who set it; None: it is the value of dialer.toml. `choices` are all its values,
    none if it is no choice.
    """

    name: str
    value: str
    typed: str
    setting: Setting | None
    at: datetime | None
    choices: Sequence[str]
    is_wrong: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a page shows of live parameters. `invalid`: live values that are not in force."""

    subject: Subject
    rows: Sequence[Row]
    invalid: Sequence[str]
    attempt: Attempt
    why_at_most: int = WHY_AT_MOST


NO_ATTEMPT: Final = Attempt()


async def parameters_of(site: Site, subject: Subject, attempt: Attempt = NO_ATTEMPT) -> Shown:
    """Read the parameters of a cell or PBX.

    Raises:
        ConfigError: there is no such cell or PBX.
    """
    stored = await site.collector.parameters.read()
    live = with_parameters(site.file, stored)
    in_force, settings = live.overrides.get(subject, {}), stored.settings(subject)
    member = member_of(live.settings, subject)
    rows = []
    for name in KNOBS[subject.kind]:
        value = value_words(name, value_of(member, name))
        setting = settings.get(name) if name in in_force else None
        rows.append(
            Row(
                name=name,
                value=value,
                typed=attempt.typed.get(name, value),
                setting=setting,
                at=when(setting),
                choices=CHOICES.get(name, ()),
                is_wrong=shown(name) in attempt.wrong,
            )
        )
    of_subject = f"{TABLES[subject.kind]}[{subject.name}]"
    invalid = [str(one) for one in live.problems if one.field.startswith(of_subject)]
    return Shown(subject=subject, rows=rows, invalid=invalid, attempt=attempt)


def operations(live_page: LivePage, kind: Kind, *, stop: str) -> list[Page]:
    """Return what the buttons of a cell or PBX do; `stop` is the word for it in the path."""

    def subject(request: Request) -> Subject:
        return Subject(kind, request.path_params[kind])

    async def stopped(request: Request) -> Response:
        return await steer.stop(request, subject(request))

    async def resumed(request: Request) -> Response:
        return await steer.resume(request, subject(request))

    async def set_(request: Request) -> Response:
        return await set_parameters(request, live_page, subject(request))

    shows = {stop: stopped, "resume": resumed, "set": set_}
    return [
        Page(path=f"{live_page.path}/{word}", show=show, needs=Role.OPERATE, method="POST")
        for word, show in shows.items()
    ]


async def set_parameters(request: Request, live_page: LivePage, subject: Subject) -> Response:
    """Set what the person changed in the form; show the page again if it is not valid."""
    typed = changed(subject.kind, request.state.form)
    fresh, wrong = values(subject.kind, typed)
    why = reason(request)
    if wrong:
        attempt = Attempt(typed=typed, why=why, troubles=[*wrong.values()], wrong=[*wrong])
        return await _again(request, live_page, subject, attempt, status=422)
    try:
        made = await steered(request, lambda steering: steering.set(subject, fresh, why=why))
    except DialerError as error:
        fields = [one.field for one in error.problems] if isinstance(error, SettingsRefused) else []
        attempt = Attempt(typed=typed, why=why, troubles=sentences(error), wrong=fields)
        status = 422 if isinstance(error, ConfigError) else 409
        return await _again(request, live_page, subject, attempt, status=status)
    return await seen_at(request, f"{live_page.path_of(request.path_params)}?done={made.number}")


async def _again(
    request: Request, live_page: LivePage, subject: Subject, attempt: Attempt, *, status: int
) -> Response:
    parameters = await parameters_of(site_of(request), subject, attempt)
    return await shown_page(live_page, request, status=status, parameters=parameters)


def changed(kind: Kind, form: Mapping[str, str]) -> dict[str, str]:
    """Return what the person changed, by knob."""
    found: dict[str, str] = {}
    for name in KNOBS[kind]:
        text, was = (form.get(f"{head}{shown(name)}") for head in ("", "was-"))
        if text is not None and text.strip() != (was or "").strip():
            found[name] = text.strip()
    return found


def values(kind: Kind, typed: Mapping[str, str]) -> tuple[dict[str, Wanted], dict[str, str]]:
    """Return the values that were typed, and a sentence for each field with a wrong one."""
    found: dict[str, Wanted] = {}
    wrong: dict[str, str] = {}
    for name, text in typed.items():
        try:
            found |= wanted(kind, [f"{shown(name)}={text}"])
        except ConfigError as error:
            wrong[shown(name)] = str(error)
    return found, wrong
