"""Warnings for valid but suspicious settings (`config check`)."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dialer.errors import ConfigError
from dialer.settings.ami_tls import context_of
from dialer.settings.broker_url import is_rabbitmq
from dialer.settings.problems import Problem, read
from dialer.settings.tables import Cell, Pbx
from dialer.store.redis_url import RedisAddress, redacted


def advice(pbxs: Sequence[Pbx], cells: Sequence[Cell]) -> Iterator[Problem]:
    """Yield one warning per suspicious setting; no program refuses to start because of them."""
    for pbx in pbxs:
        yield from _on_pbx(pbx)
        if not any(pbx.name in cell.pbxs for cell in cells):
            yield Problem(field=f"pbxs[{pbx.name}]", text="no cell uses this PBX")
    by_name = {pbx.name: pbx for pbx in pbxs}
    for cell in cells:
        yield from _on_cell(cell, [by_name[name] for name in cell.pbxs])


def on_urls(urls: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a warning per URL, given by its field, whose certificate is not verified."""
    for field, url in urls.items():
        if is_rabbitmq(url):
            continue
        address = RedisAddress.parse(url)
        is_verified = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if address.tls and not is_verified.items() <= address.tls_options.items():
            yield Problem(
                field=field,
                text="TLS without verification: anybody between can read and change it; "
                "leave out ssl_cert_reqs and ssl_check_hostname, and name the CA with "
                "ssl_ca_certs",
            )


def _on_pbx(pbx: Pbx) -> Iterator[Problem]:
    path = f"pbxs[{pbx.name}]"
    for name, template in pbx.trunks.items():
        if _may_vanish(template):
            yield Problem(
                field=f"{path}.trunks.{name}",
                text="a Local channel without /n vanishes when Asterisk optimises it away, and "
                "its call ends as UNKNOWN; write Local/{number}@CONTEXT/n",
            )
    for needed in (lambda: pbx.secret, lambda: context_of(pbx)):
        try:
            needed()
        except ConfigError as error:
            yield Problem(
                field="",
                text=f"{error}. Only the worker of {pbx.name} needs it; "
                "it does not start without it",
            )
    if not pbx.tls and not _is_here(pbx.host):
        yield Problem(
            field=f"{path}.tls",
            text="the AMI secret and all calls cross the network unencrypted; "
            "run the worker on the Asterisk host, or set tls = true",
        )


def _on_cell(cell: Cell, pbxs: Sequence[Pbx]) -> Iterator[Problem]:
    path = f"cells[{cell.name}]"
    room = sum(pbx.max_calls for pbx in pbxs)
    if cell.threads > room:
        text = f"{cell.threads} calls at once, but its PBXs together allow only {room}"
        yield Problem(field=f"{path}.threads", text=text)
    missing = [pbx.name for pbx in pbxs if cell.trunk and cell.trunk not in pbx.trunks]
    if missing:
        text = f"{', '.join(missing)} has no trunk {cell.trunk} and gets none of its calls"
        yield Problem(field=f"{path}.trunk", text=text)


def _may_vanish(template: str) -> bool:
    technology, _, rest = template.partition("/")
    return technology.lower() == "local" and not re.search(r"/[a-zA-Z]*n[a-zA-Z]*$", rest)


def _is_here(host: str) -> bool:
    """True if the host is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def has_public_secrets(path: Path) -> bool:
    """True if the settings file contains a secret and every user can read the file.

    Secrets from environment variables and credentials do not count.
    """
    return bool(path.stat().st_mode & stat.S_IROTH) and _has_secret(read(path))


def _has_secret(value: object, key: str = "") -> bool:
    if isinstance(value, Mapping):
        return any(_has_secret(inner, name) for name, inner in value.items())
    if isinstance(value, list):
        return any(_has_secret(inner) for inner in value)
    if not isinstance(value, str):
        return False
    return key == "secret" or (key.endswith("url") and redacted(value) != value)
