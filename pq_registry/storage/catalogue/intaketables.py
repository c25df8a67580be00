# SPDX-License-Identifier: Apache-2.0
"""The tables behind uploads of the Hub's clients: keys of the service, and blocks of chunked uploads. See ``tables``.

None of them is in a backup: a restored service makes another key, and clients send again what was under way.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pq_registry.storage.catalogue.tables import Base

_HEX = String(64)


class ServiceKeyRow(Base):
    """A secret that all instances share, made by the first one that needs it. ``key`` is random."""

    __tablename__ = "service_keys"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[bytes]
    created: Mapped[datetime]


class XorbRow(Base):
    """A block of chunks a client sent; ``hash`` is the name it gave it, ``digest`` the SHA-256 of the unpacked bytes.

    ``ends`` are the offsets at which its chunks end, unpacked, each as u32 in little-endian order. While ``stored``,
    its bytes are in the store under ``digest`` and ``id``; after that its chunks are parts of files, if anything.
    """

    __tablename__ = "xorbs"
    __table_args__ = (UniqueConstraint("repository_id", "token_id", "hash"), Index(None, "hash"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"))
    token_id: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str] = mapped_column(_HEX)
    digest: Mapped[str] = mapped_column(_HEX)
    size: Mapped[int] = mapped_column(BigInteger)
    ends: Mapped[bytes]
    stored: Mapped[bool] = mapped_column(Boolean)
    touched: Mapped[datetime]


class XorbSourceRow(Base):
    """Where the chunks ``first`` to ``end`` (exclusive) of a xorb are by now: in the blob ``digest``, at ``offset``."""

    __tablename__ = "xorb_sources"

    xorb_id: Mapped[str] = mapped_column(ForeignKey("xorbs.id", ondelete="CASCADE"), primary_key=True)
    first: Mapped[int] = mapped_column(Integer, primary_key=True)
    end: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(_HEX)
    offset: Mapped[int] = mapped_column(BigInteger)


class XetPlaceRow(Base):
    """What is said of where a repository's chunked uploads go: clients remember by it what they have sent there."""

    __tablename__ = "xet_places"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True)
    place: Mapped[str] = mapped_column(String(16))
