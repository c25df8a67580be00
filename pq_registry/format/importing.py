# SPDX-License-Identifier: Apache-2.0
"""The import statement ``pqreg.import.json``: where a release comes from that its signer did not make.

An in-toto Statement v1 in RFC 8785 form, and a file of the release like any other, so the release's signatures cover
it. It says from which model on which Hub, at which commit, every file was taken; what the Hub stated of each, and what
was found; what was left out and why; what was converted, and what it became; and whether the model carried a signature
of its own, and by whom it was found to verify. It holds no time and no name of the importer: the log has the one and
the manifest the other, and so a second import of the same commit gives the same bytes. docs/spec/import.md and
docs/spec/import.schema.json specify it.

A release is an import only if the statement is about exactly its files; ``describes`` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.files import FileEntry
from pq_registry.format.importfiles import ConvertedFile, LeftOut, SourceFile
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.statement import STATEMENT_TYPE, take_predicate
from pq_registry.format.strict_json import Fields, Value, encode_canonical

__all__ = [
    "IMPORT_NAME",
    "IMPORT_PREDICATE",
    "SIGNATURE_NAME",
    "ConvertedFile",
    "ImportStatement",
    "LeftOut",
    "Source",
    "SourceFile",
    "SourceSignature",
    "Verified",
    "read_import",
]

IMPORT_PREDICATE: Final = "urn:pq-registry:import:v1"
IMPORT_NAME: Final = "pqreg.import.json"
SIGNATURE_NAME: Final = "pqreg.import.sig"
"""Where a model's own ``model.sig`` is kept, whose name the release's own signature has."""

_ENDPOINT = re.compile(r"https?://[a-z0-9.\[\]:_-]{1,255}(?:/[A-Za-z0-9._~/-]{0,255})?", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}", re.ASCII)
_SHA1 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHOWN = re.compile(r"[\x20-\x7e]{1,1000}", re.ASCII)


@unique
class Verified(StrEnum):
    """By what the model's own signature was verified before the import."""

    KEY = "key"
    CERTIFICATE = "certificate"
    SIGSTORE = "sigstore"
    RELEASE = "release"


_DETAILS: Mapping[Verified, tuple[str, ...]] = MappingProxyType(
    {
        Verified.KEY: ("key",),
        Verified.CERTIFICATE: ("authority", "certificate", "subject"),
        Verified.SIGSTORE: ("identity", "issuer"),
        Verified.RELEASE: ("name", "release", "signer"),
    }
)
"""What is said besides: digests of public key and certificates, names from them, a release of this project."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model was taken from: ``commit`` is what ``revision`` was then."""

    endpoint: str
    repository: str
    revision: str
    commit: str

    def __post_init__(self) -> None:
        """Raise FormatError unless every part is well formed."""
        for name, pattern, rule in (
            ("endpoint", _ENDPOINT, "an http or https URL of a Hub"),
            ("repository", _REPOSITORY, "org/model"),
            ("revision", _REVISION, "a branch, tag or commit"),
            ("commit", _SHA1, "40 lowercase hex digits"),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value) or ".." in value:
                raise FormatError(f"the source's {name} is wrong", expected=rule, found=repr(value)[:120])

    @property
    def name(self) -> str:
        """``hf://org/model``."""
        return f"hf://{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}@{self.commit} at {self.endpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSignature:
    """The model's own signature: the file that holds it, and who was found to have signed, if that was checked.

    ``kept`` is where the release keeps that file; None if it does not.
    """

    path: ReleasePath
    sha256: Digest
    kept: ReleasePath | None
    verified: Verified | None = None
    details: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raise FormatError unless the details are those of the kind."""
        names = () if self.verified is None else _DETAILS[self.verified]
        if tuple(name for name, _ in self.details) != names:
            raise FormatError("an import's signature has other details", expected=", ".join(names) or "none")
        if any(not _SHOWN.fullmatch(value) for _, value in self.details):
            raise FormatError("an import's signature has unreadable details", expected="printable ASCII")

    def to_value(self) -> Value:
        """The JSON value."""
        verified: Value = None
        if self.verified is not None:
            verified = {"by": self.verified.value, **dict(self.details)}
        kept = None if self.kept is None else self.kept.text
        return {"kept": kept, "path": self.path.text, "sha256": self.sha256.hex, "verified": verified}

    @classmethod
    def from_fields(cls, fields: Fields) -> SourceSignature:
        """Read the JSON value. Raises FormatError."""
        path, sha256 = fields.parsed("path", ReleasePath), fields.parsed("sha256", Digest)
        kept = fields.optional("kept", ReleasePath)
        kind, details = _take_verified(fields)
        fields.done()
        return cls(path=path, sha256=sha256, kept=kept, verified=kind, details=details)


@dataclass(frozen=True, slots=True)
class ImportStatement:
    """What an importer says of a release: ``files`` are all files of the model at the commit, sorted by path."""

    source: Source
    files: tuple[SourceFile, ...]
    signature: SourceSignature | None = None

    def __post_init__(self) -> None:
        """Raise FormatError unless the files are in order and each is there once."""
        taken = any(file.left_out is None for file in self.files)
        if not taken or any(a.path >= b.path for a, b in pairwise(self.files)):
            raise FormatError("an import's files are not in order", expected="at least one taken, by path, each once")
        check_distinct(self._held)

    @property
    def imported(self) -> tuple[SourceFile, ...]:
        """The files that are in the release as they are."""
        return tuple(file for file in self.files if file.left_out is None and file.converted is None)

    @property
    def converted(self) -> tuple[tuple[SourceFile, ConvertedFile], ...]:
        """The files that were converted, each with what the release holds instead."""
        return tuple((file, file.converted) for file in self.files if file.converted is not None)

    @property
    def left_out(self) -> tuple[SourceFile, ...]:
        """The files that are not."""
        return tuple(file for file in self.files if file.left_out is not None)

    def describes(self, files: Iterable[FileEntry]) -> bool:
        """Whether a release with these ``files`` is this import: they are what was taken, and what the import adds."""
        rest = {entry.path.text: (entry.size, entry.sha256) for entry in files}
        if rest.pop(IMPORT_NAME, None) is None:
            return False
        kept = None if self.signature is None or self.signature.kept is None else self.signature.kept.text
        if kept == SIGNATURE_NAME:
            held = rest.pop(SIGNATURE_NAME, None)
            if held is None or self.signature is None or held[1] != self.signature.sha256:
                return False
        return rest == {
            **{file.path.text: (file.size, file.found) for file in self.imported},
            **{made.path.text: (made.size, made.sha256) for _, made in self.converted},
        }

    @property
    def _held(self) -> list[ReleasePath]:
        return [*(file.path for file in self.imported), *(made.path for _, made in self.converted)]

    def encode(self) -> bytes:
        """The canonical bytes."""
        # Only where there is something to say, so that an import that converted nothing says what it always did.
        converted: Value = [file.to_value() for file, _ in self.converted]
        return encode_canonical(
            {
                "_type": STATEMENT_TYPE,
                "predicate": {
                    **({"converted": converted} if converted else {}),
                    "files": [file.to_value() for file in self.imported],
                    "left_out": [file.to_value() for file in self.left_out],
                    "signature": None if self.signature is None else self.signature.to_value(),
                    "source": {
                        "commit": self.source.commit,
                        "endpoint": self.source.endpoint,
                        "repository": self.source.repository,
                        "revision": self.source.revision,
                    },
                },
                "predicateType": IMPORT_PREDICATE,
                "subject": [{"digest": {"gitCommit": self.source.commit}, "name": self.source.name}],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> ImportStatement:
        """Read what ``encode`` writes.

        Raises:
            FormatError: if ``data`` is anything else.
            StatementMismatch: if it is a statement of another kind.
        """
        subject, predicate = take_predicate(
            data, IMPORT_PREDICATE, what="the import statement", limit=limits.IMPORT_BYTES
        )
        place = predicate.object("source")
        source = Source(*(place.text(name) for name in ("endpoint", "repository", "revision", "commit")))
        place.done()
        subject.literal("name", source.name)
        digest = subject.object("digest")
        digest.literal("gitCommit", source.commit)
        digest.done()
        subject.done()
        files = [
            SourceFile.from_fields(fields, left_out=name == "left_out", converted=name == "converted")
            for name in (*(("converted",) if predicate.has("converted") else ()), "files", "left_out")
            for fields in predicate.objects(name, limit=limits.FILES)
        ]
        value = predicate.take("signature")
        signature = None if value is None else SourceSignature.from_fields(Fields(value, "statement.signature"))
        predicate.done()
        statement = cls(source, tuple(sorted(files, key=lambda file: file.path)), signature)
        if statement.encode() != data:
            raise FormatError("the import statement's files are not in order", expected="sorted by path")
        return statement


def read_import(data: bytes, files: Sequence[FileEntry]) -> ImportStatement:
    """The import statement of a release with these files, from the bytes of its ``pqreg.import.json``.

    Raises:
        FormatError: if it is none, or is about other files.
        StatementMismatch: if it is a statement of another kind.
    """
    statement = ImportStatement.parse(data)
    if not statement.describes(files):
        raise FormatError("it is about other files")
    return statement


def _take_verified(fields: Fields) -> tuple[Verified | None, tuple[tuple[str, str], ...]]:
    value = fields.take("verified")
    if value is None:
        return None, ()
    verified = Fields(value, f"{fields.where}.verified")
    by = verified.text("by")
    if by not in set(Verified):
        raise FormatError("not a way to verify a signature", expected=", ".join(Verified), found=repr(by)[:80])
    kind = Verified(by)
    details = tuple((name, verified.text(name, limit=1000)) for name in _DETAILS[kind])
    verified.done()
    return kind, details
