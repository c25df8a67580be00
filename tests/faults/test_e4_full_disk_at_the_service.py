# SPDX-License-Identifier: Apache-2.0
"""E4: a service without space, descriptors or a writable disk answers 507, keeps serving what it has, and recovers."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from pq_registry.storage.fsck import check_registry
from tests.server_harness import RunningRegistry

pytestmark = pytest.mark.directory_only("a disk is full")


@pytest.mark.parametrize("name", ["open", "pwrite", "fdatasync", "ftruncate", "link"])
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EROFS, errno.EIO], ids=errno.errorcode.get
)
def test_uploads_are_refused_and_then_go_on(
    shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    content = f"{name} {number}".encode()
    inside = str(shared_registry.data)
    real = getattr(os, name)

    def fail(target: Any, *rest: Any, **named: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        if path.startswith((inside + "/incoming", inside + "/blobs")):
            raise OSError(number, os.strerror(number))
        return real(target, *rest, **named)

    def publish() -> list[int]:
        statuses = [(opened := shared_registry.open_upload(content)).status]
        if statuses[-1] in (200, 201):
            statuses.append(shared_registry.put_part(opened.json["id"], 0, content).status)
        if statuses[-1] == 204:
            statuses.append(shared_registry.complete(opened.json["id"]).status)
        return statuses

    before = shared_registry.upload(b"stored before")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        assert publish()[-1] == 507
        assert shared_registry.get("/livez").status == 200
        assert shared_registry.get("/v1/repos").status == 200
        if name != "open":
            assert shared_registry.get(f"/v1/blobs/sha256/{before.hex}").body == b"stored before"
    assert publish()[-1] == 201
    assert check_registry(shared_registry.registry.catalogue, shared_registry.registry.blobs) == []


def test_a_short_write_is_completed(shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:1000], at))
    content = os.urandom(100_000)
    digest = shared_registry.upload(content)
    assert shared_registry.get(f"/v1/blobs/sha256/{digest.hex}").body == content


def test_a_write_of_nothing_is_an_error(shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = shared_registry.open_upload(b"nothing").json["id"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: 0)
        assert shared_registry.put_part(upload, 0, b"nothing").code == "storage-error"
    assert shared_registry.put_part(upload, 0, b"nothing").status == 204
