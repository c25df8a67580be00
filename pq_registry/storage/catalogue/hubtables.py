# SPDX-License-Identifier: Apache-2.0
"""The tables of the Hub's side: drafts, model cards, runs of mirrors. See ``tables``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from pq_registry.storage.catalogue.columns import BigKey
from pq_registry.storage.catalogue.tables import Base

_HEX = String(64)
_COMMIT = String(40)


class DraftRow(Base):
    """A name that nobody signed, for the Hub's clients: a branch they push to or a tag they set (``kind``).

    ``head`` is a commit: of a draft, or of a release of this repository.
    """

    __tablename__ = "drafts"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    head: Mapped[str] = mapped_column(_COMMIT)
    created: Mapped[datetime]
    updated: Mapped[datetime]


class DraftCommitRow(Base):
    """A commit nobody signed. ``listing`` is the canonical JSON of its files: path, size and SHA-256 of each.

    It may be megabytes, so it is fetched only when it is asked for.
    """

    __tablename__ = "draft_commits"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True)
    id: Mapped[str] = mapped_column(_COMMIT, primary_key=True)
    parent: Mapped[str | None] = mapped_column(_COMMIT)
    title: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)
    token_id: Mapped[str] = mapped_column(String(16))
    files: Mapped[int] = mapped_column(Integer)
    size: Mapped[int] = mapped_column(BigInteger)
    listing: Mapped[bytes] = mapped_column(deferred=True)
    created: Mapped[datetime]


class CardRow(Base):
    """What the model card of a release says, as far as it is searched for. Lists are words between single spaces.

    ``data`` is all of it, as JSON. Of the cards of a repository at most one is ``shown``: the one it is found by.
    """

    __tablename__ = "cards"

    release_digest: Mapped[str] = mapped_column(ForeignKey("releases.digest"), primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), index=True)
    license: Mapped[str] = mapped_column(String(64))
    library: Mapped[str] = mapped_column(String(64))
    pipeline: Mapped[str] = mapped_column(String(64))
    languages: Mapped[str] = mapped_column(Text)
    tags: Mapped[str] = mapped_column(Text)
    base_models: Mapped[str] = mapped_column(Text)
    data: Mapped[str] = mapped_column(Text)
    shown: Mapped[bool] = mapped_column(Boolean, server_default=false())


class CardWordRow(Base):
    """A word by which a repository is found, of the card that is ``shown`` for it; ``=…`` is one of its facets."""

    __tablename__ = "card_words"

    word: Mapped[str] = mapped_column(String(256), primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True, index=True)


class MirrorRunRow(Base):
    """A run of a mirror: a release on its way to a Hub, as whoever ran it reported. ``detail`` is JSON, no secrets."""

    __tablename__ = "mirror_runs"
    __table_args__ = (Index(None, "repository_id", "id"),)

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"))
    target: Mapped[str] = mapped_column(String(300))
    release_digest: Mapped[str] = mapped_column(_HEX)
    tag: Mapped[str | None] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    commit: Mapped[str | None] = mapped_column(_COMMIT)
    detail: Mapped[str] = mapped_column(Text)
    token_id: Mapped[str] = mapped_column(String(16))
    started: Mapped[datetime]
    finished: Mapped[datetime | None]
