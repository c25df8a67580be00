# SPDX-License-Identifier: Apache-2.0
"""Logs: one JSON object per line on standard output, with a request id and without secrets.

Headers, queries and bodies are never logged. As a second line of defence, whatever looks like one of our tokens is
cut out of every line, wherever it came from.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import TextIO

ROOT = "pq_registry"
EXTRA = "pqreg"
"""The attribute of a record that holds further fields."""

_SECRET = re.compile(r"pqreg_[A-Za-z0-9_-]{8,}", re.ASCII)


class JsonFormatter(logging.Formatter):
    """One line per record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields.update(getattr(record, EXTRA, {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _SECRET.sub("[token]", json.dumps(fields, ensure_ascii=True, default=str))


def configure(stream: TextIO, level: str) -> None:
    """Send the records of this project and of the HTTP server to ``stream``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name in (ROOT, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    # Its "started" and "finished" lines say nothing that ours do not.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger(ROOT).level))


def log(
    logger: logging.Logger, level: int, event: str, *, exc_info: BaseException | None = None, **fields: object
) -> None:
    """Write one event with fields."""
    logger.log(level, event, extra={EXTRA: fields}, exc_info=exc_info)
