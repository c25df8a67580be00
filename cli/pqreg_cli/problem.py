# SPDX-License-Identifier: Apache-2.0
"""How an error looks at the end of a command: one readable block, or one JSON problem object with ``--json``.

The object has the members of the registry service's problems (RFC 9457: ``type``, ``title``, ``detail``; ours:
``expected``, ``found``, ``hint``, ``step``) and ``exit``, the exit status. Members that say nothing are left out.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from dataclasses import dataclass

from pq_registry.errors import EXIT_TRANSPORT, EXIT_USAGE, PqregError
from pqreg_cli.console import is_terminal, printable, styled

STEPS = {
    0: "the trust file",
    1: "the tag",
    2: "the signature",
    3: "the signed statement",
    4: "the log and the signer's validity",
    5: "the revocation status",
    6: "name, digest and file set",
    7: "the seal",
    8: "the content",
    9: "writing to disk",
}
_DETAIL_CHARS = 300
_EXTRAS = {
    "server": ("alembic", "fastapi", "httptools", "prometheus_client", "sqlalchemy", "starlette", "uvicorn", "uvloop"),
    "torch": ("torch",),
    "s3": ("boto3", "botocore"),
    "postgres": ("psycopg",),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, ready to be shown."""

    type: str
    title: str
    detail: str
    exit: int
    expected: str | None = None
    found: str | None = None
    step: int | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """The problem that ``error`` is. Only a PqregError says much; any other is a defect of this software."""
        if isinstance(error, PqregError):
            title = error.code().replace("-", " ")
            return cls(
                error.problem_type,
                title,
                error.message,
                error.exit_code,
                error.expected,
                error.found,
                error.step,
                error.hint,
            )
        if isinstance(error, ModuleNotFoundError) and error.name:
            return cls._missing_module(error.name)
        said = " ".join(str(error).split())[:_DETAIL_CHARS]
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        return cls(
            "/problems/internal-error",
            "internal error",
            f"this should not have happened: {text}",
            EXIT_TRANSPORT,
            hint="run the same command with --debug to see where, and please report it",
        )

    @classmethod
    def usage(cls, message: str, hint: str | None) -> Problem:
        """A command line that cannot be understood."""
        return cls("/problems/usage-error", "usage error", message, EXIT_USAGE, hint=hint)

    @classmethod
    def _missing_module(cls, name: str) -> Problem:
        package = name.partition(".")[0]
        extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
        wanted = f"pq-registry[{extra}]" if extra else package
        return cls(
            "/problems/missing-package",
            "missing package",
            f"this command needs the Python package {package}, which is not installed",
            EXIT_USAGE,
            hint=f"pip install '{wanted}'",
        )

    def show(self, *, as_json: bool) -> None:
        """Write it to standard error."""
        print(self._json() if as_json else self._text(), file=sys.stderr, flush=True)

    @property
    def members(self) -> dict[str, object]:
        """What the JSON object has; what is not known is left out."""
        members = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in members.items() if value is not None}

    def _json(self) -> str:
        return json.dumps(self.members, indent=2)

    def _text(self) -> str:
        head = styled("error:", "bad", sys.stderr)
        lines = [f"{head} {printable(self.detail)}"]
        step = None if self.step is None else f"{self.step}, {STEPS.get(self.step, 'verification')}"
        pairs = (("expected", self.expected), ("found", self.found), ("step", step), ("next", self.hint))
        for name, value in pairs:
            if value is not None:
                lines += _indented(f"  {name + ':':<9} ", printable(value))
        return "\n".join(lines)


def _indented(label: str, text: str) -> list[str]:
    """``text`` behind ``label``. On a terminal long lines are wrapped; elsewhere they are left for whoever greps."""
    width = shutil.get_terminal_size().columns if is_terminal(sys.stderr) else 0
    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(line, max(width - len(label), 40), break_long_words=False) if width else [line]
    return [(" " * len(label) if number else label) + line for number, line in enumerate(lines)]
