# SPDX-License-Identifier: Apache-2.0
"""The leaf: what the log records of one accepted statement.

RFC 8785 JSON::

    {"i": identity, "k": kind, "n": name, "p": sha256 of the payload,
     "s": [sha256 of the EC signature, sha256 of the ML-DSA signature], "t": unix time, "v": 1}

Digests are 64 lowercase hex digits. ``n`` is the repository, for key and status statements the namespace, written as
in the statement; never a node or a recipient. A leaf names bytes and holds none: who has the envelope rebuilds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import cast

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.strict_json import Fields, parse_canonical

LEAF_VERSION = 1
_WRITTEN = re.compile(
    r'\{"i":"([0-9a-f]{64})","k":"([a-z]+)","n":"([A-Za-z0-9._/-]+)","p":"([0-9a-f]{64})",'
    r'"s":\["([0-9a-f]{64})","([0-9a-f]{64})"\],"t":(0|[1-9][0-9]{0,15}),"v":1\}',
    re.ASCII,
)


class Kind(StrEnum):
    """The kinds of statements that are logged."""

    RELEASE = "release"
    TAG = "tag"
    STATUS = "status"
    GRANT = "grant"
    KEY = "key"
    ATTESTATION = "attestation"

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read a kind.

        Raises:
            FormatError: if ``text`` is none.
        """
        kind = cls._value2member_map_.get(text)
        if not isinstance(kind, cls):
            raise FormatError(
                "not a kind of statement", expected=", ".join(kind.value for kind in cls), found=repr(text)[:40]
            )
        return kind

    @property
    def of_namespace(self) -> bool:
        """Whether its leaves name a namespace and not a repository."""
        return self is Kind.STATUS or self is Kind.KEY


@lru_cache(1024)
def _check_name(kind: Kind, name: str) -> None:
    try:
        if kind.of_namespace:
            Namespace(name)
        else:
            RepositoryName.parse(name)
    except NameSyntaxError as error:
        raise FormatError(
            f"the leaf of a {kind.value} statement names nothing that could be",
            expected=error.expected,
            found=error.found,
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One entry of the log."""

    identity: str
    kind: Kind
    name: str
    payload: Digest
    ec: Digest
    pq: Digest
    time: int

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the rule that is broken.
        """
        parse_identity_id(self.identity)
        _check_name(self.kind, self.name)
        if type(self.time) is not int or not 0 <= self.time <= limits.JSON_INTEGER:
            raise FormatError("a leaf's time is impossible", expected="seconds since 1970", found=repr(self.time)[:40])

    def encode(self) -> bytes:
        """The entry's exact bytes."""
        # Written out: every value is hex, a word, a number or an ASCII name, in which RFC 8785 escapes nothing.
        return (
            f'{{"i":"{self.identity}","k":"{self.kind.value}","n":"{self.name}","p":"{self.payload.hex}",'
            f'"s":["{self.ec.hex}","{self.pq.hex}"],"t":{self.time},"v":{LEAF_VERSION}}}'
        ).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> Leaf:
        """Read an entry; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is no leaf of exactly our form.
        """
        written = _WRITTEN.fullmatch(data.decode("latin-1"))  # a character for each byte; what matches is ASCII
        if written is not None:
            # The form of every leaf there is. Logs are audited by the million, and this is several times as quick as
            # what follows, which finds out what is wrong with anything else.
            identity, kind, name, payload, ec, pq, time = written.groups()
            return cls(
                identity=identity, kind=Kind.parse(kind), name=name, payload=Digest(payload),
                ec=Digest(ec), pq=Digest(pq), time=int(time),
            )  # fmt: skip
        fields = Fields(parse_canonical(data, what="the leaf", limit=limits.LOG_ENTRY_BYTES), "leaf")
        fields.literal("v", LEAF_VERSION)
        signatures = fields.array("s", minimum=2, limit=2)
        if not all(isinstance(value, str) for value in signatures):
            fields.fail("s", "two digests", signatures)
        try:
            ec, pq = (Digest(value) for value in cast("list[str]", signatures))
        except NameSyntaxError as error:
            fields.fail("s", error.expected or "two digests", signatures)
        leaf = cls(
            identity=fields.parsed("i", parse_identity_id),
            kind=fields.parsed("k", Kind.parse),
            name=fields.text("n"),
            payload=fields.parsed("p", Digest),
            ec=ec,
            pq=pq,
            time=fields.integer("t"),
        )
        fields.done()
        return leaf

    @classmethod
    def of(cls, envelope: Envelope, *, kind: Kind, name: str, identity: str, time: int) -> Leaf:
        """The leaf of a signed statement.

        Raises:
            FormatError: if ``identity``, ``name`` or ``time`` cannot stand in a leaf.
        """
        return cls(
            identity=identity,
            kind=kind,
            name=name,
            payload=envelope.payload_digest,
            ec=Digest.of(envelope.ec_signature),
            pq=Digest.of(envelope.pq_signature),
            time=time,
        )
