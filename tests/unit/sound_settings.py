"""A valid settings file that tests change, and a clean environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from dialer.errors import ConfigError
from dialer.settings import Settings, load, settings

MARK = "S3cr3tM4rk"

Change = Callable[[dict[str, Any]], object]


def tables() -> dict[str, Any]:
    """A valid file with a secret in every field that may have one."""
    return {
        "multcall": {"redis_url": f"redis://:{MARK}@127.0.0.1:6379/0", "push": "right"},
        "broker": {"url": f"redis://user:{MARK}@127.0.0.1:6379/1"},
        "registry": {"redis_url": f"unix:///run/redis.sock?db=2&password={MARK}"},
        "log": {"level": "INFO", "location": "", "format": "text"},
        "recovery": {"pbx_lost_after": 120},
        "pbxs": [
            {
                "name": "pbx01",
                "secret": MARK,
                "max_calls": 200,
                "cps": 20,
                "trunks": {"tim": "PJSIP/{number}@tim", "backup": "PJSIP/{number}@backup"},
            },
            {
                "name": "pbx02",
                "secret": MARK,
                "max_calls": 10,
                "cps": 0.5,
                "trunks": {"tim": "PJSIP/{number}@tim"},
            },
        ],
        "cells": [
            {
                "nome": "ASR_TIM",
                "threads": 100,
                "pbxs": ["pbx01", "pbx02"],
                "limits": {
                    "calling_hours": [{"days": ["mon"], "from": "08:00", "to": "20:00"}],
                },
            },
            {
                "nome": "ura-novoteste2",
                "threads": 5,
                "pbxs": ["pbx02"],
                "redis_url": f"sentinel://:{MARK}@h1,h2/main?sentinel_password={MARK}",
            },
        ],
    }


def clean(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Change to `folder`; remove our variables and cached settings."""
    for name in [n for n in os.environ if n.startswith(("DIALER_", "CREDENTIALS_DIRECTORY"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    settings.cache_clear()


def write(content: Mapping[str, Any]) -> Path:
    """Write `dialer.toml` into the working directory."""
    path = Path.cwd() / "dialer.toml"
    path.write_text(tomlkit.dumps(content), encoding="utf-8")
    return path


def loaded(change: Change = lambda _: None) -> Settings:
    """The valid settings after `change`."""
    content = tables()
    change(content)
    return load(write(content))


def refusal(change: Change) -> str:
    """The error for a file that `change` made wrong, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        loaded(change)
    return str(caught.value).removeprefix(f"{Path.cwd() / 'dialer.toml'}: ")


def pbx(field: str, value: object) -> Change:
    return lambda content: content["pbxs"][0].__setitem__(field, value)


def cell(field: str, value: object) -> Change:
    return lambda content: content["cells"][0].__setitem__(field, value)
