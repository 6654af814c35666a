"""The dead list: see what was refused, correct it and send it again, or discard it."""

from __future__ import annotations

from collections.abc import Sequence

from dialer.domain.roles import Role
from dialer.web.access import Page
from dialer.web.live import LivePage
from dialer.web.pages.dead.actions import discard, send
from dialer.web.pages.dead.entry import show_entry
from dialer.web.pages.dead.listing import show_list

LIVE: Sequence[LivePage] = ()
PAGES: Sequence[Page] = (
    Page(path="/dead", show=show_list),
    Page(path="/dead/entry", show=show_entry, needs=Role.OPERATE),
    Page(path="/dead/send", show=send, needs=Role.OPERATE, method="POST"),
    Page(path="/dead/discard", show=discard, needs=Role.OPERATE, method="POST"),
)
