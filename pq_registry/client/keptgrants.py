# SPDX-License-Identifier: Apache-2.0
"""Grants beside a sealed release on disk, so that a node without a network can open it.

``pull --sealed`` keeps the grants that are in force and verify in ``.pqreg/grants/<recipient id>.json``, as exact
envelopes, and their receipts, where the trust file demands them, as ``<recipient id>.tlog-proof``. They are no part of
the release, nothing is believed because it lies there, and a later withdrawal does not reach them: a copy on a shelf
stays what it was. A registry cannot bring back to the shelf what it once said was withdrawn: what was seen is
remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pq_registry import limits
from pq_registry.client.contents import GRANTS
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.proofs import fetch_receipt
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.transport import RegistryClient
from pq_registry.client.tree import Tree
from pq_registry.client.trust import Verifier
from pq_registry.crypto.sealing import require_match
from pq_registry.durable import reported, write_file
from pq_registry.errors import FormatError, VerificationError
from pq_registry.format.hexid import parse_recipient_id
from pq_registry.format.instant import is_expired
from pq_registry.format.release import Release

KeptGrant = tuple[bytes, bytes | None]
"""The exact envelope of a grant, and its receipt, where the trust file demands one."""

_RECEIPT = ".tlog-proof"


def keep_grants(path: Path, release: Release, client: RegistryClient, verifier: Verifier, seen: SeenGrants) -> int:
    """Replace what is kept below ``path`` by the grants of ``release`` the registry has; answers how many.

    A grant that is withdrawn, has expired, does not verify or is older than one seen is left out.

    Raises:
        TransportError: if the registry does not answer.
        StorageError: if the disk fails.
    """
    found = grants_in_force(release, client, verifier, seen)
    write_grants(path, found)
    return len(found)


def grants_in_force(
    release: Release, client: RegistryClient, verifier: Verifier, seen: SeenGrants
) -> dict[str, KeptGrant]:
    """The grants of ``release`` the registry has, verified, by recipient; those that do not count are left out.

    Raises:
        TransportError: if the registry does not answer.
    """
    found: dict[str, KeptGrant] = {}
    for item in client.grants(release.name, release=release.digest):
        envelope = client.grant_envelope(release.name, release.digest, item.recipient)
        if envelope is None:
            continue
        receipt = fetch_receipt(client, verifier, envelope)
        if counts(release, item.recipient, (envelope, receipt), verifier, seen):
            found[item.recipient] = envelope, receipt
    return found


def counts(release: Release, recipient: str, kept: KeptGrant, verifier: Verifier, seen: SeenGrants) -> bool:
    """Whether a grant verifies, is for ``recipient`` to read ``release``, and is in force."""
    envelope, receipt = kept
    try:
        grant = verifier.grant(envelope, receipt=receipt)
        require_match(grant, release=release.digest, repository=release.name, recipient=recipient)
        seen.accept(grant)
    except (VerificationError, FormatError):
        return False
    return not grant.withdrawn and (grant.expires is None or not is_expired(verifier.now, grant.expires))


def write_grants(path: Path, grants: Mapping[str, KeptGrant]) -> None:
    """Replace what is kept below ``path`` by these grants, by recipient.

    Raises:
        StorageError: if the disk fails.
    """
    with Tree(path) as tree:
        folder = tree.path.joinpath(*GRANTS)
        with reported("write", folder):
            with tree.directory(GRANTS, create=True):
                for entry in list(tree.walk(below=GRANTS)):
                    tree.unlink(tuple(entry.text.split("/")))
            for recipient, (envelope, receipt) in grants.items():
                if receipt is not None:
                    write_file(folder / f"{recipient}{_RECEIPT}", receipt)
                write_file(folder / f"{recipient}.json", envelope)


def kept_grant(directory: ReleaseDirectory, recipient: str) -> bytes | None:
    """The envelope of the grant to ``recipient`` kept beside a release, or None; not verified.

    Raises:
        StorageError: if it cannot be read.
    """
    return directory.small((*GRANTS, f"{parse_recipient_id(recipient)}.json"), limits.GRANT_ENVELOPE_BYTES)


def kept_receipt(directory: ReleaseDirectory, recipient: str) -> bytes | None:
    """The receipt of that grant, or None; not verified.

    Raises:
        StorageError: if it cannot be read.
    """
    return directory.small((*GRANTS, f"{parse_recipient_id(recipient)}{_RECEIPT}"), limits.TLOG_PROOF_BYTES)
