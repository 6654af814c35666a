"""The lab belongs to one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.acceptance.lab import lab


def test_a_lab_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    reserve = lab._reserve.__wrapped__
    with (tmp_path / f"{lab.PROJECT}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(lab.LabError, match="another process uses the lab"):
            reserve()
    reserve().close()
