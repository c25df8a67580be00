# SPDX-License-Identifier: Apache-2.0
"""What ``pqreg restore`` says of a storage that is not the backup's, and that a bad backup makes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pq_registry.format.digest import Digest
from pq_registry.settings import Settings
from pq_registry.storage.backup import INDEX, BackupFile, BackupIndex
from pq_registry.storage.catalogue import migrate
from pq_registry.storage.s3.config import S3Config
from pq_registry.storage.stores import StoreConfig
from pqreg_cli.main import run
from pqreg_cli.restore import other_storage


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        (None, None, None),
        ("s3://models/a/", "s3://models/a", None),
        ("s3://models", None, "kept its weights in s3://models, this one in the data directory"),
        (None, "s3://models", "kept its weights in the data directory, this one in s3://models"),
        ("s3://models/a", "s3://models/b", "kept its weights in s3://models/a, this one in s3://models/b"),
    ],
)
def test_another_storage_is_named(was: str | None, now: str | None, expected: str | None) -> None:
    index = BackupIndex(
        created=datetime(2026, 1, 1, tzinfo=UTC), version="0.1.0", revision="0009", leaves=0, root=None, blobs=0,
        blob_bytes=0, settings={} if was is None else {"storage": was}, files=(),
    )  # fmt: skip
    given = {"storage": now, "s3_endpoint": "https://s3.example.org"} if now else {}
    config = StoreConfig(data=Path("data"), s3=S3Config.from_settings(Settings(given, environment={})))
    said = other_storage(index, config)
    assert said is None if expected is None else expected in str(said)


@pytest.mark.parametrize(("content", "said"), [(None, "not a backup"), (b"other", "damaged"), (b"", "another version")])
def test_a_bad_backup_makes_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    (tmp_path / "backup" / "tables").mkdir(parents=True)
    if content is not None:
        (tmp_path / "backup" / "tables" / "tokens.jsonl").write_bytes(content)
        index = BackupIndex(
            created=datetime(2026, 1, 1, tzinfo=UTC), version="0.1.0", revision=migrate.head() if content else "0001",
            leaves=0, root=None, blobs=0, blob_bytes=0, settings={},
            files=(BackupFile(path="tables/tokens.jsonl", size=5, sha256=Digest.of(b"right")),),
        )  # fmt: skip
        (tmp_path / "backup" / INDEX).write_bytes(index.encode())
    assert run(["restore", str(tmp_path / "backup"), "--data", str(tmp_path / "new")]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
