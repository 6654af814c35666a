"""Which role may do what."""

from __future__ import annotations

import pytest

from dialer.domain.roles import Role

VIEW, OPERATE, ADMIN = Role.VIEW, Role.OPERATE, Role.ADMIN


@pytest.mark.parametrize(
    ("role", "allowed"),
    [(VIEW, {VIEW}), (OPERATE, {VIEW, OPERATE}), (ADMIN, {VIEW, OPERATE, ADMIN})],
)
def test_a_role_may_what_lower_roles_may(role: Role, allowed: set[Role]) -> None:
    assert {needed for needed in Role if role.may(needed)} == allowed


def test_roles_are_named_as_in_the_commands() -> None:
    assert [str(role) for role in Role] == ["view", "operate", "admin"]
