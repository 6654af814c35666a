"""Ten thousand malformed or hostile elements against the whole system, real Asterisk included."""

from __future__ import annotations

import json
from collections import Counter

from redis import Redis

from dialer.multcall.keys import CellKeys
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab
from tests.acceptance.test_dial_path import prefix
from tests.unit.hostile_requests import hostile_codes, hostile_requests

REQUESTS, CODES = 8_000, 2_000


def test_ten_thousand_hostile_elements_go_to_the_dead_list(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site()
    wire = CellKeys(CELL)
    rings_before = lab.rings()
    requests = hostile_requests(seed=7, n=REQUESTS)
    codes = hostile_codes(seed=7, n=CODES)
    good = f"{prefix()}00001"
    with Redis.from_url(redis_url) as redis:
        pipe = redis.pipeline(transaction=False)
        for element in requests:
            pipe.rpush(wire.request, element.raw)
        for element in codes:
            pipe.rpush(wire.code, element.raw)
        pipe.rpush(wire.request, json.dumps({"IdRequisicao": "good-1", "Telefone": good}))
        pipe.execute()

        site.wait_until(
            lambda: (
                redis.llen(f"dialer:dead:{CELL}") >= REQUESTS + CODES
                and redis.hget(f"dialer:call:{CELL}:good-1", "state") in (b"ended", b"done")
            ),
            "everything is on the dead list and the good call is over",
            120.0,
        )
        entries = [json.loads(entry) for entry in redis.lrange(f"dialer:dead:{CELL}", 0, -1)]
        reasons = Counter(entry["reason"] for entry in entries)
        assert reasons == Counter(element.expect for element in [*requests, *codes])
        assert all(entry["message"] for entry in entries)

        answered = Counter(
            str(json.loads(raw)["IdRequisicao"])
            for raw in redis.lrange(wire.response, 0, -1)
            if json.loads(raw)["Resultado"] == "INVALID_REQUEST"
        )
        assert answered == Counter(e.request_id for e in requests if e.has_id)
        assert int(redis.get(wire.counter) or 0) <= 1  # the good call may await its code
    rung = lab.rings() - rings_before
    assert rung == Counter({good: 1})
    assert all(program.is_running for program in site.programs.values())
