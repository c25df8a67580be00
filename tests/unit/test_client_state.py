# SPDX-License-Identifier: Apache-2.0
"""What a client has seen of tags, and the way from a reference to a release."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pq_registry.client.resolve import resolve
from pq_registry.client.state import SeenTags
from pq_registry.client.trust import SeenTag
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    DigestMismatch,
    FormatError,
    ManifestMismatch,
    NameMismatch,
    NotFound,
    PqregError,
    ResponseInvalid,
    StatementMismatch,
    StorageError,
    TagEquivocation,
    TagRollback,
    TagWithdrawn,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference, RepositoryName
from tests.fake_registry import Handler, serving
from tests.pull_site import Site
from tests.samples import publisher, release, tag_statement

V1 = Reference.parse("acme/minilm:v1")
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


@pytest.fixture
def seen(tmp_path: Path) -> SeenTags:
    return SeenTags(tmp_path / "state")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def put_tag(site: Site, target: Digest | None, **fields: object) -> None:
    envelope = sign_envelope(tag_statement(target, **fields).encode(), publisher())
    site.registry.tags["v1"] = envelope.encode()


def test_nothing_seen_is_nothing_and_leaves_no_trace(seen: SeenTags, tmp_path: Path) -> None:
    assert seen.get(V1) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_seen_is_kept_for_its_owner_by_name_and_not_by_case(seen: SeenTags, tmp_path: Path) -> None:
    seen.advance(V1, SeenTag(3, ONE))
    assert seen.get(V1) == SeenTags(tmp_path / "state").get(Reference.parse("ACME/MiniLM:v1")) == SeenTag(3, ONE)
    assert seen.get(Reference.parse("acme/minilm:V1")) is None, "tags that differ in case are two tags"
    assert seen.get(Reference.parse("acme/minilm:v2")) is None
    (record,) = (tmp_path / "state" / "tags").iterdir()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


def test_it_only_moves_forward(seen: SeenTags) -> None:
    seen.advance(V1, SeenTag(3, ONE))
    seen.advance(V1, SeenTag(2, TWO))
    assert seen.get(V1) == SeenTag(3, ONE)
    with pytest.raises(TagEquivocation):
        seen.advance(V1, SeenTag(3, TWO))
    seen.advance(V1, SeenTag(4, TWO))
    assert seen.get(V1) == SeenTag(4, TWO)


def test_many_threads_leave_the_newest(seen: SeenTags) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: seen.advance(V1, SeenTag(number, ONE)), range(1, 40)))
    assert seen.get(V1) == SeenTag(39, ONE)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"sequence":1}', b"x" * 100_000])
def test_a_damaged_record_is_an_error_and_not_a_clean_slate(seen: SeenTags, tmp_path: Path, damage: bytes) -> None:
    seen.advance(V1, SeenTag(3, ONE))
    (record,) = (tmp_path / "state" / "tags").iterdir()
    record.write_bytes(damage)
    for use in (lambda: seen.get(V1), lambda: seen.advance(V1, SeenTag(9, ONE))):
        with pytest.raises(FormatError, match="damaged") as caught:
            use()
        assert "rollback" in str(caught.value.hint) or "older" in str(caught.value.hint)


def test_the_record_of_another_tag_does_not_count(seen: SeenTags, tmp_path: Path) -> None:
    seen.advance(V1, SeenTag(3, ONE))
    (record,) = (tmp_path / "state" / "tags").iterdir()
    data = record.read_bytes()
    seen.advance(Reference.parse("acme/minilm:v2"), SeenTag(1, ONE))
    (other,) = set((tmp_path / "state" / "tags").iterdir()) - {record}
    other.write_bytes(data)
    with pytest.raises(FormatError):
        seen.get(Reference.parse("acme/minilm:v2"))


def test_a_record_that_cannot_be_read_or_written_is_an_error(seen: SeenTags, tmp_path: Path) -> None:
    seen.advance(V1, SeenTag(3, ONE))
    (record,) = (tmp_path / "state" / "tags").iterdir()
    record.unlink()
    record.mkdir()
    with pytest.raises(StorageError):
        seen.get(V1)
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(StorageError):
        SeenTags(tmp_path / "blocked").advance(V1, SeenTag(1, ONE))
    with pytest.raises(UsageError):
        seen.get(Reference.parse(f"acme/minilm@{ONE}"))


def test_a_tag_leads_to_its_release_and_is_remembered(site: Site) -> None:
    digest = site.add()
    put_tag(site, digest)
    resolved = site.resolve("v1")
    assert resolved.verified.release.digest == digest
    assert resolved.tag is not None and resolved.tag.target == digest
    assert site.seen.get(V1).sequence == 1  # type: ignore[union-attr]


def test_a_digest_needs_no_tag(site: Site) -> None:
    digest = site.add()
    assert site.resolve(digest).tag is None
    assert not any("/tags/" in seen.line for seen in site.registry.seen)


def test_an_absent_tag_or_release_is_not_found(site: Site) -> None:
    with pytest.raises(NotFound, match="no tag"):
        site.resolve("v1")
    with pytest.raises(NotFound):
        site.resolve(ONE)


def test_f07_an_older_statement_is_refused_after_a_newer_one(site: Site) -> None:
    first, second = site.add({"a": b"1"}), site.add({"a": b"2"})
    put_tag(site, second, sequence=2, previous=ONE)
    site.resolve("v1")
    put_tag(site, first, sequence=1)
    with pytest.raises(TagRollback):
        site.resolve("v1")
    put_tag(site, first, sequence=2, previous=ONE)
    with pytest.raises(TagEquivocation):
        site.resolve("v1")


def test_f07_a_withdrawal_is_remembered(site: Site) -> None:
    digest = site.add()
    put_tag(site, None, sequence=2, previous=digest)
    with pytest.raises(TagWithdrawn):
        site.resolve("v1")
    put_tag(site, digest, sequence=1)
    with pytest.raises(TagRollback):
        site.resolve("v1")


def test_f07_the_statement_of_another_tag_is_refused(site: Site) -> None:
    put_tag(site, site.add())
    site.registry.tags["v2"] = site.registry.tags["v1"]
    with pytest.raises(StatementMismatch):
        site.resolve("v2")


def test_f07_a_release_of_another_repository_or_digest_is_refused(site: Site) -> None:
    files = {"a": b"1"}
    mine, other = site.add(files), site.add({"a": b"2"})
    envelope, manifest = release(files, name=RepositoryName.parse("acme/other"))
    foreign = site.registry.add_release(envelope, manifest, files)

    def instead(wanted: Digest) -> None:
        def rule(handler: Handler) -> bool:
            handler.path = handler.path.replace(mine.hex, wanted.hex)
            return False

        site.registry.rules["GET /v1/statements"] = rule
        site.registry.manifests[mine.hex] = site.registry.manifests[wanted.hex]

    instead(other)
    with pytest.raises(DigestMismatch):
        site.resolve(mine)
    instead(foreign)
    with pytest.raises((DigestMismatch, NameMismatch)):
        site.resolve(mine)


def test_f07_a_manifest_of_another_release_is_refused(site: Site) -> None:
    mine, other = site.add({"a": b"1"}), site.add({"a": b"2"})
    site.registry.manifests[mine.hex] = site.registry.manifests[other.hex]
    with pytest.raises(ManifestMismatch):
        site.resolve(mine)


def test_a_description_of_another_release_is_refused(site: Site) -> None:
    mine, other = site.add({"a": b"1"}), site.add({"a": b"2"})

    def rule(handler: Handler) -> bool:
        handler.path = handler.path.replace(mine.hex, other.hex)
        return False

    site.registry.rules["/releases/"] = rule
    with pytest.raises(ResponseInvalid):
        site.resolve(mine)


def test_nothing_is_remembered_of_what_was_refused(site: Site) -> None:
    put_tag(site, site.add())
    envelope = bytearray(site.registry.tags["v1"])
    envelope[len(envelope) // 2] ^= 1
    site.registry.tags["v1"] = bytes(envelope)
    with pytest.raises(PqregError):
        site.resolve("v1")
    assert site.seen.get(V1) is None


def test_a_state_directory_that_cannot_be_written_refuses(site: Site) -> None:
    put_tag(site, site.add())
    blocked = site.home / "blocked"
    blocked.write_text("")
    with site.client() as client, pytest.raises(StorageError):
        resolve(V1, client, site.verifier, SeenTags(blocked / "x"))
    assert os.path.getsize(blocked) == 0
