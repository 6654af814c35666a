"""Elements that no careful Multcall would push: malformed, hostile, or merely odd.

`hostile_requests` and `hostile_codes` give elements that must end in the dead list,
each labelled with the reason; `odd_requests` gives strange ones that are valid and must
be taken as they are. The same seed gives the same elements; every id is used once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Expect = Literal["accepted", "invalid_request", "invalid_code", "orphan_code"]
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileElement:
    """One element; `kind` says what is wrong, `request_id` is None unless `has_id`."""

    raw: bytes
    expect: Expect
    has_id: bool
    kind: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Made:
    """What a maker gives: the bytes, and whether the id in them can be read."""

    raw: bytes
    has_id: bool = True


Maker = Callable[[random.Random, str], Made]

LINE_ENDS = [
    "\r\n",
    "\n",
    "\r",
    "\n\n",
    "\r\n\r\n",
    "\x00",
    "\x85",
    "\u2028",
    "\u2029",
    "\x0b",
    "\x1b",
]
AMI_LINES = [
    "Action: Command\r\nCommand: core stop now",
    "Channel: Local/100@default",
    "Application: System\r\nData: touch owned",
    "Variable: DIALER_ID=other",
    "Async: false",
    "",
]
EXPRESSIONS = [
    "${SHELL(touch owned)}",
    "${ENV(PATH)}",
    "${EVAL(${X})}",
    "$[1 + 1]",
    "x${DB(dialer/other)}y",
    "$${X}",
    "${",
    "$[",
    "^{SHELL(touch owned)}",
]
DIAL_STRINGS = [
    "Local/100@default",
    "Local/100@default/n",
    "PJSIP/100@tim&PJSIP/200@tim",
    "5511987654321&PJSIP/200@tim",
    "SIP/5511987654321",
    "5511987654321@other",
    "5511987654321/200",
    "5511987654321,60,g",
    "5511987654321|60",
    "tel:+5511987654321",
    "+",
    "++5511987654321",
    "5511+987654321",
    "55 11 98765-4321",
    "(11)98765-4321",
    "*72",
    "#31#5511987654321",
    "{number}",
    "5511987654321 ",
    " 5511987654321",
    "12",
    "1" * 21,
    "",
]
#: Digits of other scripts, which `\d` and `int()` take and no exchange dials.
FOREIGN_DIGITS = [
    "".join(chr(zero + digit) for digit in range(10))
    for zero in (0x0660, 0x0966, 0xFF10, 0x1D7CE, 0x2080)
]
NOT_TEXT: list[Any] = [True, False, 5511987654321, 1.5, [], {}, ["5511987654321"], {"a": "b"}]
TEXT_FIELDS = ["Telefone", "CallerID", "Contexto", "Extensao", "Tronco", "CriadaEm"]
INTEGER_LIMITS = {"Prioridade": (1, 9999), "TempoToque": (1, 120)}


def request(request_id: str, **fields: Any) -> Fields:
    """A valid request, with `fields` in place of its own."""
    return {
        "IdRequisicao": request_id,
        "Telefone": "5511987654321",
        "CallerID": "Loja <1140041234>",
        "Contexto": "dialer-ura",
        "Extensao": "s",
        "Prioridade": 1,
        "TempoToque": 30,
        "CriadaEm": "2026-05-04T09:30:00.000-03:00",
        "ValidadeSeg": 600,
        "Variaveis": {"MC_CPF": "12345678909"},
        "Dados": {"carteira": 7},
        **fields,
    }


def dump(rng: random.Random, fields: Fields) -> bytes:
    """JSON in one of the shapes that serializers give it; lone surrogates stay escaped."""
    text = json.dumps(fields, indent=rng.choice([None, None, 1]), ensure_ascii=False)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = json.dumps(fields).encode()
    return raw if rng.random() < 0.5 else json.dumps(fields, separators=(",", ":")).encode()


def _with(rng: random.Random, request_id: str, **fields: Any) -> Made:
    return Made(dump(rng, request(request_id, **fields)), has_id="IdRequisicao" not in fields)


def _in_some_text(rng: random.Random, request_id: str, poison: str) -> Made:
    """Put `poison` where text goes: a field, a variable's value, its name, or the id."""
    place = rng.choice([*TEXT_FIELDS, "value", "name", "IdRequisicao"])
    if place == "value":
        return _with(rng, request_id, Variaveis={"MC_CPF": f"1{poison}"})
    if place == "name":
        return _with(rng, request_id, Variaveis={f"MC_CPF{poison}": "1"})
    return _with(rng, request_id, **{place: f"{request(request_id)['Telefone']}{poison}"})


def ami_injection(rng: random.Random, request_id: str) -> Made:
    return _in_some_text(rng, request_id, rng.choice(LINE_ENDS) + rng.choice(AMI_LINES))


def dialplan_expression(rng: random.Random, request_id: str) -> Made:
    return _in_some_text(rng, request_id, rng.choice(EXPRESSIONS))


def dial_string(rng: random.Random, request_id: str) -> Made:
    return _with(rng, request_id, Telefone=rng.choice(DIAL_STRINGS))


def foreign_digits(rng: random.Random, request_id: str) -> Made:
    field = rng.choice(["Telefone", "CallerID", "Contexto", "Extensao", "Tronco", "IdRequisicao"])
    return _with(rng, request_id, **{field: rng.choice(FOREIGN_DIGITS)})


def lone_surrogate(rng: random.Random, request_id: str) -> Made:
    return _in_some_text(rng, request_id, chr(rng.randrange(0xD800, 0xE000)))


def caller_id(rng: random.Random, request_id: str) -> Made:
    bad = [
        '"Loja" <1140041234>',
        "Loja, filial <1140041234>",
        "Loja; x <1140041234>",
        "Loja <1140041234> x",
        "Loja <<1140041234>>",
        "Loja <1140041234",
        "Loja 1140041234>",
        "<1140041234>",
        " <1140041234>",
        "Loja <>",
        "Loja <11 4004>",
        "Loja <a>",
        "Loja",
        "Loja \\<1140041234>",
        "Loja & Filho <1140041234>",
        "Loja (SP) <1140041234>",
        "L" * 70 + "<1140041234>",
        "1" * 81,
        "",
    ]
    return _with(rng, request_id, CallerID=rng.choice(bad))


def target(rng: random.Random, request_id: str) -> Made:
    field = rng.choice(["Contexto", "Extensao", "Tronco"])
    bad = ["", "a b", "a,b", "a/b", "a&b", "a|b", "a@b", "a(b)", "a=b", "a" * 80, "ç", "a;b", "%s"]
    return _with(rng, request_id, **{field: rng.choice(bad)})


def wrong_type(rng: random.Random, request_id: str) -> Made:
    field = rng.choice(TEXT_FIELDS)
    return _with(rng, request_id, **{field: rng.choice(NOT_TEXT)})


def wrong_integer(rng: random.Random, request_id: str) -> Made:
    field = rng.choice(list(INTEGER_LIMITS))
    low, high = INTEGER_LIMITS[field]
    bad = [low - 1, high + 1, -1, 1.5, 30.0, True, "1", [], {}, 10**40, 10**4200]
    return _with(rng, request_id, **{field: rng.choice(bad)})


def wrong_validity(rng: random.Random, request_id: str) -> Made:
    bad = [0, -1, 604800.001, 10**30, -0.0, True, "600", [], {}, 1e308]
    return _with(rng, request_id, ValidadeSeg=rng.choice(bad))


def not_a_number(rng: random.Random, request_id: str) -> Made:
    field = rng.choice(["ValidadeSeg", "Prioridade", "TempoToque", "Dados", "Outro"])
    word = rng.choice(["NaN", "Infinity", "-Infinity"])
    value = f"[{word}]" if rng.random() < 0.3 else word
    text = json.dumps(request(request_id))[:-1] + f', "{field}": {value}}}'
    return Made(text.encode())


def endless_number(rng: random.Random, request_id: str) -> Made:
    field = rng.choice(["ValidadeSeg", "Prioridade", "TempoToque"])
    value = rng.choice(["9" * 5000, "-" + "9" * 4500, "1e400", "-1e400", "1" * 60_000])
    text = json.dumps(request(request_id))[:-1] + f', "{field}": {value}}}'
    return Made(text.encode())


def instant(rng: random.Random, request_id: str) -> Made:
    bad = [
        "2026-05-04T09:30:00",
        "2026-05-04",
        "2026-05-04 09:30:00-03:00",
        "2026-05-04\x0009:30:00Z",
        "20260504T093000Z",
        "2026-W19-1T09:30:00Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "1999-12-31T23:59:59Z",
        "2100-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-05-04T25:30:00Z",
        "2026-05-04T09:30:60Z",
        "2026-05-04T09:30:00+99:00",
        "2026-05-04T09:30:00Z\n",
        "2026-05-04T09:30:00 BRT",
        "/Date(1777900000000)/",
        "04/05/2026 09:30:00",
        "now",
        "",
        "\uff12026-05-04T09:30:00Z",
    ]
    return _with(rng, request_id, CriadaEm=rng.choice(bad))


def variables(rng: random.Random, request_id: str) -> Made:
    bad: list[Any] = [
        {f"V{number}": "x" for number in range(65)},
        {"A": "x" * 513},
        {"A": "," * 512},
        {"A" * 80: "(" * 490},
        {"A": "ç" * 500},
        {"A": 1},
        {"A": None},
        {"A": True},
        {"A": ["x"]},
        {"DIALER_ID": "x"},
        {"_DIALER_ID": "x"},
        {"__DIALER_ID": "x"},
        {"dialer_id": "x"},
        {"CALLERID(num)": "190"},
        {"SHELL(touch owned)": "x"},
        {"A=B": "x"},
        {"A,B": "x"},
        {"A B": "x"},
        {"1A": "x"},
        {"": "x"},
        {"A" * 81: "x"},
        {"Á": "x"},
        [],
        ["A=x"],
        "A=x",
        7,
        True,
    ]
    return _with(rng, request_id, Variaveis=rng.choice(bad))


#: Variables that Asterisk hands to a shell, a file name, a dial string or a jump in the dialplan.
MEANT_BY_ASTERISK = [
    "MONITOR_EXEC",
    "MONITOR_EXEC_ARGS",
    "MONITOR_FILENAME",
    "MONITOR_OPTIONS",
    "MIXMONITOR_FILENAME",
    "TOUCH_MIXMONITOR",
    "TRANSFER_CONTEXT",
    "FORWARD_CONTEXT",
    "GOTO_ON_BLINDXFR",
    "DYNAMIC_FEATURES",
    "LIMIT_TIMEOUT_FILE",
    "AMDSTATUS",
    "MEMBERNAME",
    "QEHOLDTIME",
    "SPYGROUP",
    "OUTBOUND_GROUP",
    "BLINDTRANSFER",
    "FORWARDERNAME",
    "VM_CONTEXT",
    "PJSIP_HEADER",
    "SIPADDHEADER01",
    "CDR_PROP",
    "ARG1",
    "MACRO_CONTEXT",
    "GOSUB_RETVAL",
    "QUEUE_PRIO",
    "VXML_URL",
    "MEETME_AGI_BACKGROUND",
]


def forbidden_variable(rng: random.Random, request_id: str) -> Made:
    """A name with a meaning to Asterisk, or one that no cell was told to take."""
    name = rng.choice([*MEANT_BY_ASTERISK, "CPF", "TRUNK", "MC", "XMC_A", "mc_a"])
    name = rng.choice(["", "_", "__", "___"]) + rng.choice([name, name.lower()])
    return _with(rng, request_id, Variaveis={"MC_A": "1", name: "/usr/bin/touch owned; #"})


def forbidden_target(rng: random.Random, request_id: str) -> Made:
    """A place of the dialplan that the cell was not told to send calls to."""
    field, value = rng.choice(
        [
            ("Contexto", "internal"),
            ("Contexto", "dialer-queue"),
            ("Contexto", "Dialer-ura"),
            ("Contexto", "default"),
            ("Extensao", "0044123456789"),
            ("Extensao", "S"),
            ("Extensao", "_X."),
            ("Extensao", "h"),
            ("Prioridade", 2),
        ]
    )
    return _with(rng, request_id, **{field: value})


def wrong_id(rng: random.Random, request_id: str) -> Made:
    bad = [True, False, 1.0, 1.5, [], {}, [request_id], "", " ", "a b", "a/b", "á", "a" * 65]
    bad += [10**64, -(10**64), 10**4200, f"{request_id}\n", f" {request_id}", "a\x00", None]
    return _with(rng, request_id, IdRequisicao=rng.choice(bad))


def missing(rng: random.Random, request_id: str) -> Made:
    fields = request(request_id)
    gone = rng.choice(["IdRequisicao", "Telefone"])
    value = fields.pop(gone)
    if rng.random() < 0.5:
        fields[rng.choice([gone.lower(), gone.upper(), f"{gone} ", f"\x00{gone}"])] = value
    elif rng.random() < 0.5:
        fields[gone] = None
    return Made(dump(rng, fields), has_id=gone != "IdRequisicao")


def large_data(rng: random.Random, request_id: str) -> Made:
    bad: list[Any] = ["x" * 8191, "é" * 4100, list(range(3000)), {"a": "x" * 20_000}]
    return Made(json.dumps(request(request_id, Dados=rng.choice(bad))).encode())


def large_element(rng: random.Random, request_id: str) -> Made:
    padding = rng.choice("x ~") * rng.choice([65_536, 70_000])
    fields = request(request_id)
    if rng.random() < 0.5:
        return Made(json.dumps({**fields, "Outro": padding}).encode())
    return Made(json.dumps({"Outro": padding, **fields}).encode(), has_id=False)


def deep_nesting(rng: random.Random, request_id: str) -> Made:
    depth = rng.choice([501, 900, 2000, 4000, 30_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    depth = min(depth, 60_000 // len(opening + closing))
    text = json.dumps(request(request_id))[:-1] + ',"Dados":' + opening * depth
    if rng.random() < 0.7:
        text += ("1" if opening != "[" else "") + closing * depth + "}"
    return Made(text.encode())


def truncated(rng: random.Random, request_id: str) -> Made:
    raw = dump(rng, request(request_id))
    seen = raw.index(b",") + 1  # the id counts once the comma after it was seen
    cut = rng.randrange(len(raw))
    return Made(raw[:cut], has_id=cut >= seen)


def duplicate_field(rng: random.Random, request_id: str) -> Made:
    """Of a repeated field the last counts, and here the last is bad."""
    text = json.dumps(request(request_id))[:-1]
    if rng.random() < 0.3:
        return Made(f'{text},"IdRequisicao":true}}'.encode(), has_id=False)
    name = rng.choice(["Telefone", "Telef\\u006fne"])
    return Made(f'{text},"{name}":{json.dumps(rng.choice(DIAL_STRINGS))}}}'.encode())


def not_utf8(rng: random.Random, request_id: str) -> Made:
    bad = rng.choice(
        [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe3o", b"\xf4\x90\x80\x80"]
    )
    raw = dump(rng, request(request_id))
    kind = rng.randrange(3)
    if kind == 0:
        return Made(raw[:-1] + b',"Outro":"' + bad + b'"}')
    if kind == 1:
        return Made(b'{"Outro":"' + bad + b'",' + raw[1:], has_id=False)
    return Made(raw.decode().encode("utf-16"), has_id=False)


def not_an_object(rng: random.Random, request_id: str) -> Made:
    whole = json.dumps(request(request_id))
    bad = ["", " ", "null", "true", "1", '"x"', "[]", f"[{whole}]", json.dumps(whole), "\x00"]
    return Made(rng.choice(bad).encode(), has_id=False)


def not_json(rng: random.Random, request_id: str) -> Made:
    text = json.dumps(request(request_id))
    readable = [
        f"{text}x",
        f"{text}{{}}",
        f"{text}\x00",
        f"{text}]",
        f"{text[:-1]},}}",
        f"{text[:-1]}]",
    ]
    readable += [f'{text[:-1]},"a":01}}', f'{text[:-1]},"a":"\n"}}', f'{text[:-1]},"a" 1}}']
    readable += [f"{text[:-1]},a:1}}", f'{text[:-1]},"a":1 "b":2}}', f'{text[:-1]},"a\\x":1}}']
    unreadable = [text.replace('"', "'"), f"// {text}", f"\x00{text}", text.replace(":", "=")]
    unreadable += ["{", "{,}", "}{", f"{{{text}}}", '{"', '{"a', '{"a"', '{"a":', '{"a":1', "{1:2}"]
    if rng.random() < 0.5:
        return Made(rng.choice(readable).encode())
    return Made(rng.choice(unreadable).encode(), has_id=False)


def noise(rng: random.Random, request_id: str) -> Made:
    return Made(b"\xfe" + rng.randbytes(rng.randrange(300)), has_id=False)


REQUEST_MAKERS: list[Maker] = [
    ami_injection,
    ami_injection,
    dialplan_expression,
    dialplan_expression,
    dial_string,
    foreign_digits,
    lone_surrogate,
    caller_id,
    target,
    wrong_type,
    wrong_integer,
    wrong_validity,
    not_a_number,
    endless_number,
    instant,
    variables,
    forbidden_variable,
    forbidden_target,
    wrong_id,
    missing,
    large_data,
    large_element,
    deep_nesting,
    truncated,
    duplicate_field,
    not_utf8,
    not_an_object,
    not_json,
    noise,
]


# --- valid, but strange ---------------------------------------------------------------


def odd_data(rng: random.Random, request_id: str) -> Made:
    """Whatever `Dados` and unknown fields hold never leaves JSON: it harms nobody."""
    poison = rng.choice([*LINE_ENDS, *AMI_LINES, *EXPRESSIONS, "\ud800", *DIAL_STRINGS])
    return _with(rng, request_id, Dados={"x": poison}, Outro=poison)


def odd_numbers(rng: random.Random, request_id: str) -> Made:
    value = rng.choice(["1.10", "-0", "1E400", "9" * 5000, "0.1e-7", "[1.0,1.00]", "1e5"])
    text = json.dumps(request(request_id))[:-1] + f',"Dados":{value}}}'
    return Made(text.encode())


def odd_shape(rng: random.Random, request_id: str) -> Made:
    text = json.dumps(request(request_id), indent=rng.choice([None, 3]))
    shapes = [f"\ufeff{text}", f"\r\n\t {text}\n\n", text.replace("Tele", "\\u0054ele")]
    shapes += ['{"Telefone":true,"IdRequisicao":true,' + text[1:], f'{text[:-1]},"Tronco":null}}']
    return Made(rng.choice(shapes).encode())


def odd_variables(rng: random.Random, request_id: str) -> Made:
    value = rng.choice(
        [
            'a,b "c" (d) [e] \\f',
            "$",
            "a$b $ {x}",
            "José; & |",
            "x" * 512,
            "",
            " x ",
            "a=b",
            "😀",
            "]]",
        ]
    )
    return _with(rng, request_id, Variaveis={"MC_A": value, "_MC_B": value, "__MC_C": value})


ODD_MAKERS: list[Maker] = [odd_data, odd_numbers, odd_shape, odd_variables]


# --- codes ----------------------------------------------------------------------------


def code_wrong_value(rng: random.Random, request_id: str) -> Made:
    bad = [True, False, 1.5, 1.0, [], {}, None, "", "a" * 257, "a\r\nb", "a\x00", "\x7f", "\x85"]
    bad += ["\u2028", "\ud800", 10**256, 10**4200]
    return Made(dump(rng, {"IdRequisicao": request_id, "CodLigacao": rng.choice(bad)}))


def code_wrong_id(rng: random.Random, request_id: str) -> Made:
    bad = [True, 1.0, [], {}, None, "", "a b", f"{request_id}\n", "á", "a" * 65, 10**64]
    return Made(dump(rng, {"IdRequisicao": rng.choice(bad), "CodLigacao": 7}), has_id=False)


def code_missing(rng: random.Random, request_id: str) -> Made:
    if rng.random() < 0.5:
        return Made(dump(rng, {"IdRequisicao": request_id, "codligacao": 7}))
    return Made(dump(rng, {"idrequisicao": request_id, "CodLigacao": 7}), has_id=False)


def code_truncated(rng: random.Random, request_id: str) -> Made:
    raw = dump(rng, {"IdRequisicao": request_id, "CodLigacao": "L-1", "Outro": 1})
    cut = rng.randrange(len(raw))
    return Made(raw[:cut], has_id=cut >= raw.index(b",") + 1)


BAD_CODE_MAKERS: list[Maker] = [
    code_wrong_value,
    code_wrong_id,
    code_missing,
    code_truncated,
    not_utf8,
    not_an_object,
    not_json,
    large_element,
    noise,
]


def code_for_nobody(rng: random.Random, request_id: str) -> Made:
    """Well made, but the call is unknown; the value is odd and must harm nobody."""
    good = [1, -1, "7", "L-1", "${X}", "a,b", "x" * 256, 10**255, " ", '"', "</script>", "😀"]
    return Made(dump(rng, {"IdRequisicao": request_id, "CodLigacao": rng.choice(good)}))


# --- the corpora ----------------------------------------------------------------------


def hostile_requests(seed: int, n: int) -> list[HostileElement]:
    """`n` elements for the Request list, every one an `invalid_request`."""
    return list(_elements(seed, n, "hr", REQUEST_MAKERS, "invalid_request"))


def odd_requests(seed: int, n: int) -> list[HostileElement]:
    """`n` strange but valid elements for the Request list: `accepted`."""
    return list(_elements(seed, n, "or", ODD_MAKERS, "accepted"))


def hostile_codes(seed: int, n: int) -> list[HostileElement]:
    """`n` elements for the CODLIGACAO list: `invalid_code`, and one in ten `orphan_code`."""
    orphans = n // 10
    elements = [
        *_elements(seed, n - orphans, "hc", BAD_CODE_MAKERS, "invalid_code"),
        *_elements(seed, orphans, "oc", [code_for_nobody], "orphan_code"),
    ]
    random.Random(seed).shuffle(elements)
    return elements


def _elements(
    seed: int, n: int, prefix: str, makers: list[Maker], expect: Expect
) -> Iterator[HostileElement]:
    rng = random.Random(f"{prefix}{seed}")
    for number in range(n):
        maker = makers[number] if number < len(makers) else rng.choice(makers)
        request_id = f"{prefix}{seed}-{number}"
        made = maker(rng, request_id)
        yield HostileElement(
            raw=made.raw,
            expect=expect,
            has_id=made.has_id,
            kind=maker.__name__,
            request_id=request_id if made.has_id else None,
        )
