# SPDX-License-Identifier: Apache-2.0
"""What the numbered steps of the verification refuse with; see the drawing in ``pq_registry.errors``."""

from __future__ import annotations

from pq_registry.errors.base import EXIT_MISBEHAVED, VerificationError


class TrustError(VerificationError):
    """Step 0: there is no trust file that could be believed."""

    default_step = 0


class TrustMissing(TrustError):
    """No trust file is configured, or it says nothing about the namespace."""


class TrustExpired(TrustError):
    """The trust file has expired."""


class TrustRollback(TrustError):
    """A trust file that should replace the present one is not newer."""


class TagError(VerificationError):
    """Step 1: a tag does not lead to a release."""

    default_step = 1


class TagExpired(TagError):
    """The tag statement has expired."""


class TagRollback(TagError):
    """The tag statement is older than one this client has seen."""


class TagEquivocation(TagError):
    """Two different tag statements carry the same sequence number."""


class TagWithdrawn(TagError):
    """The publisher withdrew the tag."""


class SignatureError(VerificationError):
    """Step 2: the envelope is not signed as it must be."""

    default_step = 2


class SignatureInvalid(SignatureError):
    """A half of the hybrid signature is missing, malformed or wrong."""


class UntrustedSigner(SignatureError):
    """No identity of the trust file signed this envelope."""


class StatementError(VerificationError):
    """Step 3: what was signed is not what was asked for."""

    default_step = 3


class StatementMismatch(StatementError):
    """The signed statement is of another type, subject or root."""


class ManifestMismatch(StatementError):
    """The manifest and the signed statement disagree."""


class ProfileTooLow(StatementError):
    """The signer's profile is below what the namespace demands."""


class LogError(VerificationError):
    """Step 4: the transparency log does not vouch for the statement."""

    default_step = 4


class ReceiptMissing(LogError):
    """The trust file demands a receipt of the log and there is none."""


class ReceiptInvalid(LogError):
    """The receipt is of another leaf, or does not prove that the leaf is in the tree."""


class CheckpointInvalid(LogError):
    """The checkpoint is not signed by the log of the policy, or carries a wrong signature."""


class ConsistencyInvalid(LogError):
    """The proof does not show that the smaller tree is the start of the larger one."""


class TileMismatch(LogError):
    """A tile or entry bundle does not belong to the tree of the checkpoint."""


class QuorumNotMet(LogError):
    """The checkpoint lacks the cosignatures that the policy demands."""


class LogStale(LogError):
    """The newest checkpoint to be had is older than the policy of the caller allows."""


class LogMisbehaved(LogError):
    """The log contradicts itself; what proves it is kept."""

    exit_code = EXIT_MISBEHAVED


class LogRollback(LogMisbehaved):
    """The log shows a smaller tree than one it has signed before."""


class LogEquivocation(LogMisbehaved):
    """The log has signed two trees of which neither is the start of the other."""


class IdentityLapsed(VerificationError):
    """Step 4: the signer's validity window does not hold."""

    default_step = 4


class StatusError(VerificationError):
    """Step 5: what is revoked is not known, or this is."""

    default_step = 5


class StatusUnavailable(StatusError):
    """The trust file demands news about revocations and there is none."""


class StatusExpired(StatusError):
    """The status statement has expired."""


class StatusRollback(StatusError):
    """The status statement is older than one this client has seen, or takes a revocation back."""


class StatusEquivocation(StatusError):
    """Two different status statements carry the same sequence number."""


class Revoked(StatusError):
    """The identity, release, recipient or grant has been revoked."""


class ReleaseError(VerificationError):
    """Step 6: the release is not the one expected."""

    default_step = 6


class NameMismatch(ReleaseError):
    """The release belongs to another repository."""


class DigestMismatch(ReleaseError):
    """The release has another digest than the one demanded."""


class FileSetMismatch(ReleaseError):
    """Files are missing, additional or of the wrong size."""


class SealingError(VerificationError):
    """Step 7: a sealed release does not open."""

    default_step = 7


class GrantMissing(SealingError):
    """There is no grant of this release for the recipient key, or no recipient key."""


class GrantMismatch(SealingError):
    """The grant is of another release, or for another recipient."""


class GrantRollback(SealingError):
    """The grant statement is older than one this client has seen."""


class GrantEquivocation(SealingError):
    """Two different grant statements carry the same sequence number."""


class GrantWithdrawn(SealingError):
    """The publisher withdrew the grant."""


class GrantExpired(SealingError):
    """The grant has expired."""


class GrantInvalid(SealingError):
    """What the grant wraps does not open with the recipient key."""


class CommitmentMismatch(SealingError):
    """The content key is not the one the manifest commits to."""


class InnerMismatch(SealingError):
    """pqreg.inner is not the one the manifest commits to, or describes other files."""


class ContentError(VerificationError):
    """Step 8: the bytes are not those that were signed."""

    default_step = 8


class ShardMismatch(ContentError):
    """A shard's BLAKE3 digest differs from the signed one."""


class UnsealFailed(ContentError):
    """A stored shard is the signed one and yet does not decrypt: sealed for another place or under another key."""


class FileDigestMismatch(ContentError):
    """A file's SHA-256 digest differs from the signed one."""


class TensorTableMismatch(ContentError):
    """A safetensors header differs from the signed tensor table."""


class EventsInvalid(VerificationError):
    """The audit events of a service are not those that were exported, or their chain is broken."""
