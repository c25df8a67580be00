# SPDX-License-Identifier: Apache-2.0
"""The release statement: an in-toto Statement v1 with the predicate of OpenSSF Model Signing (OMS) v1.0.

Stock tools verify what this module writes, because it stays strictly within their published schema. Of everything
that schema allows, exactly one form is ours: method ``files``, SHA-256, no symbolic links, ``ignore_paths`` as listed
here, resources sorted by the code points of their names, RFC 8785 JSON. The SHA-256 of a statement's bytes is the
**release digest**.

The subject is the **OMS root**: SHA-256 over the concatenated raw digests of the resources. It does not cover their
names; the signature over the whole statement does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.strict_json import Fields, Value, encode_canonical, parse_canonical, parse_strict

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
RELEASE_PREDICATE: Final = "https://model_signing/signature/v1.0"
TAG_PREDICATE: Final = "urn:pq-registry:tag:v1"
GRANT_PREDICATE: Final = "urn:pq-registry:grant:v1"
KEY_PREDICATE: Final = "urn:pq-registry:key:v1"
STATUS_PREDICATE: Final = "urn:pq-registry:status:v1"

EC_BUNDLE_NAME: Final = "model.sig"
PQ_BUNDLE_NAME: Final = "model.pq.sig"
TLOG_PROOF_NAME: Final = "model.tlog-proof"
EVIDENCE: Final = (EC_BUNDLE_NAME, PQ_BUNDLE_NAME, TLOG_PROOF_NAME)
"""The files beside a release's own that prove who signed it. They cannot be resources of what they sign."""

IGNORE_PATHS: Final = (
    ".cache/huggingface",
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".pqreg",
    "model.pq.sig",
    "model.sig",
    "model.tlog-proof",
)
"""What a stock verifier skips on a tree as ``hf download`` leaves it. Nothing below these names is ever a resource."""

_SERIALIZATION: dict[str, Value] = {
    "allow_symlinks": False,
    "hash_type": "sha256",
    "ignore_paths": list(IGNORE_PATHS),
    "method": "files",
}


def is_ignored(text: str) -> bool:
    """Whether the path ``text`` is one of ``IGNORE_PATHS`` or below one, on any file system."""
    # Case is folded because on Windows and macOS MODEL.SIG would stand where the evidence goes.
    folded = text.casefold()
    return any(folded == root or folded.startswith(root + "/") for root in IGNORE_PATHS)


@dataclass(frozen=True, slots=True)
class Resource:
    """One signed file."""

    path: ReleasePath
    digest: Digest


def oms_root(resources: Iterable[Resource]) -> Digest:
    """The OMS root of ``resources`` in the order given."""
    hasher = hashlib.sha256()
    for resource in resources:
        hasher.update(resource.digest.raw)
    return Digest(hasher.hexdigest())


def predicate_type(payload: bytes) -> str:
    """The predicate type of any in-toto statement, so that a reader can choose the parser; nothing else is checked.

    Raises:
        FormatError: if ``payload`` is not strict JSON of an in-toto Statement v1.
    """
    fields = Fields(parse_strict(payload, what="the statement", limit=limits.STATEMENT_BYTES), "statement")
    fields.literal("_type", STATEMENT_TYPE)
    return fields.text("predicateType")


def take_predicate(payload: bytes, expected: str, *, what: str, limit: int) -> tuple[Fields, Fields]:
    """Open a canonical statement of exactly one predicate type: its only subject, and its predicate.

    Raises:
        FormatError: if ``payload`` is not canonical JSON of an in-toto Statement v1 with one subject.
        StatementMismatch: if its predicate type is not ``expected``.
    """
    fields = Fields(parse_canonical(payload, what=what, limit=limit), "statement")
    fields.literal("_type", STATEMENT_TYPE)
    found = fields.text("predicateType")
    if found != expected:
        raise StatementMismatch(f"{what} is of another kind", expected=expected, found=found)
    subjects = fields.objects("subject", minimum=1, limit=1)
    predicate = fields.object("predicate")
    fields.done()
    return subjects[0], predicate


def take_subject(subject: Fields) -> tuple[str, Digest]:
    """Name and digest of a subject.

    Raises:
        FormatError: if it holds anything but a name and one SHA-256 digest.
    """
    name = subject.text("name")
    digests = subject.object("digest")
    digest = digests.parsed("sha256", Digest)
    digests.done()
    subject.done()
    return name, digest


def encode_statement(predicate: str, name: str, digest: Digest, content: dict[str, Value]) -> bytes:
    """The canonical bytes of a statement about one subject."""
    return encode_canonical(
        {
            "_type": STATEMENT_TYPE,
            "predicate": content,
            "predicateType": predicate,
            "subject": [{"digest": {"sha256": digest.hex}, "name": name}],
        }
    )


def _check_model_name(name: str) -> None:
    try:
        RepositoryName(Namespace("any"), name)
    except NameSyntaxError as error:
        raise FormatError(
            "the statement's subject is not the name of a model", expected=error.expected, found=error.found
        ) from None


@dataclass(frozen=True, slots=True)
class ReleaseStatement:
    """What is signed of a release: its files' names and digests.

    ``model_name`` is the last component of the repository's name. It is what OMS has room for; the name that binds
    is the manifest's.
    """

    model_name: str
    resources: tuple[Resource, ...]

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if the name cannot be a repository's, or the resources are none, too many, unsorted, colliding
                or in a place that is not signed.
        """
        _check_model_name(self.model_name)
        # One more than the manifest lists: the manifest itself.
        if not 0 < len(self.resources) <= limits.FILES + 1:
            raise FormatError(
                "the statement lists no files or too many",
                expected=f"1 to {limits.FILES + 1}",
                found=len(self.resources),
            )
        for one, next_one in pairwise(self.resources):
            if one.path.text >= next_one.path.text:
                raise FormatError(
                    "the statement's resources are not sorted",
                    expected="names sorted by code point, each once",
                    found=f"{one.path.text!r} before {next_one.path.text!r}"[:200],
                )
        for resource in self.resources:
            if is_ignored(resource.path.text):
                raise FormatError(
                    "the statement lists a file that verifiers skip",
                    expected="no file below " + ", ".join(IGNORE_PATHS),
                    found=repr(resource.path.text)[:200],
                )
        check_distinct(resource.path for resource in self.resources)

    @property
    def root(self) -> Digest:
        """The OMS root."""
        return oms_root(self.resources)

    def encode(self) -> bytes:
        """The payload: the exact bytes that are signed."""
        resources: list[Value] = [
            {"algorithm": "sha256", "digest": resource.digest.hex, "name": resource.path.text}
            for resource in self.resources
        ]
        return encode_statement(
            RELEASE_PREDICATE,
            self.model_name,
            self.root,
            {"resources": resources, "serialization": _SERIALIZATION},
        )

    @classmethod
    def parse(cls, payload: bytes) -> ReleaseStatement:
        """Read a release statement; ``parse(payload).encode() == payload``.

        Raises:
            FormatError: if ``payload`` is not a statement of exactly our form.
            StatementMismatch: if it is of another predicate type, or its root is not that of its resources.
        """
        subject, predicate = take_predicate(
            payload, RELEASE_PREDICATE, what="the release statement", limit=limits.STATEMENT_BYTES
        )
        model_name, root = take_subject(subject)
        serialization = predicate.take("serialization")
        # Compared as bytes: in Python False == 0, in the document they are two different statements.
        if encode_canonical(serialization) != encode_canonical(_SERIALIZATION):
            predicate.fail("serialization", repr(_SERIALIZATION), serialization)
        resources = []
        for entry in predicate.objects("resources", minimum=1, limit=limits.FILES + 1):
            entry.literal("algorithm", "sha256")
            digest = entry.parsed("digest", Digest)
            resources.append(Resource(entry.parsed("name", ReleasePath), digest))
            entry.done()
        predicate.done()
        statement = cls(model_name, tuple(resources))
        if statement.root != root:
            raise StatementMismatch(
                "the statement's root is not that of its resources", expected=statement.root, found=root
            )
        return statement
