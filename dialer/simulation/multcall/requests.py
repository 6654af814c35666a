"""Requests of the simulated Multcall and their expected results.

Owns the mix of numbers, the ids, and awkward JSON that must come back byte for byte. Pure: no
Redis, no clock. The outcome of a number is in `pbx.outcomes`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Final

from dialer.domain.call import Result
from dialer.domain.causes import BY_CAUSE
from dialer.errors import DialerError
from dialer.simulation.pbx.outcomes import Ending, outcome_for

#: Kinds of request, and their last two digits on the simulated and the lab carrier.
KINDS: Final[Mapping[str, Sequence[int]]] = MappingProxyType(
    {
        "answered": range(70),
        "busy": range(70, 75),
        "rejected": range(75, 77),
        "invalid_number": range(77, 79),
        "congestion": range(79, 81),
        "no_answer": range(81, 85),
        "refused": (85,),  # these three only on simulated PBXs
        "no_channel": (86,),
        "no_word": (87,),
        "long": range(90, 95),
        "malformed": range(70),  # breaks a rule of the wire: INVALID_REQUEST
        "repeated": range(70),  # pushed twice
    }
)

#: Weights of the kinds in a typical collection campaign.
DEFAULT_MIX: Final[Mapping[str, float]] = MappingProxyType(
    {
        "answered": 50,
        "busy": 12,
        "no_answer": 15,
        "rejected": 8,
        "invalid_number": 10,
        "congestion": 5,
    }
)

DEFAULT_PREFIX: Final = "+5511900"

#: JSON texts for `Dados`. Parsing and dumping would change most of them.
AWKWARD_DATA: Final = (
    "null",
    "1.10",
    "-0.0",
    "1E+2",
    "12345678901234567890123456789012345678901234567890",
    '""',
    '"ação \\u00e3 \\/ \\ud83d\\ude00 😀"',
    '"\\ud83d alone"',
    '"line\\u2028end\\r\\nAction: Logoff\\r\\n\\r\\n"',
    '"${SHELL(id)} $[1+1]"',
    '{"a":1,"a":2}',
    '{ "b" : [ 1 , 2,3 ],\n\t"a"  :  {"é": null} }',
    '{"IdRequisicao":"another","Resultado":"BUSY","Dados":{"Dados":[]}}',
    "[" * 100 + "]" * 100,
    json.dumps("x" * 8000),
    "true",
    '[[], {}, "\\u0000", 0.1e-7]',
)

#: JSON texts for `CodLigacao`; `{n}` is the call's index.
CODES: Final = ("{n}", '"{n}"', '"lig-{n}"', '"c\\u00f3digo {n}\\/\\"x\\""', "9007199254740993{n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request and its expected Response.

    The `_json` fields are JSON text that must come back unchanged. `results` are the correct
    values of `Resultado`. `pushes` is how often the same element is pushed.
    """

    cell: str
    request_id: str
    request_id_json: str
    element: bytes
    number: str = ""
    results: frozenset[Result] = frozenset({Result.ANSWERED})
    created_at_json: str = "null"
    data_json: str = "null"
    code_json: str = "null"
    pushes: int = 1


def expected_results(number: str) -> frozenset[Result]:
    """Return the correct values of `Resultado` for a number on simulated and lab carriers."""
    outcome = outcome_for(f"PJSIP/{number}@carrier", "22")
    match outcome.ending:
        case Ending.ANSWERED:
            return frozenset({Result.ANSWERED})
        case Ending.REJECTED:
            return frozenset({BY_CAUSE[outcome.cause]})
        case Ending.RINGS_OUT:
            return frozenset({Result.NO_ANSWER})
        case Ending.REFUSED | Ending.NO_CHANNEL:
            return frozenset({Result.FAILED})
        case Ending.UNANSWERED_ACTION:
            return frozenset({Result.FAILED, Result.UNKNOWN})


def parse_mix(text: str) -> dict[str, float]:
    """Parse weights such as `answered=80,busy=20`.

    Raises:
        DialerError: the text has another form or an unknown kind.
    """
    mix: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        kind, _, share = part.partition("=")
        try:
            mix[kind] = float(share or 1)
        except ValueError:
            raise DialerError(
                f"{part!r} is not a weight of a mix: write answered=80,busy=20"
            ) from None
        if kind not in KINDS or mix[kind] < 0:
            raise DialerError(f"{part!r} is not valid in a mix; kinds are {', '.join(KINDS)}")
    if not sum(mix.values()) > 0:
        raise DialerError("the mix is empty: write answered=80,busy=20")
    return mix


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Generator of the requests of one run. `run` makes the ids unique among runs.

    `ring_timeout_s` and `valid_for_s` are TempoToque and ValidadeSeg, None for none.
    """

    run: str
    cells: Sequence[str]
    calls: int
    mix: Mapping[str, float] = field(default_factory=lambda: DEFAULT_MIX)
    number_prefix: str = DEFAULT_PREFIX
    ring_timeout_s: int | None = None
    valid_for_s: float | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    seed: int = 1

    def kinds(self) -> Iterator[str]:
        """Yield the kind of each request, in push order."""
        generator = random.Random(self.seed)
        names, weights = list(self.mix), list(self.mix.values())
        for _ in range(self.calls):
            yield generator.choices(names, weights)[0]

    def requests(self, start: datetime, rate: float) -> Iterable[Asked]:
        """Yield all requests; CriadaEm begins at `start` and advances by 1 / `rate` seconds."""
        for n, kind in enumerate(self.kinds()):
            yield self._request(n, kind, start + timedelta(seconds=n / rate))

    def _request(self, n: int, kind: str, now: datetime) -> Asked:
        digits = KINDS[kind]
        number = f"{self.number_prefix}{n:06d}{digits[n % len(digits)]:02d}"
        malformed = kind == "malformed"
        request_id = str(int(self.run, 16) * 10**6 + n) if n % 5 == 4 else f"{self.run}-{n}"
        id_json = request_id if n % 5 == 4 else json.dumps(request_id)
        created_at = json.dumps(_spelled(now, n))
        data = AWKWARD_DATA[n % len(AWKWARD_DATA)]
        telephone = json.dumps(f"{number}\r\nx" if malformed else number)
        fields = [
            f'"IdRequisicao":{id_json}',
            f'"Telefone":{telephone}',
            f'"CriadaEm" : {created_at}',
            f'"Dados": {data} ',
            f'"CampoNovo":{{"n":{n}}}',
            *(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in self._optional()),
        ]
        return Asked(
            cell=self.cells[n % len(self.cells)],
            request_id=request_id,
            request_id_json=id_json,
            element=f"{{{','.join(fields)}}}".encode(),
            number=number,
            results=frozenset({Result.INVALID_REQUEST}) if malformed else expected_results(number),
            created_at_json="null" if malformed else created_at,
            data_json="null" if malformed else data,
            code_json=CODES[n % len(CODES)].replace("{n}", str(n)),
            pushes=2 if kind == "repeated" else 1,
        )

    def _optional(self) -> Iterator[tuple[str, object]]:
        if self.ring_timeout_s is not None:
            yield "TempoToque", self.ring_timeout_s
        if self.valid_for_s is not None:
            yield "ValidadeSeg", self.valid_for_s
        yield from self.extra.items()


def _spelled(now: datetime, n: int) -> str:
    """Format an instant in one of the formats that clients use."""
    local = now.astimezone(timezone(timedelta(hours=-3)))
    if n % 3 == 0:
        return local.isoformat(timespec="milliseconds")
    if n % 3 == 1:
        return local.isoformat(timespec="microseconds")
    return f"{now.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
