"""Log records as lines of JSON, one for each record, or as text, in which none can be forged."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from datetime import UTC, datetime
from typing import Any, TextIO

from amphora.errors import printable_lines
from amphora.net.log import has_room

# Seconds to wait for the reader of the log.
PATIENCE = 1.0

TEXT_FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(message)s"
INDENT = "    "

# The errors of a value with keys that are not texts, with NaN, or that contains itself.
_UNSENDABLE = (TypeError, ValueError, RecursionError)


class JsonFormatter(logging.Formatter):
    """Format each record as one line of JSON.

        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())

    A line has `time` (RFC 3339, UTC), `level`, `logger`, `process` and `message`; `exception` is a
    traceback and `stack` a stack, as text.  The items of a record's `fields`, a dict, are added to
    these, as in `logger.info("paid", extra={"fields": {"order": 17}})`.  Everything but ASCII is
    escaped, so no value can start a line or control a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": _message(record),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update({str(name): value for name, value in fields.items() if value is not None})
        if record.exc_info:
            line["exception"] = _traceback(self, record)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        try:
            return _encode(line)
        except _UNSENDABLE:
            return _encode({name: _sendable(value) for name, value in line.items()})


class TextFormatter(logging.Formatter):
    """Format each record as text whose traceback cannot pass for another record.

    The text of an exception may be a client's, as in `ValueError(f"there is no {name}")`.  So the
    lines of a traceback are indented, and what controls a terminal is escaped in them.
    """

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        if not record.exc_info:
            return super().format(record)
        # `logging` keeps the text of a traceback in the record, for all of the program's handlers.
        others, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = others

    def formatException(self, ei: Any) -> str:
        """Return a traceback as indented lines."""
        return textwrap.indent(printable_lines(super().formatException(ei)), INDENT)


def _encode(value: Any) -> str:
    return json.dumps(value, default=_text, allow_nan=False)


def _sendable(value: Any) -> Any:
    """Return a value, or its text if JSON cannot have it."""
    try:
        _encode(value)
    except _UNSENDABLE:
        return _text(value)
    return value


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 (arguments that do not fit, or have no text)
        args = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join(map(_text, (record.msg, *args)))


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    try:
        return formatter.formatException(record.exc_info)  # type: ignore[arg-type] # it is there
    except Exception:  # noqa: BLE001 (an exception without a text)
        return _text(record.exc_info)


def _text(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 (a value of the program's)
        return f"<{type(value).__name__} without a text>"


class _Handler(logging.StreamHandler[TextIO]):
    """The handler of `set_up`.

    It leaves lines out that nobody reads, such as those to a pipe that is full: a process that
    waits for its log can do nothing else, and does not even end.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        # A reader that is only slow gets its time once.
        if not self._has_room(0.0 if self._left_out else PATIENCE):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        if left_out:
            super().emit(_said_left_out(record, left_out))
        super().emit(record)

    def _has_room(self, patience: float) -> bool:
        try:
            return has_room(self.stream.fileno(), patience)
        except (OSError, ValueError, AttributeError):
            # It is no file, or closed, which `emit` handles.
            return True


def _said_left_out(record: logging.LogRecord, number: int) -> logging.LogRecord:
    """Return a record that says how many were left out before another one."""
    text, level = "%d lines were not logged: nobody read them", logging.WARNING
    return logging.LogRecord(record.name, level, "", 0, text, (number,), None)


def set_up(level: str, style: str = "text") -> None:
    """Log to standard error, unless the program has set up logging itself.

    A second call changes the style of the lines.

    Args:
        level: the lowest level that is logged, such as "info".
        style: "text" or "json".
    """
    ours = [each for each in logging.getLogger().handlers if isinstance(each, _Handler)]
    handler = ours[0] if ours else _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if style == "json":
        logging.captureWarnings(capture=True)
