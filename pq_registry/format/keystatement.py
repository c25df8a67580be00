# SPDX-License-Identifier: Apache-2.0
"""The key statement: an enrolment identity vouches for a recipient's public key (docs/spec/recipients.md).

It says which node of which namespace holds the secret key, so that whoever grants need not believe a registry about
that. The in-toto subject is the recipient: its id as the name, and, being a SHA-256, as the digest. The id is
recomputed from the key; at and after ``not_after`` the key is uncertified. Whether the signer may enrol is the
verifier's business, and whether the key is a valid one that of ``crypto.recipient``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id, parse_recipient_id
from pq_registry.format.instant import check_instant, format_instant, parse_instant
from pq_registry.format.name import Namespace
from pq_registry.format.recipientfile import Kem, check_public_key, kem_of, recipient_id
from pq_registry.format.statement import KEY_PREDICATE, encode_statement, take_predicate, take_subject
from pq_registry.format.strict_json import encode_base64

_NODE: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{limits.NODE_NAME_CHARS - 1}}}", re.ASCII)


def parse_node(text: str) -> str:
    """The name of a node, unchanged.

    Raises:
        FormatError: if ``text`` cannot name a node.
    """
    if not isinstance(text, str) or not _NODE.fullmatch(text):
        raise FormatError(
            "not the name of a node",
            expected=f"a letter or digit, then at most {limits.NODE_NAME_CHARS - 1} letters, digits or . _ @ -",
            found=repr(text)[:80],
        )
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatement:
    """A certificate of a recipient's key."""

    signer: str
    namespace: Namespace
    node: str
    kem: Kem
    public_key: bytes
    issued: datetime
    not_after: datetime | None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the rule that is broken.
        """
        parse_identity_id(self.signer)
        parse_node(self.node)
        check_public_key(self.kem, self.public_key)
        check_instant(self.issued, "the key statement's field 'issued'")
        if self.not_after is not None:
            check_instant(self.not_after, "the key statement's field 'not_after'")
            if self.issued >= self.not_after:
                raise FormatError(
                    "the key statement lapses before it was issued",
                    expected="issued < not_after",
                    found=f"{format_instant(self.issued)} and {format_instant(self.not_after)}",
                )

    @property
    def recipient(self) -> str:
        """The recipient's id."""
        return recipient_id(self.kem, self.public_key)

    def encode(self) -> bytes:
        """The payload: the exact bytes that are signed."""
        recipient = self.recipient
        return encode_statement(
            KEY_PREDICATE,
            recipient,
            Digest(recipient),
            {
                "issued": format_instant(self.issued),
                "kem_id": self.kem.value,
                "namespace": str(self.namespace),
                "node": self.node,
                "not_after": None if self.not_after is None else format_instant(self.not_after),
                "public_key": encode_base64(self.public_key),
                "recipient": recipient,
                "signer": self.signer,
            },
        )

    @classmethod
    def parse(cls, payload: bytes) -> KeyStatement:
        """Read a key statement; ``parse(payload).encode() == payload``.

        Raises:
            FormatError: if ``payload`` is not a statement of exactly our form.
            StatementMismatch: if it is of another predicate type, or names another recipient than that of the key.
        """
        subject, predicate = take_predicate(
            payload, KEY_PREDICATE, what="the key statement", limit=limits.KEY_STATEMENT_BYTES
        )
        name, digest = take_subject(subject)
        named = {name, digest.hex, predicate.parsed("recipient", parse_recipient_id)}
        statement = cls(
            signer=predicate.parsed("signer", parse_identity_id),
            namespace=predicate.parsed("namespace", Namespace),
            node=predicate.parsed("node", parse_node),
            kem=kem_of(predicate.integer("kem_id", maximum=0xFFFF)),
            public_key=predicate.base64("public_key", limit=max(kem.public_bytes for kem in Kem)),
            issued=predicate.parsed("issued", parse_instant),
            not_after=predicate.optional("not_after", parse_instant),
        )
        predicate.done()
        if named != {statement.recipient}:
            raise StatementMismatch(
                "the key statement names another recipient than that of its key",
                expected=statement.recipient,
                found=", ".join(sorted(named - {statement.recipient}))[:200],
            )
        return statement
