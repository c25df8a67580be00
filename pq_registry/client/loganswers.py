# SPDX-License-Identifier: Apache-2.0
"""The registry's answers about its log as values; as ``client.answers``, and as little verified."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.client.answers import Page, digest_text, following, word
from pq_registry.format.digest import Digest
from pq_registry.format.instant import parse_instant
from pq_registry.format.strict_json import Fields


@dataclass(frozen=True, slots=True)
class Logged:
    """Where the log has a statement just sent; ``index`` and ``receipt`` are None where the registry has no log.

    ``quorum`` is whether the receipt meets the registry's own policy: without it, witnesses were missing.
    """

    index: int | None
    receipt: bytes | None
    quorum: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """A release the registry has committed."""

    digest: Digest
    logged: Logged


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A leaf of the log, as the registry describes it; ``statement`` is the digest of its payload."""

    index: int
    time: datetime
    kind: str
    name: str
    identity: str
    statement: Digest


def statement(fields: Fields) -> tuple[bytes, bytes | None]:
    """``GET /v1/statements/{hex}``: the envelope, and the receipt if there is one."""
    envelope = fields.base64("envelope", limit=limits.ENVELOPE_BYTES)
    return envelope, fields.optional_base64("tlog_proof", limit=limits.TLOG_PROOF_BYTES)


def logged(fields: Fields) -> Logged:
    """What every answer to a statement says about the log."""
    if not fields.has("log_index"):
        return Logged(None, None, quorum=False)
    return Logged(
        fields.integer("log_index"),
        fields.base64("receipt", limit=limits.TLOG_PROOF_BYTES),
        quorum=fields.boolean("quorum"),
    )


def committed(fields: Fields) -> Committed:
    """``POST .../releases``."""
    return Committed(fields.parsed("digest", Digest.parse), logged(fields))


def log_entries(fields: Fields) -> Page[LogEntry]:
    """``GET /v1/log/entries``."""
    items = tuple(
        LogEntry(
            index=item.integer("index"),
            time=item.parsed("time", parse_instant),
            kind=word(item, "kind"),
            name=word(item, "name"),
            identity=word(item, "identity"),
            statement=item.parsed("statement", digest_text),
        )
        for item in fields.objects("items", limit=limits.PAGE_ITEMS)
    )
    return Page(items, following(fields))
