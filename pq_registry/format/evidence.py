# SPDX-License-Identifier: Apache-2.0
"""The index of an evidence bundle, ``evidence.json``, and its signature file (docs/spec/evidence.md).

A bundle is a directory; no archive is ever unpacked. The index names every other file by path, size and SHA-256, and
what they are about: which statements, as which leaves of which log, judged by which trust file, and what the auditor
found. It is RFC 8785 JSON; its exact bytes are signed by the auditor's identity, both halves, under a payload type of
its own. So nothing else an identity ever signed can pass for evidence, and the reverse. Bundles are not logged.

Paths follow a grammar in which only digests vary, so none of them can lead anywhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.instant import check_instant, format_instant, parse_instant
from pq_registry.format.leaf import Kind
from pq_registry.format.strict_json import Fields, Value, encode_base64, encode_canonical, parse_canonical

SCHEMA: Final = "urn:pq-registry:evidence:v1"
PAYLOAD_TYPE: Final = "application/vnd.pq-registry.evidence+json"

INDEX_NAME: Final = "evidence.json"
SIGNATURE_NAME: Final = "evidence.json.sig"
AUDITOR_NAME: Final = "auditor.pqpub"
TRUST_NAME: Final = "trust.json"
CHECKPOINT_NAME: Final = "checkpoint.note"
DIRECTORIES: Final = {
    "statements": ".json",
    "receipts": ".tlog-proof",
    "manifests": ".json",
    "misbehaviour": ".note",
    "forks": ".fork",
}
"""What stands in which directory, each file named by 64 hex digits: the statement's payload, else its own content."""

LARGEST: Final = {
    "statements": limits.ENVELOPE_BYTES,
    "receipts": limits.TLOG_PROOF_BYTES,
    "manifests": limits.MANIFEST_BYTES,
    "misbehaviour": limits.NOTE_BYTES,
    "forks": limits.FORK_PROOF_BYTES,
    AUDITOR_NAME: limits.IDENTITY_FILE_BYTES,
    TRUST_NAME: limits.TRUST_FILE_BYTES,
    CHECKPOINT_NAME: limits.NOTE_BYTES,
}
"""The largest that each of them can be, in bytes: files are read whole, and whoever made a bundle may be hostile."""

_PATH: Final = re.compile(
    "|".join(f"{name}/[0-9a-f]{{64}}{re.escape(suffix)}" for name, suffix in DIRECTORIES.items()), re.ASCII
)
_FIXED: Final = frozenset({AUDITOR_NAME, TRUST_NAME, CHECKPOINT_NAME})
_TEXT: Final = 2000


def check_path(text: str) -> str:
    """The path of a file that an index may list, unchanged.

    Raises:
        FormatError: if ``text`` is none.
    """
    if text not in _FIXED and not _PATH.fullmatch(text):
        raise FormatError("not a file of an evidence bundle", expected="e.g. statements/<64 hex digits>.json",
                          found=repr(text)[:120])  # fmt: skip
    return text


@dataclass(frozen=True, slots=True, order=True)
class EvidenceFile:
    """One file of a bundle."""

    path: str
    sha256: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceStatement:
    """One logged statement: its leaf's place and content, and the attested time, if the log's witnesses gave one."""

    index: int
    kind: Kind
    name: str
    identity: str
    payload: Digest
    time: datetime
    attested: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFinding:
    """What the auditor found and when; the auditor's word, unlike everything that can be verified again."""

    code: str
    message: str
    noticed: datetime
    name: str | None = None
    index: int | None = None
    statement: Digest | None = None
    expected: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceIndex:
    """The content of evidence.json."""

    auditor: str
    created: datetime
    registry: str
    log: str
    scope: str
    trust: Digest
    software: tuple[tuple[str, str], ...]
    statements: tuple[EvidenceStatement, ...]
    findings: tuple[EvidenceFinding, ...]
    files: tuple[EvidenceFile, ...]

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the rule that is broken.
        """
        parse_identity_id(self.auditor)
        check_instant(self.created, "the evidence's field 'created'")
        _check_ascending("files", [entry.path for entry in self.files], limits.EVIDENCE_FILES)
        _check_ascending("statements", [entry.index for entry in self.statements], limits.EVIDENCE_STATEMENTS)
        _check_ascending("software", [name for name, _ in self.software], 100)
        for entry in self.files:
            largest = LARGEST[check_path(entry.path).partition("/")[0]]
            if entry.size > largest:
                raise FormatError(f"the evidence lists {entry.path} in an impossible size",
                                  expected=f"at most {largest} bytes", found=entry.size)  # fmt: skip
        if len(self.findings) > limits.EVIDENCE_FINDINGS:
            raise FormatError("too many findings in the evidence", expected=f"at most {limits.EVIDENCE_FINDINGS}",
                              found=len(self.findings))  # fmt: skip

    def encode(self) -> bytes:
        """The exact bytes of the file."""
        document: dict[str, Value] = {
            "auditor": self.auditor,
            "created": format_instant(self.created),
            "files": [{"path": one.path, "sha256": one.sha256.hex, "size": one.size} for one in self.files],
            "findings": [_finding_value(one) for one in self.findings],
            "log": self.log,
            "registry": self.registry,
            "schema": SCHEMA,
            "scope": self.scope,
            "software": dict(self.software),
            "statements": [_statement_value(one) for one in self.statements],
            "trust": str(self.trust),
        }
        return encode_canonical(document)

    @classmethod
    def parse(cls, data: bytes) -> EvidenceIndex:
        """Read an index; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is not one of exactly this form.
        """
        what = "the evidence"
        fields = Fields(parse_canonical(data, what=what, limit=limits.EVIDENCE_INDEX_BYTES), "evidence")
        fields.literal("schema", SCHEMA)
        software = fields.take("software")
        if not isinstance(software, dict):
            fields.fail("software", "an object", software)
        versions = Fields(software, "evidence.software")
        index = cls(
            auditor=fields.parsed("auditor", parse_identity_id),
            created=fields.parsed("created", parse_instant),
            registry=fields.text("registry"),
            log=fields.text("log"),
            scope=fields.text("scope"),
            trust=fields.parsed("trust", Digest.parse),
            software=tuple((name, versions.text(name)) for name in sorted(software)),
            statements=tuple(map(_statement, fields.objects("statements", limit=limits.EVIDENCE_STATEMENTS))),
            findings=tuple(map(_finding, fields.objects("findings", limit=limits.EVIDENCE_FINDINGS))),
            files=tuple(map(_file, fields.objects("files", limit=limits.EVIDENCE_FILES))),
        )
        fields.done()
        return index


@dataclass(frozen=True, slots=True)
class EvidenceSignature:
    """The bytes of an index and the two halves of its signature, verified or not: ``evidence.json.sig``."""

    payload: bytes
    ec_signature: bytes
    pq_signature: bytes

    @property
    def message(self) -> bytes:
        """What the halves are over."""
        return message(self.payload)

    def encode(self) -> bytes:
        """The exact bytes of the file."""
        halves: list[Value] = [
            {"keyid": "", "sig": encode_base64(half)} for half in (self.ec_signature, self.pq_signature)
        ]
        return encode_canonical(
            {"payload": encode_base64(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": halves}
        )

    @classmethod
    def parse(cls, data: bytes) -> EvidenceSignature:
        """Read a signature file; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is not one of exactly this form.
            SignatureInvalid: if it has not exactly two signatures, or an empty one.
        """
        what = "the evidence's signature"
        fields = Fields(parse_canonical(data, what=what, limit=limits.EVIDENCE_SIGNATURE_BYTES), what)
        fields.literal("payloadType", PAYLOAD_TYPE)
        payload = fields.base64("payload", limit=limits.EVIDENCE_INDEX_BYTES)
        signatures = fields.array("signatures", limit=limits.NOTE_SIGNATURES)
        fields.done()
        halves = []
        for number, item in enumerate(signatures):
            entry = Fields(item, f"{what}.signatures[{number}]")
            entry.literal("keyid", "")
            halves.append(entry.base64("sig", limit=limits.SIGNATURE_BYTES))
            entry.done()
        if len(halves) != limits.DSSE_SIGNATURES or not all(halves):
            raise SignatureInvalid(f"{what} does not carry both halves", expected="the EC half, then the ML-DSA half",
                                   found=f"{len(halves)} signatures")  # fmt: skip
        return cls(payload, halves[0], halves[1])


def message(payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _check_ascending(name: str, keys: list[str] | list[int], limit: int) -> None:
    if len(keys) > limit or any(one >= other for one, other in pairwise(keys)):  # type: ignore[operator]
        raise FormatError(
            f"the evidence's field {name!r} is wrong", expected=f"at most {limit} entries, sorted, each once"
        )


def _statement_value(one: EvidenceStatement) -> dict[str, Value]:
    return {
        "attested": None if one.attested is None else format_instant(one.attested),
        "identity": one.identity,
        "index": one.index,
        "kind": one.kind.value,
        "name": one.name,
        "payload": one.payload.hex,
        "time": format_instant(one.time),
    }


def _statement(entry: Fields) -> EvidenceStatement:
    statement = EvidenceStatement(
        index=entry.integer("index"),
        kind=entry.parsed("kind", Kind.parse),
        name=entry.text("name"),
        identity=entry.parsed("identity", parse_identity_id),
        payload=entry.parsed("payload", Digest),
        time=entry.parsed("time", parse_instant),
        attested=entry.optional("attested", parse_instant),
    )
    entry.done()
    return statement


def _finding_value(one: EvidenceFinding) -> dict[str, Value]:
    return {
        "code": one.code,
        "expected": one.expected,
        "found": one.found,
        "index": one.index,
        "message": one.message,
        "name": one.name,
        "noticed": format_instant(one.noticed),
        "statement": None if one.statement is None else one.statement.hex,
    }


def _finding(entry: Fields) -> EvidenceFinding:
    index = entry.take("index")
    if index is not None and (type(index) is not int or not 0 <= index <= limits.JSON_INTEGER):
        entry.fail("index", "a leaf's index or null", index)
    finding = EvidenceFinding(
        code=entry.text("code", limit=100),
        message=entry.text("message", limit=_TEXT),
        noticed=entry.parsed("noticed", parse_instant),
        name=entry.optional("name", str),
        index=index,
        statement=entry.optional("statement", Digest),
        expected=entry.optional("expected", str, limit=_TEXT),
        found=entry.optional("found", str, limit=_TEXT),
    )
    entry.done()
    return finding


def _file(entry: Fields) -> EvidenceFile:
    file = EvidenceFile(
        entry.parsed("path", check_path),
        entry.parsed("sha256", Digest),
        entry.integer("size"),
    )
    entry.done()
    return file
