"""Which Asterisk is too old for ChannelId, by what versions call themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.asterisk_version import is_too_old


@pytest.mark.parametrize("ami", ["1.0", "1.1", "1.2", "1.3", "1"])
@pytest.mark.parametrize("asterisk", ["1.4.44", "1.8.32.3", "11.25.3", "SVN-trunk-r1", "22", ""])
def test_ami_before_2_is_too_old(ami: str, asterisk: str) -> None:
    assert is_too_old(ami=ami, asterisk=asterisk)


@pytest.mark.parametrize("ami", ["2.0.0", "2.10.4", "5.0.4", "11.0.0", "2"])
@pytest.mark.parametrize("asterisk", ["12.0.0", "GIT-master-9f8c", "GIT-9a8b7c6", "UNKNOWN", ""])
def test_ami_from_2_on_is_new_enough(ami: str, asterisk: str) -> None:
    assert not is_too_old(ami=ami, asterisk=asterisk)


@pytest.mark.parametrize("asterisk", ["11.25.3", "1.8.32.3", "certified/11.6-cert18"])
def test_an_old_release_is_too_old_whatever_its_ami(asterisk: str) -> None:
    assert is_too_old(ami="11.0.0", asterisk=asterisk)


@pytest.mark.parametrize(
    ("asterisk", "old"),
    [
        ("11.25.3", True),
        ("1.8.32.3", True),
        ("certified/11.6-cert18", True),
        ("SVN-branch-11-r400000", True),
        ("GIT-11-abc123", True),
        ("12.0.0", False),
        ("16.28.0~dfsg-0+deb11u4", False),
        ("22.10.1+dfsg+~cs6.17.60671434-1", False),
        ("certified/18.9-cert5", False),
        ("certified-20.7-cert2", False),
        ("GIT-18-abc123", False),
        ("GIT-certified-18.9-abc", False),
        ("GIT-master-9f8c7d6", False),
        ("GIT-9f8c7d6", False),
        ("SVN-trunk-r400000", False),
        ("Asterisk 11.2", True),
        ("Asterisk SVN", False),
        ("UNKNOWN__and_probably_unsupported", False),
        ("", False),
    ],
)
def test_without_an_ami_version_the_release_decides(asterisk: str, old: bool) -> None:
    assert is_too_old(ami="", asterisk=asterisk) is old


@given(st.text(), st.text())
def test_any_text_is_judged(ami: str, asterisk: str) -> None:
    assert is_too_old(ami=ami, asterisk=asterisk) in (True, False)
