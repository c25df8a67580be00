# SPDX-License-Identifier: Apache-2.0
"""Grants beside a sealed release on disk, so that a node without a network can open it.

``pull --sealed`` keeps the grants that are in force and verify in ``.pqreg/grants/<recipient id>.json``, as exact
envelopes, and their receipts, where the trust file demands them, as ``<recipient id>.tlog-proof``. They are no part of
the release, nothing is believed because it lies there, and a later withdrawal does not reach them: a copy on a shelf
stays what it was. A registry cannot bring back to the shelf what it once said was withdrawn: what was seen is
remembered.
"""

from __future__ import annotations

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

_RECEIPT = ".tlog-proof"


def keep_grants(path: Path, release: Release, client: RegistryClient, verifier: Verifier, seen: SeenGrants) -> int:
    """Replace what is kept below ``path`` by the grants of ``release`` the registry has; answers how many.

    A grant that is withdrawn, has expired, does not verify or is older than one seen is left out.

    Raises:
        TransportError: if the registry does not answer.
        StorageError: if the disk fails.
    """
    found: dict[str, tuple[bytes, bytes | None]] = {}
    for item in client.grants(release.name, release=release.digest):
        envelope = client.grant_envelope(release.name, release.digest, item.recipient)
        if envelope is None:
            continue
        receipt = fetch_receipt(client, verifier, envelope)
        try:
            grant = verifier.grant(envelope, receipt=receipt)
            require_match(grant, release=release.digest, repository=release.name, recipient=item.recipient)
            seen.accept(grant)
        except (VerificationError, FormatError):
            continue
        in_force = not grant.withdrawn and (grant.expires is None or not is_expired(verifier.now, grant.expires))
        if in_force:
            found[item.recipient] = envelope, receipt
    with Tree(path) as tree:
        folder = tree.path.joinpath(*GRANTS)
        with reported("write", folder):
            with tree.directory(GRANTS, create=True):
                for entry in list(tree.walk(below=GRANTS)):
                    tree.unlink(tuple(entry.text.split("/")))
            for recipient, (envelope, receipt) in found.items():
                if receipt is not None:
                    write_file(folder / f"{recipient}{_RECEIPT}", receipt)
                write_file(folder / f"{recipient}.json", envelope)
    return len(found)


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
