# SPDX-License-Identifier: Apache-2.0
"""Releases that their signer did not make but imported: what ``pqreg.import.json`` says, and when it may say it.

The file is covered by the release's signatures like any other, so its words are the signer's. It counts only if it is
about exactly the release's files: someone may have changed the model after the import, and then it is a lie about
them. A push refuses to sign that; a reader who meets it all the same is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.client.scan import Scan, SourceDirectory, read_exactly
from pq_registry.errors import FileDigestMismatch, FormatError, PolicyError, VerificationError
from pq_registry.format.digest import Digest
from pq_registry.format.importing import IMPORT_NAME, ImportStatement, read_import
from pq_registry.format.manifest import FileEntry


@dataclass(frozen=True, slots=True)
class ImportClaim:
    """What a release says about its import: a statement about its files, or None and why it is not one."""

    statement: ImportStatement | None
    refused: str | None = None


def import_claim(files: Sequence[FileEntry], read: Callable[[FileEntry], bytes]) -> ImportClaim | None:
    """What a release with these files says about its import; None if it does not say that it is one.

    Args:
        files: the files of a verified manifest.
        read: the content of a small one of them; unverified.

    Raises:
        FileDigestMismatch: step 8, if what was read is not what was signed.
        PqregError: what ``read`` raises.
    """
    entry = next((entry for entry in files if entry.path.text == IMPORT_NAME), None)
    if entry is None:
        return None
    if entry.size > limits.IMPORT_BYTES:
        return ImportClaim(None, f"it has {entry.size} bytes")
    data = read(entry)
    if (found := Digest.of(data)) != entry.sha256:
        raise FileDigestMismatch(f"{IMPORT_NAME} is not what was signed", expected=entry.sha256, found=found)
    try:
        return ImportClaim(read_import(data, files))
    except (FormatError, VerificationError) as error:
        return ImportClaim(None, str(error))


def check_import(source: SourceDirectory, scan: Scan, files: Sequence[FileEntry]) -> None:
    """Refuse to publish a directory whose import statement is not about its files.

    Raises:
        PolicyError: if there is one, and it is not.
        SourceChanged: if it changed since it was hashed.
        StorageError: if it cannot be read.
    """

    def read(entry: FileEntry) -> bytes:
        file = next(file for file in scan.files if file.path == entry.path)
        buffer = bytearray(entry.size)
        descriptor = source.open(file)
        try:
            read_exactly(file, descriptor, memoryview(buffer), 0)
        finally:
            os.close(descriptor)
        return bytes(buffer)

    require_description(import_claim(files, read))


def require_description(claim: ImportClaim | None) -> None:
    """Refuse to sign an import statement that is not about the files it stands beside.

    Raises:
        PolicyError: if ``claim`` is one.
    """
    if claim is not None and claim.refused is not None:
        raise PolicyError(
            f"{IMPORT_NAME} does not describe what is to be published",
            expected="exactly the files that were imported",
            found=claim.refused,
            hint=f"remove {IMPORT_NAME} if the model was changed: it is then your own, made from the import (--base)",
        )
