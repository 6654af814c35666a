"""People, machines and operators on real Asterisk 22 and 16, and who hears whom.

A telephone answers with a recorded voice: a person's "Alô?" or an answering machine's greeting.
Persons then hum 440 Hz and operators 620 Hz (deploy/docker/phones/extensions.conf), and each
telephone records what reaches it over RTP. All calls are placed at once; each test looks at some.
"""

from __future__ import annotations

import array
import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from dialer.domain.call import Result
from dialer.multcall.answers import Response
from dialer.simulation.multcall.checker import Checker
from dialer.simulation.multcall.player import play, report
from dialer.simulation.multcall.requests import Asked
from tests.acceptance.compose_stack.audio import RATE, loudness, samples, tone_share
from tests.acceptance.compose_stack.compose import ComposeSite
from tests.acceptance.test_dial_path import prefix

PERSON_HUMS, OPERATOR_HUMS = 440.0, 620.0
HEARD = "/var/spool/asterisk/monitor"

#: The operators' telephones by their names in deploy/asterisk/queues.conf.
OPERATORS = {"Ana Souza": 1001, "Bruno Lima": 1002, "Carla Dias": 1003, "Davi Rocha": 1004}

#: Last two digits: a person who stays, a machine, a person who presses 1, one who clears at once,
#: and a person whom AMD() takes neither for a person nor for a machine.
PERSON, MACHINE, PRESSES_1, CLEARS, HESITANT = "60", "50", "95", "96", "97"
GREETING_S, MESSAGE_S = 10.0, 8.0  # what the recordings take

VERSIONS = {"22": "pbx01", "16": "pbx02"}
CALLS = [
    *(
        (f"QUEUE{version}", end)
        for version in VERSIONS
        for end in (PERSON, MACHINE, CLEARS, HESITANT)
    ),
    *((f"NOTICE{version}", end) for version in VERSIONS for end in (PERSON, MACHINE, PRESSES_1)),
    *((f"PASS{version}", MACHINE) for version in VERSIONS),
]

on_both = pytest.mark.parametrize("version", VERSIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What Multcall was told of each call, by cell and last two digits; each call's number."""

    responses: Mapping[tuple[str, str], Response]
    numbers: Mapping[tuple[str, str], str]


@pytest.fixture(scope="module")
def told(stack: ComposeSite) -> Told:
    book: list[Checker] = []
    start = prefix()
    numbers = {call: f"{start}{n:03d}{call[1]}" for n, call in enumerate(CALLS)}
    requests = [_asked(cell, number) for (cell, _), number in numbers.items()]
    cells = list(dict.fromkeys(cell for cell, _ in CALLS))
    stack.asterisk("carrier", "dialplan set global RECORD yes")
    summary = asyncio.run(
        play(stack.redis_url, cells, len(CALLS), 5.0, requests=requests, watch=book.append)
    )
    stack.asterisk("carrier", "dialplan set global RECORD no")
    assert summary.is_right, "\n".join([*report(summary), stack.logs()])
    assert summary.results == {Result.ANSWERED: len(CALLS)}
    by_number = {p.asked.number: p.response for p in book[-1].calls.values() if p.response}
    responses = {call: by_number[number] for call, number in numbers.items()}
    return Told(responses=responses, numbers=numbers)


def _asked(cell: str, number: str) -> Asked:
    request_id = number[1:]
    element = json.dumps({"IdRequisicao": request_id, "Telefone": number})
    return Asked(
        cell=cell,
        request_id=request_id,
        request_id_json=json.dumps(request_id),
        element=element.encode(),
        number=number,
        code_json="1",
    )


def heard_by(stack: ComposeSite, telephone: str) -> array.array[int]:
    """The one recording of what a telephone heard."""
    names = stack.exec("carrier", "ls", HEARD).split()
    (name,) = (n for n in names if n.startswith(f"{telephone}-") and not n.endswith("-both.wav"))
    return samples(stack.read_file("carrier", f"{HEARD}/{name}"))


@on_both
def test_amd_tells_a_person_from_a_machine(version: str, told: Told) -> None:
    person = told.responses[f"QUEUE{version}", PERSON]
    machine = told.responses[f"QUEUE{version}", MACHINE]
    print(
        f"Asterisk {version}: person {person.amd}, {person.agent} after {person.wait_s} s; "
        f"machine {machine.amd}, cleared after {machine.talk_s} s"
    )
    assert person.amd == "HUMAN"
    assert person.agent in OPERATORS
    assert 0 < (person.wait_s or 0) < (person.talk_s or 0)
    assert (machine.amd, machine.agent, machine.wait_s) == ("MACHINE", None, None)
    assert (machine.talk_s or 99) < GREETING_S


@on_both
def test_a_customer_who_clears_during_amd_is_a_hangup(version: str, told: Told) -> None:
    cleared = told.responses[f"QUEUE{version}", CLEARS]
    assert (cleared.amd, cleared.agent, cleared.wait_s) == ("HANGUP", None, None)
    assert 0.5 < (cleared.talk_s or 0) < 2.5


@on_both
def test_a_customer_amd_is_not_sure_of_gets_an_operator(version: str, told: Told) -> None:
    unsure = told.responses[f"QUEUE{version}", HESITANT]
    print(f"Asterisk {version}: {unsure.amd}, {unsure.agent} after {unsure.wait_s} s")
    assert unsure.amd == "NOTSURE"
    assert unsure.agent in OPERATORS


@on_both
def test_customer_and_operator_hear_each_other(
    version: str, told: Told, stack: ComposeSite
) -> None:
    call = f"QUEUE{version}", PERSON
    networks = stack.containers()[f"host-{VERSIONS[version]}"]["NetworkSettings"]["Networks"]
    (address,) = (network["IPAddress"] for network in networks.values())
    operator = f"{OPERATORS[told.responses[call].agent or '']}-{address}"
    customer_hears = tone_share(heard_by(stack, told.numbers[call][1:]), OPERATOR_HUMS)
    operator_hears = tone_share(heard_by(stack, operator), PERSON_HUMS)
    print(
        f"Asterisk {version}: {customer_hears:.0%} of what the customer hears is the operator's "
        f"tone, {operator_hears:.0%} of what the operator hears the customer's"
    )
    assert customer_hears > 0.8
    assert operator_hears > 0.8


@on_both
def test_a_machine_gets_the_cells_message_after_its_greeting(
    version: str, told: Told, stack: ComposeSite
) -> None:
    call = f"NOTICE{version}", MACHINE
    assert told.responses[call].amd == "MACHINE"
    assert told.responses[call].agent is None
    on_tape = heard_by(stack, told.numbers[call][1:])
    step = RATE // 2
    loud = [at for at in range(0, len(on_tape), step) if loudness(on_tape[at : at + step]) > 500]
    print(f"Asterisk {version}: the message begins {loud[0] / RATE:.1f} s after the answer")
    assert loud[0] / RATE > GREETING_S
    assert len(loud) / 2 > MESSAGE_S / 2  # people pause when they speak


@on_both
def test_a_machine_passed_on_reaches_an_operator(version: str, told: Told) -> None:
    machine = told.responses[f"PASS{version}", MACHINE]
    assert machine.amd == "MACHINE"
    assert machine.agent in OPERATORS


@on_both
def test_a_person_hears_the_ivr_and_reaches_an_operator(
    version: str, told: Told, stack: ComposeSite
) -> None:
    listens = told.responses[f"NOTICE{version}", PERSON]
    assert (listens.amd, listens.agent) == ("HUMAN", None)
    assert loudness(heard_by(stack, told.numbers[f"NOTICE{version}", PERSON][1:])) > 500
    presses = told.responses[f"NOTICE{version}", PRESSES_1]
    assert presses.amd == "HUMAN"
    assert presses.agent in OPERATORS
