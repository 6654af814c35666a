"""How each fault is done, undone and checked. One function for each kind in `faults.KINDS`.

A check is judged only if nothing else was done in the meantime to the same worker or to Redis; see
`Chaos.expect`. The promises about calls are checked for all faults together, by `book`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from dialer import failpoints
from dialer.store.registry import PBX_DEAD_AFTER_S
from tests.chaos.faults import Fault
from tests.processes import Program

if TYPE_CHECKING:
    from tests.chaos.chaos import Chaos

Deed = Callable[["Chaos", Fault], Awaitable[None]]

#: A worker says within this time that it takes no calls, and why. In seconds, on a busy machine.
SAID_WITHIN_S = 10.0

#: All is as before within this time after a fault; kombu connects again after 2, 4, 6... s.
HEALED_WITHIN_S = 40.0

#: A worker that may not work ends by itself within this time; starting takes it most of it.
ENDS_WITHIN_S = 30.0

#: A program that was ended is left alone until it says this, or for so long, in seconds.
READY_SAID = re.compile("(Bridge|PBX) ready ")
BACK_WITHIN_S = 15.0

#: Exit code of a worker that refuses to start.
EXIT_REFUSED = 2

#: How wrong a worker's clock gets, in seconds; above `SKEW_MAX_S` its PBX takes no calls.
SKEWS_S = (600, -600, 45, -45, 5, -5)
SKEW_MAX_S = 30.0


# --- processes ----------------------------------------------------------------------


async def kill(chaos: Chaos, fault: Fault) -> None:
    await _end(chaos, fault, signal.SIGKILL)


async def terminate(chaos: Chaos, fault: Fault) -> None:
    await _end(chaos, fault, signal.SIGTERM)


async def _end(chaos: Chaos, fault: Fault, signum: signal.Signals) -> None:
    """End a program, and let it come back: who is killed while starting never does anything."""
    program = chaos.site.programs[fault.target]
    starts = len(READY_SAID.findall(program.said()))
    chaos.end(fault.target, signum)
    deadline = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        if len(READY_SAID.findall(program.said())) > starts:
            return


async def stop(chaos: Chaos, fault: Fault) -> None:
    program = chaos.site.programs[fault.target]
    async with chaos.standing_still(program):
        await asyncio.sleep(fault.length_s)


async def freeze_and_replace(chaos: Chaos, fault: Fault) -> None:
    """Another worker takes over from a frozen one, which then has to find itself fenced."""
    frozen = chaos.site.programs[fault.target]
    thawed_at = time.monotonic() + fault.length_s
    try:
        async with chaos.standing_still(frozen):
            await asyncio.sleep(PBX_DEAD_AFTER_S + 1.0)
            chaos.site.programs[fault.target] = replacement = replace(frozen, process=None)
            replacement.start()
            await asyncio.sleep(thawed_at - time.monotonic())
            has_lease = (await chaos.heartbeat(fault.target)).get("pid") == str(replacement.pid)
            stops = frozen.said().count(failpoints.FIRED)
        await chaos.expect(
            fault,
            "the frozen worker finds itself fenced, and ends",
            lambda: _is_over(frozen),
            within_s=ENDS_WITHIN_S,
            # Its own failure point may stop it on its way out.
            is_void=lambda: (
                not has_lease
                or not replacement.is_running
                or frozen.said().count(failpoints.FIRED) > stops
            ),
        )
    finally:
        frozen.kill()


async def start_second(chaos: Chaos, fault: Fault) -> None:
    """A second worker of a PBX at the same Asterisk: it must end by itself and touch nothing."""
    await _second(chaos, fault, chaos.site.programs[fault.target])


async def start_second_elsewhere(chaos: Chaos, fault: Fault) -> None:
    """The same at another Asterisk: a copied unit."""
    await _second(chaos, fault, chaos.ground.copied_unit(chaos.site.programs[fault.target]))


async def _second(chaos: Chaos, fault: Fault, like: Program) -> None:
    first = chaos.site.programs[fault.target]
    before = await chaos.heartbeat(fault.target)
    log = like.log.with_name(f"{fault.target}-second-{len(chaos.done)}.log")
    command = [f"second-{part}" if part.endswith("@%h") else part for part in like.command]
    second = Program(f"{fault.target} second", command, like.config, log)
    second.start()
    watch = asyncio.create_task(_end_with(first, second))

    def first_is_gone() -> bool:
        return watch.done() or not first.is_running or fault.target not in chaos.done[fault.n].ready

    try:
        await chaos.expect(
            fault,
            "the second worker ends by itself with exit code 2",
            lambda: _is_over(second, EXIT_REFUSED),
            within_s=ENDS_WITHIN_S,
            is_void=first_is_gone,
        )
        await chaos.expect(
            fault, "its last words name the first worker", lambda: _names(second, first), 0.0
        )
        await chaos.expect(
            fault,
            "the first worker's lease is as it was",
            lambda: _same_lease(chaos, fault.target, before),
            within_s=10.0,
            is_void=lambda: first_is_gone() or not before or "redis" in chaos.under_way,
        )
    finally:
        watch.cancel()
        second.kill()


async def _end_with(first: Program, second: Program) -> None:
    """The second would rightly take over from a dead first one; this is another fault."""
    pid = first.pid
    while first.is_running and first.pid == pid:  # noqa: ASYNC110  # a process has no event
        await asyncio.sleep(0.02)
    second.kill()


async def _is_over(program: Program, code: int | None = None) -> bool:
    assert program.process is not None
    return not program.is_running and code in (None, program.process.returncode)


async def _names(second: Program, first: Program) -> bool:
    return f"pid {first.pid}" in second.said()


async def _same_lease(chaos: Chaos, pbx: str, before: dict[str, str]) -> bool:
    now = await chaos.heartbeat(pbx)
    return all(now.get(name) == before.get(name) for name in ("fence", "boot", "pid", "host"))


# --- the PBX and its link -------------------------------------------------------------


async def kill_asterisk(chaos: Chaos, fault: Fault) -> None:
    await chaos.note_lost(fault.target)
    killing = asyncio.create_task(chaos.pbxs.kill(fault.target))
    while not killing.done():  # Docker may take seconds: calls are claimed, and answered, in them
        await chaos.note_lost(fault.target)
        await asyncio.wait({killing}, timeout=0.05)
    await killing
    await chaos.note_lost(fault.target)


async def pause_asterisk(chaos: Chaos, fault: Fault) -> None:
    await chaos.pbxs.pause(fault.target)
    await asyncio.sleep(fault.length_s)
    await chaos.pbxs.unpause(fault.target)


async def cut_link(chaos: Chaos, fault: Fault) -> None:
    chaos.ground.links[fault.target].ami.cut()


async def hold_link(chaos: Chaos, fault: Fault) -> None:
    chaos.ground.links[fault.target].ami.hold()
    await asyncio.sleep(fault.length_s)
    chaos.ground.links[fault.target].ami.let_go()


async def break_frames(chaos: Chaos, fault: Fault) -> None:
    links = chaos.ground.links[fault.target]
    made = links.ami.made
    links.frames.is_on = True
    await asyncio.sleep(fault.length_s)
    links.frames.is_on = False

    async def never_lost() -> bool:
        return links.ami.made == made

    await chaos.expect(fault, "the AMI link stays", never_lost, within_s=0.0)


# --- the worker's ways to its calls -----------------------------------------------------


async def cancel_consumer(chaos: Chaos, fault: Fault) -> None:
    pbx = fault.target
    await chaos.control("cancel_consumer", pbx, [pbx])
    try:
        await _said(chaos, fault)
        await asyncio.sleep(fault.length_s)
    finally:
        await chaos.control("add_consumer", pbx, [pbx])
    await _healed(chaos, fault)


async def add_consumer_to_all(chaos: Chaos, fault: Fault) -> None:
    """As `celery control add_consumer` without -d does: other workers take this one's messages."""
    pbx = fault.target
    await chaos.control("add_consumer", pbx, [*chaos.ground.links])
    await asyncio.sleep(fault.length_s)
    await chaos.control(
        "cancel_consumer", pbx, [name for name in chaos.ground.links if name != pbx]
    )
    await _healed(chaos, fault)


async def cut_broker(chaos: Chaos, fault: Fault) -> None:
    async with _shut(chaos, fault, "broker"):
        await _said(chaos, fault)
    await _healed(chaos, fault)


async def cut_registry(chaos: Chaos, fault: Fault) -> None:
    async with _shut(chaos, fault, "registry"):
        pass
    await _healed(chaos, fault)


async def cut_cell(chaos: Chaos, fault: Fault) -> None:
    async with _shut(chaos, fault, "cell"):
        pass
    await _healed(chaos, fault)


async def skew_clock(chaos: Chaos, fault: Fault) -> None:
    skew_s = SKEWS_S[int(fault.length_s * 1000) % len(SKEWS_S)]

    async def is_known() -> bool:
        beat = await chaos.heartbeat(fault.target)
        is_measured = abs(float(beat.get("skew_ms") or 0) / 1000 - skew_s) < abs(skew_s) / 10 + 2
        return is_measured and (bool(beat.get("trouble")) or abs(skew_s) <= SKEW_MAX_S)

    chaos.ground.clocks[fault.target].set(skew_s)
    try:
        await chaos.expect(
            fault, f"the worker knows that its clock is {skew_s:+} s off", is_known, SAID_WITHIN_S
        )
        await asyncio.sleep(fault.length_s)
    finally:
        chaos.ground.clocks[fault.target].set(0)
    await _healed(chaos, fault)


@asynccontextmanager
async def _shut(chaos: Chaos, fault: Fault, link: str) -> AsyncIterator[None]:
    """One of this worker's links is cut off for the time of the fault."""
    proxy = getattr(chaos.ground.links[fault.target], link)
    until = time.monotonic() + fault.length_s
    proxy.shut()
    try:
        yield
        await asyncio.sleep(until - time.monotonic())
    finally:
        proxy.reopen()


async def _said(chaos: Chaos, fault: Fault) -> None:
    async def has_trouble() -> bool:
        return bool((await chaos.heartbeat(fault.target)).get("trouble"))

    await chaos.expect(fault, "the worker says that it takes no calls", has_trouble, SAID_WITHIN_S)


async def _healed(chaos: Chaos, fault: Fault) -> None:
    await chaos.expect(
        fault,
        "it takes calls again",
        lambda: chaos.is_ready(fault.target),
        HEALED_WITHIN_S,
        is_patient=True,
    )


# --- Redis ----------------------------------------------------------------------------


async def kill_redis(chaos: Chaos, fault: Fault) -> None:
    await chaos.store.kill()
    await asyncio.sleep(fault.length_s)
    await chaos.store.start()


async def pause_redis(chaos: Chaos, fault: Fault) -> None:
    await chaos.store.pause()
    await asyncio.sleep(fault.length_s)
    await chaos.store.unpause()


async def fill_redis(chaos: Chaos, fault: Fault) -> None:
    """Redis refuses what would take memory, until it may have more again."""
    try:
        used = (await chaos.redis.info("memory"))["used_memory"]
        await chaos.redis.config_set("maxmemory", used)
    except (RedisError, OSError):
        return  # it has only just been started
    try:
        await asyncio.sleep(fault.length_s)
    finally:
        await _until_taken(lambda: chaos.redis.config_set("maxmemory", 0))
    for pbx in chaos.ground.links:
        await _healed(chaos, replace(fault, target=pbx))


async def _until_taken(command: Callable[[], Awaitable[object]]) -> None:
    while True:
        with contextlib.suppress(RedisError, OSError):
            await command()
            return
        await asyncio.sleep(0.1)


DEEDS: dict[str, Deed] = {
    "kill bridge": kill,
    "stop bridge": stop,
    "stop bridge long": stop,
    "terminate bridge": terminate,
    "kill worker": kill,
    "stop worker": stop,
    "stop worker long": stop,
    "terminate worker": terminate,
    "worker frozen and replaced": freeze_and_replace,
    "second worker": start_second,
    "second worker, other Asterisk": start_second_elsewhere,
    "cut AMI link": cut_link,
    "AMI link half open": hold_link,
    "AMI frames broken": break_frames,
    "kill Asterisk": kill_asterisk,
    "pause Asterisk": pause_asterisk,
    "consumer cancelled": cancel_consumer,
    "consumer added to all": add_consumer_to_all,
    "broker cut off": cut_broker,
    "registry cut off": cut_registry,
    "cell's Redis cut off": cut_cell,
    "clock skew": skew_clock,
    "kill Redis": kill_redis,
    "pause Redis": pause_redis,
    "Redis at maxmemory": fill_redis,
    "Sentinel failover": kill_redis,
}
