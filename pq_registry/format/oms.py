# SPDX-License-Identifier: Apache-2.0
"""Foreign signatures: what stock OpenSSF Model Signing tools write, for ``pqreg verify --oms-key``.

Releases of this project are never read with this module: it accepts more than one form of the same statement. It
reads what model_signing 1.1.1 writes for a key: a Sigstore bundle v0.3 with one signature, whose payload is an
in-toto statement in any strict JSON, method ``files`` with SHA-256, resources in any order, any ``ignore_paths``.
Sharded or otherwise hashed signatures, certificates and transparency log entries are refused with a sentence that
says so. The OMS root is recomputed; names must stay inside the directory that is checked.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.errors import FormatError, StatementMismatch
from pq_registry.format.bundle import BUNDLE_TYPE
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import PAYLOAD_TYPE
from pq_registry.format.statement import RELEASE_PREDICATE, STATEMENT_TYPE, take_subject
from pq_registry.format.strict_json import Fields, parse_strict

# Sharded statements carry shard_size as a fraction (4.0), which strict JSON refuses with a less helpful sentence. An
# unescaped quote ends a string, so this text can only be the member itself.
_SHARDED = re.compile(rb'"method"\s*:\s*"shards"')
_ONLY_FILES = "only signatures over whole files with SHA-256 can be checked here; use model_signing verify for others"


@dataclass(frozen=True, slots=True)
class ForeignBundle:
    """A payload and the only signature over it. ``hint`` is the signer's and proves nothing."""

    payload: bytes
    signature: bytes
    hint: str | None


@dataclass(frozen=True, slots=True)
class ForeignStatement:
    """What a stock tool signed: a name, and names and digests of files in its own order."""

    model_name: str
    resources: tuple[tuple[str, Digest], ...]
    ignore_paths: tuple[str, ...]
    allow_symlinks: bool

    @classmethod
    def parse(cls, payload: bytes) -> ForeignStatement:
        """Read an OMS v1.0 statement.

        Raises:
            FormatError: if ``payload`` is not one, uses another method or hash, or names a file outside its directory.
            StatementMismatch: if it is of another predicate type, or its root is not that of its resources.
        """
        what = "the OMS statement"
        if _SHARDED.search(payload):
            raise _unsupported("method shards")
        fields = Fields(parse_strict(payload, what=what, limit=limits.STATEMENT_BYTES), "OMS statement")
        fields.literal("_type", STATEMENT_TYPE)
        kind = fields.text("predicateType")
        if kind != RELEASE_PREDICATE:
            raise StatementMismatch(f"{what} is of another kind", expected=RELEASE_PREDICATE, found=kind)
        model_name, root = take_subject(fields.objects("subject", minimum=1, limit=1)[0])
        predicate = fields.object("predicate")
        fields.done()
        ignore_paths, allow_symlinks = _serialization(predicate.object("serialization"))
        resources = tuple(_resource(entry) for entry in predicate.objects("resources", limit=limits.FILES + 1))
        predicate.done()
        if len({name for name, _ in resources}) != len(resources):
            raise FormatError(f"{what} lists a file twice", expected="each name once")
        hasher = hashlib.sha256()
        for _, digest in resources:
            hasher.update(digest.raw)
        if hasher.hexdigest() != root.hex:
            raise StatementMismatch(
                f"the root of {what} is not that of its resources", expected=hasher.hexdigest(), found=root.hex
            )
        return cls(model_name, resources, ignore_paths, allow_symlinks)


def parse_foreign_bundle(data: bytes) -> ForeignBundle:
    """Read a Sigstore bundle that was signed with a key.

    Raises:
        FormatError: if ``data`` is not one.
    """
    fields = Fields(parse_strict(data, what="the Sigstore bundle", limit=limits.ENVELOPE_BYTES), "Sigstore bundle")
    fields.literal("mediaType", BUNDLE_TYPE)
    material = fields.object("verificationMaterial")
    if not material.has("publicKey"):
        raise FormatError(
            "the Sigstore bundle was not signed with a key",
            expected="verificationMaterial.publicKey",
            hint="signatures by certificate or Sigstore identity are checked with model_signing verify",
        )
    key = material.object("publicKey")
    hint = key.optional("hint", str) if key.has("hint") else None  # older releases of the tool wrote none
    key.done()
    if material.has("tlogEntries"):
        material.array("tlogEntries", limit=0)
    material.done()
    envelope = fields.object("dsseEnvelope")
    fields.done()
    envelope.literal("payloadType", PAYLOAD_TYPE)
    payload = envelope.base64("payload", limit=limits.STATEMENT_BYTES)
    signature = envelope.objects("signatures", minimum=1, limit=1)[0]
    envelope.done()
    if signature.has("keyid"):
        signature.literal("keyid", "")
    raw = signature.base64("sig", limit=limits.SIGNATURE_BYTES)
    signature.done()
    return ForeignBundle(payload, raw, hint)


def _serialization(fields: Fields) -> tuple[tuple[str, ...], bool]:
    method, hash_type = fields.text("method"), fields.text("hash_type")
    if (method, hash_type) != ("files", "sha256"):
        raise _unsupported(f"method {method} with hash_type {hash_type}")
    allow_symlinks = fields.boolean("allow_symlinks")
    ignore_paths = tuple(fields.texts("ignore_paths", limit=limits.FILES)) if fields.has("ignore_paths") else ()
    fields.done()
    return ignore_paths, allow_symlinks


def _unsupported(found: str) -> FormatError:
    return FormatError(
        "the OMS statement uses a method that is not supported",
        expected="method files with hash_type sha256",
        found=found[:120],
        hint=_ONLY_FILES,
    )


def _resource(fields: Fields) -> tuple[str, Digest]:
    algorithm = fields.text("algorithm")
    if algorithm != "sha256":
        raise _unsupported(f"algorithm {algorithm}")
    digest = fields.parsed("digest", Digest)
    name = fields.text("name", limit=limits.PATH_BYTES)
    fields.done()
    # These are names of files to read, never to write, so Windows' rules are left to Windows; leaving the directory
    # is what must not happen (the stock tool reads ../x when told to ignore unsigned files).
    if "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise FormatError(
            "the OMS statement names a file outside its directory", expected="a relative path", found=repr(name)[:120]
        )
    return name, digest
