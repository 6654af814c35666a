"""How the programs log: constant messages with fields, as text or as JSON lines.

Fields come by `extra`; a field that is a telephone number (`number`, `*_number`) is masked
here as a last net, though masking is the caller's duty. Knows nothing of what is logged.
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

#: What every record has; the rest came by `extra`.
_STANDARD: Final = frozenset(
    [*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"]
)


class MaskNumbers(logging.Filter):
    """Masks the telephone numbers among a record's fields to their last four digits."""

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
    """One JSON object a line: time, level, logger, message, the fields, and `exception`."""

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
    """Sends this process's log where the settings say; replaces what was set before.

    Args:
        log: the `[log]` table.
        program: the file's name without `.log`, where `log.location` is a folder. The
            file may be moved away by logrotate at any time.

    Raises:
        ConfigError: nothing can be written in that folder.
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
    """What came with the record by `extra`."""
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
    """The value as it stands, quoted where it would not read as one word."""
    text = str(_shown(value))
    is_word = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if is_word else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """The text with its control characters escaped, so that it cannot forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
