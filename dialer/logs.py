"""Log configuration and formatters: constant messages with fields, as text or JSON lines.

Fields are passed as `extra`. Callers mask telephone numbers; as a last defence, fields named
`number` or `*_number` are masked here too.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final

from dialer.domain.request import mask
from dialer.errors import ConfigError
from dialer.settings.tables import Log
from dialer.store.redis_url import SecretUrl, redacted

#: Attributes of every record; all others are from `extra`.
_STANDARD: Final = frozenset(
    [*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"]
)


class MaskNumbers(logging.Filter):
    """Filter that masks telephone numbers in a record's fields to their last four digits."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in fields(record).items():
            if name == "number" or name.endswith("_number"):
                setattr(record, name, mask(str(value)) if value is not None else None)
        return True


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO dialer.bridge Call queued call_id=A:1 pbx=pbx01`."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {name}={_plain(value)}" for name, value in fields(record).items())
        message = _one_line(record.getMessage())
        line = f"{_instant(record)} {record.levelname} {record.name} {message}{pairs}"
        trouble = _traceback(self, record)
        return f"{line}\n{trouble}" if trouble else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the fields, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {
            f"field_{name}" if name in line else name: _shown(value)
            for name, value in fields(record).items()
        }
        if trouble := _traceback(self, record):
            line["exception"] = trouble
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(log: Log, program: str) -> None:
    """Configure this process's log; replace any earlier configuration.

    Args:
        log: the `[log]` table.
        program: name of the log file without `.log`, if `log.location` is a folder.
            logrotate may rename the file at any time.

    Raises:
        ConfigError: the folder cannot be created or written.
    """
    handler = _handler(log.location, program)
    handler.setFormatter(JsonFormatter() if log.format == "json" else TextFormatter())
    handler.addFilter(MaskNumbers())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(log.level)
    logging.captureWarnings(capture=True)


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the record's fields (those passed as `extra`)."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _handler(location: str, program: str) -> logging.Handler:
    if not location:
        return logging.StreamHandler(sys.stderr)
    folder = Path(location)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return WatchedFileHandler(folder / f"{program}.log", encoding="utf-8")
    except OSError as error:
        problem = error.strerror
    raise ConfigError(f"log.location: nothing can be written in {folder}: {problem}")


def _instant(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _shown(value: object) -> object:
    return redacted(str(value)) if isinstance(value, SecretUrl) else value


def _plain(value: object) -> str:
    """Return the value as text, quoted if it is not a single word."""
    text = str(_shown(value))
    is_word = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if is_word else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Escape control characters, so that a message cannot forge a log line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
