# SPDX-License-Identifier: Apache-2.0
"""A release: statement, manifest and envelope, and the rules that bind them to one another.

``bind`` is the part of the verification (DESIGN §5, steps 3 and 6) that compares the two documents. It says nothing
about signatures: that the envelope verifies is the caller's business, before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pq_registry.errors import FileSetMismatch, ManifestMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry, Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.statement import ReleaseStatement, Resource

_CONTENT_DOMAIN = b"pqreg/v1/content\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The documents of one release, bound to one another."""

    name: RepositoryName
    digest: Digest
    statement: ReleaseStatement
    manifest: Manifest
    manifest_bytes: bytes
    envelope: Envelope


def statement_of(manifest: Manifest, manifest_bytes: bytes) -> ReleaseStatement:
    """The release statement that binds ``manifest``, whose exact bytes are ``manifest_bytes``."""
    resources = [Resource(entry.path, entry.sha256) for entry in manifest.files]
    resources.append(Resource(ReleasePath(MANIFEST_NAME), Digest.of(manifest_bytes)))
    return ReleaseStatement(manifest.name.name, tuple(sorted(resources, key=lambda resource: resource.path.text)))


def bind(statement: ReleaseStatement, payload_digest: Digest, manifest_bytes: bytes) -> Manifest:
    """Read the manifest that ``statement`` signs, and check that the two say the same.

    The bytes are compared with their signed digest before a byte of them is parsed.

    Args:
        statement: the release statement, whose envelope has been verified.
        payload_digest: the release digest, to name the release in messages.
        manifest_bytes: the exact bytes of pqreg.json.

    Raises:
        ManifestMismatch: if these are not the signed bytes, or name and digests disagree with the statement.
        FileSetMismatch: if one of the two lists a file that the other does not.
        FormatError: if the signed bytes are not a manifest.
    """
    signed = {resource.path.text: resource.digest for resource in statement.resources}
    expected = signed.pop(MANIFEST_NAME, None)
    if expected is None:
        raise ManifestMismatch(
            f"release {payload_digest} has no {MANIFEST_NAME}",
            expected=f"{MANIFEST_NAME} among the signed files",
            hint="releases signed by other tools are checked with pqreg verify --oms-key",
        )
    found = Digest.of(manifest_bytes)
    if found != expected:
        raise ManifestMismatch(
            f"{MANIFEST_NAME} is not the one release {payload_digest} signs", expected=expected, found=found
        )
    manifest = Manifest.parse(manifest_bytes)
    if manifest.name.name != statement.model_name:
        raise ManifestMismatch(
            f"{MANIFEST_NAME} and the statement of release {payload_digest} name different models",
            expected=statement.model_name,
            found=manifest.name,
        )
    listed = {entry.path.text: entry.sha256 for entry in manifest.files}
    if listed.keys() != signed.keys():
        raise FileSetMismatch(
            f"{MANIFEST_NAME} and the statement of release {payload_digest} list different files",
            expected="the signed files",
            found="only in one of the two: " + ", ".join(sorted(listed.keys() ^ signed.keys()))[:300],
        )
    for path, digest in listed.items():
        if digest != signed[path]:
            raise ManifestMismatch(
                f"{MANIFEST_NAME} and the statement of release {payload_digest} disagree about {path}",
                expected=signed[path],
                found=digest,
            )
    return manifest


def content_digest(files: Iterable[FileEntry]) -> Digest:
    """What two releases have in common when nobody changed a file: names and content, not signer or time.

    Only an index to recognise unchanged content by; it is never signed and nothing is trusted because of it.
    """
    hasher = hashlib.sha256(_CONTENT_DOMAIN)
    for entry in sorted(files, key=lambda file: file.path.text):
        path = entry.path.text.encode("utf-8")
        hasher.update(len(path).to_bytes(4, "big") + path + entry.sha256.raw)
    return Digest(hasher.hexdigest())
