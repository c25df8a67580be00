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
    │   ├── LogError               step 4: ReceiptMissing, ReceiptInvalid, CheckpointInvalid, QuorumNotMet, LogStale,
    │   │   │                      ConsistencyInvalid, TileMismatch
    │   │   └── LogMisbehaved      LogRollback, LogEquivocation: both notes are kept     exit 4
    │   ├── IdentityLapsed         step 4
    │   ├── StatusError            step 5: StatusUnavailable, StatusExpired, StatusRollback, StatusEquivocation, Revoked
    │   ├── ReleaseError           step 6: NameMismatch, DigestMismatch, FileSetMismatch
    │   ├── SealingError           step 7: GrantMissing, GrantMismatch, GrantRollback, GrantEquivocation,
    │   │                                  GrantWithdrawn, GrantExpired, GrantInvalid, CommitmentMismatch, InnerMismatch
    │   ├── ContentError           step 8: ShardMismatch, UnsealFailed, FileDigestMismatch, TensorTableMismatch
    │   └── EventsInvalid          no step: an export of audit events
    ├── PolicyError                a rule of this house or its operator said no       exit 1
    │   ├── UnsafeFileType         an executable format in a push
    │   ├── KeyCustodyError        WrongPassphrase, KeyFileExposed
    │   ├── RecipientUncertified   a recipient's key that nobody vouches for
    │   ├── ProviderUnavailable    an implementation that was asked for is not installed
    │   ├── SelfTestFailed         the algorithms here do not give their known answers
    │   ├── BundleIncomplete, BundleMismatch, ChainDiverged
    │   ├── NotAuthenticated, AccessDenied, QuotaExceeded, ReadOnly, BlobDamaged
    │   └── Conflict               SequenceUsed, AlreadyExists, DraftMoved
    ├── TransportError             network or server                                  exit 3
    │   ├── ConnectionFailed, ResponseInvalid, ServerRefused, WitnessRefused
    │   ├── OriginNotAllowed       the registry sends its client to storage that nobody allowed
    │   ├── TooManyRequests        a ServerRefused that says when to come back
    │   └── NotFound               RevisionNotFound, EntryNotFound: of a repository that is there
    ├── StorageError               the disk or the object store failed                exit 3
    │   ├── LogUnavailable         the log takes no statement now; LogSuperseded: another instance writes it
    │   └── LogHalted              the log refuses to go on
    ├── DeviceFailed               an accelerator failed, or has too little memory   exit 3
    └── SourceChanged              a file changed while it was being pushed           exit 1

Every error carries what was expected, what was found and what to do next, as far as it is known; ``step`` is the
number of the verification step of DESIGN §5 that refused. ``problem_type`` is the RFC 9457 type of the same error.
"""

from __future__ import annotations

from pq_registry.errors.base import (
    EXIT_INTERRUPTED,
    EXIT_MISBEHAVED,
    EXIT_REFUSED,
    EXIT_TRANSPORT,
    EXIT_USAGE,
    FormatError,
    NameSyntaxError,
    PolicyError,
    PqregError,
    SettingError,
    UsageError,
    VerificationError,
    at_step,
)
from pq_registry.errors.operation import (
    AccessDenied,
    AlreadyExists,
    BlobDamaged,
    BundleIncomplete,
    BundleMismatch,
    ChainDiverged,
    Conflict,
    ConnectionFailed,
    DeviceFailed,
    DraftMoved,
    EntryNotFound,
    KeyCustodyError,
    KeyFileExposed,
    LogHalted,
    LogSuperseded,
    LogUnavailable,
    NotAuthenticated,
    NotFound,
    OriginNotAllowed,
    ProviderUnavailable,
    QuotaExceeded,
    ReadOnly,
    RecipientUncertified,
    ResponseInvalid,
    RevisionNotFound,
    SelfTestFailed,
    SequenceUsed,
    ServerRefused,
    SourceChanged,
    StorageError,
    TooManyRequests,
    TransportError,
    UnsafeFileType,
    WitnessRefused,
    WrongPassphrase,
)
from pq_registry.errors.verification import (
    CheckpointInvalid,
    CommitmentMismatch,
    ConsistencyInvalid,
    ContentError,
    DigestMismatch,
    EventsInvalid,
    FileDigestMismatch,
    FileSetMismatch,
    GrantEquivocation,
    GrantExpired,
    GrantInvalid,
    GrantMismatch,
    GrantMissing,
    GrantRollback,
    GrantWithdrawn,
    IdentityLapsed,
    InnerMismatch,
    LogEquivocation,
    LogError,
    LogMisbehaved,
    LogRollback,
    LogStale,
    ManifestMismatch,
    NameMismatch,
    ProfileTooLow,
    QuorumNotMet,
    ReceiptInvalid,
    ReceiptMissing,
    ReleaseError,
    Revoked,
    SealingError,
    ShardMismatch,
    SignatureError,
    SignatureInvalid,
    StatementError,
    StatementMismatch,
    StatusEquivocation,
    StatusError,
    StatusExpired,
    StatusRollback,
    StatusUnavailable,
    TagEquivocation,
    TagError,
    TagExpired,
    TagRollback,
    TagWithdrawn,
    TensorTableMismatch,
    TileMismatch,
    TrustError,
    TrustExpired,
    TrustMissing,
    TrustRollback,
    UnsealFailed,
    UntrustedSigner,
)

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_MISBEHAVED",
    "EXIT_REFUSED",
    "EXIT_TRANSPORT",
    "EXIT_USAGE",
    "AccessDenied",
    "AlreadyExists",
    "BlobDamaged",
    "BundleIncomplete",
    "BundleMismatch",
    "ChainDiverged",
    "CheckpointInvalid",
    "CommitmentMismatch",
    "Conflict",
    "ConnectionFailed",
    "ConsistencyInvalid",
    "ContentError",
    "DeviceFailed",
    "DigestMismatch",
    "DraftMoved",
    "EntryNotFound",
    "EventsInvalid",
    "FileDigestMismatch",
    "FileSetMismatch",
    "FormatError",
    "GrantEquivocation",
    "GrantExpired",
    "GrantInvalid",
    "GrantMismatch",
    "GrantMissing",
    "GrantRollback",
    "GrantWithdrawn",
    "IdentityLapsed",
    "InnerMismatch",
    "KeyCustodyError",
    "KeyFileExposed",
    "LogEquivocation",
    "LogError",
    "LogHalted",
    "LogMisbehaved",
    "LogRollback",
    "LogStale",
    "LogSuperseded",
    "LogUnavailable",
    "ManifestMismatch",
    "NameMismatch",
    "NameSyntaxError",
    "NotAuthenticated",
    "NotFound",
    "OriginNotAllowed",
    "PolicyError",
    "PqregError",
    "ProfileTooLow",
    "ProviderUnavailable",
    "QuorumNotMet",
    "QuotaExceeded",
    "ReadOnly",
    "ReceiptInvalid",
    "ReceiptMissing",
    "RecipientUncertified",
    "ReleaseError",
    "ResponseInvalid",
    "RevisionNotFound",
    "Revoked",
    "SealingError",
    "SelfTestFailed",
    "SequenceUsed",
    "ServerRefused",
    "SettingError",
    "ShardMismatch",
    "SignatureError",
    "SignatureInvalid",
    "SourceChanged",
    "StatementError",
    "StatementMismatch",
    "StatusEquivocation",
    "StatusError",
    "StatusExpired",
    "StatusRollback",
    "StatusUnavailable",
    "StorageError",
    "TagEquivocation",
    "TagError",
    "TagExpired",
    "TagRollback",
    "TagWithdrawn",
    "TensorTableMismatch",
    "TileMismatch",
    "TooManyRequests",
    "TransportError",
    "TrustError",
    "TrustExpired",
    "TrustMissing",
    "TrustRollback",
    "UnsafeFileType",
    "UnsealFailed",
    "UntrustedSigner",
    "UsageError",
    "VerificationError",
    "WitnessRefused",
    "WrongPassphrase",
    "at_step",
]
