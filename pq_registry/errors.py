# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors. Nothing else escapes a public boundary of this project.

::

    PqregError
    ├── UsageError                 the caller asked for something impossible          exit 2
    │   ├── NameSyntaxError        a repository, tag or reference that cannot exist
    │   └── SettingError           a setting that is missing or cannot be read
    ├── FormatError                bytes that are not what their specification says   exit 1
    ├── VerificationError          a numbered step of the verification said no        exit 1
    │   ├── TrustError             step 0: TrustMissing, TrustExpired, TrustRollback
    │   ├── TagError               step 1: TagExpired, TagRollback, TagEquivocation, TagWithdrawn
    │   ├── SignatureError         step 2: SignatureInvalid, UntrustedSigner
    │   ├── StatementError         step 3: StatementMismatch, ManifestMismatch, ProfileTooLow
    │   ├── IdentityLapsed         step 4
    │   ├── StatusUnavailable      step 5
    │   ├── ReleaseError           step 6: NameMismatch, DigestMismatch, FileSetMismatch
    │   ├── SealingError           step 7: GrantMissing, GrantMismatch, GrantWithdrawn, GrantExpired, GrantInvalid,
    │   │                                  CommitmentMismatch, InnerMismatch
    │   └── ContentError           step 8: ShardMismatch, UnsealFailed, FileDigestMismatch, TensorTableMismatch
    ├── PolicyError                a rule of this house or its operator said no       exit 1
    │   ├── UnsafeFileType         an executable format in a push
    │   ├── KeyCustodyError        WrongPassphrase, KeyFileExposed
    │   ├── RecipientUncertified   a recipient's key that nobody vouches for
    │   ├── ProviderUnavailable    an implementation that was asked for is not installed
    │   ├── SelfTestFailed         the algorithms here do not give their known answers
    │   ├── NotAuthenticated, AccessDenied
    │   └── Conflict               SequenceUsed, AlreadyExists
    ├── TransportError             network or server                                  exit 3
    │   ├── ConnectionFailed, ResponseInvalid, ServerRefused
    │   └── NotFound
    ├── StorageError               the disk or the object store failed                exit 3
    └── SourceChanged              a file changed while it was being pushed           exit 1

Every error carries what was expected, what was found and what to do next, as far as it is known; ``step`` is the
number of the verification step of DESIGN §5 that refused. ``problem_type`` is the RFC 9457 type of the same error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_TRANSPORT = 3
EXIT_INTERRUPTED = 130


class PqregError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code: int = EXIT_REFUSED
    status: int = 500
    default_step: int | None = None

    def __init__(
        self,
        message: str,
        *,
        expected: object | None = None,
        found: object | None = None,
        hint: str | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = None if expected is None else str(expected)
        self.found = None if found is None else str(found)
        self.hint = hint
        self.step = self.default_step if step is None else step

    @classmethod
    def code(cls) -> str:
        """The kebab-case name of the class, e.g. ``shard-mismatch``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @property
    def problem_type(self) -> str:
        """The RFC 9457 ``type`` of this error."""
        return f"/problems/{self.code()}"

    def __str__(self) -> str:
        text = self.message
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        return text


class UsageError(PqregError):
    """The caller's arguments cannot be carried out."""

    exit_code = EXIT_USAGE
    status = 400


class NameSyntaxError(UsageError):
    """A repository, tag, digest or reference that is not well formed."""


class SettingError(UsageError):
    """A setting is missing, unreadable or out of range."""


class FormatError(PqregError):
    """Bytes that do not follow their specification."""

    status = 422


class VerificationError(PqregError):
    """A step of the verification refused."""

    status = 422


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


class IdentityLapsed(VerificationError):
    """Step 4: the signer's validity window does not hold."""

    default_step = 4


class StatusUnavailable(VerificationError):
    """Step 5: the trust file demands news about revocations and there is none."""

    default_step = 5


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


class PolicyError(PqregError):
    """A rule of this house or of its operator refused."""

    status = 403


class UnsafeFileType(PolicyError):
    """A file whose format can execute code when it is loaded."""

    status = 422


class KeyCustodyError(PolicyError):
    """A secret key file cannot be used."""


class WrongPassphrase(KeyCustodyError):
    """The passphrase does not open the secret key file, or the file was altered."""


class KeyFileExposed(KeyCustodyError):
    """A secret key file can be read by others than its owner."""


class RecipientUncertified(PolicyError):
    """No enrolment identity certifies the recipient's key."""


class ProviderUnavailable(PolicyError):
    """The implementation of the algorithms that was asked for is not installed, or may not be loaded."""

    status = 501


class SelfTestFailed(PolicyError):
    """An algorithm does not give its known answer here, so nothing is verified or signed."""

    status = 500


class NotAuthenticated(PolicyError):
    """No token, or one that is unknown, expired or revoked."""

    status = 401
    exit_code = EXIT_TRANSPORT


class AccessDenied(PolicyError):
    """The token does not allow this."""

    status = 403
    exit_code = EXIT_TRANSPORT


class Conflict(PolicyError):
    """The request contradicts what is already there."""

    status = 409


class SequenceUsed(Conflict):
    """Another statement already has this sequence number."""


class AlreadyExists(Conflict):
    """Something that is never overwritten stands where this should go."""


class SourceChanged(PolicyError):
    """A file changed between hashing and sending."""

    status = 409


class TransportError(PqregError):
    """The network or the server failed."""

    exit_code = EXIT_TRANSPORT
    status = 502


class ConnectionFailed(TransportError):
    """No usable connection: refused, timed out, broken, or not authenticated by TLS."""


class ResponseInvalid(TransportError):
    """The server answered with something its specification does not allow."""


class ServerRefused(TransportError):
    """The server answered with an error of its own."""


class NotFound(TransportError):
    """There is no such thing here."""

    status = 404


class StorageError(PqregError):
    """The disk or the object store failed."""

    exit_code = EXIT_TRANSPORT
    status = 507


@contextmanager
def at_step(step: int) -> Iterator[None]:
    """Number the errors raised inside with the verification ``step``, unless they carry one already."""
    try:
        yield
    except PqregError as error:
        if error.step is None:
            error.step = step
        raise
