# SPDX-License-Identifier: Apache-2.0
"""How instances of one registry start: at once, in one directory or in several, and not where they may not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import LogHalted, SettingError, StorageError
from pq_registry.format.instant import utc_now
from pq_registry.service.access import Permission
from pq_registry.service.registry import Registry
from pq_registry.storage.stores import StoreConfig
from tests.engines import Bucket
from tests.logsetup import log_setup


def start(data: Path, database: str, bucket: Bucket | None) -> Registry:
    config = StoreConfig(data=data, database=database, s3=None if bucket is None else bucket.config())
    return Registry.open(config, utc_now, log=log_setup())


def test_at_once_on_nothing_at_all(tmp_path: Path, postgres_url: str, s3_bucket: Bucket) -> None:
    """One migrates, one makes the token, one begins the log and leads; the others find all of it."""
    barrier = threading.Barrier(3)

    def run(number: int) -> Registry:
        barrier.wait()
        return start(tmp_path / str(number), postgres_url, s3_bucket)

    with ThreadPoolExecutor(3) as pool:
        registries = list(pool.map(run, range(3)))
    made = [registry.first_token for registry in registries if registry.first_token is not None]
    files = [path.read_text().strip() for path in tmp_path.glob("*/admin.token")]
    assert len(made) == 1
    assert files == made
    assert [registry.ledger.leading for registry in registries].count(True) == 1
    for registry in registries:
        registry.check()
        caller = registry.tokens.authenticate(made[0], public_read=False, request_id="0" * 32)
        assert caller.may_everywhere(Permission.MANAGE_TOKENS)
        registry.close()


def test_instances_may_share_a_directory(tmp_path: Path, postgres_url: str, s3_bucket: Bucket) -> None:
    with (
        closing(start(tmp_path, postgres_url, s3_bucket)) as one,
        closing(start(tmp_path, postgres_url, s3_bucket)) as two,
    ):
        assert (one.ledger.leading, two.ledger.leading) == (True, False)
        assert two.first_token is None


def test_a_database_with_a_directory_is_for_one_instance(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_START_SECONDS", 1.0)
    with closing(start(tmp_path / "one", postgres_url, None)) as one:
        with pytest.raises(StorageError, match="another service uses this database"):
            start(tmp_path / "two", postgres_url, None)
        one.check()


def test_other_keys_do_not_start(tmp_path: Path, postgres_url: str, s3_bucket: Bucket) -> None:
    config = StoreConfig(data=tmp_path / "two", database=postgres_url, s3=s3_bucket.config())
    with closing(start(tmp_path / "one", postgres_url, s3_bucket)):
        with pytest.raises(SettingError, match="other log keys") as caught:
            Registry.open(config, utc_now, log=log_setup("log.example/other"))
        assert "PQREG_LOG_KEY" in str(caught.value.hint)


def test_another_object_store_does_not_start(tmp_path: Path, postgres_url: str, s3_bucket: Bucket) -> None:
    """It would follow, and put the weights it is given where no other instance looks for them."""
    elsewhere = replace(s3_bucket, prefix=f"{s3_bucket.prefix}-elsewhere")
    with closing(start(tmp_path / "one", postgres_url, s3_bucket)):
        with pytest.raises(LogHalted, match="the tile store shows less than was published") as caught:
            start(tmp_path / "two", postgres_url, elsewhere)
        assert "--storage" in str(caught.value.hint)
