# SPDX-License-Identifier: Apache-2.0
"""Making the n-th call fail: of the operating system, or of the database; before or after it took effect."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

SYSTEM_CALLS = (
    "open",
    "pwrite",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fchmod",
    "link",
    "unlink",
    "rename",
    "mkdir",
    "pread",
)
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS, errno.EDQUOT)


@dataclass
class Fault:
    """Fails call number ``target`` (from 1). ``persisted`` lets the call happen first."""

    target: int
    persisted: bool
    error: Exception
    calls: int = 0
    hit: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, name: str) -> bool:
        with self.lock:
            self.calls += 1
            if self.calls == self.target:
                self.hit = name
            return self.calls == self.target


def os_error(number: int) -> OSError:
    code = ERRNOS[number % len(ERRNOS)]
    return OSError(code, os.strerror(code))


def database_error() -> OperationalError:
    return OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))


@contextmanager
def failing_system_call(fault: Fault, names: tuple[str, ...] = SYSTEM_CALLS) -> Iterator[None]:
    """Count the calls of ``os`` functions inside, and fail the one that is due."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, _failing(fault, name, getattr(os, name)))
        yield


@contextmanager
def failing_database(fault: Fault, engine: Engine) -> Iterator[None]:
    """Count changes and commits inside, and fail the one that is due. (D7 has the failures of reading.)"""
    dialect = engine.dialect
    execute = dialect.do_execute
    failing_execute = _failing(fault, "do_execute", execute)

    def do_execute(cursor: Any, statement: str, *rest: Any, **named: Any) -> Any:
        changes = statement.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN IMMEDIATE"))
        return (failing_execute if changes else execute)(cursor, statement, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "do_execute", do_execute)
        patch.setattr(dialect, "do_commit", _failing(fault, "do_commit", dialect.do_commit))
        yield


def _failing(fault: Fault, name: str, real: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        due = fault.due(name)
        if due and not fault.persisted:
            raise fault.error
        answer = real(*arguments, **named)
        if due:
            if name == "open":
                os.close(answer)
            raise fault.error
        return answer

    return call
