"""Log lines: constant messages, fields, masked telephone numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import time
from pathlib import Path

import pytest

from dialer.errors import ConfigError
from dialer.logs import JsonFormatter, MaskNumbers, TextFormatter, configure
from dialer.settings.tables import Log
from dialer.store.redis_url import SecretUrl

MARK = "S3cr3tM4rk"


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("dialer.test", logging.INFO, __file__, 1, "Call queued", None, None)
    made.__dict__.update(fields)
    MaskNumbers().filter(made)
    return made


def test_a_text_line_holds_the_message_and_its_fields() -> None:
    line = TextFormatter().format(record(call_id="A:1", note="two words", forged="x\ny=1"))
    assert line.endswith(
        'Z INFO dialer.test Call queued call_id=A:1 note="two words" forged="x\\ny=1"'
    )


def test_a_json_line_holds_the_message_and_its_fields() -> None:
    line = json.loads(JsonFormatter().format(record(call_id="A:1", level="mine", at=time(8))))
    assert line["message"] == "Call queued"
    assert (line["call_id"], line["level"], line["field_level"]) == ("A:1", "INFO", "mine")
    assert line["at"] == "08:00:00"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_numbers_and_passwords_are_masked_in_the_log(formatter: logging.Formatter) -> None:
    url = SecretUrl(f"redis://:{MARK}@h/0")
    line = formatter.format(record(number="5511987654321", caller_number="11912345678", url=url))
    assert "*********4321" in line
    assert "*******5678" in line
    assert MARK not in line
    assert "98765" not in line


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger; its state is restored after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)


def test_each_program_has_its_own_rotatable_log_file(
    root_logger: logging.Logger, tmp_path: Path
) -> None:
    configure(Log(level="INFO", location=str(tmp_path / "log"), format="json"), "bridge")
    file = tmp_path / "log" / "bridge.log"
    root_logger.info("First")
    file.rename(tmp_path / "log" / "bridge.log.1")
    root_logger.debug("Unseen")
    root_logger.info("Second", extra={"number": "5511987654321"})
    assert json.loads(file.read_text())["number"] == "*********4321"


def test_unusable_log_folder_is_reported(root_logger: logging.Logger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = root_logger.handlers[:]
    with pytest.raises(ConfigError, match=r"^log\.location: nothing can be written in .*file"):
        configure(Log(location=str(tmp_path / "file")), "bridge")
    assert root_logger.handlers == before
