# SPDX-License-Identifier: Apache-2.0
"""How an import is shown: where a release comes from that its signer did not make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pqreg_cli.console import Output, count_text

if TYPE_CHECKING:
    from pq_registry.client.imports import ImportClaim
    from pq_registry.client.transport import RegistryClient
    from pq_registry.format.importing import ImportStatement
    from pq_registry.format.manifest import FileEntry


_NAMED = 5


def import_fields(statement: ImportStatement) -> tuple[tuple[str, object], ...]:
    """The rows that say so."""
    source = statement.source
    left_out = [file.path for file in statement.left_out]
    return (
        ("import of", f"{source.name}@{source.commit} ({source.revision} at {source.endpoint})"),
        ("made by", "not by the signer of this release, who imported it"),
        ("its makers", _signed_text(statement)),
        ("converted", _converted_text(statement)),
        ("left out", count_text(len(left_out), "file") if left_out else None),
    )


def import_json(statement: ImportStatement) -> dict[str, object]:
    """The same as JSON."""
    source, signature = statement.source, statement.signature
    return {
        "endpoint": source.endpoint,
        "repository": source.repository,
        "revision": source.revision,
        "commit": source.commit,
        "files": len(statement.imported),
        "left_out": [{"path": file.path.text, "reason": str(file.left_out)} for file in statement.left_out],
        "converted": [
            {"path": file.path.text, "into": made.path.text, "torch": made.torch} for file, made in statement.converted
        ],
        "signature": None if signature is None else signature.to_value(),
    }


def directory_claim(path: Path, files: Sequence[FileEntry]) -> ImportClaim | None:
    """What the verified release in a directory says about its import, if it does."""
    from pq_registry import limits
    from pq_registry.client.directory import ReleaseDirectory
    from pq_registry.client.imports import import_claim

    with ReleaseDirectory(path) as directory:
        return import_claim(files, lambda entry: directory.small(entry.path.parts, limits.IMPORT_BYTES) or b"")


def remote_claim(client: RegistryClient, files: Sequence[FileEntry]) -> ImportClaim | None:
    """What a verified release in a registry says about its import, if it does."""
    from pq_registry.client.imports import import_claim

    return import_claim(files, lambda entry: client.blob_bytes(entry.sha256, entry.size))


def claim_fields(claim: ImportClaim | None) -> tuple[tuple[str, object], ...]:
    """The rows about a claim."""
    return () if claim is None or claim.statement is None else import_fields(claim.statement)


def claim_json(claim: ImportClaim | None) -> dict[str, object] | None:
    """A claim as JSON; null where there is none that holds."""
    return None if claim is None or claim.statement is None else import_json(claim.statement)


def warn_of_claim(output: Output, claim: ImportClaim | None) -> None:
    """Say so if a release claims to be an import and its claim is not about its files."""
    if claim is not None and claim.refused is not None:
        output.warning(f"pqreg.import.json says nothing about this release: {claim.refused}")


def _converted_text(statement: ImportStatement) -> str | None:
    made = [f"{file.path} to {into.path}" for file, into in statement.converted]
    if not made:
        return None
    more = f" and {len(made) - _NAMED} more" if len(made) > _NAMED else ""
    return f"by the importer: {', '.join(made[:_NAMED])}{more}"


def _signed_text(statement: ImportStatement) -> str:
    signature = statement.signature
    if signature is None:
        return "did not sign it"
    if signature.verified is None:
        return f"left a signature ({signature.path}), which the importer did not check"
    details = ", ".join(f"{name} {value}" for name, value in signature.details)
    return f"signed it, which the importer verified: {signature.verified}, {details}"
