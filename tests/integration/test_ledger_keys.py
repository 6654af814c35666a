"""Every key has a builder that states its lifetime, and no key lives longer."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pytest

from dialer.domain.limits import Limit
from dialer.domain.parameters import Edit, Subject
from dialer.domain.people import Deed, Did
from dialer.domain.roles import Role
from dialer.domain.why import Decision, Took
from dialer.multcall.keys import CellKeys
from dialer.multcall.request import parse_request
from dialer.store import keys
from dialer.store.keys import DONE_RETENTION_S, IDLE_RETENTION_S, LedgerKeys
from dialer.store.ledger import Admissible, DeadList, News, Replacement, write_news
from dialer.store.ledger.fence import Fence
from dialer.store.parameters import ParameterStore
from dialer.store.people import People
from dialer.store.registry import BridgeState, Holder
from tests.integration.cell_rig import BRIDGE, CELL, Site, code_element, element, pbx

#: Phrase of a builder's docstring to a check of the key's TTL (-1: none) while there are no calls.
#: None: the key must not exist then.
LIFETIMES: dict[str, Callable[[int], bool] | None] = {
    r"`DONE_RETENTION_S`": lambda ttl: 0 < ttl <= DONE_RETENTION_S,
    r"`IDLE_RETENTION_S`": lambda ttl: 0 < ttl <= IDLE_RETENTION_S,
    r"Lives for `DNC_REPLY_RETENTION_S`": lambda ttl: 0 < ttl <= keys.DNC_REPLY_RETENTION_S,
    r"`STARTS_RETENTION_S`": lambda ttl: 0 < ttl <= keys.STARTS_RETENTION_S,
    r"`VERDICT_RETENTION_S`": lambda ttl: 0 < ttl <= keys.VERDICT_RETENTION_S,
    r"`PRESENT_S`": lambda ttl: 0 < ttl <= keys.PRESENT_S,
    r"`MINUTES_RETENTION_S`": lambda ttl: 0 < ttl <= keys.MINUTES_RETENTION_S,
    r"`HOURS_RETENTION_S`": lambda ttl: 0 < ttl <= keys.HOURS_RETENTION_S,
    r"`BRIDGE_SHOWN_S`": lambda ttl: 0 < ttl <= keys.BRIDGE_SHOWN_S,
    r"`AGENTS_RETENTION_S`": lambda ttl: 0 < ttl <= keys.AGENTS_RETENTION_S,
    r"`TOOK_S`": lambda ttl: 0 < ttl <= keys.TOOK_S,
    r"A second\.": lambda ttl: 0 <= ttl <= 1,
    r"`SESSION_IDLE_S`": lambda ttl: 0 < ttl <= keys.SESSION_IDLE_S,
    r"`LINK_S`": lambda ttl: 0 < ttl <= keys.LINK_S,
    r"`DEED_REPLY_RETENTION_S`": lambda ttl: 0 < ttl <= keys.DEED_REPLY_RETENTION_S,
    r"Gone when empty": None,
    r"Lives as long as the window": lambda ttl: 0 < ttl <= 3600,
    r"Expires when past": lambda ttl: 0 <= ttl <= 30,
    r"Kept|An element lives until|Lives for ever": lambda ttl: ttl == -1,
}


@dataclass(frozen=True, slots=True)
class Builder:
    name: str
    pattern: str
    doc: str

    @property
    def lifetime(self) -> Callable[[int], bool] | None:
        said = [rule for rule in LIFETIMES if re.search(rule, self.doc)]
        assert len(said) == 1, f"{self.name} must say one lifetime, not {said}: {self.doc}"
        return LIFETIMES[said[0]]


def builders() -> Iterator[Builder]:
    for kind in (LedgerKeys, CellKeys):
        for name, member in vars(kind).items():
            if isinstance(member, property):
                yield Builder(name, getattr(kind("*"), name), member.__doc__ or "")
            elif inspect.isfunction(member) and not name.startswith("__"):
                yield Builder(name, getattr(kind("*"), name)("*"), member.__doc__ or "")
    for name, function in inspect.getmembers(keys, inspect.isfunction):
        if function.__module__ == keys.__name__:
            yield Builder(name, function("*"), function.__doc__ or "")
    for name in ("DO_NOT_CALL", "PARAMETERS", "CHANGES", "USERS", "DEEDS", "SIGN_IN_FAILURES"):
        yield Builder(name, getattr(keys, name), "Kept: the operator owns it.")
    yield Builder("PROBE", keys.PROBE, "A second.")
    yield Builder("LOGGERS", keys.LOGGERS, "`IDLE_RETENTION_S`.")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def leaks(site: Site) -> dict[str, int]:
    """Return key to TTL, of the keys that have no builder or a wrong lifetime. Needs no calls."""
    known = list(builders())
    found = {}
    async for raw in site.redis.scan_iter():
        key, ttl = raw.decode(), await site.redis.ttl(raw)
        owners = [b for b in known if fnmatchcase(key, b.pattern)]
        # Patterns such as `dialer:number:*:*` also match keys of others: compare the prefix.
        owners = [b for b in owners if key.split(":")[:2] == b.pattern.split(":")[:2]] or owners
        if not owners or owners[0].lifetime is None or not owners[0].lifetime(ttl):
            found[key] = ttl
    return found


def test_key_builders_state_one_lifetime_and_share_no_key() -> None:
    every = list(builders())
    assert len(every) == 48
    heads = [b.pattern.replace("*", "") for b in every]
    assert len(set(heads)) == len(heads)
    for builder in every:
        assert builder.lifetime is None or callable(builder.lifetime)


async def a_day(site: Site) -> None:
    """Run every kind of step, until no call is left."""
    ledger = site.ledger
    await site.beat()
    await ledger.take_over(BRIDGE)
    await site.push_requests(element("taken"))
    await ledger.fetch(BRIDGE, at_most=1, threads=9)
    await ledger.park(ledger.keys.hand(BRIDGE), [("tim", element("taken"))])
    parked = ledger.keys.parked("tim")
    await ledger.refuse(parked, element("taken"), request_id="taken", response="{}", dead="{}")
    await ledger.fetch(BRIDGE, at_most=1, threads=9)
    lease = await site.registry.lease(pbx(cps=1), [f"{CELL}:leased"])
    await site.registry.release("pbx01", lease.new)
    state = (await site.registry.pbxs([pbx()]))["pbx01"]
    assert await site.registry.condemn(state, "it placed no calls")
    await site.registry.bridge_beat(BRIDGE, BridgeState(skew_s=0, broker=""))
    raw = element("limited")
    await site.in_hand(raw)
    request = (await site.admitted("plain")).call_id
    one = Admissible(
        source=ledger.keys.hand(BRIDGE),
        raw=raw,
        request=parse_request(raw, cell=CELL),
        most_per_number=3,
        number_window_s=3600,
    )
    await ledger.admit(one, pbx="pbx01", threads=9)
    await site.claimed("limited")
    await replace(ledger, fence=Fence("pbx01", 7)).fence_off()
    await site.steps.run("present", [ledger.keys.worker("pbx01")], ["a worker", keys.PRESENT_S])
    await site.registry.hold("pbx01", Holder(name="w", host="h", pid="1", place=""))
    await site.registry.let_go("pbx01", "w")
    await ledger.unclaim(f"{CELL}:limited", pbx="pbx01", token="t")
    await ledger.assign(await site.waiting("limited"), "pbx02")
    await site.end("limited")
    await site.end("plain")
    await site.accepted("late", wait_s=0)
    await site.end("late")
    await ledger.late_codes()
    await site.accepted("coded")
    await site.code(code_element("coded"))
    await site.code(code_element("coded", 2))
    await site.end("coded")
    await site.registry.release("pbx01", [request, f"{CELL}:late", f"{CELL}:coded"])
    await site.registry.dnc_add(["190"])
    edit = Edit(name="threads", old=50, new=3, was_live=False, is_live=True)
    await ParameterStore(site.steps).change(Subject("cell", CELL), [edit], version=0, by="ana")
    await an_hour_of_the_web_page(People(site.steps))
    decision = Decision(cell=CELL, limit=Limit.CPS)
    news = News(cell=ledger.keys, took=Took(has_started=True), at_ms=0, decision=decision)
    assert await write_news(site.steps, BRIDGE, [news]) == [True]
    (entry,) = await DeadList(site.steps, CELL).newest(1)
    link = Replacement(replaces="taken", by="ana", at="now", entry=entry.name)
    dead = DeadList(site.steps, CELL)
    assert await dead.send(entry, element("again"), request_id="again", link=link) == "sent"
    await ledger.fetch(BRIDGE, at_most=1, threads=9)
    await ledger.refuse(
        ledger.keys.hand(BRIDGE), element("again"), request_id="again", response="{}", dead="{}"
    )
    await ledger.return_hand(BRIDGE)


async def an_hour_of_the_web_page(people: People) -> None:
    await people.put("ana", Role.ADMIN, "hash", by="ops")
    user = await people.user("ana")
    assert user is not None
    assert await people.session(await people.begin_session(user)) is not None
    assert await people.use_link(await people.new_link("bia", Role.VIEW)) is not None
    await people.note(Deed(by="ana", did=Did.SIGNED_IN))
    await people.note(Deed(by="ana", did=Did.SIGN_IN_FAILED))
    assert not await people.remove("bia", "ana")


async def test_no_key_leaks_when_all_calls_are_done(site: Site) -> None:
    await a_day(site)
    assert await site.counters() == (0, 0)
    assert await leaks(site) == {}
    without_ttl = {
        key.decode() async for key in site.redis.scan_iter() if await site.redis.ttl(key) == -1
    }
    wire = site.ledger.wire
    assert without_ttl == {
        wire.ack,
        wire.response,
        wire.counter,
        wire.counter_ack,
        site.ledger.keys.dead,
        *(keys.DO_NOT_CALL, keys.PARAMETERS, keys.CHANGES, keys.USERS, keys.DEEDS),
        keys.SIGN_IN_FAILURES,
    }


async def test_leaked_key_is_found(site: Site) -> None:
    await a_day(site)
    await site.redis.set("dialer:other:ASR_TIM", 1)
    await site.redis.persist(site.ledger.keys.bridges)
    await site.redis.persist(site.ledger.keys.call(f"{CELL}:coded"))
    await site.redis.zadd("dialer:slots:pbx01", {"ASR_TIM:leaked": 1})
    assert set(await leaks(site)) == {
        "dialer:other:ASR_TIM",
        site.ledger.keys.bridges,
        site.ledger.keys.call(f"{CELL}:coded"),
        "dialer:slots:pbx01",
    }
