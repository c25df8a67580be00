# SPDX-License-Identifier: Apache-2.0
"""What an audit can find. The codes are part of the output's contract; docs/operations/audit.md explains each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import Value, encode_canonical


class Code(StrEnum):
    """The kinds of findings."""

    # the log and the registry
    LOG_EQUIVOCATION = "log-equivocation"
    CHECKPOINT_STALE = "checkpoint-stale"
    LEAF_UNREADABLE = "leaf-unreadable"
    LEAF_DUPLICATE = "leaf-duplicate"
    LEAF_MISMATCH = "leaf-mismatch"
    STATEMENT_WITHHELD = "statement-withheld"
    STATEMENT_ALTERED = "statement-altered"
    STATEMENT_UNREADABLE = "statement-unreadable"
    RECEIPT_MISSING = "receipt-missing"
    RECEIPT_INVALID = "receipt-invalid"
    # who signed
    UNKNOWN_KEY = "unknown-key"
    ROLE_MISSING = "role-missing"
    SIGNATURE_INVALID = "signature-invalid"
    PROFILE_TOO_LOW = "profile-too-low"
    VALIDITY_LAPSED = "validity-lapsed"
    IDENTITY_REVOKED = "identity-revoked"
    # tags
    TAG_CHAIN_BROKEN = "tag-chain-broken"
    TAG_EQUIVOCATION = "tag-equivocation"
    TAG_MOVED_BACK = "tag-moved-back"
    TAG_TARGET_UNLOGGED = "tag-target-unlogged"
    TAG_TARGET_REVOKED = "tag-target-revoked"
    # grants
    GRANT_CHAIN_BROKEN = "grant-chain-broken"
    GRANT_EQUIVOCATION = "grant-equivocation"
    RECIPIENT_UNCERTIFIED = "recipient-uncertified"
    RECIPIENT_REVOKED = "recipient-revoked"
    # statuses
    STATUS_CHAIN_BROKEN = "status-chain-broken"
    STATUS_EQUIVOCATION = "status-equivocation"
    STATUS_SHRANK = "status-shrank"
    # content
    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_ALTERED = "manifest-altered"
    BLOB_MISSING = "blob-missing"
    BLOB_ALTERED = "blob-altered"

    @property
    def meaning(self) -> str:
        """What it says, in a sentence for people."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    Code.LOG_EQUIVOCATION: "the log has signed two histories; both checkpoints are kept as evidence",
    Code.CHECKPOINT_STALE: "the newest checkpoint to be had is old: the log may be frozen",
    Code.LEAF_UNREADABLE: "an entry of the log is not a leaf of this registry's form",
    Code.LEAF_DUPLICATE: "one statement was logged twice, with different signatures",
    Code.LEAF_MISMATCH: "the leaf says something else than the statement it stands for",
    Code.STATEMENT_WITHHELD: "the registry does not show a statement that was logged",
    Code.STATEMENT_ALTERED: "the registry shows another statement than the one that was logged",
    Code.STATEMENT_UNREADABLE: "the statement is not of the form of its kind",
    Code.RECEIPT_MISSING: "the registry has no receipt for a statement that was logged",
    Code.RECEIPT_INVALID: "the receipt the registry hands out does not verify",
    Code.UNKNOWN_KEY: "an identity the trust file does not list signed for the namespace",
    Code.ROLE_MISSING: "an identity signed what its role in the trust file does not cover",
    Code.SIGNATURE_INVALID: "a half of the signature does not verify",
    Code.PROFILE_TOO_LOW: "the signer's profile is below the namespace's minimum",
    Code.VALIDITY_LAPSED: "the signer was not valid at the attested time",
    Code.IDENTITY_REVOKED: "a revoked identity was used after the time of its revocation",
    Code.TAG_CHAIN_BROKEN: "statements of a tag do not continue one another",
    Code.TAG_EQUIVOCATION: "two statements of a tag carry the same sequence number",
    Code.TAG_MOVED_BACK: "a tag was moved to a release older than the one before",
    Code.TAG_TARGET_UNLOGGED: "a tag points at a release that is not in the log",
    Code.TAG_TARGET_REVOKED: "a tag was pointed at a release after that was revoked",
    Code.GRANT_CHAIN_BROKEN: "statements of a grant do not continue one another",
    Code.GRANT_EQUIVOCATION: "two statements of a grant carry the same sequence number",
    Code.RECIPIENT_UNCERTIFIED: "a grant went to a recipient nobody had certified",
    Code.RECIPIENT_REVOKED: "a grant went to a recipient after that was revoked",
    Code.STATUS_CHAIN_BROKEN: "status statements do not continue one another",
    Code.STATUS_EQUIVOCATION: "two status statements carry the same sequence number",
    Code.STATUS_SHRANK: "a status statement takes a revocation back",
    Code.MANIFEST_MISSING: "the registry does not have the manifest of a release",
    Code.MANIFEST_ALTERED: "the manifest the registry has is not the signed one",
    Code.BLOB_MISSING: "the registry does not have a file of a release",
    Code.BLOB_ALTERED: "a file of a release has another size or content than was signed",
}


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
