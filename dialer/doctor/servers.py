"""The Redis servers that the settings name, each once, with what it is used for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from dialer.settings import Settings
from dialer.settings.broker_url import is_rabbitmq
from dialer.store.redis_url import RedisAddress

Role = Literal["multcall", "registry", "broker"]


@dataclass(slots=True)
class Use:
    """One URL and its uses. `cells` have their lists and their ledger there."""

    url: str
    roles: set[Role] = field(default_factory=set)
    cells: list[str] = field(default_factory=list)

    @property
    def keeps_calls(self) -> bool:
        """True if calls or slots are there, false if only Celery's messages."""
        return self.roles != {"broker"}


@dataclass(slots=True)
class Server:
    """One server: its URLs differ in database, login or options only."""

    name: str
    uses: list[Use] = field(default_factory=list)

    @property
    def keeps_calls(self) -> bool:
        """True if calls or slots are there, false if only Celery's messages."""
        return any(use.keeps_calls for use in self.uses)


def servers_of(settings: Settings) -> list[Server]:
    """Return the Redis servers in the order in which the settings name them."""
    uses: dict[str, Use] = {}

    def use(url: str, role: Role) -> Use:
        found = uses.setdefault(str(url), Use(str(url)))
        found.roles.add(role)
        return found

    for cell in settings.cells:
        use(settings.cell_redis_url(cell), "multcall").cells.append(cell.name)
    use(settings.registry_redis_url, "registry")
    if not is_rabbitmq(settings.broker.url):
        use(settings.broker.url, "broker")
    return _grouped(uses.values())


def _grouped(uses: Iterable[Use]) -> list[Server]:
    servers: dict[object, Server] = {}
    for use in uses:
        address = RedisAddress.parse(use.url)
        hosts = ",".join(f"{host}:{port}" for host, port in address.hosts)
        name = address.path or (f"{hosts}/{address.service}" if address.service else hosts)
        key = (address.scheme, name)
        servers.setdefault(key, Server(f"Redis {name}")).uses.append(use)
    return list(servers.values())
