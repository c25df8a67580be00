# SPDX-License-Identifier: Apache-2.0
"""fsck: one altered byte or row anywhere is found, and the finding names its object (B8's idea)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.registry import Registry
from pq_registry.storage.fsck import check_registry, total_bytes
from pq_registry.storage.local import LocalBlobStore
from tests.faults.publishing import FILES, documents, publish
from tests.logsetup import log_setup
from tests.samples import publisher
from tests.stack import store_config
from tests.stored import Change, change_blob, in_dialect

CONTENT = Digest.of(FILES["weights.json"])


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry.open(store_config(tmp_path / "registry"), utc_now, log=log_setup())
    publish(registry)
    yield registry
    registry.close()


def findings(registry: Registry) -> list[str]:
    return [f"{item.subject}: {item.problem}" for item in check_registry(registry.catalogue, registry.blobs)]


def test_nothing_is_found_where_all_is_well(whole: Registry) -> None:
    hashed: list[int] = []
    assert check_registry(whole.catalogue, whole.blobs, advance=hashed.append) == []
    assert sum(hashed) == total_bytes(whole.catalogue) > len(FILES["weights.json"])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: b"{" + content[1:], ["its bytes are those of", "shard digests"]),
        (lambda content: content[:-1], ["bytes, not"]),
        (lambda _: None, ["missing from the store"]),
    ],
    ids=["flipped", "cut", "gone"],
)
def test_damaged_blobs(whole: Registry, tmp_path: Path, damage: Change, expected: list[str]) -> None:
    change_blob(tmp_path / "registry", CONTENT, damage)
    found = findings(whole)
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith(f"blob {CONTENT}: ")
        assert words in line


def test_a_damaged_manifest_is_found_twice(whole: Registry, tmp_path: Path) -> None:
    envelope, manifest, _ = documents()
    change_blob(tmp_path / "registry", Digest.of(manifest), lambda content: content.replace(b"weights", b"WEIGHTS"))
    found = findings(whole)
    assert any(line.startswith(f"release acme/minilm@{envelope.payload_digest}: ") for line in found)
    assert any(line.startswith(f"blob {Digest.of(manifest)}: ") for line in found)


@pytest.mark.directory_only("in an object store it is an object, with tests of its own")
def test_a_blob_nobody_knows_is_a_note(whole: Registry, tmp_path: Path) -> None:
    (tmp_path / "temporary").write_bytes(b"orphan")
    assert isinstance(whole.blobs, LocalBlobStore)
    whole.blobs.adopt(tmp_path / "temporary", Digest.of(b"orphan"))
    found = check_registry(whole.catalogue, whole.blobs)
    assert [(item.subject, item.note) for item in found] == [(f"blob {Digest.of(b'orphan')}", True)]


@pytest.mark.directory_only("in an object store its name has another form")
def test_what_is_no_blob_hides_nothing_that_was_found(whole: Registry, tmp_path: Path) -> None:
    change_blob(tmp_path / "registry", CONTENT, lambda _: None)
    base = tmp_path / "registry" / "blobs" / "sha256"
    (base / CONTENT.hex[:2] / "notes.txt").write_text("an operator's")
    (base / "00-first.txt").write_text("before every blob")
    (tmp_path / "temporary").write_bytes(b"orphan")
    assert isinstance(whole.blobs, LocalBlobStore)
    whole.blobs.adopt(tmp_path / "temporary", Digest.of(b"orphan"))
    assert any(item.note for item in check_registry(whole.catalogue, whole.blobs))
    found = findings(whole)
    assert any(line == f"blob {CONTENT}: it is missing from the store" for line in found)
    assert sum("it is no blob" in line and ("notes.txt" in line or "00-first" in line) for line in found) == 2


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ("UPDATE blobs SET shards = zeroblob(32) WHERE size > 1000 AND size < 3100", "blob "),
        ("UPDATE blobs SET size = size + 1 WHERE digest = :content", "blob "),
        ("UPDATE statements SET envelope = CAST(replace(envelope, '=', 'A') AS BLOB)", "statement "),
        ("UPDATE statements SET envelope = (SELECT envelope FROM statements WHERE kind = 'tag') WHERE kind = 'release'",
         "statement "),
        ("UPDATE releases SET size = size + 1", "release "),
        ("UPDATE releases SET signer = content_digest", "release "),
        ("UPDATE releases SET content_digest = manifest_digest", "release "),
        ("DELETE FROM repository_blobs WHERE digest = :content", "release "),
        ("UPDATE tags SET sequence = 2", "tag v1 of acme/minilm: "),
        ("UPDATE tags SET target = NULL", "tag "),
        ("UPDATE tags SET expires = expires + 1", "tag "),
        ("DELETE FROM tags", "tag "),
        ("UPDATE statements SET sequence = 2 WHERE kind = 'tag'", "tag "),
        ("UPDATE repositories SET name = 'acme/other'", "release "),
    ],
)  # fmt: skip
def test_altered_rows(whole: Registry, change: str, subject: str) -> None:
    with whole.catalogue.writing() as session:
        arguments = {"content": CONTENT.hex} if ":content" in change else {}
        assert session.execute(text(in_dialect(change)), arguments).rowcount  # type: ignore[attr-defined]
    assert any(line.startswith(subject) for line in findings(whole)), findings(whole)


def test_swapped_keys_of_an_identity(whole: Registry) -> None:
    with whole.catalogue.writing() as session:
        other = publisher("mallory").identity.to_pem().decode()
        session.execute(text("UPDATE identities SET public = :public"), {"public": other})
    found = findings(whole)
    assert sum(line.startswith("statement ") for line in found) == 4  # two statements, wrong id and wrong signature
