"""Live parameters in a real Redis: changes, their trail, undo, and the commands."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.cli.steer import operator
from dialer.domain.parameters import ChangedSince, Edit, Parameters, Subject
from dialer.errors import DialerError
from dialer.settings import Settings, load
from dialer.settings.typed import wanted
from dialer.steering import Made, NoSuchChange, Steering
from dialer.store import keys, parameters
from dialer.store.parameters import AnotherCameFirst, ParameterStore, Watch
from dialer.store.steps import Arg, Steps
from tests.integration.cell_rig import Site
from tests.processes import PbxPlace, site_toml
from tests.waiting import wait_until

TIM, PBX01 = Subject("cell", "ASR_TIM"), Subject("pbx", "pbx01")
THREE = Edit(name="threads", old=50, new=3, was_live=False, is_live=True)

Dialer = Callable[..., Result]


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture
def store(site: Site) -> ParameterStore:
    return ParameterStore(site.steps)


@pytest.fixture
def config(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dialer.toml with the registry in `redis_url`."""
    pbx = PbxPlace(name="pbx01", port=5038, secret="x")
    path = tmp_path / "dialer.toml"
    path.write_text(site_toml(redis_url, redis_url, [pbx], cells={"ASR_TIM": {"threads": 50}}))
    monkeypatch.setenv("DIALER_CONFIG", str(path))
    return path


@pytest.fixture
def file(config: Path) -> Settings:
    return load(config)


@pytest.fixture
def ana(store: ParameterStore, file: Settings) -> Steering:
    return Steering(store=store, file=file, by="ana@ops")


def threads(text: str) -> dict[str, Any]:
    return wanted("cell", [f"threads={text}"])


# --- store ----------------------------------------------------------------------------------


async def test_there_are_no_parameters_at_first(store: ParameterStore) -> None:
    assert await store.read() == Parameters()
    assert await store.mark() == b""
    assert await store.changes(at_most=9) == []
    assert await store.change_at(1) is None


async def test_a_change_is_stored_with_its_trail(store: ParameterStore) -> None:
    number = await store.change(TIM, [THREE], version=0, by="ana@ops", why="quiet day")
    found = await store.read()
    setting = found.settings(TIM)["threads"]
    assert (number, found.version, setting.change) == (1, 1, 1)
    assert (setting.value, setting.by, setting.why) == (3, "ana@ops", "quiet day")
    (change,) = await store.changes(at_most=9)
    assert (change.number, change.subject, change.by, change.why) == (
        1,
        TIM,
        "ana@ops",
        "quiet day",
    )
    assert (change.edits, change.undoes, change.at_ms) == ([THREE], 0, setting.at_ms)
    assert await store.change_at(1) == change
    assert await store.change_at(2) is None


async def test_a_change_that_was_given_up_is_not_made_later(
    site: Site, store: ParameterStore
) -> None:
    await site.redis.config_set("maxmemory", 1)
    try:
        change = store.change(TIM, [THREE], version=0, by="ana")
        assert await site.steps.or_none_if_down(change) is None
    finally:
        await site.redis.config_set("maxmemory", 0)
    assert await store.changes(at_most=9) == []
    assert await store.change(TIM, [THREE], version=0, by="bia") == 1
    assert [one.by for one in await store.changes(at_most=9)] == ["bia"]


async def test_a_removed_value_leaves_the_number_of_its_end(store: ParameterStore) -> None:
    await store.change(TIM, [THREE], version=0, by="ana")
    back = Edit(name="threads", old=3, new=50, was_live=True, is_live=False)
    assert await store.change(TIM, [back], version=1, by="ana") == 2
    found = await store.read()
    assert (found.of, found.changed_by(TIM, "threads"), found.changed_by(TIM, "retries")) == (
        *({}, 2, 0),
    )


async def test_a_change_for_an_old_version_is_refused(store: ParameterStore) -> None:
    await store.change(TIM, [THREE], version=0, by="ana")
    with pytest.raises(AnotherCameFirst):
        await store.change(TIM, [THREE], version=0, by="bia")
    assert [change.by for change in await store.changes(at_most=9)] == ["ana"]


async def test_a_repeated_change_is_made_once(store: ParameterStore, site: Site) -> None:
    """Its reply was lost: `Steps` sends it again, perhaps behind other changes."""
    args: list[Arg] = [
        "token",
        0,
        100,
        json.dumps({}),
        "cell:ASR_TIM:threads",
        '{"value":3,"by":"ana"}',
    ]
    names = [keys.PARAMETERS, keys.CHANGES]
    assert await site.steps.run("change", names, args) == [1, 1]
    assert await site.steps.run("change", names, args) == [1, 1]
    await store.change(TIM, [THREE], version=1, by="bia")
    assert await site.steps.run("change", names, args) == [1, 1]
    assert await site.steps.run("change", names, ["other", *args[1:]]) == [0, 2]
    assert (await store.read()).settings(TIM)["threads"].by == "bia"
    assert await site.redis.xlen(keys.CHANGES) == 2


async def test_numbers_are_not_used_again(store: ParameterStore, site: Site) -> None:
    """Somebody deleted the parameters: the trail goes on."""
    for version in range(3):
        await store.change(TIM, [THREE], version=version, by="ana")
    await site.redis.delete(keys.PARAMETERS)
    assert (await store.read()).version == 3
    assert await store.change(TIM, [THREE], version=3, by="ana") == 4
    assert [change.number for change in await store.changes(at_most=2)] == [4, 3]
    assert [change.number for change in await store.changes(at_most=2, below=3)] == [2, 1]


async def test_the_trail_is_bounded(
    store: ParameterStore, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "CHANGES_KEPT", 10)
    for version in range(400):
        await store.change(TIM, [THREE], version=version, by="ana")
    assert 10 <= await site.redis.xlen(keys.CHANGES) < 250  # whole nodes of a stream are dropped
    assert (await store.read()).version == 400


async def test_strange_contents_are_ignored(
    store: ParameterStore, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await store.change(TIM, [THREE], version=0, by="a\x1b[2Jb\nc", why="x" * 500)
    strange = {
        "nonsense": "1 2 {}",
        "cell:ASR_TIM:retries": "no json",
        "cell:ASR_TIM:amd": "1 2 []",
        "moon:ASR_TIM:amd": '1 2 {"value":1,"by":"x"}',
        "cell:ASR_TIM:paused": f'1 {"9" * 20} {{"value":true,"by":"x"}}',
        "cell:ASR_TIM:\x1b[2J": '1 2 {"value":1,"by":"x"}',
        b"\xff": b"\xff",
    }
    for name, value in strange.items():
        await site.redis.hset(keys.PARAMETERS, name, value)  # type: ignore[arg-type]
    edits: list[dict[str, Any]] = [
        {"name": "a", "old": 1, "new": 2, "was_live": True, "is_live": True}
    ]
    about = {"kind": "cell", "name": "A", "by": "b", "edits": edits}
    odd: list[dict[str, Any]] = [
        {"kind": "moon"},
        {"edits": 5},
        {"edits": [{**edits[0], "name": 5}]},
        {"edits": [{**edits[0], "name": "\x1b[2J"}]},
        {"name": "\x1b[2J"},
    ]
    for n, one in enumerate(odd, start=2):
        entry = {"token": "t", "at_ms": 1, "change": json.dumps({**about, **one})}
        await site.redis.xadd(keys.CHANGES, entry, id=f"{n}-0")  # type: ignore[arg-type]
    entry = {"token": "t", "at_ms": "9" * 20, "change": json.dumps(about)}
    await site.redis.xadd(keys.CHANGES, entry, id="8-0")  # type: ignore[arg-type]
    await site.redis.xadd(keys.CHANGES, {"a": "b"}, id="9-0")
    found = await store.read()
    assert [*found.settings(TIM)] == ["threads"]
    assert found.settings(TIM)["threads"].by == "a [2Jb c"
    assert len(found.settings(TIM)["threads"].why) == 200
    assert caplog.messages.count("A live parameter cannot be read; ignored") == len(strange)
    assert [change.number for change in await store.changes(at_most=9)] == [1]
    assert await store.change(TIM, [THREE], version=9, by="ana") == 10


async def test_keys_of_another_type_do_no_harm(store: ParameterStore, site: Site) -> None:
    await site.redis.set(keys.PARAMETERS, "x")
    await site.redis.set(keys.CHANGES, "x")
    assert await store.read() == Parameters()
    assert await store.mark() == b""
    assert await store.changes(at_most=9) == []
    assert await store.change(TIM, [THREE], version=0, by="ana") == 1
    assert (await store.read()).settings(TIM)["threads"].value == 3


async def test_a_watch_tells_each_change_once(
    store: ParameterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "LOOK_EVERY_S", 0.01)
    seen: list[int] = []
    watch = Watch(store)
    assert await watch.look()
    assert not await watch.look()
    task = asyncio.create_task(watch.run(lambda found: seen.append(found.version)))
    await store.change(TIM, [THREE], version=0, by="ana")
    await wait_until(lambda: seen == [1], "the first change")
    await store.change(TIM, [THREE], version=1, by="ana")
    await wait_until(lambda: seen == [1, 2], "the second change")
    assert watch.parameters.version == 2
    assert watch.news == ["threads of cell ASR_TIM = 3 by ana"]
    back = Edit(name="threads", old=3, new=50, was_live=True, is_live=False)
    await store.change(TIM, [back], version=2, by="ana")
    await wait_until(lambda: seen == [1, 2, 3], "the third change")
    assert watch.news == ["threads of cell ASR_TIM as in dialer.toml"]
    task.cancel()


RESTORED = "Redis had lost live parameters; they are restored, but not their audit trail"
PAUSED = Edit(name="paused", old=False, new=True, was_live=False, is_live=True)
RESUMED = Edit(name="paused", old=True, new=False, was_live=True, is_live=False)


async def test_parameters_that_redis_lost_are_restored(
    store: ParameterStore, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await store.change(TIM, [PAUSED], version=0, by="ana", why="fire alarm")
    watch, another = Watch(store), Watch(store)
    await watch.look()
    await store.change(TIM, [THREE], version=1, by="ana")
    await watch.look()
    await another.look()
    remembered = watch.parameters
    await site.redis.flushall()  # a failover to a server that has nothing
    later = Edit(name="threads", old=50, new=9, was_live=False, is_live=True)
    await store.change(TIM, [later], version=0, by="bia")
    assert await watch.look()
    assert caplog.messages == [RESTORED]
    found = watch.parameters
    assert found.version == 3
    assert found.state(TIM) == remembered.state(TIM)
    assert found.settings(TIM)["threads"].value == 9, "it was set after the loss"
    assert await another.look()
    assert another.parameters == found
    assert len(caplog.messages) == 1, "one process restores them"
    assert not await watch.look()
    assert await store.change(TIM, [THREE], version=3, by="ana") == 4


async def test_a_change_whose_number_was_used_before_is_seen(
    store: ParameterStore, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis lost change 1, and gave its number to another one before anybody looked."""
    await store.change(TIM, [THREE], version=0, by="ana")
    watch = Watch(store)
    await watch.look()
    await site.redis.flushall()
    await store.change(PBX01, [THREE], version=0, by="bia")
    assert await watch.look()
    found = watch.parameters
    assert found.settings(TIM)["threads"].by == "ana"
    assert found.settings(PBX01)["threads"].by == "bia"
    assert caplog.messages == [RESTORED]
    await site.redis.flushall()
    for version in range(5):  # more than it had known
        await store.change(PBX01, [THREE], version=version, by="eva")
    assert await watch.look()
    assert watch.parameters.settings(TIM)["threads"].by == "ana"
    assert watch.parameters.settings(PBX01)["threads"].by == "eva"


async def test_a_lost_resume_is_restored(store: ParameterStore, site: Site) -> None:
    await store.change(TIM, [PAUSED], version=0, by="ana")
    former = await site.redis.dump(keys.PARAMETERS), await site.redis.dump(keys.CHANGES)
    await store.change(TIM, [RESUMED], version=1, by="ana")
    watch = Watch(store)
    await watch.look()
    for name, value in zip((keys.PARAMETERS, keys.CHANGES), former, strict=True):
        assert value is not None
        await site.redis.restore(name, 0, value, replace=True)
    assert (await store.read()).state(TIM) is not None
    assert await watch.look()
    assert watch.parameters.state(TIM) is None
    assert (await store.read()).state(TIM) is None


async def test_deleted_parameters_are_not_restored(store: ParameterStore, site: Site) -> None:
    """Somebody deleted them on purpose: the trail is still there."""
    await store.change(TIM, [PAUSED], version=0, by="ana")
    watch = Watch(store)
    await watch.look()
    await site.redis.delete(keys.PARAMETERS)
    assert await watch.look()
    assert (watch.parameters.version, watch.parameters.of) == (1, {})


async def test_of_two_watches_the_later_knowledge_counts(store: ParameterStore) -> None:
    early, late = Watch(store), Watch(store)
    await early.look()
    await store.change(TIM, [THREE], version=0, by="ana")
    await late.look()
    late.take_over(early)
    assert late.parameters.version == 1
    early.take_over(late)
    assert early.parameters == late.parameters
    assert not await early.look()


async def test_a_viewer_restores_nothing(store: ParameterStore, site: Site) -> None:
    await store.change(TIM, [PAUSED], version=0, by="ana")
    watch = Watch(store, restores=False)
    await watch.look()
    await site.redis.flushall()
    assert await watch.look()
    assert watch.parameters == Parameters()
    assert await site.redis.dbsize() == 0


async def test_a_watch_goes_on_after_a_refusal(
    store: ParameterStore,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(parameters, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(parameters, "REFUSED_PAUSE_S", 0.01)
    refused: list[Any] = []
    read = Steps.read

    async def refusing(steps: Steps, *command: Any) -> Any:
        if not refused:
            refused.append(command)
            raise ResponseError("NOPERM")
        return await read(steps, *command)

    monkeypatch.setattr(Steps, "read", refusing)
    seen: list[int] = []
    task = asyncio.create_task(Watch(store).run(lambda found: seen.append(found.version)))
    await wait_until(lambda: seen == [0], "the parameters")
    assert caplog.messages == ["Redis refused a command; trying again"]
    task.cancel()


# --- operations -----------------------------------------------------------------------------


async def test_two_people_change_at_the_same_moment(ana: Steering, file: Settings) -> None:
    others = [Steering(store=ana.store, file=file, by=f"p{n}@ops") for n in range(8)]
    made = await asyncio.gather(
        *(one.set(TIM, threads(str(n + 1))) for n, one in enumerate(others)),
    )
    assert sorted(one.number for one in made) == [*range(1, 9)]
    trail = (await ana.store.changes(at_most=99))[::-1]
    assert [change.number for change in trail] == [*range(1, 9)]
    for before, after in pairwise(trail):
        assert after.edits[0].old == before.edits[0].new, "each knew the one before it"


async def test_somebody_who_is_always_too_late_is_told(
    ana: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def too_late(*_: Any, **__: Any) -> int:
        tries.append(1)
        raise AnotherCameFirst("look at them, and try again")

    monkeypatch.setattr(ParameterStore, "change", too_late)
    with pytest.raises(AnotherCameFirst):
        await ana.set(TIM, threads("3"))
    assert len(tries) == 20


async def test_a_change_is_undone_once(ana: Steering) -> None:
    first = await ana.set(TIM, threads("3"), why="quiet")
    back = await ana.undo(first.number)
    assert back == Made(
        number=2,
        subject=TIM,
        edits=(Edit(name="threads", old=3, new=50, was_live=True, is_live=False),),
    )
    with pytest.raises(ChangedSince, match="was changed since then, by change 2"):
        await ana.undo(first.number)
    assert (await ana.undo(back.number)).number == 3
    assert (await ana.store.read()).settings(TIM)["threads"].value == 3
    assert [change.undoes for change in await ana.store.changes(at_most=9)] == [2, 1, 0]
    with pytest.raises(NoSuchChange, match="there is no change 9; `dialer changes` lists them"):
        await ana.undo(9)


async def test_an_old_change_is_not_undone_behind_later_ones(ana: Steering) -> None:
    """The value is that of the file again, as after the change: its number differs."""
    for text in ("3", "", "9", ""):
        await ana.set(TIM, threads(text))
    for number in (1, 2, 3):
        with pytest.raises(ChangedSince, match="by change 4"):
            await ana.undo(number)
    await ana.stop(TIM)
    await ana.resume(TIM)
    await ana.stop(TIM)
    await ana.resume(TIM)
    with pytest.raises(ChangedSince, match="paused or resumed since then, by change 8"):
        await ana.undo(6)


async def test_a_pause_can_be_undone(ana: Steering) -> None:
    paused = await ana.stop(TIM, why="fire alarm")
    assert (await ana.stop(TIM)).number == 0, "it is paused already"
    assert (state := (await ana.store.read()).state(TIM)) is not None
    assert (state.by, state.why) == ("ana@ops", "fire alarm")
    await ana.undo(paused.number)
    assert (await ana.store.read()).state(TIM) is None
    assert (await ana.resume(TIM)).number == 0


async def test_live_values_of_a_removed_cell_can_end(ana: Steering) -> None:
    gone, stranger = Subject("cell", "GONE"), Subject("cell", "ASR")
    await ana.store.change(gone, [THREE, PAUSED], version=0, by="bia")
    await ana.require([gone, TIM])
    with pytest.raises(DialerError, match="there is no cell ASR in the settings"):
        await ana.require([gone, stranger])
    with pytest.raises(DialerError, match="cell GONE is not in"):
        await ana.set(gone, threads("7"))
    made = await ana.resume(gone)
    assert [edit.name for edit in made.edits] == ["paused"]
    assert (await ana.set(gone, threads(""))).number == 3
    assert (await ana.store.read()).of == {}


async def test_a_long_reason_is_refused(ana: Steering) -> None:
    with pytest.raises(DialerError, match="the reason has 201 characters; give at most 200"):
        await ana.stop(TIM, why="x" * 201)


# --- commands -------------------------------------------------------------------------------


@pytest.fixture
def dialer(config: Path) -> Dialer:
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


def test_a_cell_is_changed_from_the_command_line(dialer: Dialer) -> None:
    assert dialer("cells", "set", "ASR_TIM", "threads=3", "retries=0", "--why", "slow").stdout == (
        "change 1: threads of cell ASR_TIM: 50 -> 3\nchange 1: retries of cell ASR_TIM: 2 -> 0\n"
    )
    again = dialer("cells", "set", "ASR_TIM", "threads=3").stdout
    assert again == "nothing changed: cell ASR_TIM has these values already\n"
    assert dialer("cells", "pause", "ASR_TIM").stdout == "change 2: cell ASR_TIM is paused\n"
    assert dialer("cells", "pause", "ASR_TIM").stdout == (
        "nothing changed: cell ASR_TIM is paused already\n"
    )
    head, row = dialer("cells").stdout.splitlines()
    assert head.split() == ["CELL", "THREADS", "PBXS", "REDIS", "STATE"]
    assert re.search(r"^ASR_TIM +3 +pbx01 .* paused by .* since .* UTC; `dialer cells resu", row)
    assert dialer("cells", "resume", "ASR_TIM").stdout == (
        "change 3: cell ASR_TIM is no longer paused\n"
    )
    assert dialer("cells", "set", "ASR_TIM", "threads=").stdout == (
        "change 4: threads of cell ASR_TIM: 3 -> 50, the value of dialer.toml\n"
    )


def test_a_pbx_is_changed_from_the_command_line(dialer: Dialer) -> None:
    assert dialer("pbx", "set", "pbx01", "max_calls=5").stdout.endswith("-> 5\n")
    assert dialer("pbx", "drain", "pbx01", "--why", "upgrade").stdout == (
        "change 2: PBX pbx01 is drained\n"
    )
    row = dialer("pbx").stdout.splitlines()[1]
    assert re.search(r"^pbx01 +5 .* drained by .*\(upgrade\); `dialer pbx resume pbx01` end", row)
    assert dialer("pbx", "resume", "pbx01").stdout == "change 3: PBX pbx01 is no longer drained\n"


def test_several_are_paused_and_drained_at_once(dialer: Dialer) -> None:
    assert dialer("cells", "pause", "--all").stdout == "change 1: cell ASR_TIM is paused\n"
    assert dialer("pbx", "drain", "pbx01", "pbx01").stdout == (
        "change 2: PBX pbx01 is drained\nnothing changed: PBX pbx01 is drained already\n"
    )
    assert dialer("pbx", "resume", "--all").exit_code == 0
    assert str(dialer("cells", "resume").exception) == "name one or more, or give --all"
    assert str(dialer("cells", "resume", "ASR_TIM", "--all").exception).startswith("name one")
    assert "there is no cell ASR" in str(dialer("cells", "resume", "ASR_TIM", "ASR").exception)
    assert "paused" in dialer("cells").stdout, "nothing is changed if one does not exist"


def test_changes_are_listed_and_undone(dialer: Dialer) -> None:
    nothing = dialer("changes")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no changes yet\n")
    dialer("cells", "set", "ASR_TIM", "threads=3", "--why", "slow")
    assert dialer("changes", "undo", "1").stdout == (
        "change 2: threads of cell ASR_TIM: 3 -> 50, the value of dialer.toml\n"
    )
    first, second = dialer("changes").stdout.splitlines()
    by = re.escape(operator())
    assert re.fullmatch(rf"1  .* UTC  {by}  threads of cell ASR_TIM: 50 -> 3 \(slow\)", first)
    assert re.search(rf"^2  .* UTC  {by}, undoes 1  threads of cell", second)
    rows = [json.loads(line) for line in dialer("changes", "--json").stdout.splitlines()]
    assert [(row["change"], row["cell"], row["undoes"]) for row in rows] == [
        (1, "ASR_TIM", None),
        (2, "ASR_TIM", 1),
    ]
    assert rows[0]["values"] == [
        {"name": "threads", "old": 50, "new": 3, "was_live": False, "is_live": True}
    ]
    assert dialer("changes", "--last", "1").stdout.splitlines() == [second]


def test_a_wrong_change_is_one_sentence(dialer: Dialer) -> None:
    ran = dialer("cells", "set", "ASR_TIM", "threads=0")
    assert str(ran.exception) == (
        "cell ASR_TIM: threads: '0' is wrong; it takes a whole number from 1 to 10000"
    )
    assert dialer("changes").stdout == "", "and nothing is changed"


def test_config_shows_and_exports_what_is_in_force(dialer: Dialer, config: Path) -> None:
    dialer("cells", "set", "ASR_TIM", "threads=3")
    dialer("cells", "pause", "ASR_TIM", "--why", "lunch")
    shown = dialer("config", "show").stdout
    assert re.search(r"^threads = 3 # live: change 1 by .*, .* UTC$", shown, re.MULTILINE)
    assert re.search(r"^# cell ASR_TIM is paused by .*\(lunch\)", shown, re.MULTILINE)
    exported = dialer("config", "export")
    assert "threads = 3" in exported.stdout
    assert exported.stderr.startswith("not exported: cell ASR_TIM is paused by")
    to = config.with_name("fresh.toml")
    assert dialer("config", "export", "--output", str(to)).stdout == f"{to} is written\n"
    assert load(to).cell("ASR_TIM").threads == 3
    assert str(dialer("config", "export", "--output", str(to)).exception).endswith(
        "exists; use --force to overwrite it"
    )


def test_settings_are_shown_while_redis_is_away(
    dialer: Dialer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config.read_text()
    config.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text))
    for command in (("config", "show"), ("cells",), ("pbx",)):
        ran = dialer(*command)
        assert ran.exit_code == 0
        assert ran.stderr.startswith("warning: the live parameters are not known: ")
    assert "50" in dialer("cells").stdout
    assert str(dialer("config", "export").exception) == (
        "nothing was exported, because the live parameters are not known"
    )
