"""Secrets from files: the folder of systemd's LoadCredential= and of Docker's secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dialer.errors import ConfigError
from dialer.settings import config_path, stray_variables
from dialer.settings.environment import effective, source
from tests.unit.sound_settings import MARK, clean, loaded, refusal
from tests.unit.test_settings_secrets import printed

Hand = Callable[[str, str | bytes], Path]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credentials folder as systemd or Docker creates it."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.fixture
def hand(folder: Path) -> Hand:
    """Write a file into the folder and return its path."""

    def hand(name: str, content: str | bytes) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return hand


def test_credentials_file_sets_the_variable_of_its_name(hand: Hand) -> None:
    hand("DIALER_PBX01_SECRET", "from-a-file\n")
    hand("DIALER_BROKER__URL", "redis://:pass@elsewhere:7000/3\r\n")
    hand("DIALER_ASR_TIM_THREADS", "7")
    found = loaded()
    assert found.pbx("pbx01").secret.get_secret_value() == "from-a-file"
    assert found.broker.url == "redis://:pass@elsewhere:7000/3"
    assert found.cell("ASR_TIM").threads == 7
    assert found.pbx("pbx02").secret.get_secret_value() == MARK, "the rest is the toml file's"


def test_credentials_file_may_have_systemds_prefix(hand: Hand) -> None:
    hand("dialer_DIALER_PBX01_SECRET", "of-systemd\n")
    threads = hand("dialer_DIALER_ASR_TIM_THREADS", "7")
    assert loaded().pbx("pbx01").secret.get_secret_value() == "of-systemd"
    threads.write_text("x")
    assert f"(from the file {threads})" in refusal(lambda _: None)


@pytest.mark.parametrize("name", ["DIALER_PBX01_SECRET", "DIALER_BROKER__URL"])
def test_variable_overrides_the_file_with_its_name(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hand(name, "redis://of-the-file")
    monkeypatch.setenv(name, "redis://of-the-environment:6379/0")
    found = loaded()
    values = found.pbx("pbx01").secret.get_secret_value(), found.broker.url
    assert "redis://of-the-environment:6379/0" in values


def test_credentials_file_may_set_dialer_config(hand: Hand) -> None:
    hand("DIALER_CONFIG", "/etc/dialer/other.toml\n")
    assert config_path() == Path("/etc/dialer/other.toml")


def test_other_files_in_the_folder_are_not_read(hand: Hand, folder: Path) -> None:
    hand("tls.key", b"\xff")
    (folder / "..data").mkdir()
    assert loaded().broker.url.startswith("redis://user")


def test_missing_folder_counts_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nowhere")
    assert loaded().pbx("pbx01").secret.get_secret_value() == MARK


def test_environment_is_not_changed(hand: Hand) -> None:
    hand("DIALER_PBX01_SECRET", MARK)
    before = dict(os.environ)
    loaded()
    assert dict(os.environ) == before


def test_error_names_the_file_of_a_wrong_value(hand: Hand) -> None:
    threads = hand("DIALER_ASR_TIM_THREADS", "0\n")
    assert refusal(lambda _: None) == (
        "cells[ASR_TIM].threads: 0 is wrong; it takes a whole number from 1 to 10000 "
        f"(from the file {threads})"
    )


def test_error_names_the_file_without_the_secret(hand: Hand) -> None:
    url = hand("DIALER_BROKER__URL", f"{MARK}://")
    said = refusal(lambda _: None)
    assert said.startswith("broker.url: ")
    assert said.endswith(f"(from the file {url})")
    assert MARK not in said


def test_broken_json_in_a_file_names_the_file(hand: Hand) -> None:
    pbxs = hand("DIALER_PBXS", f'[{{"secret": "{MARK}"')
    assert refusal(lambda _: None) == f"the file {pbxs}: is not JSON; it takes the table as JSON"


def test_misspelled_file_name_is_reported(hand: Hand) -> None:
    secret = hand("DIALER_PBX01_SECRT", "x")
    assert stray_variables(loaded()) == [(f"the file {secret}", "DIALER_PBX01_SECRET")]


def test_binary_file_is_refused_without_its_content(hand: Hand) -> None:
    secret = hand("DIALER_PBX01_SECRET", MARK.encode() + b"\xff")
    with pytest.raises(ConfigError) as caught:
        loaded()
    assert str(caught.value) == (
        f"{secret} is not UTF-8 text; write the value into it as plain text"
    )
    assert MARK not in printed(caught.value)


def test_unreadable_file_is_refused_with_the_cure(folder: Path) -> None:
    (folder / "DIALER_PBX01_SECRET").mkdir()
    with pytest.raises(ConfigError) as caught:
        loaded()
    assert str(caught.value) == (
        f"{folder}/DIALER_PBX01_SECRET cannot be read: Is a directory; it must be a file with "
        "the value, readable for the user that this program runs as"
    )


def test_folder_that_is_a_file_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "secrets"))
    with pytest.raises(ConfigError) as caught:
        loaded()
    assert str(caught.value) == (
        f"CREDENTIALS_DIRECTORY names {tmp_path}/secrets, which cannot be read: Not a directory; "
        "it takes a folder that the user of this program can read, or must not be set"
    )


def test_secret_from_a_file_is_never_shown(hand: Hand) -> None:
    hand("DIALER_PBX01_SECRET", "F1l3M4rk")
    hand("DIALER_ASR_TIM_REDIS_URL", "redis://:F1l3M4rk@h:6379/0")
    found = loaded()
    assert found.cell_redis_url("ASR_TIM") == "redis://:F1l3M4rk@h:6379/0"
    shown = [repr(found), str(found), found.model_dump_json(), repr(found.model_dump())]
    assert not [text for text in shown if "F1l3M4rk" in text]


def test_variable_replaces_an_unreadable_file(folder: Path) -> None:
    (folder / "DIALER_PBX01_SECRET").mkdir()
    given = {"CREDENTIALS_DIRECTORY": str(folder), "DIALER_PBX01_SECRET": "x"}
    assert effective(given) == given
    assert source("DIALER_PBX01_SECRET", given) == "DIALER_PBX01_SECRET"


def test_variables_are_the_environments_without_a_folder() -> None:
    given = {"DIALER_PBX01_SECRET": "x", "HOME": "/"}
    assert effective(given) == given
    assert source("DIALER_PBX02_SECRET", given) == "DIALER_PBX02_SECRET"
