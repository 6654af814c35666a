"""A site whose Redis is named by sentinels, and whose master dies while calls are up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.integration.sentinel import SentinelStack
from tests.waiting import wait_until

LONG_CALLS = {"talk_time": (4.0, 6.0)}


async def test_a_failover_with_calls_under_way_loses_none_and_dials_none_twice(
    tmp_path: Path,
) -> None:
    async with SentinelStack(tmp_path, cell={"timeout_command_ack": 30}) as stack:
        pbx = stack.add_pbx("pbx01", **LONG_CALLS)
        await stack.start()
        up = await stack.push(60)
        await stack.until_live(60)
        pushed = await stack.push(40)  # some are in every step when the master dies
        await wait_until(lambda: len(pbx.rings) > 65, "calls are being placed")
        await stack.watched.kill_master()
        await stack.watched.until_promoted(stack.redis)

        later = await stack.push(20)
        wanted = [request["IdRequisicao"] for request in [*up, *pushed, *later]]
        await stack.responses(len(wanted))
        await stack.at_rest()
        got = Counter(response["IdRequisicao"] for response in stack.multcall.responses)
        assert got == Counter(wanted)
        assert {r["Resultado"] for r in stack.multcall.responses} == {"ANSWERED"}
        assert set(stack.rings.values()) == {1}
        for program in (stack.bridges[0], stack.workers["pbx01"]):
            print(program.name, *stack.outages(program), sep="\n  ")
