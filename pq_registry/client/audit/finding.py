# SPDX-License-Identifier: Apache-2.0
"""What an audit can find. The codes are part of the output's contract; docs/operations/audit.md explains each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import Value, encode_canonical


class Code(StrEnum):
    """The kinds of findings, each with a sentence for people (``Code.meaning``)."""

    def __new__(cls, value: str, _meaning: str) -> Self:
        """The code alone is the value."""
        made = str.__new__(cls, value)
        made._value_ = value
        return made

    def __init__(self, _value: str, meaning: str) -> None:
        self.meaning = meaning

    # the log and the registry
    CHECKPOINT_STALE = "checkpoint-stale", "the newest checkpoint to be had is old: the log may be frozen"
    LEAF_UNREADABLE = "leaf-unreadable", "an entry of the log is not a leaf of this registry's form"
    LEAF_DUPLICATE = "leaf-duplicate", "one statement was logged twice, with different signatures"
    LEAF_MISMATCH = "leaf-mismatch", "the leaf says something else than the statement it stands for"
    STATEMENT_WITHHELD = "statement-withheld", "the registry does not show a statement that was logged"
    STATEMENT_ALTERED = "statement-altered", "the registry shows another statement than the one that was logged"
    STATEMENT_UNREADABLE = "statement-unreadable", "the statement is not of the form of its kind"
    RECEIPT_MISSING = "receipt-missing", "the registry has no receipt for a statement that was logged"
    RECEIPT_INVALID = "receipt-invalid", "the receipt the registry hands out does not verify"
    # who signed
    UNKNOWN_KEY = "unknown-key", "an identity the trust file does not list signed for the namespace"
    ROLE_MISSING = "role-missing", "an identity signed what its role in the trust file does not cover"
    SIGNATURE_INVALID = "signature-invalid", "a half of the signature does not verify"
    PROFILE_TOO_LOW = "profile-too-low", "the signer's profile is below the namespace's minimum"
    VALIDITY_LAPSED = "validity-lapsed", "the signer was not valid at the attested time"
    IDENTITY_REVOKED = "identity-revoked", "a revoked identity was used after the time of its revocation"
    # tags
    TAG_CHAIN_BROKEN = "tag-chain-broken", "statements of a tag do not continue one another"
    TAG_EQUIVOCATION = "tag-equivocation", "two statements of a tag carry the same sequence number"
    TAG_MOVED_BACK = "tag-moved-back", "a tag was moved to a release older than the one before"
    TAG_TARGET_UNLOGGED = "tag-target-unlogged", "a tag points at a release that is not in the log"
    TAG_TARGET_REVOKED = "tag-target-revoked", "a tag was pointed at a release after that was revoked"
    # grants
    GRANT_CHAIN_BROKEN = "grant-chain-broken", "statements of a grant do not continue one another"
    GRANT_EQUIVOCATION = "grant-equivocation", "two statements of a grant carry the same sequence number"
    RECIPIENT_UNCERTIFIED = "recipient-uncertified", "a grant went to a recipient nobody had certified"
    RECIPIENT_REVOKED = "recipient-revoked", "a grant went to a recipient after that was revoked"
    # statuses
    STATUS_CHAIN_BROKEN = "status-chain-broken", "status statements do not continue one another"
    STATUS_EQUIVOCATION = "status-equivocation", "two status statements carry the same sequence number"
    STATUS_SHRANK = "status-shrank", "a status statement takes a revocation back"
    # content
    MANIFEST_MISSING = "manifest-missing", "the registry does not have the manifest of a release"
    MANIFEST_ALTERED = "manifest-altered", "the manifest the registry has is not the signed one"
    BLOB_MISSING = "blob-missing", "the registry does not have a file of a release"
    BLOB_ALTERED = "blob-altered", "a file of a release has another size or content than was signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as the trust file and the log's history demand."""

    code: Code
    message: str
    name: str = ""
    index: int | None = None
    statement: Digest | None = None
    expected: str | None = None
    found: str | None = None

    @property
    def namespace(self) -> str:
        """The namespace it concerns, in the form in which namespaces are compared; empty if none."""
        return self.name.partition("/")[0].lower()

    @property
    def key(self) -> str:
        """What makes it the same finding when it is made again: all it says."""
        return hashlib.sha256(encode_canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Value]:
        """The members of its JSON."""
        return {
            "code": self.code.value,
            "name": self.name,
            "index": self.index,
            "statement": None if self.statement is None else str(self.statement),
            "message": self.message,
            "expected": self.expected,
            "found": self.found,
        }
