# SPDX-License-Identifier: Apache-2.0
"""D7: what happens when something the service depends on fails (GHSA-2v5f-5r6w-p67r). Always: nobody is let in."""

from __future__ import annotations

import errno
import sqlite3
import time
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from pq_registry.errors import StorageError
from pq_registry.server.guard import policies
from pq_registry.storage.local import LocalBlobReader, LocalBlobStore
from tests.attacks.test_d01_routes_without_policy import ANONYMOUS, example
from tests.server_harness import RunningRegistry


def database_error(code: int) -> OperationalError:
    cause = sqlite3.OperationalError("injected")
    cause.sqlite_errorcode = code
    return OperationalError("SELECT secret FROM tokens", {}, cause)


FAILURES = {
    "locked": database_error(sqlite3.SQLITE_BUSY),
    "unreadable": database_error(sqlite3.SQLITE_IOERR),
    "surprise": RuntimeError("injected"),
    "timeout": TimeoutError("injected"),
    "memory": MemoryError("injected"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_no_route_opens_when_the_catalogue_fails(
    shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise failure

    engine = shared_registry.registry.catalogue._engine
    event.listen(engine, "before_cursor_execute", fail)
    try:
        for method, path in policies(shared_registry.app):
            if (method, path) in ANONYMOUS:
                continue
            answer = shared_registry.request(method, example(path))
            assert answer.status in (500, 503), (method, path, answer)
            if method != "HEAD":
                assert answer.code in ("storage-error", "internal-error")
                assert "injected" not in answer.body.decode()
                assert "secret" not in answer.body.decode()
        assert shared_registry.get("/readyz").status in (500, 503)
        assert shared_registry.get("/livez").status == 200
    finally:
        event.remove(engine, "before_cursor_execute", fail)
    # Where instances share the log, this one has given it up and takes it again.
    deadline = time.monotonic() + 30
    while shared_registry.get("/readyz").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_full_database_is_507(registry: RunningRegistry) -> None:
    def fail(*_: Any) -> NoReturn:
        raise database_error(sqlite3.SQLITE_FULL)

    engine = registry.registry.catalogue._engine
    event.listen(engine, "before_cursor_execute", fail)
    try:
        assert registry.open_upload(b"content").status == 507
    finally:
        event.remove(engine, "before_cursor_execute", fail)


@contextmanager
def broken_blobs(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(LocalBlobStore if hasattr(LocalBlobStore, name) else LocalBlobReader, name, fail)
        yield


@pytest.mark.directory_only("the directory fails")
@pytest.mark.parametrize("error", [StorageError("cannot read /srv/secret"), RuntimeError("at /srv/secret")], ids=str)
def test_a_failing_blob_store_denies(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    digest = registry.publish()
    manifest = registry.get(f"/v1/repos/acme/minilm/releases/{digest.hex}").json["manifest"]
    path = f"/v1/blobs/sha256/{manifest.removeprefix('sha256:')}"
    with broken_blobs(monkeypatch, "open", error):
        answer = registry.get(path)
        assert answer.status in (500, 503)
        assert "/srv/secret" not in answer.body.decode()
    with broken_blobs(monkeypatch, "check", error):
        assert registry.get("/readyz").status in (500, 503)
    opened = registry.open_upload(b"new").json
    assert registry.put_part(opened["id"], 0, b"new").status == 204
    with broken_blobs(monkeypatch, "adopt", error):
        assert registry.complete(opened["id"]).status in (500, 503)
        assert registry.post("/v1/repos/acme/minilm/missing", {"digests": [digest_of_new()]}).json["missing"]
    assert registry.complete(opened["id"]).status == 201


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_a_read_that_fails_half_way_never_looks_complete(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(5 << 20)
    digest = registry.upload(content)
    honest = LocalBlobReader.read

    def fail_later(self: LocalBlobReader, offset: int, length: int) -> bytes:
        if offset:
            raise OSError(errno.EIO, "injected")
        return honest(self, offset, length)

    monkeypatch.setattr(LocalBlobReader, "read", fail_later)
    connection = registry.connect()
    connection.request("GET", f"/v1/blobs/sha256/{digest.hex}", headers={"Authorization": f"Bearer {registry.token}"})
    response = connection.getresponse()
    with pytest.raises(Exception, match="IncompleteRead"):
        response.read()
    connection.close()


def digest_of_new() -> str:
    from pq_registry.format.digest import Digest

    return str(Digest.of(b"new"))
