# SPDX-License-Identifier: Apache-2.0
"""The JSON bodies of the API. Requests are checked against these; for answers they are the OpenAPI document's schemas.

Requests are strict: no unknown fields, no conversions. No request has a field that holds a URL, so there is nothing
for the service to fetch.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pq_registry import limits

DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
HexText = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InstantText = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


class Request(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class UploadRequest(Request):
    """Starts or resumes an upload."""

    digest: DigestText
    size: Annotated[int, Field(ge=0, le=limits.FILE_BYTES)]
    slice_size: int


class SignedPart(Request):
    """A part to be sent straight to the store: its number, and the SHA-256 of its bytes."""

    number: Annotated[int, Field(ge=0, lt=limits.PARTS)]
    sha256: DigestText


class SignedPartsRequest(Request):
    """Asks for requests by which parts go to the store."""

    parts: Annotated[list[SignedPart], Field(min_length=1, max_length=limits.SIGNED_PARTS)]


class MissingRequest(Request):
    """Asks which blobs must be uploaded in slices of this size."""

    digests: Annotated[list[DigestText], Field(max_length=limits.MISSING_QUERY_DIGESTS)]
    slice_size: int = limits.SHARD_BYTES


class HistoryRequest(Request):
    """Adds statements of one chain, oldest first: their envelopes in base64."""

    statements: Annotated[list[str], Field(min_length=1, max_length=limits.HISTORY_STATEMENTS)]


class TokenRequest(Request):
    """Makes a token."""

    role: str
    namespaces: Annotated[list[str], Field(min_length=1, max_length=limits.TOKEN_NAMESPACES)]
    expires_days: Annotated[int, Field(ge=1, le=limits.TOKEN_LIFETIME_DAYS)]
    note: Annotated[str, Field(max_length=limits.TOKEN_NOTE_CHARS)] = ""


class IdentityRequest(Request):
    """Registers an identity by its public file."""

    public: Annotated[str, Field(max_length=limits.IDENTITY_FILE_BYTES)]


class Answer(BaseModel):
    """An answer's body."""


class CallerAnswer(Answer):
    """Whose token this is; ``namespaces`` is ``["*"]`` for all."""

    role: str
    namespaces: list[str]
    expires: InstantText | None


class RepositoryItem(Answer):
    """A repository in a listing."""

    name: str
    releases: int
    tags: int
    updated: InstantText


class RepositoryPage(Answer):
    """Part of a listing; ``next`` is the ``after`` of the following page."""

    items: list[RepositoryItem]
    next: str | None


class TagItem(Answer):
    """A tag; ``target`` is null when it is withdrawn."""

    tag: str
    target: DigestText | None
    sequence: int
    signer: HexText
    issued: InstantText
    expires: InstantText


class ReleaseItem(Answer):
    """A release; ``content`` is the same for releases of the same files."""

    digest: DigestText
    statement: HexText
    manifest: DigestText
    content: DigestText
    signer: HexText
    size: int
    files: int
    created: InstantText
    sealed: bool


class ReleaseItems(Answer):
    """Releases, newest first."""

    items: list[ReleaseItem]


class RepositoryAnswer(Answer):
    """A repository with its tags and one page of releases, newest first; ``next`` continues the releases."""

    name: str
    tags: list[TagItem]
    releases: list[ReleaseItem]
    next: str | None


class DigestAnswer(Answer):
    """What was committed."""

    digest: DigestText


class RecordedAnswer(DigestAnswer):
    """A statement that was recorded and logged: the index of its leaf, and its receipt (C2SP tlog-proof) in base64.

    ``quorum`` is whether the receipt meets the service's own policy; false means that witnesses were missing.
    """

    log_index: int
    receipt: str
    quorum: bool


class StatementAnswer(Answer):
    """A statement: the exact bytes of its envelope in base64, and its receipt, null while there is none."""

    envelope: str
    tlog_proof: str | None


class MissingAnswer(Answer):
    """What must be uploaded."""

    missing: list[DigestText]


class UploadAnswer(Answer):
    """An unfinished upload: the size of its parts, which of them are there, and whether they come through here.

    ``transfer`` is ``relay``, or ``direct`` where parts go straight to the store.
    """

    id: str
    part_size: int
    parts: list[int]
    transfer: str


class SignedPartAnswer(Answer):
    """A PUT of one part: its URL, and the headers that must be sent exactly so."""

    number: int
    url: str
    headers: dict[str, str]
    expires: InstantText


class SignedPartsAnswer(Answer):
    """Requests to send parts by, in the order asked."""

    parts: list[SignedPartAnswer]


class VerifyingAnswer(Answer):
    """How far the verification of an upload is."""

    verified: int
    size: int


class AboutAnswer(Answer):
    """Where else, besides the registry's own host, weights are read from and written to."""

    storage_origins: list[str]


class IdentityItem(Answer):
    """A registered identity; ``public`` is its public file."""

    id: HexText
    public: str


class IdentityItems(Answer):
    """The identities of a namespace."""

    items: list[IdentityItem]


class GrantItem(Answer):
    """The newest statement about one release and one recipient; ``expires`` is null when it never does."""

    release: HexText
    recipient: HexText
    statement: HexText
    sequence: int
    issued: InstantText
    expires: InstantText | None
    withdrawn: bool
    signer: HexText


class GrantPage(Answer):
    """Part of a repository's grants; ``next`` is the ``after`` of the following page."""

    items: list[GrantItem]
    next: str | None


class KeyItem(Answer):
    """The newest key statement about one recipient; ``not_after`` is null when it never lapses."""

    recipient: HexText
    node: str
    statement: HexText
    not_after: InstantText | None
    signer: HexText


class KeyPage(Answer):
    """Part of a namespace's recipients; ``next`` is the ``after`` of the following page."""

    items: list[KeyItem]
    next: str | None


class UsageAnswer(Answer):
    """What a namespace holds, and may; null is no limit."""

    bytes: int
    repositories: int
    quota_bytes: int | None
    quota_repositories: int | None


class LogEntry(Answer):
    """A leaf of the log; ``name`` is the repository, or the namespace for key and status statements."""

    index: int
    time: InstantText
    kind: str
    name: str
    identity: HexText
    statement: HexText


class LogEntryPage(Answer):
    """Part of the log, newest leaves first; ``next`` is the ``after`` of the following page."""

    items: list[LogEntry]
    next: str | None


class TokenItem(Answer):
    """A token, without its secret."""

    id: str
    role: str
    namespaces: list[str]
    created: InstantText
    expires: InstantText
    revoked: InstantText | None
    note: str


class TokenItems(Answer):
    """Tokens the caller may revoke."""

    items: list[TokenItem]


class NewToken(TokenItem):
    """A token just made; ``token`` is answered this once."""

    token: str


class ProblemAnswer(Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    step: int | None = None


CommitText = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class DraftItem(Answer):
    """A branch or tag nobody signed; ``release`` is what it points to if that is a release."""

    name: str
    kind: str
    head: CommitText
    release: DigestText | None
    files: int
    size: int
    title: str
    created: InstantText
    updated: InstantText


class DraftItems(Answer):
    """All of them."""

    items: list[DraftItem]


class DraftFile(Answer):
    """A file of a draft."""

    path: str
    sha256: DigestText
    size: int


class DraftAnswer(DraftItem):
    """A draft and its files."""

    listing: list[DraftFile]
