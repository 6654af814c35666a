"""Event filters of an AMI session (action Filter).

Pure. Supports both syntaxes of Asterisk: a regular expression over the whole event (all
versions; a leading `!` excludes), and MatchCriteria by event name and header (since 22).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dialer.simulation.pbx.events import Event

_CRITERION = re.compile(r"(action|name|header|method)\(([^)]*)\)")


class FilterRefused(ValueError):
    """The filter is invalid; the message is Asterisk's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """One filter that excludes or includes the events it matches."""

    is_excluding: bool
    matches: Callable[[Event], bool]


def parse_filter(expression: str, criteria: str = "") -> EventFilter:
    """Return the filter of an action Filter; raise FilterRefused if it is invalid."""
    if not criteria:
        is_excluding = expression.startswith("!")
        pattern = _compiled(expression[1:] if is_excluding else expression)
        return EventFilter(
            is_excluding=is_excluding, matches=lambda event: bool(pattern.search(event.text))
        )
    wanted = dict(_CRITERION.findall(criteria))
    method = wanted.get("method", "none")
    if not wanted or method not in _METHODS:
        raise FilterRefused("Filter did not compile.  Check the syntax of the filter given.")
    name, header = wanted.get("name", ""), wanted.get("header", "")
    compare = _METHODS[method](expression)

    def matches(event: Event) -> bool:
        if name and event.name != name:
            return False
        if not header:
            return compare(event.text)
        value = _header(event.text, header)
        return value is not None and compare(value)

    return EventFilter(is_excluding=wanted.get("action") == "exclude", matches=matches)


def passes(filters: list[EventFilter], event: Event) -> bool:
    """True if the session gets this event: includes first, then excludes (main/manager.c)."""
    includes = [f for f in filters if not f.is_excluding]
    if includes and not any(f.matches(event) for f in includes):
        return False
    return not any(f.is_excluding and f.matches(event) for f in filters)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as refused:
        raise FilterRefused(
            "Filter did not compile.  Check the syntax of the filter given."
        ) from refused


def _regex(expression: str) -> Callable[[str], bool]:
    pattern = _compiled(expression)
    return lambda text: bool(pattern.search(text))


_METHODS: dict[str, Callable[[str], Callable[[str], bool]]] = {
    "none": lambda _: lambda _text: True,
    "regex": _regex,
    "exact": lambda wanted: lambda text: text == wanted,
    "starts_with": lambda wanted: lambda text: text.startswith(wanted),
    "ends_with": lambda wanted: lambda text: text.endswith(wanted),
    "contains": lambda wanted: lambda text: wanted in text,
}


def _header(text: str, name: str) -> str | None:
    mark = f"\r\n{name}: "
    start = text.find(mark)
    if start < 0:
        return None
    return text[start + len(mark) : text.index("\r\n", start + 2)]
