# SPDX-License-Identifier: Apache-2.0
"""``pqreg.inner``: what a sealed release says to those who may read it, in the clear once it is unsealed.

It holds what the manifest of a plain release would: per plaintext file path, size, SHA-256, shard digests and tensor
table, the lineage and the licence. Beside them, ``blind`` is 256 random bits, so that ``sealing.inner_sha256`` in the
public manifest confirms no guess about the content; and ``oms`` is the OpenSSF Model Signing bundle of the plaintext
with the EC half only, for stock tools after unsealing. That bundle is no evidence of this project: it lists no
``pqreg.json`` and lacks a half, so nothing here accepts it as a release.

Its exact bytes, the RFC 8785 form of its value, are what ``inner_sha256`` commits to. docs/spec/sealing.md is its
specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, InnerMismatch, PqregError
from pq_registry.format.bundle import parse_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.files import FileEntry, take_files
from pq_registry.format.manifest import (
    BaseRelease,
    Manifest,
    check_files,
    check_origin,
    lineage_value,
    take_origin,
)
from pq_registry.format.name import RepositoryName
from pq_registry.format.sealing import INNER_NAME, sealed_size
from pq_registry.format.statement import ReleaseStatement, Resource
from pq_registry.format.strict_json import (
    Fields,
    encode_base64,
    encode_canonical,
    encode_plain,
    parse_canonical,
    parse_strict,
)

SCHEMA: Final = "urn:pq-registry:inner:v1"
BLIND_BYTES: Final = 32


def plaintext_statement(name: RepositoryName, files: tuple[FileEntry, ...]) -> ReleaseStatement:
    """The OMS statement about the plaintext ``files`` alone, whose EC half ``oms`` carries."""
    return ReleaseStatement(name.name, tuple(Resource(entry.path, entry.sha256) for entry in files))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """The content of pqreg.inner; ``oms`` are the exact bytes of the bundle."""

    blind: bytes
    files: tuple[FileEntry, ...]
    oms: bytes
    lineage: tuple[BaseRelease, ...] = ()
    license: str | None = None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the field.
        """
        if len(self.blind) != BLIND_BYTES:
            raise FormatError(
                f"{INNER_NAME}: field 'blind' has a wrong length",
                expected=f"{BLIND_BYTES} bytes",
                found=f"{len(self.blind)} bytes",
            )
        check_files(self.files)
        if len(self.files) > limits.SEALED_FILES or any(entry.sealed for entry in self.files):
            raise FormatError(
                f"{INNER_NAME} lists files that cannot be sealed",
                expected=f"at most {limits.SEALED_FILES} plaintext files",
                found=len(self.files),
            )
        check_origin(self.lineage, self.license, INNER_NAME)
        statement = self.oms_statement
        if statement.resources != tuple(Resource(entry.path, entry.sha256) for entry in self.files):
            raise FormatError(
                f"{INNER_NAME}: field 'oms' signs other files than those listed", expected="the same paths and digests"
            )

    @property
    def oms_statement(self) -> ReleaseStatement:
        """The statement in ``oms``; its signature is not verified here.

        Raises:
            FormatError: if ``oms`` is not a bundle around a statement of our form.
        """
        try:
            return ReleaseStatement.parse(parse_bundle(self.oms).payload)
        except PqregError as error:
            raise FormatError(
                f"{INNER_NAME}: field 'oms': {error.message}", expected=error.expected, found=error.found
            ) from None

    def encode(self) -> bytes:
        """The exact bytes of pqreg.inner, before sealing.

        Raises:
            FormatError: if a name holds text that cannot be written as UTF-8, or the whole is too large.
        """
        # The manifest's fast encoder: all keys are ours, and those of the bundle.
        data = encode_plain(
            {
                "blind": encode_base64(self.blind),
                "files": [entry.to_value() for entry in self.files],
                "license": self.license,
                "lineage": lineage_value(self.lineage),
                "oms": parse_strict(self.oms, what="the bundle", limit=limits.ENVELOPE_BYTES),
                "schema": SCHEMA,
            }
        )
        if len(data) > limits.INNER_BYTES:
            raise FormatError(
                f"{INNER_NAME} is too large", expected=f"at most {limits.INNER_BYTES} bytes", found=f"{len(data)} bytes"
            )
        return data

    @classmethod
    def parse(cls, data: bytes) -> Inner:
        """Read the plaintext of pqreg.inner; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is not of exactly our form.
        """
        fields = Fields(parse_canonical(data, what=INNER_NAME, limit=limits.INNER_BYTES), INNER_NAME)
        fields.literal("schema", SCHEMA)
        blind = fields.base64("blind", limit=BLIND_BYTES)
        lineage, license_ = take_origin(fields)
        files = take_files(fields)
        oms = encode_canonical(fields.take("oms"))
        fields.done()
        return cls(blind=blind, files=files, oms=oms, lineage=lineage, license=license_)


def bind_inner(manifest: Manifest, data: bytes) -> Inner:
    """Read pqreg.inner and check that it is the one ``manifest`` commits to and describes its files (step 7).

    The bytes are compared with their signed digest before a byte of them is parsed.

    Args:
        manifest: the verified manifest of a sealed release.
        data: the plaintext of pqreg.inner.

    Raises:
        InnerMismatch: if these are not the committed bytes, or files, sizes or the model's name disagree.
        FormatError: if the committed bytes are not of our form, or the release is not sealed.
    """
    if manifest.sealing is None:
        raise FormatError("the release is not sealed", expected="a manifest with sealing")
    found = Digest.of(data)
    if found != manifest.sealing.inner_sha256:
        raise InnerMismatch(
            f"{INNER_NAME} is not the one the manifest commits to",
            expected=manifest.sealing.inner_sha256,
            found=found,
        )
    inner = Inner.parse(data)
    stored = manifest.sealed_files
    if len(stored) != len(inner.files):
        raise InnerMismatch(
            f"{INNER_NAME} and the manifest list different numbers of files",
            expected=len(stored),
            found=len(inner.files),
        )
    for outer, entry in zip(stored, inner.files, strict=True):
        if outer.size != sealed_size(entry.size):
            raise InnerMismatch(
                f"{INNER_NAME} and the manifest disagree about the size of {outer.path}",
                expected=f"{sealed_size(entry.size)} bytes for {entry.size} of plaintext",
                found=f"{outer.size} bytes",
            )
    if inner.oms_statement.model_name != manifest.name.name:
        raise InnerMismatch(
            f"{INNER_NAME} and the manifest name different models",
            expected=manifest.name.name,
            found=inner.oms_statement.model_name,
        )
    return inner
