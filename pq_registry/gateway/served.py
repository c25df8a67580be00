# SPDX-License-Identifier: Apache-2.0
"""A verified release as the gateway shows it: its files, where their stored bytes come from, and how they open.

A plain release shows the files of its manifest, ``pqreg.json`` and the evidence, as the registry does, under the
release's commit. A sealed one that this node may open shows the files of pqreg.inner. They are other files than those
the registry shows at the release's commit, and Hugging Face's tools keep what a commit holds for good, so they have a
commit of their own: the first 40 digits of the digest of pqreg.inner, which the signed manifest commits to.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

from pq_registry import limits
from pq_registry.client.source import ShardSource
from pq_registry.client.unsealing import Unsealed
from pq_registry.client.verified import VerifiedRelease
from pq_registry.crypto.sealing import FileSealer
from pq_registry.errors import EntryNotFound
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.hubtree import find_file
from pq_registry.format.inner import Inner
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME, TLOG_PROOF_NAME
from pq_registry.service.hub.model import Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFile:
    """A file a client sees. ``size`` and ``sha256`` are those of what it is sent.

    ``stored`` lists the shards its bytes are made of, opened by ``sealer`` where they are sealed; evidence has its
    bytes ``inline``.
    """

    path: str
    size: int
    sha256: Digest
    stored: FileEntry | None = None
    sealer: FileSealer | None = field(default=None, repr=False)
    inline: bytes = field(default=b"", repr=False)

    def plain_range(self, index: int) -> tuple[int, int]:
        """Where shard ``index`` begins in what is sent, and its length there."""
        offset = index * limits.SHARD_BYTES
        return offset, min(limits.SHARD_BYTES, self.size - offset)


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True, eq=False)
class Served:
    """A release that passed steps 0 to 7, open for reading.

    ``files`` are sorted by path. ``remote`` says that ``source`` is across a network, so what it brings is kept.
    ``proven`` says that a signed tag, or the digest that was asked for, led here.
    """

    verified: VerifiedRelease
    files: tuple[ServedFile, ...]
    commit: Commit
    source: ShardSource = field(repr=False)
    remote: bool
    proven: bool
    opened: bool
    """Whether a sealed release is shown in the clear."""

    @property
    def release(self) -> Digest:
        """The release's digest."""
        return self.verified.release.digest

    @property
    def sealed(self) -> bool:
        """Whether the files shown are ciphertext."""
        return self.verified.release.manifest.sealing is not None and not self.opened

    def file(self, path: str) -> ServedFile:
        """The file at ``path``.

        Raises:
            EntryNotFound: if there is none.
        """
        at = find_file(self.files, path)
        if at is None:
            raise EntryNotFound(f"this release has no {path!r:.200}", commit=self.commit.value)
        return self.files[at]


def as_stored(verified: VerifiedRelease, source: ShardSource, *, remote: bool, proven: bool) -> Served:
    """A release as it was published."""
    release = verified.release
    files = [_stored(entry) for entry in release.manifest.files] + _evidence(verified)
    return Served(
        verified=verified, files=_sorted(files), commit=Commit.of_release(release.digest), source=source,
        remote=remote, proven=proven, opened=False,
    )  # fmt: skip


def in_the_clear(
    verified: VerifiedRelease, unsealed: Unsealed, source: ShardSource, *, remote: bool, proven: bool
) -> Served:
    """A sealed release, opened shard by shard; its key is overwritten when nothing refers to it any more."""
    manifest = unsealed.release.manifest
    files = [
        ServedFile(
            path=plain.path.text, size=plain.size, sha256=plain.sha256, stored=stored,
            sealer=unsealed.key.file(stored.path, plain.size),
        )
        for plain, stored in zip(unsealed.inner.files, manifest.sealed_files, strict=True)
    ]  # fmt: skip
    served = _plaintext(verified, files, source, remote=remote, proven=proven)
    weakref.finalize(served, unsealed.key.wipe)
    return served


def unsealed_on_disk(verified: VerifiedRelease, inner: Inner, source: ShardSource, *, proven: bool) -> Served:
    """A sealed release whose plaintext lies in a directory."""
    return _plaintext(verified, [_stored(entry) for entry in inner.files], source, remote=False, proven=proven)


def _plaintext(
    verified: VerifiedRelease, files: Sequence[ServedFile], source: ShardSource, *, remote: bool, proven: bool
) -> Served:
    sealing = verified.release.manifest.sealing
    assert sealing is not None
    return Served(
        verified=verified, files=_sorted(files), commit=Commit.of_release(sealing.inner_sha256), source=source,
        remote=remote, proven=proven, opened=True,
    )  # fmt: skip


def _stored(entry: FileEntry) -> ServedFile:
    return ServedFile(path=entry.path.text, size=entry.size, sha256=entry.sha256, stored=entry)


def _evidence(verified: VerifiedRelease) -> list[ServedFile]:
    release, signer = verified.release, verified.signer
    found = {
        MANIFEST_NAME: release.manifest_bytes,
        EC_BUNDLE_NAME: encode_bundle(release.envelope, "ec", signer.ec_pem),
        PQ_BUNDLE_NAME: encode_bundle(release.envelope, "pq", signer.pq_pem),
    }
    if verified.receipt is not None:
        found[TLOG_PROOF_NAME] = verified.receipt.proof
    return [ServedFile(path=path, size=len(data), sha256=Digest.of(data), inline=data) for path, data in found.items()]


def _sorted(files: Sequence[ServedFile]) -> tuple[ServedFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))
