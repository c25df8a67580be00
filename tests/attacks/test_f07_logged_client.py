# SPDX-License-Identifier: Apache-2.0
"""F7 with a log: the names of tuf-conformance (rollback, freeze, mix-and-match, fast-forward recovery, rotations).

Their metadata roles map to ours: root is the trust file, timestamp the log's checkpoint and the status, snapshot the
tag, targets the release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.trustlogs import add_log, set_window
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    CheckpointInvalid,
    DigestMismatch,
    FormatError,
    IdentityLapsed,
    LogRollback,
    LogStale,
    ManifestMismatch,
    PqregError,
    QuorumNotMet,
    ReceiptInvalid,
    ReceiptMissing,
    Revoked,
    SignatureInvalid,
    StatementMismatch,
    StatusExpired,
    StatusRollback,
    StatusUnavailable,
    TagExpired,
    TagRollback,
    TrustExpired,
    UntrustedSigner,
)
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.note import Note
from pq_registry.format.status import Revocation, RevocationKind
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import TrustFile
from tests import samples
from tests.fake_registry import serving
from tests.logged_site import LoggedSite, acme, next_status, status_statement
from tests.logsamples import MemoryLog, compose_policy, resigned
from tests.samples import NOW, REPOSITORY, YEAR, publisher, tag_statement, trust_file, trusted

DAY = timedelta(days=1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoggedSite]:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, trust=acme())
        site.set_status(status_statement())
        yield site


def second_tag(first: Digest, target: Digest, **fields: object) -> dict[str, object]:
    return {"sequence": 2, "previous": Digest.of(tag_statement(first).encode()), **fields}


def refused(site: LoggedSite, kind: type[PqregError], what: Digest | str = "v1") -> None:
    with pytest.raises(kind):
        site.resolve(what)


# -- expiration --------------------------------------------------------------------------------------------------------
def test_root_expired(site: LoggedSite) -> None:
    site.set_tag(site.publish())
    site.now = NOW + YEAR
    refused(site, TrustExpired)


def test_timestamp_expired(site: LoggedSite) -> None:
    site.set_tag(site.publish())
    site.now = NOW + 2 * DAY
    refused(site, LogStale)
    site.now = status_statement().expires
    refused(site, StatusExpired)


def test_snapshot_expired(site: LoggedSite) -> None:
    site.set_tag(site.publish(), expires=NOW + DAY)
    site.now = NOW + DAY
    refused(site, TagExpired)


# -- rollback ----------------------------------------------------------------------------------------------------------
def test_new_timestamp_version_rollback(site: LoggedSite) -> None:
    digest = site.publish()
    site.resolve(digest)
    old = dict(site.registry.log_files)
    site.set_tag(digest)
    site.resolve("v1")
    site.registry.log_files = old
    refused(site, LogRollback, digest)


def test_snapshot_rollback(site: LoggedSite) -> None:
    first, second = site.publish(), site.publish({"new": b""})
    site.set_tag(first)
    old = site.registry.tags["v1"]
    site.set_tag(second, **second_tag(first, second))
    site.resolve("v1")
    site.registry.tags["v1"] = old
    refused(site, TagRollback)


def test_targets_rollback(site: LoggedSite) -> None:
    """The statement of an older release under the digest of the new one."""
    first, second = site.publish(), site.publish({"new": b""})
    for store in (site.registry.statements, site.registry.receipts):
        store[second.hex] = store[first.hex]
    site.registry.manifests[second.hex] = site.registry.manifests[first.hex]
    refused(site, DigestMismatch, second)


def test_status_rollback_and_role_removal(site: LoggedSite) -> None:
    digest = site.publish()
    revoked = Revocation(RevocationKind.RELEASE, str(digest), NOW)
    old = site.registry.statuses["acme"]
    site.set_status(next_status(status_statement(), revoked))
    refused(site, Revoked, digest)
    site.registry.statuses["acme"] = old
    refused(site, StatusRollback, digest)
    del site.registry.statuses["acme"]
    refused(site, StatusRollback, digest)


def test_a_client_that_has_seen_nothing_is_not_told_that_there_is_no_status(site: LoggedSite) -> None:
    digest = site.publish()
    del site.registry.statuses["acme"]
    refused(site, StatusUnavailable, digest)


def forged_giant(site: LoggedSite) -> bytes:
    """A checkpoint of more leaves than there will ever be, signed with stolen keys of log and witness."""
    return site.log.sign(Checkpoint(site.log.origin, 2**40, bytes(32)))


def test_new_timestamp_fast_forward_recovery(site: LoggedSite) -> None:
    """Stolen log keys made the client remember a giant tree; the operator begins a log under another name."""
    digest = site.publish()
    checkpoint = Checkpoint(site.log.origin, 2**40, bytes(32))
    Checkpoints(site.home / "state").advance(checkpoint, forged_giant(site))
    refused(site, LogRollback, digest)
    fresh = MemoryLog("recovered.example/log", witnesses=1)
    stolen = site.log.policies(None, NOW)  # nothing that is dated from now on counts any more
    site.options = {"log": (*stolen, *fresh.policies())}
    site.log = fresh
    for envelope, kind, name, signer in (
        (site.registry.statements[digest.hex], Kind.RELEASE, str(REPOSITORY), publisher()),
        (site.registry.statuses["acme"], Kind.STATUS, "acme", publisher("revoker")),
    ):
        site.log_statement(Envelope.parse(envelope), kind, name, signer)
    found = site.resolve(digest)
    assert "of recovered.example/log" in found.verified.notes[0]


def test_new_snapshot_fast_forward_recovery(site: LoggedSite) -> None:
    """A stolen publisher's key jumps to the last sequence there is: its tag is lost, another tag name is not."""
    digest = site.publish()
    site.set_tag(digest, sequence=2**53 - 1, previous=digest)
    site.resolve("v1")
    site.set_tag(digest)
    refused(site, TagRollback)
    assert site.resolve(digest).verified.release.digest == digest


# -- basic -------------------------------------------------------------------------------------------------------------
def test_unsigned_metadata(site: LoggedSite) -> None:
    digest = site.publish()
    note = site.log.files["checkpoint"]
    site.registry.log_files["checkpoint"] = resigned(note, drop=[site.log.origin])
    refused(site, CheckpointInvalid, digest)


def test_timestamp_content_changes(site: LoggedSite) -> None:
    digest = site.publish()
    note = site.registry.log_files["checkpoint"]
    site.registry.log_files["checkpoint"] = note.replace(b"\n2\n", b"\n3\n", 1)
    refused(site, CheckpointInvalid, digest)


def test_targets_hash_mismatch(site: LoggedSite) -> None:
    first, second = site.publish(), site.publish({"new": b""})
    site.registry.manifests[first.hex] = site.registry.manifests[second.hex]
    refused(site, ManifestMismatch, first)


def test_mix_and_match_of_envelope_and_receipt(site: LoggedSite) -> None:
    first, second = site.publish(), site.publish({"new": b""})
    site.registry.receipts[first.hex] = site.registry.receipts[second.hex]
    refused(site, ReceiptInvalid, first)


def test_mix_and_match_of_two_logs(site: LoggedSite) -> None:
    """Receipts of one log, the newest checkpoint of another that the trust file does not name."""
    digest = site.publish()
    other = MemoryLog("other.example/log", witnesses=1)
    other.append_raw(b"leaf")
    other.publish()
    site.serve_log(other)
    refused(site, CheckpointInvalid, digest)


@pytest.mark.parametrize("missing", ["receipt", "tag's receipt", "status's receipt"])
def test_timestamp_404(site: LoggedSite, missing: str) -> None:
    digest = site.publish()
    site.set_tag(digest)
    payloads = {
        "receipt": digest,
        "tag's receipt": Envelope.parse(site.registry.tags["v1"]).payload_digest,
        "status's receipt": Envelope.parse(site.registry.statuses["acme"]).payload_digest,
    }
    del site.registry.receipts[payloads[missing].hex]
    refused(site, ReceiptMissing)


def test_incorrect_metadata_type(site: LoggedSite) -> None:
    digest = site.publish()
    site.set_tag(digest)
    site.registry.statuses["acme"] = site.registry.tags["v1"]
    refused(site, StatementMismatch, digest)


# -- keys and rotations ------------------------------------------------------------------------------------------------
def test_snapshot_does_not_meet_threshold(tmp_path: Path) -> None:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, witnesses=2)
        digest = site.publish()
        site.resolve(digest)
        note = resigned(site.log.files["checkpoint"], drop=["witness2.example"])
        registry.receipts[digest.hex] = site.log.receipt(0, note)
        with pytest.raises(QuorumNotMet):
            site.resolve(digest)
        site.options = {"log": (LogPolicy(compose_policy(witnesses=2, quorum=1)),)}
        site.resolve(digest)


def test_invalid_sig_in_valid_metadata(tmp_path: Path) -> None:
    """One witness of two would do, but the line of the other is there and wrong: the note was tampered with."""
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, witnesses=2)
        site.log.quorum = 1
        digest = site.publish()
        other = MemoryLog(witnesses=2)
        other.append_raw(b"x")
        wrong = [line for line in Note.parse(other.publish()).signatures if line.name == "witness2.example"]
        note = resigned(site.log.files["checkpoint"], drop=["witness2.example"], add=wrong)
        registry.receipts[digest.hex] = site.log.receipt(0, note)
        with pytest.raises(CheckpointInvalid):
            site.resolve(digest)


def test_duplicate_keys(site: LoggedSite) -> None:
    policy = site.log.policy()
    with pytest.raises(FormatError, match="listed twice"):
        trust_file(acme(), log=(LogPolicy(policy), LogPolicy(policy)))


def test_root_rotation_of_the_log(site: LoggedSite) -> None:
    """The log's successor is added, the old one ended at a date: what either attested in its time stays good."""
    change = NOW + DAY
    old, new = site.log, MemoryLog("second.example/log", witnesses=1)
    trust: TrustFile = set_window(site.trust, 1, None, change)
    trust = add_log(trust, new.policy(), change, None)
    first = site.publish()
    site.now = change + DAY / 2
    site.options = {"log": trust.log}
    new.time = int((change + DAY / 4).timestamp())
    site.log = new
    second = site.publish({"second": b""})
    site.set_status(next_status(status_statement()))
    assert f"of {new.origin}" in site.resolve(second).verified.notes[0]
    assert f"of {old.origin}" in site.resolve(first).verified.notes[0]
    old.time = int((change + DAY / 4).timestamp())  # the old keys still sign, for whoever has them now
    site.log = old
    third = site.publish({"third": b""})
    site.serve_log(new)
    refused(site, ReceiptInvalid, third)


def test_non_root_rotations(site: LoggedSite) -> None:
    """The publisher's key is rotated: releases from before stay good, what the old key signs later is refused."""
    first = site.publish()
    change = NOW + DAY / 2
    entries = (trusted(publisher(), None, change), trusted(publisher("alice-2027")))
    ids = tuple(entry.id for entry in entries)
    site.namespace = replace(site.namespace, identities=(*entries, site.namespace.identities[-1]), publishers=ids)
    site.log.time = int(change.timestamp())
    site.now = change
    second = site.publish({"second": b""}, signer=publisher("alice-2027"))
    site.resolve(second)
    site.resolve(first)
    late = site.publish({"late": b""})
    refused(site, IdentityLapsed, late)


def test_repository_substitutes_target_file(site: LoggedSite) -> None:
    digest = site.publish()
    envelope, manifest = samples.release({"evil": b""}, signer=publisher("mallory"))
    site.registry.add_release(envelope, manifest, {"evil": b""})
    site.registry.statements[digest.hex] = envelope.encode()
    site.registry.manifests[digest.hex] = site.registry.manifests[envelope.payload_digest.hex]
    with pytest.raises((UntrustedSigner, SignatureInvalid)):
        site.resolve(digest)
    half = replace(
        Envelope.parse(site.registry.statements[digest.hex]),
        ec_signature=sign_envelope(envelope.payload, publisher()).ec_signature,
    )
    site.registry.statements[digest.hex] = half.encode()
    refused(site, SignatureInvalid, digest)
