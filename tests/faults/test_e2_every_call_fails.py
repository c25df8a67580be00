# SPDX-License-Identifier: Apache-2.0
"""E2, E3, E4: every system call and every database call of a publication fails once, before or after it took effect.

ENOSPC, EIO (also of fsync), EMFILE, EROFS and EDQUOT take turns. Whatever fails, the caller gets an error of the tree,
nothing half-made becomes visible, fsck finds no damage before and after a restart, and the same publication then
succeeds. The loops end when a run meets no fault any more.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pq_registry.errors import PqregError
from pq_registry.format.instant import utc_now
from pq_registry.service.registry import Registry
from pq_registry.storage.stores import StoreConfig
from tests.faults.injection import Fault, database_error, failing_database, failing_system_call, os_error
from tests.faults.publishing import check, publish, recover
from tests.logsetup import log_setup

pytestmark = pytest.mark.directory_only("calls of a data directory fail")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an empty registry, to be copied: making one takes longer than all else here."""
    root = tmp_path_factory.mktemp("empty") / "registry"
    Registry.open(StoreConfig(data=root), utc_now, log=log_setup()).close()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "persisted"])
def test_system_calls(tmp_path: Path, empty: Path, persisted: bool) -> None:
    met = []
    for number in range(1, 400):
        root = shutil.copytree(empty, tmp_path / str(number))
        registry = Registry.open(StoreConfig(data=root), utc_now, log=log_setup())
        fault = Fault(number, persisted, os_error(number))
        try:
            with failing_system_call(fault):
                try:
                    publish(registry)
                except PqregError as error:
                    assert fault.hit is not None, error
            if fault.hit is None:
                break
            met.append(fault.hit)
            check(registry)
        finally:
            registry.close()
        recover(root)
    else:
        raise AssertionError("the publication never ran through")
    assert set(met) >= {"open", "pwrite", "fsync", "fdatasync", "ftruncate", "fchmod", "link", "unlink", "mkdir"}, met


@pytest.mark.slow
@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "persisted"])
def test_database_calls(tmp_path: Path, empty: Path, persisted: bool) -> None:
    met = []
    for number in range(1, 400):
        root = shutil.copytree(empty, tmp_path / str(number))
        registry = Registry.open(StoreConfig(data=root), utc_now, log=log_setup())
        fault = Fault(number, persisted, database_error())
        try:
            with failing_database(fault, registry.catalogue._engine):
                try:
                    publish(registry)
                except PqregError as error:
                    assert fault.hit is not None, error
            if fault.hit is None:
                break
            met.append(fault.hit)
            check(registry)
        finally:
            registry.close()
        recover(root)
    else:
        raise AssertionError("the publication never ran through")
    # Identity, twice open, part and complete, release, tag: 9, give or take where a second ends (``touched`` changes).
    assert met.count("do_commit") >= 7, met
