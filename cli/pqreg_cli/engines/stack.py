# SPDX-License-Identifier: Apache-2.0
"""The development stack of ``pqreg serve --dev-s3 --dev-postgres``: both servers below the data directory.

What is stored in ``DIR/dev-s3`` and ``DIR/dev-postgres`` stays from start to start. While it runs, other commands reach
the same stores with the variables of ``DIR/dev-stack.env`` (mode 0600, for a shell to read).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pq_registry import durable
from pqreg_cli.engines.postgres import postgresql
from pqreg_cli.engines.seaweedfs import seaweedfs

BUCKET = "pqreg"
DATABASE = "pqreg"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevStack:
    """What runs: ``settings`` for the registry, and ``credentials`` that S3 clients read from the environment."""

    settings: dict[str, str] = field(repr=False)
    credentials: dict[str, str] = field(repr=False)
    notice: tuple[str, ...]


@contextlib.contextmanager
def dev_stack(data: Path, *, s3: bool, postgres: bool) -> Iterator[DevStack]:
    """Run the servers that are wanted while the block runs.

    Args:
        data: the registry's data directory; made if need be.
        s3: whether to run an object store.
        postgres: whether to run a database.

    Raises:
        UsageError: if one is not installed, or runs already.
        StorageError: if one does not come up.
    """
    durable.make_directory(data, 0o700)
    settings: dict[str, str] = {}
    credentials: dict[str, str] = {}
    notice: list[str] = []
    with contextlib.ExitStack() as running:
        if s3:
            store = running.enter_context(seaweedfs(data / "dev-s3"))
            store.make_bucket(BUCKET)
            settings |= {"storage": f"s3://{BUCKET}", "s3_endpoint": store.endpoint}
            credentials |= store.credentials.variables
            notice.append(f"object store s3://{BUCKET} at {store.endpoint}")
        if postgres:
            server = running.enter_context(postgresql(data / "dev-postgres"))
            settings["database"] = server.create(DATABASE)
            notice.append(f"database {DATABASE} at 127.0.0.1:{server.port}")
        variables = {"PQREG_DATA": str(data), **{f"PQREG_{name.upper()}": value for name, value in settings.items()}}
        path = data / "dev-stack.env"
        lines = [f"export {name}={shlex.quote(value)}" for name, value in {**variables, **credentials}.items()]
        durable.write_file(path, ("\n".join(lines) + "\n").encode(), mode=0o600, exact_mode=True)
        running.callback(path.unlink, missing_ok=True)
        notice.append(f"for other commands on this machine: . {shlex.quote(str(path))}")
        yield DevStack(settings=settings, credentials=credentials, notice=tuple(notice))
