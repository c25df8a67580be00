# SPDX-License-Identifier: Apache-2.0
"""B8: a blob whose stored bytes are no longer its own is served to nobody once fsck has seen it, on any route."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.mending import mark_blobs, mend_blobs
from pq_registry.storage.catalogue.tables import AuditEventRow
from pq_registry.storage.chains import Finding
from pq_registry.storage.fsck import check_registry
from tests.samples import FILES
from tests.server_harness import RunningRegistry
from tests.stored import change_blob

PATH = max(FILES, key=lambda path: len(FILES[path]))
CONTENT = FILES[PATH]
DIGEST = Digest.of(CONTENT)
BLOB = f"/v1/blobs/sha256/{DIGEST.hex}"
RESOLVE = f"/acme/minilm/resolve/v1/{PATH}"


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def fsck(registry: RunningRegistry) -> list[Finding]:
    """What ``pqreg fsck`` does."""
    parts, begun = registry.registry, utc_now()
    found = check_registry(parts.catalogue, parts.blobs)
    mark_blobs(parts.catalogue, found, begun=begun, now=utc_now())
    return [finding for finding in found if not finding.note]


def missing(registry: RunningRegistry) -> list[str]:
    answer = registry.post("/v1/repos/acme/minilm/missing", {"digests": [str(DIGEST)]})
    assert answer.status == 200
    return list(answer.json["missing"])


def changes(registry: RunningRegistry) -> list[tuple[str, str]]:
    with registry.registry.catalogue.reading() as session:
        rows = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id)).all()
        return [(row.action, row.subject) for row in rows if row.subject == str(DIGEST)]


@pytest.fixture
def damaged(registry: RunningRegistry) -> RunningRegistry:
    """A registry with a release one of whose files is other bytes of the same length on the disk."""
    registry.put_tag(registry.publish())
    change_blob(registry.data, DIGEST, flipped)
    return registry


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=1-2"}], ids=["whole", "range"])
def test_what_fsck_found_is_served_to_nobody(damaged: RunningRegistry, headers: dict[str, str]) -> None:
    assert damaged.get(BLOB).body == flipped(CONTENT), "nobody can know before somebody looks"
    assert fsck(damaged)
    reader = damaged.as_role("reader")
    for who in (damaged, reader):
        answer = who.get(BLOB, headers)
        assert (answer.status, answer.code) == (410, "blob-damaged")
        assert "pqreg fsck --repair-from" in answer.json["hint"]
        assert who.request("HEAD", BLOB).status == 410
    other = Digest.of(FILES[min(FILES, key=lambda path: len(FILES[path]))])
    assert reader.get(f"/v1/blobs/sha256/{other.hex}").status == 200


def test_the_mark_is_an_event_and_is_made_once(damaged: RunningRegistry) -> None:
    fsck(damaged)
    fsck(damaged)
    assert changes(damaged) == [("blob-damaged", str(DIGEST))]


def test_it_is_no_file_of_a_new_release(damaged: RunningRegistry) -> None:
    fsck(damaged)
    assert missing(damaged) == [str(DIGEST)]


def test_whoever_sends_it_again_has_mended_it(damaged: RunningRegistry) -> None:
    fsck(damaged)
    damaged.upload(CONTENT)
    assert damaged.get(BLOB).body == CONTENT
    assert missing(damaged) == []
    assert fsck(damaged) == []


def test_bytes_that_are_back_are_served_after_the_next_look(damaged: RunningRegistry) -> None:
    fsck(damaged)
    change_blob(damaged.data, DIGEST, flipped)
    assert damaged.get(BLOB).status == 410
    assert fsck(damaged) == []
    assert damaged.get(BLOB).body == CONTENT
    assert changes(damaged)[-1] == ("blob-repaired", str(DIGEST))


def test_a_repair_takes_the_mark_away(damaged: RunningRegistry) -> None:
    class Mirror:
        def fetch(self, digest: Digest, size: int) -> list[bytes]:
            assert (digest, size) == (DIGEST, len(CONTENT))
            return [CONTENT]

    fsck(damaged)
    parts = damaged.registry
    assert [one.done for one in mend_blobs(parts.catalogue, parts.blobs, [DIGEST], [Mirror()], now=utc_now())] == [True]  # type: ignore[list-item]
    assert damaged.get(BLOB).body == CONTENT


def test_a_blob_that_is_gone_can_be_sent_again(damaged: RunningRegistry) -> None:
    change_blob(damaged.data, DIGEST, lambda _: None)
    fsck(damaged)
    assert damaged.get(BLOB).status == 410
    damaged.upload(CONTENT)
    assert damaged.get(BLOB).body == CONTENT


def test_a_store_that_does_not_answer_marks_nothing(damaged: RunningRegistry) -> None:
    unclear = [Finding(f"blob {DIGEST}", "the store did not answer", blob=DIGEST)]
    parts = damaged.registry
    assert mark_blobs(parts.catalogue, unclear, begun=utc_now(), now=utc_now()) == 0
    fsck(damaged)
    assert mark_blobs(parts.catalogue, unclear, begun=utc_now(), now=utc_now()) == 1
    assert json.loads(damaged.get(BLOB).body)["status"] == 410
