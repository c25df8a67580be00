# SPDX-License-Identifier: Apache-2.0
"""E3: after a failed fsync the kernel may have dropped the dirty pages. Nothing is read back and tried again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import Conflict, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.stores import StoreConfig
from tests.faults.publishing import FILES, check, recover, upload
from tests.logsetup import log_setup
from tests.samples import REPOSITORY

pytestmark = pytest.mark.directory_only("files are synced")

[CONTENT] = FILES.values()


def failing(calls: list[str], name: str) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        calls.append(name)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    return call


@pytest.mark.parametrize("name", ["fdatasync", "fsync"])
def test_a_failed_sync_ends_the_request(tmp_path: Path, name: str) -> None:
    registry = Registry.open(StoreConfig(data=tmp_path / "registry"), utc_now, log=log_setup())
    if name == "fdatasync":  # opening an upload syncs, too: here the part's sync is meant
        state, _ = registry.uploads.open(
            host_caller(), REPOSITORY, digest=Digest.of(CONTENT), size=len(CONTENT), slice_size=2097152
        )
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, failing(calls, name))
        for reader in ("pread", "preadv"):
            patch.setattr(os, reader, failing(calls, reader))
        with pytest.raises(StorageError):
            upload(registry, CONTENT)
    assert calls == [name]
    if name == "fdatasync":
        assert registry.uploads.show(host_caller(), REPOSITORY, state.id).parts == ()
        with pytest.raises(Conflict, match="missing"):
            registry.uploads.complete(host_caller(), REPOSITORY, state.id)
    check(registry)
    registry.close()
    recover(tmp_path / "registry")


def test_a_part_that_was_not_synced_is_sent_again_whole(tmp_path: Path) -> None:
    registry = Registry.open(StoreConfig(data=tmp_path / "registry"), utc_now, log=log_setup())
    written: list[int] = []
    real = os.pwrite

    def write(descriptor: int, data: memoryview, at: int) -> int:
        written.append(len(data))
        return real(descriptor, data, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", failing([], "fdatasync"))
        with pytest.raises(StorageError):
            upload(registry, CONTENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        upload(registry, CONTENT)
    assert sum(written) == len(CONTENT)
    registry.close()
    recover(tmp_path / "registry")
