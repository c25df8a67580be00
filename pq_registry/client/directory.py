# SPDX-License-Identifier: Apache-2.0
"""A directory that holds a release: its files, ``pqreg.json``, and the evidence.

``model.sig`` and ``model.pq.sig`` are the two halves of the signature, ``model.tlog-proof`` is the log's receipt. The
newest status of the namespace when it was pulled, and its receipt, lie in ``.pqreg``. It verifies with nothing but a
trust file. The files are those of the manifest and no others; besides them only
``.gitattributes``, ``.cache/huggingface/`` and ``.pqreg/`` at the root are tolerated, because tools leave them there.
Everything is a regular file, with one exception: in a snapshot of a Hugging Face cache, a file may be a link to
``../../blobs/<hex>`` (with one more ``../`` per folder). No other link is followed, and none in a directory's name.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pq_registry import limits
from pq_registry.client.tree import READ, Tree, TreeEntry
from pq_registry.client.verified import VerifiedRelease
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.durable import reported, write_file
from pq_registry.errors import FileSetMismatch, ManifestMismatch, SignatureInvalid, at_step
from pq_registry.format.bundle import encode_bundle, envelope_from_bundles
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.release import Release
from pq_registry.format.statement import EC_BUNDLE_NAME, EVIDENCE, PQ_BUNDLE_NAME, TLOG_PROOF_NAME
from pq_registry.log.receipt import Receipt

TOLERATED: Final = frozenset({".gitattributes", ".cache/huggingface", ".pqreg"})
"""What may lie at the root of a release directory without being part of the release."""
STATUS: Final = (".pqreg", "status.json")
STATUS_RECEIPT: Final = (".pqreg", "status.tlog-proof")
"""The exact envelope of the namespace's status, and its receipt, as the pull found them."""

_BLOB_LINK = re.compile(r"((?:\.\./)+)blobs/([0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
_LISTED = 10
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a directory offers to the verifier: exact bytes, of which nothing is believed yet.

    ``receipt``, ``status`` and ``status_receipt`` are None where there is no such file.
    """

    envelope: bytes
    manifest: bytes
    receipt: bytes | None
    status: bytes | None
    status_receipt: bytes | None


class ReleaseDirectory:
    """A release directory, held open; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            UsageError: if it is not a directory, or cannot be opened.
        """
        self._tree = Tree(path)
        self.path = self._tree.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory; files opened from it stay open."""
        self._tree.close()

    def evidence(self, folder: tuple[str, ...] = ()) -> Evidence:
        """Read the evidence, which lies in ``folder``; nothing is verified yet.

        Raises:
            SignatureInvalid: step 2, if a bundle is missing or the two are not of one envelope.
            ManifestMismatch: step 3, if there is no pqreg.json.
            FormatError: if a file is too large or not what its name says.
            StorageError: if a file cannot be read.
        """
        names = (EC_BUNDLE_NAME, PQ_BUNDLE_NAME)
        bundles = {name: self.small((*folder, name), limits.ENVELOPE_BYTES) for name in names}
        missing = [name for name, data in bundles.items() if data is None]
        if missing:
            halves = "neither half" if len(missing) == 2 else "one half only"
            raise SignatureInvalid(
                f"{self.path} carries {halves} of the signature",
                expected=f"{EC_BUNDLE_NAME} and {PQ_BUNDLE_NAME}",
                found=f"no {' and no '.join(missing)}",
                hint="fetch the release again; a directory signed by other OMS tools is checked with --oms-key",
            )
        manifest = self.small((*folder, MANIFEST_NAME), limits.MANIFEST_BYTES)
        if manifest is None:
            raise ManifestMismatch(f"{self.path} has no {MANIFEST_NAME}", hint="fetch the release again")
        with at_step(2):
            envelope = envelope_from_bundles(bundles[EC_BUNDLE_NAME] or b"", bundles[PQ_BUNDLE_NAME] or b"")
        return Evidence(
            envelope.encode(),
            manifest,
            self.small((*folder, TLOG_PROOF_NAME), limits.TLOG_PROOF_BYTES),
            self.small(STATUS, limits.STATUS_ENVELOPE_BYTES),
            self.small(STATUS_RECEIPT, limits.TLOG_PROOF_BYTES),
        )

    def check_files(self, files: Sequence[FileEntry], *, beside: Collection[str] = (MANIFEST_NAME, *EVIDENCE)) -> None:
        """Step 6: the directory holds ``files``, in their sizes, and no others but files at the root named ``beside``.

        Raises:
            FileSetMismatch: naming what is missing, additional, of another size or not a regular file.
            StorageError: if a directory cannot be read.
        """
        expected = {entry.path.text: entry.size for entry in files}
        additional, wrong = [], []
        with reported("read the directory", self.path):
            for entry in self._tree.walk(skip=TOLERATED):
                size = expected.pop(entry.text, None)
                if entry.text in beside:
                    if isinstance(actual := self._size(entry), str):
                        wrong.append(f"{entry.text!r}: {actual}")
                elif size is None:
                    additional.append(entry.text)
                elif (actual := self._size(entry)) != size:
                    wrong.append(f"{entry.text!r}: {actual}, not {size} bytes")
        complaints = (
            ("missing", [repr(text) for text in expected]),
            ("not part of the release", [repr(text) for text in additional]),
            ("not as signed", wrong),
        )
        found = "; ".join(f"{label}: {_some(texts)}" for label, texts in complaints if texts)
        if found:
            raise FileSetMismatch(
                f"the files in {self.path} are not those of the release",
                expected=f"exactly the {len(files)} files that are signed",
                found=found,
                hint="pull the release again into an empty directory",
            )

    def open(self, entry: FileEntry) -> int:
        """A descriptor of a file of the release; the caller closes it.

        Raises:
            FileSetMismatch: step 6, if it is missing, not a regular file, or of another size.
            StorageError: if it cannot be opened for another reason.
        """
        try:
            descriptor = self._open(entry.path.parts)
        except FileNotFoundError:
            raise _unfit(entry, "nothing") from None
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                raise _unfit(entry, "no regular file") from None
            with reported("open", entry.path.under(self.path)):
                raise
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            os.close(descriptor)
            raise _unfit(entry, f"{status.st_size} bytes" if stat.S_ISREG(status.st_mode) else "no regular file")
        return descriptor

    def small(self, parts: tuple[str, ...], limit: int) -> bytes | None:
        """The content of a small regular file, or one byte more than ``limit``; None if there is none.

        Raises:
            StorageError: if it cannot be read.
        """
        with reported("read", self.path.joinpath(*parts)):
            try:
                descriptor = self._open(parts)
            except FileNotFoundError:
                return None
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return None
            with os.fdopen(descriptor, "rb") as file:
                return file.read(limit + 1)  # one more than allowed, so that the parser sees that it is too large

    def _open(self, parts: tuple[str, ...]) -> int:
        try:
            return self._tree.open(parts)
        except OSError:
            status = self._tree.status(parts)
            if status is None or not stat.S_ISLNK(status.st_mode):
                raise
        with self._tree.directory(parts[:-1]) as parent:
            name = _blob_name(os.readlink(parts[-1], dir_fd=parent), depth=len(parts) - 1)
        if name is None:
            raise FileNotFoundError
        return self._open_blob(name)

    def _open_blob(self, name: str) -> int:
        blobs = os.open(self.path.parent.parent / "blobs", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.open(name, READ, dir_fd=blobs)
        finally:
            os.close(blobs)

    def _size(self, entry: TreeEntry) -> str | int:
        if entry.regular:
            return entry.size
        name = None if entry.link is None else _blob_name(entry.link, depth=entry.text.count("/"))
        if name is None:
            return "no regular file"
        try:
            descriptor = self._open_blob(name)
        except OSError:
            return "a link to nothing"
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return status.st_size if stat.S_ISREG(status.st_mode) else "no regular file"


def write_evidence(
    directory: Path, release: Release, signer: PublicIdentity, *, receipt: Receipt | None = None
) -> None:
    """Write pqreg.json, the receipt and the bundles of a release, durably, with ``model.sig`` as the last.

    Raises:
        StorageError: if a file cannot be written.
    """
    write_file(directory / MANIFEST_NAME, release.manifest_bytes)
    if receipt is not None:
        write_file(directory / TLOG_PROOF_NAME, receipt.proof)
    write_file(directory / PQ_BUNDLE_NAME, encode_bundle(release.envelope, "pq", signer.pq_pem))
    write_file(directory / EC_BUNDLE_NAME, encode_bundle(release.envelope, "ec", signer.ec_pem))


def write_status(tree: Tree, verified: VerifiedRelease) -> None:
    """Keep the status that step 5 relied on, if there is one, so that it can be relied on without a network.

    Raises:
        StorageError: if a file cannot be written or removed.
    """
    kept = verified.status
    with reported("write", tree.path.joinpath(*STATUS)):
        for parts in (STATUS, STATUS_RECEIPT):
            tree.unlink(parts)
        if kept is None:
            return
        with tree.directory(STATUS[:-1], create=True):
            if kept.receipt is not None:
                write_file(tree.path.joinpath(*STATUS_RECEIPT), kept.receipt)
            write_file(tree.path.joinpath(*STATUS), kept.envelope)


def short_file(entry: FileEntry, found: int) -> FileSetMismatch:
    """The error for a file that ends before its signed size."""
    return _unfit(entry, f"{found} bytes")


def _unfit(entry: FileEntry, found: str) -> FileSetMismatch:
    return FileSetMismatch(
        f"{entry.path} is not as signed", expected=f"a regular file of {entry.size} bytes", found=found,
        hint="pull the release again",
    )  # fmt: skip


def _blob_name(link: str, *, depth: int) -> str | None:
    match = _BLOB_LINK.fullmatch(link)
    return match[2] if match is not None and len(match[1]) == len("../") * (depth + 2) else None


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(sorted(texts)[:_LISTED]) + more
