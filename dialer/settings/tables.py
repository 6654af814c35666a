"""Tables of `dialer.toml` as frozen models: fields, ranges, defaults.

Each field's `description` completes the sentence "it takes ..." of an error. Rules between
tables are in `settings.problems.cross_problems`. Reads no environment, and no file except a
PBX's secret.
"""

from __future__ import annotations

import re
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic.fields import FieldInfo

from dialer.domain.allowed import Allowed, asterisk_name_in, extension_regex
from dialer.domain.hours import Window, is_open
from dialer.domain.numbers import Numbering, ambiguous
from dialer.domain.room import PbxLimits
from dialer.errors import ConfigError
from dialer.multcall.fields import Fields
from dialer.multcall.lenient import NOTHING, Lenient
from dialer.multcall.renames import FIELDS, clashes
from dialer.multcall.wire import Wire
from dialer.settings.broker_url import BROKER_EXPECTED, require_broker_url
from dialer.settings.problems import NAME, is_name, line_in, nearest
from dialer.store.redis_url import EXPECTED, RedisAddress, SecretUrl, redacted

#: What every environment variable of the settings starts with.
PREFIX: Final = "DIALER_"

_COUNTRY: Final = 'a country code as text: 1 to 3 digits without + or 00, as "55"'

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def environment_name(name: str) -> str:
    """Convert a PBX's or cell's name to its form in environment variables: `pbx-01` to `PBX_01`."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


# --- kinds of values ------------------------------------------------------------------


def _number(value: object) -> object:
    """Reject true and false, which Python accepts as 1 and 0."""
    return str(value) if isinstance(value, bool) else value


def _whole(low: int, high: int) -> FieldInfo:
    field: FieldInfo = Field(ge=low, le=high, description=f"a whole number from {low} to {high}")
    return field


def _seconds(low: float, high: float) -> FieldInfo:
    field: FieldInfo = Field(ge=low, le=high, description=f"seconds from {low:g} to {high:g}")
    return field


def _redis_url(value: str) -> SecretUrl:
    return SecretUrl(RedisAddress.parse(value).url)


def _broker_url(value: str) -> SecretUrl:
    return SecretUrl(require_broker_url(value))


def _one_line(value: str) -> str:
    """Reject control characters, which would end or add an AMI line."""
    if not value.isprintable():
        raise ValueError("contains a control character; it takes plain text")
    return value


def _path(value: Path | None) -> Path | None:
    _one_line(str(value or ""))
    return value


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise ValueError("is empty; it takes the secret of the PBX's manager.conf")
    _one_line(text)
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _template(value: str) -> str:
    """Check a dial string: one `{number}`, and nothing that starts a second destination."""
    right = "it takes a dial string such as PJSIP/{number}@carrier"
    if value.count("{number}") != 1:
        raise ValueError(f"does not contain {{number}} exactly once; {right}")
    if not re.match(r"[A-Za-z0-9]+/", value):
        raise ValueError(f"does not start with a channel technology; {right}")
    if not value.isprintable() or re.search(r"[,&|]", value):
        raise ValueError(f"contains a control character or one of , & |; {right}")
    return value


def _variable_entry(value: str) -> str:
    """Reject a variable name or `NAME*` that covers a name with a meaning in Asterisk."""
    if meant := asterisk_name_in(value):
        raise ValueError(
            f"{value} would let a request set {meant}, which can change what Asterisk does; "
            "it takes other names, such as CPF or X_*"
        )
    return value


def _extension_entry(value: str) -> str:
    extension_regex(value)
    return value


def _exten(value: str) -> str:
    if value.startswith("_"):
        raise ValueError("is a pattern; it takes the one extension that answered calls go to")
    return value


def _time_zone(value: str) -> str:
    right = "it takes a name such as America/Sao_Paulo"
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):  # unknown zone, a folder, ..
        raise ValueError(f"is not a time zone known on this machine; {right}") from None
    return value


def _field_name(value: str) -> str:
    """Reject names that no serializer writes, or that would be ignored (`$type`)."""
    if not value.isprintable() or value != value.strip() or value.startswith("$"):
        raise ValueError("is not a name of a field; it takes one such as Phone or phone_number")
    return value


def _known_fields(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name not in FIELDS:
            like = nearest(name, FIELDS)
            cure = f"did you mean {like}?" if like else f"there are {', '.join(FIELDS)}"
            shown = name if is_name(name) else "one of these"
            raise ValueError(f"{shown} is no field of the wire; {cure}")
    return value


Name = Annotated[
    str,
    StringConstraints(pattern=rf"^{NAME}$"),
    Field(description="1 to 64 letters, digits, _ . and -"),
]
Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_one_line),
    Field(description="text of 1 to 200 characters"),
]
RedisUrlText = Annotated[
    str,
    AfterValidator(_redis_url),
    PlainSerializer(redacted),
    Field(description=EXPECTED),
]
BrokerUrlText = Annotated[
    str,
    AfterValidator(_broker_url),
    PlainSerializer(redacted),
    Field(description=BROKER_EXPECTED),
]
FieldName = Annotated[
    str, StringConstraints(min_length=1, max_length=64), AfterValidator(_field_name)
]
VariableEntry = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}\*?$"),
    AfterValidator(_variable_entry),
]
ContextEntry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,79}$")]
ExtensionEntry = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.*#+!\[\]-]{1,79}$"),
    AfterValidator(_extension_entry),
]
Whole = Annotated[int, BeforeValidator(_number)]
Decimal = Annotated[float, BeforeValidator(_number)]
Flag = Annotated[bool, Field(description="true or false")]
Template = Annotated[str, AfterValidator(_template)]


# --- the tables of the file -------------------------------------------------------------


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LenientTable(_Table):
    """What is accepted besides the strict wire. `all` turns on every other switch."""

    all: Flag = False
    empty_values: Flag = False
    any_case: Flag = False
    dollar_names: Flag = False
    json_in_text: Flag = False
    phone_signs: Flag = False
    quoted_numbers: Flag = False

    @property
    def lenient(self) -> Lenient:
        """The switches in force."""
        given = self.model_dump(exclude={"all"})
        if not (self.all or any(given.values())):
            return NOTHING
        return Lenient(**{name: self.all or on for name, on in given.items()})


class Multcall(_Table):
    """The Redis that Multcall writes to, the end of the lists where it pushes, and its wire.

    `fields` has Multcall's names for fields, by their names in docs/wire.md.
    """

    redis_url: RedisUrlText
    push: Annotated[Literal["right", "left"], Field(description='"right" or "left"')] = "right"
    fields: Annotated[
        dict[str, FieldName],
        AfterValidator(_known_fields),
        Field(
            description="names of 1 to 64 characters, each after our name of the field, "
            'as Telefone = "Phone"'
        ),
    ] = {}
    lenient: LenientTable = LenientTable()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        wire = self.wire
        if found := list(clashes(wire.fields, any_case=wire.lenient.any_case)):
            raise ValueError(f"fields: {'; '.join(found)}")
        return self

    @property
    def wire(self) -> Wire:
        """How Multcall writes and reads."""
        return Wire(fields=Fields(self.fields), lenient=self.lenient.lenient)


class Broker(_Table):
    """The Redis or RabbitMQ with Celery's queues."""

    url: BrokerUrlText


class Registry(_Table):
    """The Redis with the data shared by all cells; None: Multcall's."""

    redis_url: RedisUrlText | None = None


class Numbers(_Table):
    """How telephone numbers are compared: for the do-not-call list and the limits per number.

    `country` is the country code, None: numbers are compared by their digits. `national_digits`
    is how many digits a national number has, without a trunk prefix.
    """

    country: (
        Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,2}$"), Field(description=_COUNTRY)]
        | None
    ) = None
    national_digits: Annotated[
        tuple[Annotated[Whole, _whole(5, 14)], ...],
        Field(min_length=1, description="numbers of digits from 5 to 14, as [10, 11]"),
    ] = (10, 11)

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if found := ambiguous(self.country or "", self.national_digits):
            short, long = found
            raise ValueError(
                f"a number of {long} digits could be a national one, or one of {short} digits with "
                f"the country code {self.country}; leave {short} or {long} out of national_digits"
            )
        return self

    @property
    def numbering(self) -> Numbering:
        """The numbering plan."""
        return Numbering(country=self.country or "", national_digits=self.national_digits)


class Log(_Table):
    """Log level, location (a folder; empty: standard error) and format."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        BeforeValidator(_upper),
        Field(description='"DEBUG", "INFO", "WARNING", "ERROR" or "CRITICAL"'),
    ] = "INFO"
    location: Annotated[
        str, AfterValidator(_one_line), Field(description="a folder, or nothing")
    ] = ""
    format: Annotated[Literal["text", "json"], Field(description='"text" or "json"')] = "text"


class Recovery(_Table):
    """Seconds since a PBX's last heartbeat after which its calls are answered as lost."""

    pbx_lost_after: Annotated[Decimal, _seconds(1, 86_400)] = 120.0


class Pbx(_Table):
    """One Asterisk: its AMI login, its limits and its trunks (the first is the default)."""

    name: Name
    host: Line = "127.0.0.1"
    port: Annotated[Whole, _whole(1, 65_535)] = 5038
    username: Line = "dialer"
    given_secret: Annotated[SecretStr, AfterValidator(_secret)] | None = Field(
        default=None, alias="secret", description="text"
    )
    secret_file: Annotated[
        Path | None, AfterValidator(_path), Field(description="the path of a file")
    ] = None
    tls: Flag = False
    tls_ca_file: Annotated[
        Path | None, AfterValidator(_path), Field(description="the path of a PEM file")
    ] = None
    max_calls: Annotated[Whole, _whole(1, 10_000)]
    governor: Flag = True
    cps: Annotated[Decimal, Field(ge=0.1, le=1000, description="calls a second, 0.1 to 1000")]
    trunks: Annotated[
        dict[Name, Template],
        Field(min_length=1, description='one trunk or more, as tim = "PJSIP/{number}@tim"'),
    ]

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.given_secret is not None and self.secret_file is not None:
            raise ValueError("has both secret and secret_file; it takes one of them")
        return self

    @model_validator(mode="after")
    def _tls_to_trust(self) -> Self:
        if self.tls_ca_file is not None and not self.tls:
            raise ValueError("has tls_ca_file but no TLS; set tls = true, or leave it out")
        return self

    @property
    def limits(self) -> PbxLimits:
        """What the bridge needs to know of this PBX, without its secrets."""
        return PbxLimits(
            name=self.name,
            max_calls=self.max_calls,
            cps=float(self.cps),
            trunks=frozenset(self.trunks),
            default_trunk=self.default_trunk,
        )

    @property
    def default_trunk(self) -> str:
        """The trunk of calls that request none."""
        return next(iter(self.trunks))

    @property
    def secret(self) -> SecretStr:
        """The AMI secret; a `secret_file` is read at every access.

        Only the PBX's own worker needs it, so a missing secret is an error only when used.

        Raises:
            ConfigError: there is no secret on this machine.
        """
        if self.given_secret is not None:
            return self.given_secret
        if self.secret_file is not None:
            return _secret_in(self.secret_file, f"pbxs[{self.name}].secret_file")
        variable = f"{PREFIX}{environment_name(self.name)}_SECRET"
        raise ConfigError(
            f"pbxs[{self.name}].secret: is missing; set {variable}, or set secret_file"
        )


class CallingHours(_Table):
    """Hours on some weekdays in which calls may start: `from` is included, `to` is not.

    If `to` is not after `from`, the hours end on the next day.
    """

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        Field(min_length=1, description='days, as ["mon", "tue", "wed", "thu", "fri"]'),
    ]
    from_: Annotated[
        str,
        StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"),
        Field(alias="from", description='a time of day in quotes, as "08:00"'),
    ]
    to: Annotated[
        str,
        StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"),
        Field(description='a time of day in quotes, as "20:00", at most "24:00"'),
    ]

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.start == self.end and (self.from_, self.to) != ("00:00", "24:00"):
            raise ValueError('from and to are the same; the whole day is "00:00" to "24:00"')
        return self

    @property
    def weekdays(self) -> frozenset[int]:
        """The days as Python's weekday numbers, Monday is 0."""
        return frozenset(WEEKDAYS.index(day) for day in self.days)

    @property
    def start(self) -> time:
        """Local time at which they begin."""
        return time.fromisoformat(self.from_)

    @property
    def end(self) -> time:
        """Local time at which they end; on the next day if not after `start` (24:00 is 00:00)."""
        return time.fromisoformat("00:00" if self.to == "24:00" else self.to)


class Limits(_Table):
    """Protection of the called people: attempts per number, calling hours, do-not-call list."""

    max_attempts_per_number: Annotated[Whole, _whole(1, 1000)] | None = None
    attempts_window_hours: Annotated[
        Decimal, Field(ge=0.01, le=8784, description="hours from 0.01 to 8784")
    ] = 24.0
    calling_hours: Annotated[
        tuple[CallingHours, ...],
        Field(description='tables, as { days = ["mon"], from = "08:00", to = "20:00" }'),
    ] = ()
    time_zone: Annotated[
        str, AfterValidator(_time_zone), Field(description="a name such as America/Sao_Paulo")
    ] = "America/Sao_Paulo"
    outside_hours: Annotated[Literal["expire", "hold"], Field(description='"expire" or "hold"')] = (
        "hold"
    )
    do_not_call: Flag = True

    def is_open(self, at: datetime) -> bool:
        """True if calls may start at `at`, by the cell's hours and time zone."""
        windows = (
            Window(days=hours.weekdays, start=hours.start, end=hours.end)
            for hours in self.calling_hours
        )
        return is_open(windows, ZoneInfo(self.time_zone), at)


class Cell(_Table):
    """One cell of Multcall: how many calls at once, on which PBXs, and their destination.

    An answered call goes to the operators of Asterisk's `queue` if it is set, for at most
    `queue_timeout` seconds; else to `context`. `amd` is the treatment of answering machines;
    "off" disables their detection. `amd_message` is a sound file without its extension.

    `mode` says how many calls are dialed for operators: "ura" as many as the other limits allow;
    "progressive" one for each free operator; "power" `power_ratio` for each. `agents` says who
    tells what they do: Asterisk's `queue`, or Multcall.

    A request may set the variables in `variables` and those that begin with `MC_`, and send its
    answered call to `contexts`, `extensions` and `priorities` in addition to the cell's own.
    """

    nome: Name
    threads: Annotated[Whole, _whole(1, 10_000)]
    pbxs: Annotated[
        tuple[Name, ...], Field(min_length=1, description='names of PBXs, as ["pbx01"]')
    ]
    redis_url: RedisUrlText | None = None
    context: Line = "dialer-ura"
    exten: Annotated[Line, AfterValidator(_exten)] = "s"
    priority: Annotated[Whole, _whole(1, 10_000)] = 1
    variables: Annotated[
        tuple[VariableEntry, ...],
        Field(description='names of channel variables, as ["CPF", "X_*"]'),
    ] = ()
    contexts: Annotated[
        tuple[ContextEntry, ...], Field(description='contexts of the dialplan, as ["dialer-ura2"]')
    ] = ()
    extensions: Annotated[
        tuple[ExtensionEntry, ...],
        Field(description='extensions as in extensions.conf, as ["100", "_2XXX"]'),
    ] = ()
    priorities: Annotated[
        tuple[Annotated[Whole, _whole(1, 9999)], ...],
        Field(description="priorities from 1 to 9999, as [1, 10]"),
    ] = ()
    queue: Name | None = None
    queue_timeout: Annotated[Whole, _whole(1, 3600)] = 60
    mode: Annotated[
        Literal["ura", "progressive", "power"],
        Field(description='"ura", "progressive" or "power"'),
    ] = "ura"
    agents: Annotated[Literal["queue", "multcall"], Field(description='"queue" or "multcall"')] = (
        "queue"
    )
    power_ratio: Annotated[
        Decimal, Field(ge=1, le=10, description="calls for each free operator, 1 to 10")
    ] = 1.5
    amd: Annotated[
        Literal["off", "hangup", "message", "pass"],
        Field(description='"off", "hangup", "message" or "pass"'),
    ] = "off"
    amd_message: Line | None = None
    ring_timeout: Annotated[Whole, _whole(1, 120)] = 30
    timeout_command_response: Annotated[Decimal, _seconds(0.1, 600)] = 20.0
    timeout_command_ack: Annotated[Decimal, _seconds(0.1, 600)] = 10.0
    retries: Annotated[Whole, _whole(0, 10)] = 2
    trunk: Name | None = None
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.queue is not None and self.model_fields_set & {"context", "exten", "priority"}:
            raise ValueError(
                "has both queue and context; an answered call goes to the one or to the other"
            )
        if (self.amd == "message") != (self.amd_message is not None):
            raise ValueError(
                'amd = "message" and amd_message belong together; set both, or neither'
            )
        if self.mode != "ura" and self.queue is None and self.agents == "queue":
            raise ValueError(
                f'has mode = "{self.mode}" and no queue, so that it has no operators; set queue, '
                'or agents = "multcall", or mode = "ura"'
            )
        return self

    @property
    def asks_asterisk(self) -> bool:
        """True if a call is dialed only for a free member of its queue."""
        return self.mode != "ura" and self.agents == "queue"

    @property
    def asks_multcall(self) -> bool:
        """True if a call is dialed only for an operator that Multcall says is free."""
        return self.mode != "ura" and self.agents == "multcall"

    @property
    def calls_per_agent(self) -> float:
        """How many calls may be on their way for each free operator, if it reserves them."""
        return self.power_ratio if self.mode == "power" else 1.0

    @property
    def calls_of_multcall(self) -> float:
        """`calls_per_agent` if it asks Multcall for its operators, else 0."""
        return self.calls_per_agent if self.asks_multcall else 0.0

    @property
    def name(self) -> str:
        """The cell's name, `nome` in the file."""
        return self.nome

    @property
    def allowed(self) -> Allowed:
        """The cell's rules for its requests. A cell with a queue has no context of its own."""
        own = () if self.queue is not None else (self.context,)
        return Allowed(
            variables=self.variables,
            contexts=(*own, *self.contexts),
            extensions=(self.exten, *self.extensions),
            priorities=(self.priority, *self.priorities),
        )

    @property
    def needs_include(self) -> bool:
        """True if calls of the cell need the dialplan include after the answer."""
        return self.queue is not None or self.amd != "off"


def _secret_in(path: Path, field: str) -> SecretStr:
    try:
        return _secret(SecretStr(line_in(path)))
    except ConfigError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"{path} {error}"
    raise ConfigError(f"{field}: {problem}")
