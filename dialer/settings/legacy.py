"""Converter from the old dialer's `settings.py` to `dialer.toml`. Parses, never executes.

The old file has a dict `SETTINGS` with `redis_host`, `redis_port`, `Timeout_Command_Response`,
`Timeout_Command_ACK`, `Retries`, `queues` and `LOG_LEVEL`, `LOG_FORMAT`, `LOG_LOCATION`; the
last three may also be module variables. Comments in the new file list what was not imported;
values of unknown keys are never repeated. Numbers must be within the bounds of the new setting.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dialer.errors import ConfigError
from dialer.settings.tables import Cell, Pbx
from dialer.store.redis_url import RedisAddress

_LOG_NAMES: Final = ("LOG_LEVEL", "LOG_FORMAT", "LOG_LOCATION")
_KNOWN: Final = frozenset(
    {
        "redis_host",
        "redis_port",
        "Timeout_Command_Response",
        "Timeout_Command_ACK",
        "Retries",
        "queues",
        *_LOG_NAMES,
    }
)
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LEVEL_NAMES: Final = {number: name for name, number in logging.getLevelNamesMapping().items()}

#: Larger than any settings file; parsing must stay cheap.
MAX_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The new file's text, and a sentence for each thing that was not imported."""

    toml: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """An unevaluated value of the old file with its name and position."""

    name: str
    node: ast.expr

    @property
    def where(self) -> str:
        return f"line {self.node.lineno}: {self.name}"

    def read(self) -> object:
        """Return the value of a literal.

        Raises:
            ConfigError: it is not a literal, and the file is never executed.
        """
        if (level := _level_name(self.node)) is not None:
            return level
        try:
            value: object = ast.literal_eval(self.node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
        else:
            return value
        raise ConfigError(
            f"{self.where} is computed, but the old file is never executed; "
            "replace the expression by its value"
        )


def convert(path: Path) -> Imported:
    """Read the old file and return the text of the new one.

    Raises:
        ConfigError: the file cannot be read, or a value in it cannot be converted.
    """
    try:
        imported = _converted(_values(_parsed(path)))
        imported.toml.encode()
        return imported
    except ConfigError as error:
        problem = str(error)
    except UnicodeEncodeError:
        problem = "contains a lone surrogate (\\ud800 to \\udfff); correct that text"
    raise ConfigError(f"{path}: {problem}")


# --- reading the old file ---------------------------------------------------------------


def _parsed(path: Path) -> ast.Module:
    try:
        text = path.read_bytes()
        if len(text) > MAX_BYTES:
            raise ConfigError(f"is larger than {MAX_BYTES} bytes; is it the old settings.py?")
        return ast.parse(text)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; name a file that you can read"
    except SyntaxError as error:
        problem = f"line {error.lineno}: is not Python: {error.msg}"
    except (ValueError, RecursionError, MemoryError):
        problem = "is not Python"
    raise ConfigError(problem)


def _values(module: ast.Module) -> dict[str, _Value]:
    """Return the members of SETTINGS and the LOG_ variables; the last assignment counts."""
    found: dict[str, _Value] = {}
    has_settings = False
    for name, node in _assignments(module):
        if name in _LOG_NAMES:
            found[name] = _Value(name=name, node=node)
        elif name == "SETTINGS":
            has_settings = True
            found |= _members(node)
    if not has_settings:
        raise ConfigError("has no SETTINGS = {...}; is it the settings.py of the old dialer?")
    return found


def _assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in module.body:
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        match node:
            case ast.Assign():
                targets, value = node.targets, node.value
            case ast.AnnAssign():
                targets, value = [node.target], node.value
            case ast.AugAssign() | ast.Delete():
                targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=changed))):
                targets = [changed]  # SETTINGS.update(...) and the like
            case _:
                pass
        for target in targets:
            if value is not None and isinstance(target, ast.Name):
                yield target.id, value
            elif any(isinstance(n, ast.Name) and n.id == "SETTINGS" for n in ast.walk(target)):
                raise ConfigError(
                    f"line {node.lineno}: changes SETTINGS after its assignment, but the old "
                    "file is never executed; write the value into SETTINGS itself"
                )


def _members(node: ast.expr) -> dict[str, _Value]:
    if not isinstance(node, ast.Dict):
        raise ConfigError(
            f"line {node.lineno}: SETTINGS is computed, but the old file is never executed; "
            "write it as SETTINGS = {...}"
        )
    found: dict[str, _Value] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise ConfigError(
                f"line {value.lineno}: a key of SETTINGS is not a plain string; write it as one"
            )
        found[key.value] = _Value(name=f"SETTINGS[{key.value!r}]", node=value)
    return found


def _level_name(node: ast.expr) -> str | None:
    """Return `DEBUG` for `logging.DEBUG`, the only name whose value needs no execution."""
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "logging"
        and node.attr in logging.getLevelNamesMapping()
    ):
        return node.attr
    return None


# --- its values ---------------------------------------------------------------------------


def _text(values: Mapping[str, _Value], key: str) -> str | None:
    if key not in values:
        return None
    value = values[key].read()
    if isinstance(value, str):
        return value
    raise ConfigError(f"{values[key].where} is not text")


def _number(values: Mapping[str, _Value], key: str, like: FieldInfo) -> int | float | None:
    return _as_number(values[key].read(), values[key].where, like) if key in values else None


def _as_number(value: object, where: str, like: FieldInfo) -> int | float:
    """Return the value within the bounds of `like`, the new setting.

    Raises:
        ConfigError: it is not a number, or out of bounds, as NaN and infinity are.
    """
    if isinstance(value, int | float | str):  # not bytes, which pydantic reads as text
        takes: TypeAdapter[float] = TypeAdapter(Annotated[like.annotation, *like.metadata])  # type: ignore[arg-type]
        try:
            number = takes.validate_python(value)
        except ValidationError:
            pass
        else:
            return int(number) if number == int(number) else number
    raise ConfigError(f"{where} is wrong; it takes {like.description}: correct it in the old file")


def _cells(values: Mapping[str, _Value], notes: list[str]) -> list[tuple[str, int]]:
    """Return (`nome`, `threads`) of the cells, in the old file's order."""
    if "queues" not in values:
        raise ConfigError("SETTINGS has no queues, so there is no cell to import")
    where, queues = values["queues"].where, values["queues"].read()
    if isinstance(queues, dict):
        queues = [{"nome": nome, "threads": threads} for nome, threads in queues.items()]
    if not isinstance(queues, list | tuple) or not queues:
        raise ConfigError(f"{where} is not a list of {{'nome': ..., 'threads': ...}}")
    return [_cell(queue, f"{where}[{index}]", notes) for index, queue in enumerate(queues)]


def _cell(queue: object, where: str, notes: list[str]) -> tuple[str, int]:
    if not isinstance(queue, dict) or not isinstance(queue.get("nome"), str):
        raise ConfigError(f"{where} is not a {{'nome': ..., 'threads': ...}}")
    if "threads" not in queue:
        raise ConfigError(f"{where} has no threads")
    others = [key for key in queue if key not in ("nome", "threads")]
    if not all(isinstance(key, str) for key in others):
        raise ConfigError(f"{where} has a key that is not text; remove it from the old file")
    notes += [f"{key!r} of the queue {queue['nome']!r} is unknown" for key in others]
    threads = _as_number(queue["threads"], f"{where}['threads']", Cell.model_fields["threads"])
    return queue["nome"], int(threads)


def _level(values: Mapping[str, _Value], notes: list[str]) -> str:
    if "LOG_LEVEL" not in values:
        return "INFO"
    value = values["LOG_LEVEL"].read()
    if isinstance(value, int):
        value = _LEVEL_NAMES.get(value)
    name = value if isinstance(value, str) else ""
    name = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(name.upper(), name.upper())
    if name in _LEVELS:
        return name
    notes.append("LOG_LEVEL is none of " + ", ".join(_LEVELS) + ": using INFO")
    return "INFO"


def _location(values: Mapping[str, _Value], notes: list[str]) -> str:
    location = _text(values, "LOG_LOCATION") or ""
    if not location.endswith((".log", ".txt")):
        return location
    folder = str(Path(location).parent)
    notes.append(
        f"LOG_LOCATION was the file {location!r}: each program now writes its own file "
        f"into the folder {folder!r}"
    )
    return folder


def _redis_url(values: Mapping[str, _Value], notes: list[str]) -> str:
    host = _text(values, "redis_host")
    port = _number(values, "redis_port", Pbx.model_fields["port"])
    if host is None:
        notes.append("redis_host is missing: using 127.0.0.1")
    host = host or "127.0.0.1"
    url = f"redis://{f'[{host}]' if ':' in host else host}:{6379 if port is None else port}"
    try:
        if RedisAddress.parse(url).username is None and "/" not in host and "@" not in host:
            return url
    except ValueError:
        pass
    raise ConfigError("SETTINGS['redis_host'] and ['redis_port'] are not the address of a Redis")


# --- writing the new one ------------------------------------------------------------------


def _converted(values: Mapping[str, _Value]) -> Imported:
    notes = [f"{name!r} is unknown" for name in values if name not in _KNOWN]
    if "LOG_FORMAT" in values:
        old = _text(values, "LOG_FORMAT")
        notes.append(f'LOG_FORMAT was {old!r}: log.format is now "text" or "json"')
    url = _redis_url(values, notes)
    cells = _cells(values, notes)
    log = {"level": _level(values, notes), "location": _location(values, notes), "format": "text"}
    common = {
        key.lower(): _number(values, key, Cell.model_fields[key.lower()])
        for key in ("Timeout_Command_Response", "Timeout_Command_ACK", "Retries")
    }
    blocks = [
        _heading(notes),
        f"[multcall]\n{_lines({'redis_url': f'{url}/0', 'push': 'right'})}",
        f"[broker]\n{_lines({'url': f'{url}/1'})}",
        f"[log]\n{_lines(log)}",
        _pbx(sum(threads for _, threads in cells)),
        *(_cell_block(nome, threads, common) for nome, threads in cells),
    ]
    return Imported(toml="\n".join(blocks), notes=tuple(notes))


def _heading(notes: list[str]) -> str:
    lines = ["Converted from the old settings.py. All settings: deploy/dialer.toml."]
    if notes:
        lines += ["", "Not imported:", *(f"- {note}" for note in notes)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _pbx(threads: int) -> str:
    """Return the PBX table, which the old file does not have: valid, to be corrected by hand."""
    max_calls = min(10_000, threads)
    return (
        "# The old file has no PBX. CHANGE these values; set the secret in the environment\n"
        "# (DIALER_PBX01_SECRET) or in a file (secret_file).\n"
        "[[pbxs]]\n"
        'name = "pbx01"                              # = the Celery queue\n'
        'host = "127.0.0.1"\n'
        "port = 5038\n"
        'username = "dialer"                         # as in manager.conf\n'
        f"max_calls = {max_calls}{' ' * max(1, 32 - len(str(max_calls)))}"
        "# sum of the cells' threads\n"
        "cps = 10                                    # calls started per second\n"
        'trunks = { trunk = "PJSIP/{number}@trunk" } # CHANGE: the trunk\'s dial string\n'
    )


def _cell_block(nome: str, threads: int, common: Mapping[str, int | float | None]) -> str:
    given = {key: value for key, value in common.items() if value is not None}
    table: dict[str, object] = {"nome": nome, "threads": threads, "pbxs": ["pbx01"], **given}
    return (
        f"[[cells]]\n{_lines(table)}"
        'context = "dialer-ura"                      # CHANGE: destination of answered calls\n'
        'exten = "s"\npriority = 1\n'
    )


def _lines(table: Mapping[str, object]) -> str:
    import tomlkit

    return "".join(f"{key} = {tomlkit.item(value).as_string()}\n" for key, value in table.items())
