"""The options after `?` in a Redis URL: those that are used, and what to do about the others.

redis-py and kombu raise errors of their own for an option that they do not know, or apply one that
breaks the programs (`decode_responses`). So no other option reaches them. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

#: Options that are part of the address.
ADDRESS: Final = frozenset({"db", "username", "password"})
SENTINEL: Final = frozenset({"tls", "sentinel_tls", "sentinel_username", "sentinel_password"})

_LEAVE_IT_OUT: Final = "leave it out"
_BYTES: Final = f"the programs read bytes and would stand still with it; {_LEAVE_IT_OUT}"
_DOTNET: Final = f"only StackExchange.Redis (.NET) has it; {_LEAVE_IT_OUT}"
_NO_RETRY: Final = f"the programs repeat only what may be repeated; {_LEAVE_IT_OUT}"
_TLS_URL: Final = "write rediss:// for TLS"

#: Options of other programs, in lower case, with the cure.
_FOREIGN: Final[Mapping[str, str]] = {
    "decode_responses": _BYTES,
    "encoding": _BYTES,
    "encoding_errors": _BYTES,
    "errors": _BYTES,
    "retry": _NO_RETRY,
    "retry_on_error": _NO_RETRY,
    "retry_on_timeout": _NO_RETRY,
    "max_connections": f"it would make the programs wait for each other; {_LEAVE_IT_OUT}",
    "ssl": _TLS_URL,
    "tls": _TLS_URL,
    "sslhost": f"{_TLS_URL}, with the name of the certificate as host",
    "abortconnect": _DOTNET,
    "allowadmin": _DOTNET,
    "connectretry": _DOTNET,
    "configchannel": _DOTNET,
    "connecttimeout": "write timeout, in seconds",
    "synctimeout": "write timeout, in seconds",
    "asynctimeout": "write timeout, in seconds",
    "responsetimeout": "write timeout, in seconds",
    "defaultdatabase": "write the number of the database after the host: /2",
    "database": "write the number of the database after the host: /2",
    "virtual_host": "write the number of the database after the host: /2",
    "user": "write USER:PASSWORD@ before the host",
    "name": "write client_name",
}


def _seconds(text: str) -> float:
    return _within(float(text), 1, 600)


def _whole_seconds(text: str) -> int:
    return int(_within(int(text), 0, 3600))


def _within(number: float, low: float, high: float) -> float:
    if not low <= number <= high:
        raise ValueError
    return number


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        text.lower()
    ]


def _one_of(**values: Any) -> Callable[[str], Any]:
    return lambda text: values[f"_{text.lower()}"]


def _name(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,64}", text):
        raise ValueError
    return text


def _path(text: str) -> str:
    if not text:
        raise ValueError
    return text


_SECONDS: Final = (_seconds, "seconds from 1 to 600")
_FLAG: Final = (_flag, "true or false")
_FILE: Final = (_path, "the path of a PEM file")

#: Option to its reader and what it takes.
CONNECTION: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "timeout": _SECONDS,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": _FLAG,
    "health_check_interval": (_whole_seconds, "whole seconds from 0 to 3600"),
    "client_name": (_name, "1 to 64 characters without a blank"),
    "protocol": (_one_of(_2=2, _3=3), "2 or 3"),
}

TLS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": (_path, "the path of a folder"),
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_password": (_path, "the password of ssl_keyfile"),
    "ssl_check_hostname": _FLAG,
    "ssl_cert_reqs": (
        _one_of(_required="required", _optional="optional", _none="none"),
        "required, or none to trust any certificate",
    ),
}


class OptionRefused(ValueError):
    """An option cannot be used; the message names it and the cure, and no value."""


def read(name: str, text: str, *, tls: bool) -> Any:
    """Return the value of a connection or TLS option.

    Raises:
        OptionRefused: the option is unknown, has a wrong value, or needs TLS.
    """
    if name in TLS and not tls:
        raise OptionRefused(f"has the option {name}, which needs TLS; {_TLS_URL}, or leave it out")
    known = {**CONNECTION, **TLS}
    if name not in known:
        raise OptionRefused(_unknown(name))
    parse, takes = known[name]
    try:
        return parse(text)
    except (ValueError, KeyError):
        raise OptionRefused(f"has the option {name} with a wrong value; it takes {takes}") from None


def require_usable(given: Mapping[str, Any]) -> None:
    """Raise OptionRefused if options do not fit together."""
    if given.get("ssl_cert_reqs") in ("none", "optional") and given.get("ssl_check_hostname"):
        raise OptionRefused(
            "has ssl_check_hostname=true, but ssl_cert_reqs does not verify the certificate; "
            "leave both out"
        )
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise OptionRefused("has ssl_keyfile without ssl_certfile; add that")


def _unknown(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]{1,40}", name):
        return f"has an option that is not known; known are {_known()}"
    if cure := _FOREIGN.get(name.lower()):
        return f"has the option {name}, which cannot be used here: {cure}"
    like = difflib.get_close_matches(name.lower(), [*CONNECTION, *TLS, *ADDRESS, *SENTINEL], n=1)
    cure = f"did you mean {like[0]}?" if like else f"known are {_known()}"
    return f"has the option {name}, which is not known; {cure}"


def _known() -> str:
    return ", ".join(["db", *CONNECTION, *TLS])
