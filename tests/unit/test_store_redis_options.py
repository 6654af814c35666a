"""Every option of a Redis URL: what it may be, and the cure of those that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from dialer.store.redis_options import ADDRESS, SENTINEL, OptionRefused, read, require_usable

FLAGS = {"true": True, "Yes": True, "1": True, "false": False, "NO": False, "0": False}
SECONDS = {"1": 1.0, "2.5": 2.5, "600": 600.0}
CLIENTS = {"a": "a", "n" * 64: "n" * 64, "!~": "!~"}
PATH = {"/a b": "/a b"}
GOOD: dict[str, dict[str, Any]] = {
    "timeout": SECONDS,
    "socket_timeout": SECONDS,
    "socket_connect_timeout": SECONDS,
    "socket_keepalive": FLAGS,
    "health_check_interval": {"0": 0, "30": 30, "3600": 3600},
    "client_name": CLIENTS,
    "protocol": {"2": 2, "3": 3},
    "ssl_ca_certs": PATH,
    "ssl_ca_path": PATH,
    "ssl_certfile": PATH,
    "ssl_keyfile": PATH,
    "ssl_password": PATH,
    "ssl_check_hostname": FLAGS,
    "ssl_cert_reqs": {"required": "required", "Optional": "optional", "NONE": "none"},
}
WRONG = {
    "timeout": ("0.9", "600.5", "x", "nan"),
    "health_check_interval": ("-1", "3601", "1.5"),
    "client_name": ("", "n" * 65, "a b"),
    "protocol": ("1", "4"),
    "ssl_ca_path": ("",),
    "socket_keepalive": ("maybe", "2"),
    "ssl_cert_reqs": ("all",),
}
CURES = {
    "leave it out": "decode_responses encoding encoding_errors errors retry retry_on_error "
    "retry_on_timeout max_connections abortconnect allowadmin connectretry configchannel",
    "write rediss:// for TLS": "ssl tls sslhost",
    "write timeout, in seconds": "connecttimeout synctimeout asynctimeout responsetimeout",
    "after the host: /2": "defaultdatabase database virtual_host",
    "write USER:PASSWORD@": "user",
    "write client_name": "name",
}


@pytest.mark.parametrize("name", GOOD)
def test_an_option_takes_its_values(name: str) -> None:
    for text, value in GOOD[name].items():
        got = read(name, text, tls=True)
        assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize("name", WRONG)
def test_an_option_refuses_other_values(name: str) -> None:
    for text in WRONG[name]:
        with pytest.raises(OptionRefused, match=f"has the option {name} with a wrong value"):
            read(name, text, tls=True)


@pytest.mark.parametrize(("cure", "names"), CURES.items())
def test_an_option_of_another_program_has_its_cure(cure: str, names: str) -> None:
    for name in names.split():
        with pytest.raises(OptionRefused) as refused:
            read(name, "x", tls=True)
        said = str(refused.value)
        assert said.startswith(f"has the option {name}, which cannot be used here: ")
        assert cure in said


@pytest.mark.parametrize("name", [name for name in GOOD if name.startswith("ssl_")])
def test_an_option_of_tls_needs_tls(name: str) -> None:
    with pytest.raises(OptionRefused, match=f"{name}, which needs TLS"):
        read(name, "/a", tls=False)


def test_options_without_tls_do_not_need_it() -> None:
    assert read("timeout", "5", tls=False) == 5.0


@pytest.mark.parametrize("name", sorted({*GOOD, *ADDRESS, *SENTINEL}))
def test_a_typing_error_names_the_option_that_was_meant(name: str) -> None:
    if name == "tls":
        return  # an option of other programs
    with pytest.raises(OptionRefused, match=r"did you mean \w+\?"):
        read(f"{name}x" if name != "db" else "dbb", "1", tls=True)


def test_an_option_like_no_other_lists_all() -> None:
    for name, text in (
        ("zzzzzz", "not known; known are db, "),
        ("a-b", "not known; known are db, "),
    ):
        with pytest.raises(OptionRefused) as refused:
            read(name, "1", tls=True)
        assert text in str(refused.value)
        assert all(option in str(refused.value) for option in GOOD)
        assert "a-b" not in str(refused.value), "what is no name may be a secret"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ssl_cert_reqs": "none", "ssl_check_hostname": True}, "leave both out"),
        ({"ssl_cert_reqs": "optional", "ssl_check_hostname": True}, "leave both out"),
        ({"ssl_keyfile": "/k"}, "ssl_keyfile without ssl_certfile"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionRefused, match=said):
        require_usable(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        {"ssl_cert_reqs": "required", "ssl_check_hostname": True},
        {"ssl_keyfile": "/k", "ssl_certfile": "/c"},
        {"ssl_certfile": "/c"},
    ],
)
def test_options_that_fit_together_are_used(given: dict[str, Any]) -> None:
    require_usable(given)


def test_the_address_has_its_own_options() -> None:
    assert {"db", "username", "password"} == ADDRESS
    assert {"tls", "sentinel_tls", "sentinel_username", "sentinel_password"} == SENTINEL
