# SPDX-License-Identifier: Apache-2.0
"""How a verified release is shown, to people and as JSON; the same for show, verify and pull."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pqreg_cli.console import Output, count_text, size_text

if TYPE_CHECKING:
    from pq_registry.client.trust import VerifiedRelease
    from pq_registry.format.inner import Inner
    from pq_registry.format.manifest import FileEntry, Manifest
    from pq_registry.format.tag import TagStatement


def show_summary(
    output: Output,
    verified: VerifiedRelease,
    tag: TagStatement | None = None,
    *,
    transfer: str | None = None,
    inner: Inner | None = None,
    more: Sequence[tuple[str, object]] = (),
) -> None:
    """Name, digest, signer, size, what was transferred, and ``more``; then what the trust file let pass unchecked."""
    from pq_registry.format.instant import format_instant

    manifest = verified.release.manifest
    origin = manifest if inner is None else inner
    lineage = [f"{base.name}@{base.release}" for base in origin.lineage]
    output.fields(
        [
            ("release", f"{manifest.name}@{verified.release.digest}"),
            ("tag", None if tag is None else _tag_text(tag)),
            ("signer", verified.signer.id),
            ("signature", f"both halves of {verified.signer.profile.description}"),
            ("created", format_instant(manifest.created)),
            ("sealed", _sealed_text(manifest, inner)),
            ("licence", origin.license),
            ("made from", "\n".join(lineage) or None),
            ("content", _content_text(origin.files)),
            ("transfer", transfer),
            *more,
        ]
    )
    for note in verified.notes:
        output.note(note)


def show_files(output: Output, manifest: Manifest) -> None:
    """The files of a release."""
    rows = [
        (entry.path, size_text(entry.size), len(entry.tensors.tensors) if entry.tensors else "", entry.sha256)
        for entry in manifest.files
    ]
    output.line("")
    output.table(["file", "size", "tensors", "digest"], rows)


def release_json(
    verified: VerifiedRelease, tag: TagStatement | None = None, *, inner: Inner | None = None
) -> dict[str, object]:
    """The members every command about one release has in its JSON; of a sealed one what ``inner`` says, if known."""
    from pq_registry.format.instant import format_instant

    manifest = verified.release.manifest
    origin = manifest if inner is None else inner
    return {
        "name": str(manifest.name),
        "digest": str(verified.release.digest),
        "tag": None if tag is None else _tag_json(tag),
        "signer": {"id": verified.signer.id, "profile": verified.signer.profile.level},
        "created": format_instant(manifest.created),
        "sealed": manifest.sealing is not None,
        "license": origin.license,
        "lineage": [{"name": str(base.name), "release": str(base.release)} for base in origin.lineage],
        "size": sum(entry.size for entry in origin.files),
        "files": len(origin.files),
        "log": _log_json(verified),
        "status": None if verified.status is None else verified.status.statement.sequence,
        "notes": list(verified.notes),
    }


def files_json(manifest: Manifest) -> list[dict[str, object]]:
    """The files of a release."""
    return [
        {
            "path": entry.path.text,
            "size": entry.size,
            "digest": str(entry.sha256),
            "shards": entry.shard_count,
            "tensors": None if entry.tensors is None else len(entry.tensors.tensors),
        }
        for entry in manifest.files
    ]


def _log_json(verified: VerifiedRelease) -> dict[str, object] | None:
    """What its receipt proves; null where the trust file asks for none."""
    from pq_registry.format.instant import format_instant

    receipt = verified.receipt
    if receipt is None:
        return None
    return {
        "origin": receipt.policy.origin,
        "index": receipt.index,
        "attested": None if receipt.attested is None else format_instant(receipt.attested),
        "witnesses": sorted(receipt.cosigners),
    }


def _tag_text(tag: TagStatement) -> str:
    from pq_registry.format.instant import format_instant

    return f"{tag.tag}, sequence {tag.sequence}, valid until {format_instant(tag.expires)}"


def _tag_json(tag: TagStatement) -> dict[str, object]:
    from pq_registry.format.instant import format_instant

    return {
        "tag": str(tag.tag),
        "sequence": tag.sequence,
        "issued": format_instant(tag.issued),
        "expires": format_instant(tag.expires),
        "signer": tag.signer,
    }


def _sealed_text(manifest: Manifest, inner: Inner | None) -> str | None:
    if manifest.sealing is None:
        return None
    return "yes; only who was granted it can open it" if inner is None else "yes; unsealed here"


def _content_text(files: Sequence[FileEntry]) -> str:
    tensors = sum(len(entry.tensors.tensors) for entry in files if entry.tensors)
    text = f"{count_text(len(files), 'file')}, {size_text(sum(entry.size for entry in files))}"
    return text + (f", {count_text(tensors, 'tensor')}" if tensors else "")
