"""The settings model: `dialer.toml` and the environment, read and validated once.

The only module that reads the environment. A variable, or a file with its name (see
`settings.environment`), overrides any value: `DIALER_MULTCALL__REDIS_URL` for a field of a
table, `DIALER_PBX01_SECRET` or `DIALER_ASR_TIM_THREADS` for a field of that PBX or cell (name in
upper case, other characters than letters and digits as `_`). No repr, dump or error contains a
secret.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from pydantic_settings.sources.utils import parse_env_vars

from dialer.errors import ConfigError
from dialer.settings.environment import effective, source
from dialer.settings.problems import (
    NAMED_BY,
    Location,
    Problem,
    SettingsRefused,
    cross_problems,
    dotted,
    field_names,
    is_name,
    model_in,
    nearest,
    problems_of,
    read,
)
from dialer.settings.tables import (
    PREFIX,
    Broker,
    Cell,
    Log,
    Multcall,
    Numbers,
    Pbx,
    Recovery,
    Registry,
    environment_name,
)

CONFIG_VARIABLE: Final = "DIALER_CONFIG"
DEFAULT_PATH: Final = Path("dialer.toml")

#: Fields of a PBX or cell whose variable contains JSON.
_JSON_FIELDS: Final = frozenset(
    {
        *("trunks", "pbxs", "limits", "calling_hours"),
        *("variables", "contexts", "extensions", "priorities"),
    }
)

#: Lists of tables whose members have variables with their name.
_KINDS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (("pbxs", Pbx), ("cells", Cell))

#: The two ways to set a secret; one in the environment replaces both in the file.
_SECRETS: Final = frozenset({"secret", "secret_file"})

#: Fields of a PBX that contain a path.
_PATHS: Final = ("secret_file", "tls_ca_file")

_Member = TypeVar("_Member", Pbx, Cell)


class _Variables(EnvSettingsSource):
    """pydantic-settings' environment source, reading the effective variables instead."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(
            _variables(), self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str
        )


class Settings(BaseSettings):
    """All settings. Use `load` or `settings` to create it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    multcall: Multcall
    broker: Broker
    registry: Registry = Registry()
    numbers: Numbers = Numbers()
    log: Log = Log()
    recovery: Recovery = Recovery()
    pbxs: Annotated[tuple[Pbx, ...], Field(min_length=1, description="one [[pbxs]] table or more")]
    cells: Annotated[
        tuple[Cell, ...], Field(min_length=1, description="one [[cells]] table or more")
    ]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by precedence: effective variables, then the file."""
        return _Variables(settings_cls), init_settings

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems(cls, data: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Apply the variables of PBXs and cells; report all problems at once."""
        data, origins = _with_member_environment(data)

        def origin(location: Location) -> str | None:
            return origins.get(location) or _source_of(location)

        problems = [*cross_problems(data), *_shared_variables(origins, data)]
        try:
            built = handler(data)
        except ValidationError as error:
            problems = [*problems_of(error, cls, data, origin), *problems]
        else:
            if not problems:
                return built
        raise SettingsRefused(problems)

    def pbx(self, name: str) -> Pbx:
        """Return the PBX with that name.

        Raises:
            ConfigError: there is none.
        """
        return _named({pbx.name: pbx for pbx in self.pbxs}, name, "PBX")

    def cell(self, name: str) -> Cell:
        """Return the cell with that name.

        Raises:
            ConfigError: there is none.
        """
        return _named({cell.nome: cell for cell in self.cells}, name, "cell")

    def cell_redis_url(self, cell: Cell | str) -> str:
        """Return the URL of the Redis with the cell's lists and ledger, password included."""
        own = (self.cell(cell) if isinstance(cell, str) else cell).redis_url
        return own or self.multcall.redis_url

    @property
    def urls(self) -> dict[str, str]:
        """The field and value of every URL that is set, passwords included."""
        urls: dict[str, str] = {"multcall.redis_url": self.multcall.redis_url}
        urls["broker.url"] = self.broker.url
        if self.registry.redis_url:
            urls["registry.redis_url"] = self.registry.redis_url
        cells = {f"cells[{c.name}].redis_url": c.redis_url for c in self.cells if c.redis_url}
        return urls | cells

    @property
    def registry_redis_url(self) -> str:
        """The URL of the Redis with the data shared by all cells, password included."""
        return self.registry.redis_url or self.multcall.redis_url


def load(path: Path | None = None) -> Settings:
    """Read the settings from `path`, by default from `config_path()`.

    Raises:
        ConfigError: the file is missing, is not TOML, or contains wrong values.
    """
    path = path or config_path()
    data = _with_paths_from(path.parent, read(path))
    try:
        return Settings(**data)
    except SettingsRefused as error:
        problems = error.problems
    except (SettingsError, RecursionError) as error:  # a table in the environment, not JSON
        field = re.search(r'field "(\w+)"', str(error))
        name = _source(f"{PREFIX}{field[1].upper()}") if field else "a DIALER_ variable"
        problems = (Problem(field=name, text="is not JSON; it takes the table as JSON"),)
    raise SettingsRefused(problems, source=str(path))


def parse(text: str, folder: Path) -> Settings:
    """Return the settings of a file with that text, in that folder.

    Raises:
        ConfigError: the text contains wrong values.
        TOMLDecodeError: it is not TOML.
    """
    return Settings(**_with_paths_from(folder, tomllib.loads(text)))


@cache
def settings() -> Settings:
    """Return the settings of this process; the first call reads them."""
    return load()


def config_path() -> Path:
    """Return the settings file: `DIALER_CONFIG`, else `dialer.toml` in the working directory."""
    return Path(_variables().get(CONFIG_VARIABLE) or DEFAULT_PATH)


def _named(members: Mapping[str, _Member], name: str, kind: str) -> _Member:
    if name not in members:
        like = nearest(name, members)
        cure = f"did you mean {like}?" if like else f"there are: {', '.join(members)}"
        raise ConfigError(f"there is no {kind} {name} in the settings; {cure}")
    return members[name]


def _with_paths_from(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Resolve the paths in PBX tables relative to the settings file's folder."""
    pbxs = data.get("pbxs")
    for pbx in pbxs if isinstance(pbxs, list) else ():
        for field in _PATHS if isinstance(pbx, dict) else ():
            if isinstance(given := pbx.get(field), str):
                pbx[field] = str(folder / given)
    return data


# --- the environment --------------------------------------------------------------------


def _variables() -> dict[str, str]:
    """Return the effective variables; raise ConfigError if a credentials file is unreadable."""
    return effective(os.environ)


def _source(variable: str) -> str:
    """Return how an error names the source of that variable."""
    return source(variable, os.environ)


def _source_of(location: Location) -> str | None:
    """Return the variable that set the field, or a table that contains it; None if none did."""
    variables = _variables()
    names = [
        PREFIX + "__".join(map(str, location[:end])).upper() for end in range(len(location), 0, -1)
    ]
    return next((_source(name) for name in names if name in variables), None)


def _with_member_environment(
    data: dict[str, Any],
) -> tuple[dict[str, Any], dict[Location, str]]:
    """Apply the variables of PBXs and cells to `data`.

    Returns:
        The new data, and the source of the value at each location that a variable set.
    """
    given = _variables()
    data = dict(data)
    origins: dict[Location, str] = {}
    for kind, model in _KINDS:
        members = data.get(kind)
        if not isinstance(members, list | tuple):
            continue
        known = frozenset(field_names(model))
        data[kind] = fresh = list(members)
        for index, member in enumerate(members):
            variables = list(_member_variables(member, NAMED_BY[kind], known, given))
            if any(keys[0] in _SECRETS for keys, _, _ in variables):
                fresh[index] = {k: v for k, v in member.items() if k not in _SECRETS}
            for keys, variable, value in variables:
                fresh[index] = _overlaid(fresh[index], keys, value)
                origins[(kind, index, *keys)] = _source(variable)
    return data, origins


def _shared_variables(origins: Mapping[Location, str], data: dict[str, Any]) -> Iterator[Problem]:
    """Yield a problem per variable that applies to two members with different names."""
    first: dict[str, Location] = {}
    for location, variable in origins.items():
        kind = str(location[0])
        one, other = (
            data[kind][index][NAMED_BY[kind]]
            for index in (first.setdefault(variable, location)[1], location[1])
        )
        if one != other:
            yield Problem(
                field=dotted(location, data),
                text=f"{variable} also applies to {one}; rename one of them, or unset the variable",
            )


def _member_variables(
    member: object, named_by: str, known: frozenset[str], given: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...], str, object]]:
    """Yield the variables for one PBX or cell: path of the field, variable, value."""
    name = member.get(named_by) if isinstance(member, dict) else None
    if not is_name(name):
        return
    prefix = f"{PREFIX}{environment_name(str(name))}_"
    for variable in sorted(v for v in given if v.startswith(prefix)):
        keys = tuple(variable.removeprefix(prefix).lower().split("__"))
        if keys[0] in known - {named_by}:
            yield keys, variable, _decoded(keys, given[variable])


def _decoded(keys: tuple[str, ...], text: str) -> object:
    if keys[-1] not in _JSON_FIELDS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # refused by the field's own type


def _overlaid(table: object, keys: tuple[str, ...], value: object) -> object:
    """Return a copy of `table` with `value` at the path `keys`."""
    first, *rest = keys
    fresh = dict(table) if isinstance(table, dict) else {}
    fresh[first] = _overlaid(fresh.get(first), tuple(rest), value) if rest else value
    return fresh


def _paths(table: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the fields of a table and of the tables in it, as they are in variables."""
    for name, field in field_names(model).items():
        yield f"{table}__{name}"
        if (inner := model_in(field.annotation)) is not None:
            yield from _paths(f"{table}__{name}", inner)


def variables_of(data: dict[str, Any]) -> Callable[[Location], str | None]:
    """Return which variable sets the field at a location, None if none does.

    `data` are the tables of the file.
    """
    _, origins = _with_member_environment(data)
    return lambda location: origins.get(location) or _source_of(location)


def stray_variables(given: Settings) -> list[tuple[str, str]]:
    """Return variables without effect that resemble a known one: (source, known variable)."""
    known = {CONFIG_VARIABLE}
    for table, field in field_names(Settings).items():
        model = model_in(field.annotation)
        if model is not None and table not in NAMED_BY:
            known |= {f"{PREFIX}{path}".upper() for path in _paths(table, model)}
    for model, named in ((Pbx, given.pbxs), (Cell, given.cells)):
        for member in named:
            prefix = f"{PREFIX}{environment_name(member.name)}_"
            known |= {prefix + name.upper() for name in field_names(model)}
    stray = (v for v in sorted(_variables()) if v.startswith(PREFIX) and v.upper() not in known)
    near = ((v, difflib.get_close_matches(v, known, n=1, cutoff=0.9)) for v in stray)
    return [(_source(variable), found[0]) for variable, found in near if found]
