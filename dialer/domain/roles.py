"""Roles of the users of the web page, and which role may do what another one may."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a user may do: look, steer the dialing, or manage the users too."""

    VIEW = "view"
    OPERATE = "operate"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """True if this role may do what needs the role `needed`."""
        return _ORDER.index(self) >= _ORDER.index(needed)


#: Each role may do what those before it may.
_ORDER: Final = (Role.VIEW, Role.OPERATE, Role.ADMIN)
