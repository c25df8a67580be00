# SPDX-License-Identifier: Apache-2.0
"""The trunk of the tree of errors, and the exit statuses; see the drawing in ``pq_registry.errors``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_TRANSPORT = 3
EXIT_MISBEHAVED = 4
EXIT_INTERRUPTED = 130


class PqregError(Exception):
    """Base of every error this project raises on purpose.

    ``retry_after`` is after how many seconds the same call may succeed, where that is known; over HTTP it becomes the
    header of this name.
    """

    exit_code: int = EXIT_REFUSED
    status: int = 500
    default_step: int | None = None
    retry_after: int | None = None

    def __init__(
        self,
        message: str,
        *,
        expected: object | None = None,
        found: object | None = None,
        hint: str | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = None if expected is None else str(expected)
        self.found = None if found is None else str(found)
        self.hint = hint
        self.step = self.default_step if step is None else step

    @classmethod
    def code(cls) -> str:
        """The kebab-case name of the class, e.g. ``shard-mismatch``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @property
    def problem_type(self) -> str:
        """The RFC 9457 ``type`` of this error."""
        return f"/problems/{self.code()}"

    def __str__(self) -> str:
        text = self.message
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        return text


class UsageError(PqregError):
    """The caller's arguments cannot be carried out."""

    exit_code = EXIT_USAGE
    status = 400


class NameSyntaxError(UsageError):
    """A repository, tag, digest or reference that is not well formed."""


class SettingError(UsageError):
    """A setting is missing, unreadable or out of range."""


class FormatError(PqregError):
    """Bytes that do not follow their specification."""

    status = 422


class VerificationError(PqregError):
    """A step of the verification refused."""

    status = 422


class PolicyError(PqregError):
    """A rule of this house or of its operator refused."""

    status = 403


@contextmanager
def at_step(step: int) -> Iterator[None]:
    """Number the errors raised inside with the verification ``step``, unless they carry one already."""
    try:
        yield
    except PqregError as error:
        if error.step is None:
            error.step = step
        raise
