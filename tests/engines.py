# SPDX-License-Identifier: Apache-2.0
"""A real object store and a real database for tests: one server of each per worker, started when first asked for.

``s3_bucket`` and ``postgres_url`` give every test a place of its own: a prefix nobody else has in the worker's bucket,
and an empty database, dropped after the test. ``object_store()`` and ``database_server()`` are the servers, for tests
that need more (``make_bucket(name, object_lock=True)``, ``kill``, ``crash``, ``start``).
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pq_registry.settings import Settings
from pq_registry.storage.s3.config import S3Config
from pqreg_cli.engines.postgres import PostgreSQL
from pqreg_cli.engines.programs import programs
from pqreg_cli.engines.seaweedfs import SeaweedFS

BUCKET = "pqreg-tests"


@dataclass(frozen=True)
class Bucket:
    """A place in an object store that nobody else uses."""

    server: SeaweedFS
    name: str
    prefix: str

    @property
    def url(self) -> str:
        """As the setting ``storage`` has it."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a registry that keeps its weights here."""
        return {"storage": self.url, "s3_endpoint": self.server.endpoint}

    def config(self, **changes: str) -> S3Config:
        """The same, read; ``changes`` are further settings."""
        config = S3Config.from_settings(Settings({**self.settings, **changes}, environment={}))
        assert config is not None
        return config

    def client(self) -> Any:
        """A boto3 client, to look and reach inside behind the registry's back."""
        return self.server.client()

    def keys(self) -> list[str]:
        """The keys of every object here, without the prefix."""
        client = self.client()
        found: list[str] = []
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{self.prefix}/"):
            found += [item["Key"].removeprefix(f"{self.prefix}/") for item in page.get("Contents", ())]
        client.close()
        return found


class _Engines:
    """The servers of this process."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.store: SeaweedFS | None = None
        self.database: PostgreSQL | None = None

    def place(self, name: str) -> Path:
        if self.root is None:
            self.root = Path(tempfile.mkdtemp(prefix="pqreg-engines-"))
            atexit.register(self.stop)
        return self.root / name

    def stop(self) -> None:
        store, self.store = self.store, None
        database, self.database = self.database, None
        root, self.root = self.root, None
        for server in (store, database):
            if server is not None:
                server.stop()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)


_engines = _Engines()


def object_store() -> SeaweedFS:
    """This worker's SeaweedFS; its credentials are in the environment from now on."""
    if _engines.store is None:
        store = SeaweedFS(_engines.place("s3"), gently=False)
        store.start()
        store.make_bucket(BUCKET)
        _engines.store = store
    os.environ.update(_engines.store.credentials.variables)
    return _engines.store


def database_server() -> PostgreSQL:
    """This worker's PostgreSQL; one that orders text as languages do, if there is one, because code must not rely on
    another order."""
    if _engines.database is None:
        system = next((path for path in programs() if path.is_relative_to("/usr")), None)
        server = PostgreSQL(_engines.place("postgres"), synced=False, programs=system)
        server.start()
        _engines.database = server
    return _engines.database


def credentials() -> dict[str, str]:
    """What S3 clients of this process find in the environment; nothing before the object store was asked for."""
    return {} if _engines.store is None else _engines.store.credentials.variables


def fresh_bucket() -> Bucket:
    """A place in the worker's bucket."""
    return Bucket(object_store(), BUCKET, f"t-{secrets.token_hex(6)}")


def fresh_database(*, template: str | None = None) -> str:
    """The URL of an empty database, or of a copy of ``template``."""
    return database_server().create(f"t_{secrets.token_hex(6)}", template=template)


def drop_database(url: str) -> None:
    """Remove a database of ``fresh_database``."""
    database_server().drop(url.rpartition("/")[2])


@pytest.fixture
def s3_bucket(isolated_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty place in a real object store; the credentials are in the environment."""
    bucket = fresh_bucket()
    for name, value in bucket.server.credentials.variables.items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    url = fresh_database()
    yield url
    drop_database(url)


def pytest_sessionfinish() -> None:
    """The servers end with the tests."""
    _engines.stop()
