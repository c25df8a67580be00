# SPDX-License-Identifier: Apache-2.0
"""B7, the client's side: what was verified once and kept is verified again, and keyed by whole digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.verify import verify_directory
from pq_registry.errors import (
    FormatError,
    PqregError,
    ReceiptInvalid,
    ReceiptMissing,
    Revoked,
    StatusUnavailable,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Reference
from pq_registry.format.status import Revocation, RevocationKind
from pq_registry.format.strict_json import encode_base64
from pq_registry.format.tlogproof import TlogProof
from tests.fake_registry import serving
from tests.logged_site import ACME, LoggedSite, acme, next_status, status_statement
from tests.samples import NOW

ACME_MINILM = Reference.parse("acme/minilm")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoggedSite]:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, trust=acme())
        site.set_status(status_statement())
        yield site


def verify(site: LoggedSite, *, expected: Reference | None = ACME_MINILM, memory: bool = True, **trust: object) -> None:
    site.options = trust
    verify_directory(
        site.home / "out",
        site.verifier(online=False),
        expected=expected,
        state_dir=site.home / "state" if memory else None,
    )


def test_a_pull_keeps_receipt_and_status_and_they_verify_offline(site: LoggedSite) -> None:
    digest = site.publish()
    site.pull(digest)
    out = site.home / "out"
    assert (out / "model.tlog-proof").read_bytes() == site.registry.receipts[digest.hex]
    assert (out / ".pqreg/status.json").read_bytes() == site.registry.statuses["acme"]
    assert TlogProof.parse((out / ".pqreg/status.tlog-proof").read_bytes())
    for memory in (True, False):
        for expected in (ACME_MINILM, None):
            verify(site, expected=expected, memory=memory, offline_status="require")


def test_without_what_is_kept_the_policy_decides(site: LoggedSite) -> None:
    site.pull(site.publish())
    out = site.home / "out"
    (out / ".pqreg/status.json").unlink()
    verify(site, memory=False)
    with pytest.raises(StatusUnavailable):
        verify(site, memory=False, offline_status="require")
    verify(site, offline_status="require")  # this client remembers it
    (out / "model.tlog-proof").unlink()
    with pytest.raises(ReceiptMissing):
        verify(site)
    verify(site, log="exempt")


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def shortened(data: bytes) -> bytes:
    proof = TlogProof.parse(data)
    return replace(proof, hashes=(*proof.hashes[:-1], bytes(32))).encode()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.tlog-proof", shortened),
        ("model.tlog-proof", lambda data: data[:-40]),
        ("model.tlog-proof", lambda _data: b""),
        (".pqreg/status.tlog-proof", shortened),
        (".pqreg/status.tlog-proof", lambda _data: b"junk"),
        (".pqreg/status.json", lambda data: flip(data, len(data) // 2)),
        (".pqreg/status.json", lambda _data: b"{}"),
    ],
    ids=["hash", "cut", "empty", "status hash", "status junk", "status flipped", "no status"],
)
def test_what_was_changed_on_disk_is_refused(site: LoggedSite, name: str, change: Callable[[bytes], bytes]) -> None:
    site.pull(site.publish())
    path = site.home / "out" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(PqregError) as caught:
        verify(site, memory=False)
    assert caught.value.step in (2, 3, 4)


def test_the_receipt_of_another_release_beside_this_one(site: LoggedSite) -> None:
    other = site.publish({"other": b"x"})
    site.pull(site.publish())
    (site.home / "out/model.tlog-proof").write_bytes(site.registry.receipts[other.hex])
    with pytest.raises(ReceiptInvalid):
        verify(site)


def test_a_remembered_status_counts_where_the_one_beside_the_release_is_older(site: LoggedSite) -> None:
    digest = site.publish()
    site.pull(digest)
    site.set_status(next_status(status_statement(), Revocation(RevocationKind.RELEASE, str(digest), NOW)))
    with pytest.raises(Revoked):
        site.resolve(digest)
    with pytest.raises(Revoked):
        verify(site)
    verify(site, memory=False)  # a copy on a shelf knows what was known when it was put there


def test_records_are_named_by_whole_digests_and_read_strictly(site: LoggedSite) -> None:
    site.resolve(site.publish())
    state = site.home / "state"
    (checkpoint,) = (state / "logs").iterdir()
    assert checkpoint.name == hashlib.sha256(site.log.origin.encode()).hexdigest()
    (status,) = (state / "status").iterdir()
    assert status.name == hashlib.sha256(b"acme").hexdigest() + ".json"
    assert {path.stat().st_mode & 0o777 for path in (checkpoint, status)} == {0o600}
    record = json.loads(status.read_bytes())
    for bent in ({**record, "namespace": "rival"}, {**record, "more": 1}, {**record, "envelope": ""}):
        status.write_text(json.dumps(bent, sort_keys=True, separators=(",", ":")))
        with pytest.raises(FormatError, match="last status seen"):
            SeenStatuses(state).get(ACME)


def test_a_remembered_status_is_verified_again(site: LoggedSite) -> None:
    """A record changed into a forged status does not revoke, nor does it count as news."""
    digest = site.publish()
    site.pull(digest)
    forged = Envelope.parse(site.registry.statuses["acme"])
    forged = replace(forged, payload=next_status(status_statement()).encode())
    (path,) = (site.home / "state/status").iterdir()
    record = json.loads(path.read_bytes())
    record["envelope"] = encode_base64(forged.encode())
    path.write_text(json.dumps(record, sort_keys=True, separators=(",", ":")))
    seen = SeenStatuses(site.home / "state").get(ACME)
    assert seen is not None
    assert seen.payload == Digest.of(forged.payload)
    verify(site)  # it is passed over: the one beside the release verifies
    (site.home / "out/.pqreg/status.json").unlink()
    with pytest.raises(StatusUnavailable):
        verify(site, offline_status="require")
