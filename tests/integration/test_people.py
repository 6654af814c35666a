"""Users of the web page in a real Redis: roles, sessions, one-time links and deeds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from dialer.domain.roles import Role
from dialer.errors import DialerError
from dialer.store import keys
from dialer.store.client import connect
from dialer.store.people import Deed, Did, LastAdmin, Link, NoSuchUser, People, User
from dialer.store.steps import Arg, Steps
from tests.integration.cell_rig import READING, Site

VIEW, OPERATE, ADMIN = Role.VIEW, Role.OPERATE, Role.ADMIN


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
def people(site: Site) -> People:
    return People(site.steps)


class Repeating(Steps):
    """Steps whose first reply is always lost: each step runs twice with the same arguments."""

    __slots__ = ()

    async def run(self, name: str, keys: Any, args: Any = (), **more: Any) -> Any:
        await Steps.run(self, name, keys, args, **more)
        return await Steps.run(self, name, keys, args, **more)


@pytest.fixture
async def repeated(redis_url: str) -> AsyncIterator[People]:
    steps = Repeating(connect(redis_url), "the registry's Redis")
    yield People(steps)
    await steps.close()


async def ana_of(people: People, role: Role = ADMIN) -> User:
    await people.put("ana", role, "hash-1", by="ops@host")
    found = await people.user("ana")
    assert found is not None
    return found


async def trail(people: People) -> list[tuple[str, Did, str]]:
    """Who did what, the oldest deed first."""
    return [(deed.by, deed.did, deed.what) for deed in reversed(await people.deeds(99))]


async def session_key(site: Site) -> str:
    (key,) = [key async for key in site.redis.scan_iter("dialer:session:*")]
    return str(key.decode())


async def everything(site: Site) -> str:
    """All keys and values of Redis."""
    found: list[Any] = []
    async for key in site.redis.scan_iter():
        kind = await site.steps.read("TYPE", key)
        command = READING[kind](key) if kind in READING else ("XRANGE", key, "-", "+")
        found += [key, await site.steps.read(*command)]
    return repr(found)


# --- users ----------------------------------------------------------------------------------


async def test_there_is_nobody_at_first(people: People) -> None:
    assert await people.is_empty()
    assert await people.users() == []
    assert await people.user("ana") is None
    assert await people.password_hash("ana") is None
    assert await people.deeds(9) == []


async def test_a_user_is_stored_with_the_deed(people: People) -> None:
    ana = await ana_of(people)
    assert (ana.name, ana.role, ana.has_password, ana.by) == ("ana", ADMIN, True, "ops@host")
    assert await people.password_hash("ana") == "hash-1"
    assert not await people.is_empty()
    (deed,) = await people.deeds(9)
    assert (deed.by, deed.did, deed.what, deed.why) == (
        *("ops@host", Did.USER_ADDED, "ana: admin", ""),
    )
    assert deed.at_ms == ana.created_ms


async def test_users_are_listed_by_name(people: People) -> None:
    for name in ("eva", "ana", "bia"):
        await people.put(name, VIEW, None, by="ops")
    found = await people.users()
    assert [user.name for user in found] == ["ana", "bia", "eva"]
    assert not any(user.has_password for user in found)
    assert await people.password_hash("bia") is None


async def test_a_user_is_added_once(people: People) -> None:
    assert await people.add("ana", VIEW, "hash-1", by="ops")
    before = await people.user("ana")
    assert not await people.add("ana", ADMIN, "hash-2", by="somebody")
    assert await people.user("ana") == before
    assert await people.password_hash("ana") == "hash-1"
    assert len(await people.deeds(9)) == 1


async def test_each_change_begins_a_new_generation(people: People) -> None:
    first = await ana_of(people)
    await people.put("bia", ADMIN, "hash", by="ana")
    seen = [first]
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: people.change_role("ana", VIEW, "bia"),
        lambda: people.set_password("ana", "hash-2", "bia"),
        lambda: people.put("ana", OPERATE, None, by="bia"),
        lambda: people.put("ana", OPERATE, "hash-3", by="bia"),
    ]
    for change in changes:
        await change()
        found = await people.user("ana")
        assert found is not None
        seen.append(found)
    generations = [user.since for user in seen]
    assert sorted(set(generations)) == generations
    assert {(user.created_ms, user.by) for user in seen} == {(first.created_ms, "ops@host")}
    assert [what for _, _, what in await trail(people)][2:] == [
        "ana: admin -> view",
        "ana: password",
        "ana: view -> operate, no password",
        "ana: password",
    ]


async def test_the_same_role_again_changes_nothing(people: People) -> None:
    ana = await ana_of(people)
    await people.change_role("ana", ADMIN, "bia")
    assert await people.user("ana") == ana
    assert len(await people.deeds(9)) == 1


async def test_a_generation_is_not_used_again(people: People, site: Site) -> None:
    """Somebody deleted the users, or the clock of Redis was set back."""
    ana = await ana_of(people)
    await people.put("bia", ADMIN, "hash", by="ana")
    await people.remove("ana", "bia")
    await site.redis.hset(keys.USERS, ":since", ana.since + 10**14)
    again = await ana_of(people)
    assert again.since == ana.since + 10**14 + 1
    await people.set_password("ana", "hash-2", "bia")
    assert (await people.users())[0].since == again.since + 1
    await people.remove("ana", "bia")
    assert (await ana_of(people)).since == again.since + 2
    await site.redis.delete(keys.USERS)
    assert (await ana_of(people)).since > ana.since


async def test_an_unknown_user_is_not_changed(people: People) -> None:
    with pytest.raises(NoSuchUser, match="there is no user ana; `dialer users list` names all"):
        await people.change_role("ana", VIEW, "ops")
    with pytest.raises(NoSuchUser):
        await people.set_password("ana", "hash", "ops")
    assert not await people.remove("ana", "ops")
    assert await people.deeds(9) == []


async def test_a_name_that_no_user_can_have_is_refused(people: People) -> None:
    for name in ("", "a b", ":since", "\ud800"):
        with pytest.raises(DialerError, match="cannot be the name of a user"):
            await people.put(name, VIEW, None, by="ops")
        assert await people.user(name) is None
        assert await people.password_hash(name) is None
    with pytest.raises(DialerError, match="cannot be the name of a user"):
        await people.new_link("a b", VIEW)


async def test_the_last_admin_stays(people: People) -> None:
    ana = await ana_of(people)
    await people.put("bia", OPERATE, None, by="ana")
    said = "besides ana no admin has a password; give another user the role admin and a password"
    for change in (
        people.remove("ana", "bia"),
        people.change_role("ana", OPERATE, "bia"),
        people.put("ana", VIEW, "hash", by="bia"),
    ):
        with pytest.raises(LastAdmin, match=said):
            await change
    assert await people.user("ana") == ana
    assert len(await people.deeds(9)) == 2
    await people.set_password("ana", "hash-2", "ana")
    await people.put("bia", ADMIN, "hash", by="ana")
    assert await people.remove("ana", "bia")
    assert [user.name for user in await people.users()] == ["bia"]


async def test_the_last_admin_with_a_password_stays(people: People) -> None:
    ana = await ana_of(people)
    await people.put("bia", ADMIN, None, by="ana")
    for change in (
        people.remove("ana", "bia"),
        people.change_role("ana", OPERATE, "bia"),
        people.put("ana", ADMIN, None, by="bia"),
    ):
        with pytest.raises(LastAdmin, match="besides ana no admin has a password"):
            await change
    assert await people.user("ana") == ana
    assert await people.remove("bia", "ana")
    await people.put("bia", ADMIN, "hash", by="ana")
    await people.put("ana", ADMIN, None, by="bia")
    assert await people.remove("ana", "bia")


async def test_of_admins_without_a_password_one_stays(people: People) -> None:
    """As in the demo, whose only user enters by a link."""
    for _ in range(2):
        await people.put("demo", ADMIN, None, by="demo")
    with pytest.raises(LastAdmin):
        await people.remove("demo", "demo")
    await people.put("eva", ADMIN, None, by="demo")
    assert await people.remove("demo", "eva")


async def test_users_may_change_while_there_is_no_admin(people: People) -> None:
    for name in ("ana", "bia"):
        await people.put(name, VIEW, None, by="ops")
    await people.change_role("ana", OPERATE, "ops")
    assert await people.remove("bia", "ops")


async def test_of_two_admins_who_remove_each_other_one_stays(
    people: People, repeated: People
) -> None:
    await ana_of(people)
    await people.put("bia", ADMIN, "hash", by="ana")
    said = await asyncio.gather(
        people.remove("ana", "bia"), repeated.remove("bia", "ana"), return_exceptions=True
    )
    assert {type(one) for one in said} == {bool, LastAdmin}
    assert len(await people.users()) == 1


# --- sessions -------------------------------------------------------------------------------


async def test_a_session_has_its_user(people: People) -> None:
    ana = await ana_of(people)
    token = await people.begin_session(ana)
    session = await people.session(token)
    assert session is not None
    assert session.user == ana
    assert len(token) == len(session.csrf) == 43
    assert token not in (session.csrf, session.token_digest)
    assert await people.session(token) == session
    assert await people.session("x") is None
    assert await people.session("\ud800") is None


async def test_a_session_ends_when_its_user_changes(people: People) -> None:
    ana = await ana_of(people)
    await people.put("bia", ADMIN, "hash", by="ana")
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: people.change_role("ana", VIEW, "bia"),
        lambda: people.set_password("ana", "hash-2", "bia"),
        lambda: people.put("ana", VIEW, "hash-3", by="bia"),
        lambda: people.remove("ana", "bia"),
    ]
    for change in changes:
        user = await people.user("ana")
        assert user is not None
        token = await people.begin_session(user)
        assert await people.session(token) is not None
        await change()
        assert await people.session(token) is None
    token = await people.begin_session(ana)
    assert await people.session(token) is None, "it was another generation"


async def test_a_session_does_not_outlive_a_user_who_is_added_again(people: People) -> None:
    await people.put("bia", ADMIN, "hash", by="ops")
    token = await people.begin_session(await ana_of(people))
    await people.remove("ana", "bia")
    await ana_of(people)
    assert await people.session(token) is None


async def test_a_session_of_another_user_goes_on(people: People) -> None:
    token = await people.begin_session(await ana_of(people))
    await people.put("bia", VIEW, "hash", by="ana")
    await people.set_password("bia", "hash-2", "ana")
    assert await people.session(token) is not None


async def test_a_session_ends_at_the_sign_out(people: People, site: Site) -> None:
    ana = await ana_of(people)
    token, other = await people.begin_session(ana), await people.begin_session(ana)
    await people.end_session(token)
    await people.end_session(token)
    assert await people.session(token) is None
    assert await people.session(other) is not None
    await session_key(site)


async def test_use_renews_the_lifetime_of_a_session(people: People, site: Site) -> None:
    brief = People(site.steps, session_idle_s=50)
    token = await brief.begin_session(await ana_of(people))
    key = await session_key(site)
    assert 40_000 < await site.redis.pttl(key) <= 50_000
    assert await people.session(token) is not None
    assert 50_000 < await site.redis.pttl(key) <= keys.SESSION_IDLE_S * 1000
    assert await brief.session(token) is not None
    assert await site.redis.pttl(key) <= 50_000


async def test_use_renews_no_session_beyond_its_longest_lifetime(
    people: People, site: Site
) -> None:
    token = await people.begin_session(await ana_of(people))
    key = await session_key(site)
    assert await People(site.steps, session_max_s=50).session(token) is not None
    assert 0 < await site.redis.pttl(key) <= 50_000
    began = int(await site.redis.hget(key, "created_ms") or 0)
    await site.redis.hset(key, "created_ms", began - keys.SESSION_MAX_S * 1000)
    assert await people.session(token) is None
    assert not await site.redis.exists(key)


async def test_a_session_begins_with_no_more_than_its_longest_lifetime(
    people: People, site: Site
) -> None:
    await People(site.steps, session_max_s=50).begin_session(await ana_of(people))
    assert 0 < await site.redis.pttl(await session_key(site)) <= 50_000


# --- one-time links -------------------------------------------------------------------------


async def test_a_look_at_a_link_does_not_use_it(people: People) -> None:
    token = await people.new_link("ana", OPERATE)
    wanted = Link(name="ana", role=OPERATE, enters=False)
    assert [await people.link(token) for _ in range(2)] == [wanted] * 2
    assert await people.use_link(token) == wanted
    assert await people.link(token) is None
    assert await people.use_link(token) is None


async def test_a_link_used_by_two_at_once_is_used_once(people: People, repeated: People) -> None:
    token = await people.new_link("", ADMIN)
    uses = [who.use_link(token) for who in (people, repeated) * 8]
    found = [link for link in await asyncio.gather(*uses) if link is not None]
    assert found == [Link(name="", role=ADMIN, enters=False)]


async def test_a_link_for_the_first_user_ends_with_the_first_user(people: People) -> None:
    first, second = [await people.new_link("", ADMIN) for _ in range(2)]
    assert await people.use_link(first) is not None
    assert await people.add_first("ana", ADMIN, "hash", by="ana")
    assert not await people.add_first("bia", ADMIN, "hash", by="bia")
    assert await people.link(second) is None
    assert await people.use_link(second) is None
    assert await people.use_link(await people.new_link("", ADMIN)) is None


async def test_a_link_may_sign_a_user_in(people: People) -> None:
    token = await people.new_link("ana", VIEW, enters=True)
    assert await people.use_link(token) == Link(name="ana", role=VIEW, enters=True)
    with pytest.raises(DialerError, match="cannot be the name of a user"):
        await people.new_link("", VIEW, enters=True)


async def test_a_link_expires(people: People, site: Site) -> None:
    await people.new_link("ana", VIEW, lifetime_s=50)
    (key,) = [key async for key in site.redis.scan_iter("dialer:link:*")]
    assert 40 < await site.redis.ttl(key) <= 50
    await site.redis.delete(key)
    token = await people.new_link("ana", VIEW)
    await people.use_link(token)
    (key,) = [key async for key in site.redis.scan_iter("dialer:link:*")]
    assert 0 < await site.redis.ttl(key) <= keys.LINK_S, "a used one does too"


async def test_a_link_ends_with_its_user(people: People) -> None:
    await people.put("bia", ADMIN, "a-hash", by="test")
    await people.put("ana", VIEW, None, by="test")
    removed = await people.new_link("ana", VIEW)
    await people.remove("ana", "bia")
    assert await people.link(removed) is None
    assert await people.use_link(removed) is None
    early = await people.new_link("ana", VIEW)
    await people.put("ana", OPERATE, None, by="test")
    assert await people.use_link(early) is None
    late = await people.new_link("ana", OPERATE)
    assert await people.link(late) is not None
    await people.set_password("ana", "another-hash", "ana")
    assert await people.use_link(late) is None


async def test_an_unknown_link_is_none(people: People) -> None:
    for token in ("", "x", "\ud800"):
        assert await people.link(token) is None
        assert await people.use_link(token) is None


async def test_a_new_link_is_a_deed(people: People) -> None:
    await people.new_link("ana", OPERATE, by="bia")
    await people.new_link("", ADMIN)
    assert await trail(people) == [
        ("bia", Did.LINK_MADE, "ana: operate"),
        ("dialer", Did.LINK_MADE, "new user: admin"),
    ]


async def test_no_token_is_in_redis(people: People, site: Site) -> None:
    tokens = [await people.begin_session(await ana_of(people))]
    tokens += [await people.new_link("ana", VIEW), await people.new_link("", VIEW)]
    await people.session(tokens[0])
    await people.use_link(tokens[1])
    stored = await everything(site)
    assert "dialer:session:" in stored
    assert "dialer:link:" in stored
    assert [token for token in tokens if token in stored] == []


# --- deeds ----------------------------------------------------------------------------------


async def test_deeds_are_read_the_newest_first_page_by_page(people: People) -> None:
    for number in range(5):
        await people.note(Deed(by="ana", did=Did.NUMBER_SEEN, what=f"call {number}", why="asked"))
    first = await people.deeds(2)
    rest = await people.deeds(9, first[-1].id)
    assert [deed.what for deed in [*first, *rest]] == [f"call {n}" for n in (4, 3, 2, 1, 0)]
    assert {(deed.by, deed.did, deed.why) for deed in first} == {
        ("ana", Did.NUMBER_SEEN, "asked"),
    }
    assert await people.deeds(9, rest[-1].id) == []
    assert await people.deeds(2, "nonsense") == first


async def test_a_deed_has_the_time_of_redis(people: People, site: Site) -> None:
    await people.note(Deed(by="ana", did=Did.SIGNED_OUT, at_ms=5, id="7-7"))
    (deed,) = await people.deeds(9)
    seconds, _ = await site.redis.time()
    assert abs(deed.at_ms / 1000 - seconds) < 60
    assert deed.id != "7-7"


async def test_a_deed_is_one_short_line(people: People) -> None:
    await people.note(Deed(by="a\nb", did=Did.HUNG_UP, what="x" * 500, why="\x1b[2J\ud800"))
    (deed,) = await people.deeds(9)
    assert (deed.by, deed.what, deed.why) == ("a b", "x" * 200, " [2J ")
    await people.put("ana", VIEW, None, by="b\nc")
    assert (await people.deeds(1))[0].by == "b c"


async def test_the_trail_of_deeds_is_bounded(
    people: People, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "DEEDS_KEPT", 10)
    one = Deed(by="ana", did=Did.HUNG_UP)
    await asyncio.gather(*(people.note(one) for _ in range(300)))
    assert 10 <= await site.redis.xlen(keys.DEEDS) < 250  # whole nodes of a stream are dropped
    await people.put("ana", VIEW, None, by="ops")
    await people.new_link("ana", VIEW)
    assert await site.redis.xlen(keys.DEEDS) < 250


async def test_failures_of_strangers_push_no_deed_out(
    people: People, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "DEEDS_KEPT", 10)
    monkeypatch.setattr(keys, "FAILURES_KEPT", 10)
    await people.note(Deed(by="ana", did=Did.HUNG_UP))
    failed = Deed(by="unknown name", did=Did.SIGN_IN_FAILED)
    await asyncio.gather(*(people.note(failed) for _ in range(300)))
    assert [deed.did for deed in await people.deeds(9)] == [Did.HUNG_UP]
    assert 10 <= await site.redis.xlen(keys.SIGN_IN_FAILURES) < 250
    newest, second = await people.failures(2)
    assert (newest.did, newest.by) == (Did.SIGN_IN_FAILED, "unknown name")
    assert await people.failures(1, newest.id) == [second]


async def test_deeds_behind_unreadable_ones_are_found(people: People, site: Site) -> None:
    """A newer version of the program noted what this one does not know."""
    await people.note(Deed(by="ana", did=Did.HUNG_UP))
    for _ in range(5):
        await site.redis.xadd(keys.DEEDS, {"did": "flown"})
    assert [deed.did for deed in await people.deeds(2)] == [Did.HUNG_UP]


# --- repeats and garbage --------------------------------------------------------------------


async def test_a_repeated_step_acts_once(repeated: People, site: Site) -> None:
    """Its reply was lost: `Steps` sends it again."""
    people = repeated
    assert await people.add("ana", ADMIN, "hash", by="ops")
    assert not await people.add("ana", ADMIN, "hash", by="ops")
    await people.put("bia", VIEW, None, by="ana")
    await people.change_role("bia", OPERATE, "ana")
    await people.set_password("bia", "hash", "ana")
    bia = await people.user("bia")
    assert bia is not None
    token = await people.begin_session(bia)
    assert await people.session(token) is not None
    assert await people.remove("bia", "ana")
    link = await people.new_link("eva", VIEW, by="ana")
    assert await people.use_link(link) == Link(name="eva", role=VIEW, enters=False)
    assert await people.use_link(link) is None
    await people.note(Deed(by="ana", did=Did.SIGNED_OUT))
    assert await trail(people) == [
        ("ops", Did.USER_ADDED, "ana: admin"),
        ("ana", Did.USER_ADDED, "bia: view"),
        ("ana", Did.USER_CHANGED, "bia: view -> operate"),
        ("ana", Did.USER_CHANGED, "bia: password"),
        ("ana", Did.USER_REMOVED, "bia: operate"),
        ("ana", Did.LINK_MADE, "eva: view"),
        ("ana", Did.SIGNED_OUT, ""),
    ]


async def test_a_repeat_does_not_undo_what_came_in_between(people: People, site: Site) -> None:
    await ana_of(people)
    names = [keys.USERS, keys.DEEDS, keys.deed_reply("t1")]
    change: list[Arg] = ["bia", "admin", "-", "ana", "any", 100, 60]
    assert await site.steps.run("user_set", names, change) == b"added"
    await people.change_role("bia", VIEW, "ana")
    assert await site.steps.run("user_set", names, change) == b"added"
    bia = await people.user("bia")
    assert bia is not None
    assert bia.role is VIEW
    names[2] = keys.deed_reply("t2")
    removal: list[Arg] = ["bia", "ana", 100, 60]
    assert await site.steps.run("user_remove", names, removal) == b"removed"
    await people.put("bia", VIEW, None, by="ana")
    assert await site.steps.run("user_remove", names, removal) == b"removed"
    assert await people.user("bia") is not None
    assert len(await people.deeds(99)) == 5


async def test_strange_users_are_ignored(people: People, site: Site) -> None:
    ana = await ana_of(people)
    record = "admin 1 2 hash ops"
    strange: dict[Any, Any] = {
        "bia": "admin",
        "eva": "",
        "lia": "boss 1 2 hash ops",
        "ivo": "admin one 2 hash ops",
        "leo": f"admin {'9' * 17} 2 hash ops",
        "rui": f"admin 1 {'9' * 15} hash ops",
        "a b": record,
        "x" * 65: record,
        ":since": record,
        "jo\xe3o": record,
        b"\xff": record,
        "gil": b"\xff",
    }
    await site.redis.hset(keys.USERS, mapping=strange)
    assert await people.users() == [ana]
    for name in ("bia", "lia", "a b", ":since"):
        assert await people.user(name) is None
    assert not await people.remove("bia", "ana")
    with pytest.raises(LastAdmin):
        await people.remove("ana", "ana")
    await site.redis.hset(keys.USERS, "tom", b"view 1 99999999999999 \xff b\x1b[2J\xff\nc")
    tom = await people.user("tom")
    assert tom is not None
    assert (tom.by, tom.created_ms) == ("b [2J\ufffd c", 99_999_999_999_999)
    assert await people.password_hash("tom") == "\ufffd"
    assert await people.add("bia", VIEW, None, by="ana"), "garbage is no user"


@pytest.mark.parametrize(
    "broken",
    [
        {"created_ms": "x"},
        {"created_ms": "9" * 15},
        {"created_ms": "1"},
        {"since": "x"},
        {"user": "a b"},
        {"user": b"\xff"},
        {"user": ":since"},
        {"csrf": None},
        {"user": None},
    ],
    ids=str,
)
async def test_a_strange_session_ends(people: People, site: Site, broken: dict[str, Any]) -> None:
    token = await people.begin_session(await ana_of(people))
    key = await session_key(site)
    for field, value in broken.items():
        if value is None:
            await site.redis.hdel(key, field)
        else:
            await site.redis.hset(key, field, value)
    assert await people.session(token) is None
    assert not await site.redis.exists(key)


async def test_a_csrf_token_of_any_bytes_is_read(people: People, site: Site) -> None:
    token = await people.begin_session(await ana_of(people))
    await site.redis.hset(await session_key(site), "csrf", b"\xff")
    session = await people.session(token)
    assert session is not None
    assert session.csrf == "\ufffd"


@pytest.mark.parametrize(
    "broken", [{"role": "boss"}, {"name": "a b"}, {"name": b"\xff"}, {"role": b"\xff"}], ids=str
)
async def test_a_strange_link_is_none(people: People, site: Site, broken: dict[Any, Any]) -> None:
    token = await people.new_link("ana", VIEW)
    (key,) = [key async for key in site.redis.scan_iter("dialer:link:*")]
    await site.redis.hset(key, mapping=broken)
    assert await people.link(token) is None
    assert await people.use_link(token) is None


async def test_a_link_for_nobody_does_not_sign_in(people: People, site: Site) -> None:
    token = await people.new_link("ana", VIEW, enters=True)
    (key,) = [key async for key in site.redis.scan_iter("dialer:link:*")]
    await site.redis.hset(key, "name", "")
    assert await people.link(token) == Link(name="", role=VIEW, enters=False)


async def test_strange_deeds_are_ignored(people: People, site: Site) -> None:
    await people.note(Deed(by="ana", did=Did.SIGNED_IN))
    whole = {"at_ms": "1", "by": "x", "did": "signed_in", "what": "", "why": ""}
    odd: list[dict[Any, Any]] = [
        {"a": "b"},
        {**whole, "did": "danced"},
        {**whole, "at_ms": "9" * 20},
        {**whole, "by": b"\xff"},
        {b"\xff": "x"},
    ]
    for entry in odd:
        await site.redis.xadd(keys.DEEDS, entry)
    assert [deed.by for deed in await people.deeds(9)] == ["ana"]
    await site.redis.xadd(keys.DEEDS, {**whole, "by": "\x1b[2J"})  # type: ignore[dict-item]
    assert (await people.deeds(1))[0].by == " [2J"


async def test_keys_of_another_type_do_no_harm(people: People, site: Site) -> None:
    token = await people.begin_session(await ana_of(people))
    used = await people.new_link("ana", VIEW)
    every = [key async for key in site.redis.scan_iter() if b"deedreply" not in key]
    assert len(every) == 4
    for key in every:
        await site.redis.delete(key)
        await site.redis.rpush(key, "x")
    assert await people.users() == []
    assert await people.user("ana") is None
    assert await people.is_empty()
    assert await people.deeds(9) == []
    assert await people.session(token) is None
    assert await people.link(used) is None


@pytest.mark.parametrize("is_with_users", [False, True])
async def test_a_step_writes_over_keys_of_another_type(
    people: People, site: Site, is_with_users: bool
) -> None:
    ana = await ana_of(people)
    token = await people.begin_session(ana)
    await people.put("bia", ADMIN, "hash", by="ops")
    steps: list[tuple[Did | None, Callable[[], Awaitable[object]]]] = [
        (None if is_with_users else Did.USER_REMOVED, lambda: people.remove("bia", "ana")),
        (Did.SIGNED_IN, lambda: people.note(Deed(by="ana", did=Did.SIGNED_IN))),
        (Did.LINK_MADE, lambda: people.new_link("ana", VIEW)),
        (None, lambda: people.session(token)),
        (Did.USER_ADDED, lambda: people.put("eva", VIEW, None, by="ops")),
    ]
    for did, step in steps:
        for key in (keys.DEEDS, *([keys.USERS] if is_with_users else [])):
            await site.redis.delete(key)
            await site.redis.rpush(key, "x")
        await step()
        assert [deed.did for deed in await people.deeds(9)] == ([did] if did else [])
    names = ["eva"] if is_with_users else ["ana", "eva"]
    assert [user.name for user in await people.users()] == names
    assert (await people.session(token) is None) is is_with_users
