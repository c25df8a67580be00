# SPDX-License-Identifier: Apache-2.0
"""What a release directory holds, and the steps 2 to 6 that say so: a release as it was published, or unsealed.

A sealed release that was unsealed holds the publisher's files. What proves them lies in ``.pqreg``::

    config.json, model.safetensors, …          the files, as pqreg.inner lists them
    model.sig                                  the plaintext's bundle for stock tools; no evidence of ours
    .pqreg/pqreg.json, model.sig, model.pq.sig the evidence of the release, and model.tlog-proof
    .pqreg/pqreg.inner                         its plaintext

It needs no key to be verified: the evidence proves the manifest, whose ``sealing.inner_sha256`` proves pqreg.inner,
which proves the files. A directory with a ``pqreg.json`` of its own is never taken for an unsealed one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pq_registry import limits
from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.keptstatus import adopt_kept_status
from pq_registry.client.staging import HOUSE
from pq_registry.client.trust import VerifiedRelease, Verifier
from pq_registry.errors import FileSetMismatch, InnerMismatch, at_step
from pq_registry.format.inner import Inner, bind_inner
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.name import Reference
from pq_registry.format.sealing import INNER_NAME
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME

INNER_PATH: Final = (HOUSE, INNER_NAME)
GRANTS: Final = (HOUSE, "grants")
"""Where grants lie beside a release that was pulled sealed: ``<recipient id>.json``, exact envelopes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A release that passed steps 0 to 6, and pqreg.inner if the directory holds it unsealed."""

    verified: VerifiedRelease
    inner: Inner | None = None

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The files as they lie there."""
        return self.verified.release.manifest.files if self.inner is None else self.inner.files

    @property
    def sealed(self) -> bool:
        """Whether they have yet to be unsealed."""
        return self.inner is None and self.verified.release.manifest.sealing is not None


def read_contents(
    directory: ReleaseDirectory, verifier: Verifier, *, expected: Reference | None, state_dir: Path | None = None
) -> Contents:
    """Steps 2 to 6 for what a directory holds.

    Args:
        directory: the directory.
        verifier: what to believe.
        expected: the repository, and the digest if it has one, that this must be. A tag in it proves nothing here.
        state_dir: where this client remembers what it has seen of statuses and logs, which then counts as well.

    Raises:
        VerificationError: a subclass of the step that refused.
        FormatError: for malformed evidence, with its step.
        StorageError: if it cannot be read.
    """
    inner_bytes = None
    if directory.small((MANIFEST_NAME,), 0) is None:
        inner_bytes = directory.small(INNER_PATH, limits.INNER_BYTES)
    evidence = directory.evidence(() if inner_bytes is None else (HOUSE,))
    # 2 to 5, and 6 as far as it concerns name and digest.
    adopt_kept_status(verifier, evidence, expected=expected, state_dir=state_dir)
    verified = verifier.release(
        evidence.envelope,
        evidence.manifest,
        expected_name=None if expected is None else expected.repository,
        expected_digest=None if expected is None else expected.digest,
        receipt=evidence.receipt,
    )
    verified = _with_log(verified, verifier, state_dir)
    contents = Contents(verified)
    if inner_bytes is not None:
        if verified.release.manifest.sealing is None:
            raise InnerMismatch(
                f"{directory.path} holds a {INNER_NAME}, and its release is not sealed",
                expected="the evidence of a sealed release", found=f"release {verified.release.digest}",
                hint="pull the release again into an empty directory",
            )  # fmt: skip
        with at_step(7):
            contents = Contents(verified, bind_inner(verified.release.manifest, inner_bytes))
        # 6. The file set and the sizes. The evidence has another place here, so nothing else may have its names.
        _check_bundle(directory, contents)
        directory.check_files(contents.files, beside=(EC_BUNDLE_NAME,))
    else:
        directory.check_files(contents.files)
    return contents


def _with_log(verified: VerifiedRelease, verifier: Verifier, state_dir: Path | None) -> VerifiedRelease:
    """The same, after checkpoints were held against the one kept; what only a registry can tell is said."""
    if verified.receipt is None:
        return verified
    if state_dir is not None:
        for receipt in verifier.receipts:  # the status has one too
            Checkpoints(state_dir).compare(receipt)
    note = "log freshness: not checked, that takes a registry; a receipt does not age"
    return replace(verified, notes=(*verified.notes, note))


def _check_bundle(directory: ReleaseDirectory, contents: Contents) -> None:
    assert contents.inner is not None
    found = directory.small((EC_BUNDLE_NAME,), limits.ENVELOPE_BYTES)
    other = directory.small((PQ_BUNDLE_NAME,), limits.ENVELOPE_BYTES)
    if found not in (None, contents.inner.oms) or other is not None:
        raise FileSetMismatch(
            f"{directory.path} holds a bundle that is not of this release",
            expected=f"{EC_BUNDLE_NAME} as in {INNER_NAME}, and no {PQ_BUNDLE_NAME}",
            hint="pull the release again into an empty directory",
        )
