"""`dialer doctor` on a sound site, and on sites with one thing wrong: it names that one only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from dialer.cli.doctor import examine
from dialer.doctor import host
from dialer.doctor.findings import Finding, Level, exit_code
from dialer.doctor.host import check_name, unit_findings
from dialer.settings import load
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.simulation.valkey import EmbeddedValkey
from dialer.store.rights import _ARGUMENTS, _DIRECT, step_commands
from tests.listener import Listener
from tests.processes import PbxPlace, site_toml
from tests.tls import OPENSSL_MISSING, certificate, tls_in_front_of
from workers.ami import link as ami
from workers.doctor import trunk_target

SECRET = "a-pbx-secret"
READ, WRITE = "system,call,user,agent", "system,reporting,originate"
DURABLE = {"appendfsync": "always"}

Pairs = tuple[tuple[bytes, bytes], ...]


@pytest.fixture(scope="module")
def sound() -> Iterator[EmbeddedValkey]:
    """A server with nothing wrong."""
    with EmbeddedValkey(appendonly=True, config=DURABLE) as server:
        yield server


@dataclass(slots=True)
class Site:
    """A site with nothing wrong; a case changes one thing of it."""

    folder: Path
    redis: str
    broker: str
    stack: AsyncExitStack
    monkeypatch: pytest.MonkeyPatch
    pbx: dict[str, Any] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    cell: dict[str, Any] = field(default_factory=dict)
    extra: str = ""
    mode: int = 0o600
    front: Callable[[int], AbstractAsyncContextManager[int]] | None = None

    def server(self, *, appendonly: bool = True, **config: str) -> EmbeddedValkey:
        """A further server that runs until the test ends."""
        directives = {**DURABLE, **{k.replace("_", "-"): v for k, v in config.items()}}
        server = EmbeddedValkey(appendonly=appendonly, config=directives)
        return self.stack.enter_context(server)

    async def user(self, url: str, *rights: str) -> str:
        """The URL of a new user with these rights only."""
        async with Redis.from_url(url) as admin:
            command: Any = admin.execute_command
            await command("ACL", "SETUSER", "dialer", "reset", "on", ">p", *rights)
        return url.replace("://", "://dialer:p@")

    async def findings(self) -> list[Finding]:
        """Examine the site."""
        simulated = await self.stack.enter_async_context(
            SimulatedPbx(**{"secret": SECRET, "read": READ, "write": WRITE, **self.pbx})
        )
        port = simulated.port
        if self.front is not None:
            port = await self.stack.enter_async_context(self.front(port))
        place = {"name": "pbx01", "port": port, "secret": SECRET, **self.place}
        config = self.folder / "dialer.toml"
        text = site_toml(
            self.redis, self.broker, [PbxPlace(**place)], cells={"ASR_TIM": self.cell},
            extra=self.extra,
        )  # fmt: skip
        config.write_text(text.replace('secret = ""\n', ""))
        config.chmod(self.mode)
        self.monkeypatch.setenv("DIALER_CONFIG", str(config))
        settings = load()
        return await examine(settings, list(settings.pbxs))


@pytest.fixture
async def site(
    tmp_path: Path, sound: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    monkeypatch.setattr(ami, "BOOTED_SOON_S", 0.3)
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 2.0)
    async with AsyncExitStack() as stack:
        yield Site(tmp_path, sound.url(), sound.url(1), stack, monkeypatch)


@asynccontextmanager
async def rewritten(target: int, replies: Pairs = (), requests: Pairs = ()) -> AsyncIterator[int]:
    """A port in front of a server on which some bytes are others (regular expressions)."""

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pairs: Pairs
    ) -> None:
        while data := await reader.read(1 << 20):
            for pattern, replacement in pairs:
                data = re.sub(pattern, replacement, data)
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", target)
        listener.also(outer)
        await asyncio.gather(pump(reader, outer, requests), pump(inner, writer, replies))

    async with Listener(serve) as listener:
        yield listener.port


CASES: dict[str, tuple[str, Callable[[Site], Any]]] = {}


def case(code: str) -> Callable[[Callable[[Site], Any]], Callable[[Site], Any]]:
    """Register a misconfiguration and the code of the only finding."""

    def register(breaks: Callable[[Site], Any]) -> Callable[[Site], Any]:
        CASES[breaks.__name__] = (code, breaks)
        return breaks

    return register


# --- Redis ------------------------------------------------------------------------------


@case("redis.reach")
def redis_is_down(site: Site) -> None:
    site.redis, site.broker = "redis://127.0.0.1:9/0", "redis://127.0.0.1:9/1"


@case("redis.version")
async def redis_is_old(site: Site) -> None:
    pairs = (
        (rb"redis_version:7.2.4", b"redis_version:6.0.1"),
        (rb"server_name:valkey", b"server_name:reddis"),
        (rb"valkey_version", b"unknow_version"),
    )
    port = await site.stack.enter_async_context(rewritten(int(site.redis.split(":")[2][:5]), pairs))
    site.redis = f"redis://127.0.0.1:{port}/0"


@case("redis.cluster")
def redis_is_a_cluster(site: Site) -> None:
    site.redis = site.server(cluster_enabled="yes").url()


@case("redis.replica")
def redis_is_a_replica(site: Site) -> None:
    master = site.redis.split(":")[2][:5]
    site.redis = site.server(replicaof=f"127.0.0.1 {master}").url()


@case("redis.eviction")
def redis_evicts(site: Site) -> None:
    site.redis = site.server(maxmemory_policy="volatile-lru").url()


@case("redis.eviction")
def broker_evicts(site: Site) -> None:
    site.broker = site.server(maxmemory_policy="allkeys-lru").url()


@case("redis.durability")
def redis_has_no_append_only_file(site: Site) -> None:
    site.redis = site.server(appendonly=False).url()


@case("redis.durability")
def redis_syncs_every_second(site: Site) -> None:
    site.redis = site.server(appendfsync="everysec").url()


@case("redis.memory")
def redis_is_full(site: Site) -> None:
    server = site.server(maxmemory="100kb")
    site.redis, site.broker = server.url(), server.url(1)


@case("redis.memory")
async def redis_is_nearly_full(site: Site) -> None:
    server = site.server()
    async with Redis.from_url(server.url()) as admin:
        used = int((await admin.info("memory"))["used_memory"])
        await admin.config_set("maxmemory", int(used / 0.88))
    site.redis = server.url()


@case("redis.clock")
async def clock_is_ten_minutes_off(site: Site) -> None:
    def later(match: re.Match[bytes]) -> bytes:
        return match[1] + str(int(match[2]) + 600).encode()

    pairs: Any = ((rb"(\*2\r\n\$10\r\n)(\d{10})(?=\r\n)", later),)
    port = await site.stack.enter_async_context(rewritten(int(site.redis.split(":")[2][:5]), pairs))
    site.redis = f"redis://127.0.0.1:{port}/0"


@case("redis.login")
def redis_password_is_wrong(site: Site) -> None:
    site.redis = site.redis.replace("://", "://dialer:wrong@")


@case("redis.rights")
async def redis_user_may_not_wait_for_elements(site: Site) -> None:
    site.redis = await site.user(site.server().url(), "~*", "&*", "+@all", "-blmove")


@case("redis.rights")
async def redis_user_may_not_use_multcalls_keys(site: Site) -> None:
    site.redis = await site.user(site.server().url(), "~dialer:*", "&*", "+@all")


@case("redis.rights")
async def redis_user_may_not_run_scripts(site: Site) -> None:
    site.redis = await site.user(site.server().url(), "~*", "&*", "+@all", "-evalsha")


@case("redis.rights")
async def redis_user_may_not_load_scripts(site: Site) -> None:
    site.redis = await site.user(site.server().url(), "~*", "&*", "+@all", "-script")


@case("redis.info")
async def redis_user_may_not_read_info(site: Site) -> None:
    site.redis = await site.user(site.server().url(), "~*", "&*", "+@all", "-info")


async def tls(site: Site, name: str = "IP:127.0.0.1") -> tuple[int, Path]:
    server = site.server()
    cert, key = await certificate(site.folder, name)
    front = tls_in_front_of(server.port, cert, key)
    return await site.stack.enter_async_context(front), cert


@case("redis.tls")
async def certificate_is_of_an_unknown_ca(site: Site) -> None:
    port, _ = await tls(site)
    site.redis = f"rediss://127.0.0.1:{port}/0"


@case("redis.tls")
async def certificate_is_for_another_name(site: Site) -> None:
    port, cert = await tls(site, "DNS:other")
    site.redis = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}"


@case("redis.reach")
def tls_at_a_port_without(site: Site) -> None:
    site.redis = f"rediss://127.0.0.1:{site.server().port}/0"


@case("redis.tls")
async def ca_file_is_missing(site: Site) -> None:
    port, _ = await tls(site)
    site.redis = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs=/nowhere/ca.pem"


@case("redis.unverified")
async def certificate_is_not_verified(site: Site) -> None:
    port, _ = await tls(site)
    site.redis = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none"


# --- the broker -------------------------------------------------------------------------


@case("redis.reach")
def broker_is_down(site: Site) -> None:
    site.broker = "redis://127.0.0.1:9/1"


@case("broker.reach")
def rabbitmq_is_down(site: Site) -> None:
    site.broker = "amqp://127.0.0.1:9"


@case("broker.rights")
async def broker_user_has_no_channels(site: Site) -> None:
    site.broker = await site.user(site.server().url(), "~*", "+@all", "resetchannels")


@case("broker.rights")
async def broker_user_may_not_consume(site: Site) -> None:
    site.broker = await site.user(site.server().url(), "~*", "&*", "+@all", "-rpop", "-brpop")


@case("redis.login")
async def broker_password_is_wrong(site: Site) -> None:
    site.broker = (await site.user(site.server().url(), "~*", "&*", "+@all")).replace(":p@", ":x@")


@case("redis.tls")
async def broker_certificate_is_unknown(site: Site) -> None:
    port, _ = await tls(site)
    site.broker = f"rediss://127.0.0.1:{port}/0"


# --- the PBX ----------------------------------------------------------------------------


@case("ami.reach")
def asterisk_is_down(site: Site) -> None:
    site.place = {"port": 9}


@case("ami.login")
def ami_secret_is_wrong(site: Site) -> None:
    site.place = {"secret": "other"}


@case("ami.rights")
def ami_user_may_not_originate(site: Site) -> None:
    site.pbx = {"write": "system,reporting"}


@case("ami.rights")
def ami_user_lacks_reporting(site: Site) -> None:
    site.pbx = {"write": "system,originate"}


@case("ami.events")
def ami_user_hears_no_calls(site: Site) -> None:
    site.pbx = {"read": "system,user,agent"}


@case("ami.events")
def ami_user_hears_nothing_of_the_system(site: Site) -> None:
    site.pbx = {"read": "call,user,agent"}


@case("ami.events")
def eventfilter_hides_hangups(site: Site) -> None:
    site.pbx = {"eventfilter": ["!Event: Hangup"]}


@case("ami.include")
def include_is_missing(site: Site) -> None:
    site.pbx = {"include": False}


@case("ami.include")
def include_is_old(site: Site) -> None:
    pairs = ((rb"dialer-handed,s", b"not-handed,s"),)
    site.front = lambda port: rewritten(port, requests=pairs)


@case("ami.queue")
def queue_is_missing(site: Site) -> None:
    site.cell = {"queue": "not-COBRANCA"}


@case("ami.context")
def context_is_missing(site: Site) -> None:
    site.cell = {"context": "not-ura"}


@case("ami.amd")
def amd_is_not_loaded(site: Site) -> None:
    site.cell = {"amd": "hangup"}


@case("ami.trunk")
def trunk_context_is_missing(site: Site) -> None:
    site.place = {"trunks": {"try": "Local/{number}@not-there/n"}}


@case("ami.version")
def asterisk_is_too_old(site: Site) -> None:
    pairs = (
        (rb"AsteriskVersion: \S+", b"AsteriskVersion: 11.25.3"),
        (rb"AMIversion: \S+", b"AMIversion: 1.3"),
    )
    site.front = lambda port: rewritten(port, pairs)


@case("ami.maxcalls")
def asterisk_limits_calls(site: Site) -> None:
    pairs = ((rb"CoreMaxCalls: 0", b"CoreMaxCalls: 2"),)
    site.front = lambda port: rewritten(port, pairs)


@case("ami.maxload")
def asterisk_limits_load(site: Site) -> None:
    pairs = ((rb"CoreMaxLoadAvg: 0.000000", b"CoreMaxLoadAvg: 4.000000"),)
    site.front = lambda port: rewritten(port, pairs)


@case("ami.tls")
async def ami_certificate_is_unknown(site: Site) -> None:
    cert, key = await certificate(site.folder)
    site.front = lambda port: tls_in_front_of(port, cert, key)
    site.place = {"more": {"tls": True}}


# --- the host ---------------------------------------------------------------------------


@case("host.file")
def everybody_reads_the_secrets(site: Site) -> None:
    site.mode = 0o644


@case("host.secret")
def ami_secret_is_not_here(site: Site) -> None:
    site.place = {"secret": ""}


@case("host.secret")
def everybody_reads_the_secret_file(site: Site) -> None:
    file = site.folder / "pbx01.secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    site.place = {"secret": "", "more": {"secret_file": "pbx01.secret"}}


@case("host.secret")
def everybody_reads_a_credential(site: Site) -> None:
    site.monkeypatch.setattr(host, "SYSTEMD", site.folder)
    folder = site.folder / "credentials"
    folder.mkdir(mode=0o755)
    file = folder / "DIALER_PBX01_SECRET"
    file.write_text(SECRET)
    file.chmod(0o644)
    site.monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    site.place = {"secret": ""}


@case("host.log")
def log_folder_is_missing(site: Site) -> None:
    site.extra = f'[log]\nlocation = "{site.folder}/nowhere"'


@case("host.variable")
def variable_is_misspelt(site: Site) -> None:
    site.monkeypatch.setenv("DIALER_PBX01_MAX_CALL", "7")


def unsound(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f.code, f.what, f.cure) for f in findings if f.level is not Level.GOOD]


async def test_sound_site_has_no_finding(site: Site) -> None:
    findings = await site.findings()
    assert unsound(findings) == []
    assert exit_code(findings) == 0
    assert {f.code.partition(".")[0] for f in findings} == {"host", "redis", "broker", "ami"}
    assert {"ami.login", "ami.rights", "ami.events"} <= {f.code for f in findings}


@pytest.mark.skipif(OPENSSL_MISSING is not None, reason="openssl is not installed")
@pytest.mark.parametrize("name", CASES)
async def test_only_what_is_wrong_is_named(site: Site, name: str) -> None:
    code, breaks = CASES[name]
    changed = breaks(site)
    if asyncio.iscoroutine(changed):
        await changed
    found = unsound(await site.findings())
    assert [one[0] for one in found] == [code], found
    ((_, what, cure),) = found
    assert what, cure
    assert cure, what
    assert "Traceback" not in what


def test_thirty_misconfigurations_are_tried() -> None:
    assert len(CASES) >= 30


async def test_throw_away_keys_and_queues_are_gone(site: Site) -> None:
    await site.findings()
    async with Redis.from_url(site.redis) as redis, Redis.from_url(site.broker) as broker:
        assert [k async for k in redis.scan_iter("*doctor*")] == []
        assert [k async for k in broker.scan_iter("*doctor*")] == []


def test_every_command_of_the_steps_is_tried() -> None:
    assert step_commands().union(_DIRECT) - _ARGUMENTS.keys() == set()


async def test_unknown_host_name_is_named_with_its_cure() -> None:
    (finding,) = await check_name("no-such-host.invalid")
    assert (finding.code, finding.level) == ("host.name", Level.WRONG)
    assert "'127.0.1.1 no-such-host.invalid' into /etc/hosts" in finding.cure


async def test_slow_host_name_is_doubtful() -> None:
    (finding,) = await check_name("localhost", within_s=-1)
    assert (finding.code, finding.level) == ("host.name", Level.DOUBTFUL)


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ({"LoadState": "not-found"}, []),
        ({"ActiveState": "active", "WatchdogUSec": "1min"}, ["host.service GOOD"]),
        ({"ActiveState": "failed", "WatchdogUSec": "1min"}, ["host.service DOUBTFUL"]),
        ({"ActiveState": "active", "WatchdogUSec": "infinity"}, ["host.watchdog DOUBTFUL"]),
    ],
)
def test_units_are_judged(shown: Mapping[str, str], found: list[str]) -> None:
    unit = {"LoadState": "loaded", "Type": "notify", **shown}
    findings = unit_findings("dialer-bridge", unit)
    assert [f"{f.code} {f.level.name}" for f in findings] == found


@pytest.mark.parametrize(
    ("template", "target"),
    [
        ("PJSIP/{number}@tim", ("PJSIP", "tim")),
        ("PJSIP/tim/sip:{number}@h", ("PJSIP", "tim")),
        ("SIP/tim/{number}", ("SIP", "tim")),
        ("Local/{number}@ctx/n", ("LOCAL", "ctx")),
    ],
)
def test_trunk_of_a_dial_string(template: str, target: tuple[str, str]) -> None:
    assert trunk_target(template) == target


async def test_command_prints_json_and_exits_with_the_level(site: Site) -> None:
    site.redis = site.server(appendfsync="everysec").url()
    await site.findings()  # writes the file and starts the PBX
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialer.cli", "doctor", "--json",
        env={**os.environ}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    told = json.loads(out)
    assert (process.returncode, told["exit_code"]) == (1, 1)
    assert [f["code"] for f in told["findings"] if f["level"] != "good"] == ["redis.durability"]
