# SPDX-License-Identifier: Apache-2.0
"""Quotas: how many bytes a namespace may hold, and how many repositories it may have.

What a namespace holds is the sizes of all blobs its repositories refer to, each once, and those announced by its
unfinished uploads; blocks of chunked uploads count until files are made of them. A blob that two namespaces refer to
counts for both, though it is stored once: otherwise it would depend on the neighbours what one may still do. Statements
do not count.

That sum costs a look at every blob of the namespace. So it is made at most every ``limits.QUOTA_SECONDS``, and what
this instance let in meanwhile is added to it; before anybody is refused it is made anew. Several instances can
therefore let in a little more than allowed, together, for that long. Nothing that is there is ever removed because a
quota became smaller.
"""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from pq_registry import durable, limits
from pq_registry.errors import PqregError, QuotaExceeded, SettingError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.service.access import Caller
from pq_registry.settings import Settings, parse_rate
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.intaketables import XorbRow
from pq_registry.storage.catalogue.tables import BlobRow, NamespaceRow, RepositoryBlobRow, RepositoryRow, UploadRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one namespace may have; 0 is no limit."""

    bytes: int = 0
    repositories: int = 0


@dataclass(frozen=True, slots=True)
class Quotas:
    """The quota of every namespace: its own by its key, or else the one for all."""

    default: Quota = Quota()
    own: Mapping[str, Quota] = field(default_factory=dict)

    def of(self, namespace: Namespace) -> Quota:
        """The quota of a namespace."""
        return self.own.get(namespace.key, self.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a namespace holds, and may."""

    bytes: int
    repositories: int
    quota: Quota


@dataclass(slots=True)
class _Sum:
    bytes: int
    made: float
    added: int = 0


class QuotaKeeper:
    """Refuses what goes beyond a quota."""

    def __init__(self, catalogue: Catalogue, quotas: Quotas | None = None) -> None:
        self._catalogue = catalogue
        self.quotas = quotas or Quotas()
        self._lock = threading.Lock()
        self._sums: dict[str, _Sum] = {}

    def admit_upload(
        self, caller: Caller, repository: RepositoryName, digest: Digest, size: int, *, replacing: int = 0
    ) -> None:
        """Let an upload begin. One that goes on, and bytes the namespace holds already, take no room.

        Args:
            caller: who uploads.
            repository: where.
            digest: what, by its SHA-256.
            size: its length.
            replacing: bytes that count now and are given up once the upload is complete.

        Raises:
            QuotaExceeded: if the namespace has no room for it, or for its repository.
            StorageError: if the catalogue fails.
        """
        self.admit_repository(repository)
        quota = self.quotas.of(repository.namespace)
        if quota.bytes and not self._is_counted(caller, repository, digest, size):
            self._admit_bytes(repository.namespace, max(0, size - replacing), quota.bytes)

    def admit_block(self, repository: RepositoryName, size: int) -> None:
        """Let a block of a chunked upload be stored until its files are made of it.

        Raises:
            QuotaExceeded: if the namespace has no room for it, or for its repository.
            StorageError: if the catalogue fails.
        """
        self.admit_repository(repository)
        quota = self.quotas.of(repository.namespace)
        if quota.bytes:
            self._admit_bytes(repository.namespace, size, quota.bytes)

    def admit_repository(self, repository: RepositoryName) -> None:
        """Let a repository come to be, unless it is there already.

        Raises:
            QuotaExceeded: if its namespace may have no more of them.
            StorageError: if the catalogue fails.
        """
        most = self.quotas.of(repository.namespace).repositories
        if not most:
            return
        with self._catalogue.reading() as session:
            exists = session.scalars(select(RepositoryRow.id).where(RepositoryRow.key == repository.key)).first()
        if exists is None and (there := self._repositories(repository.namespace)) >= most:
            raise QuotaExceeded(
                f"namespace {repository.namespace} has no room for another repository",
                expected=f"at most {most} repositories", found=f"{there} of them",
                hint="ask the registry's operator for a larger quota",
            )  # fmt: skip

    def usage(self, namespace: Namespace) -> Usage:
        """What a namespace holds; as exact as the decisions are.

        Raises:
            StorageError: if the catalogue fails.
        """
        self._refresh(namespace, limits.QUOTA_SECONDS)
        with self._lock:
            held = self._held(namespace)
        return Usage(bytes=held, repositories=self._repositories(namespace), quota=self.quotas.of(namespace))

    def _is_counted(self, caller: Caller, repository: RepositoryName, digest: Digest, size: int) -> bool:
        # By its size, too: who announces a known digest with another one is about to send something else.
        uploads = select(UploadRow.id).join(RepositoryRow).where(
            RepositoryRow.key == repository.key, UploadRow.digest == digest.hex, UploadRow.size == size,
            UploadRow.token_id == caller.token_id,
        )  # fmt: skip
        links = (
            select(RepositoryBlobRow.digest)
            .join(RepositoryRow)
            .join(NamespaceRow)
            .join(BlobRow, BlobRow.digest == RepositoryBlobRow.digest)
            .where(BlobRow.digest == digest.hex, BlobRow.size == size, NamespaceRow.key == repository.namespace.key)
        )
        with self._catalogue.reading() as session:
            return any(session.scalars(query.limit(1)).first() is not None for query in (uploads, links))

    def _admit_bytes(self, namespace: Namespace, adding: int, most: int) -> None:
        for age in (limits.QUOTA_SECONDS, limits.QUOTA_PAUSE_SECONDS):
            self._refresh(namespace, age)
            with self._lock:
                held = self._held(namespace)
                if held + adding <= most:
                    self._sums[namespace.key].added += adding
                    return
        raise QuotaExceeded(
            f"namespace {namespace} has no room for {adding} bytes", expected=f"at most {most} bytes",
            found=f"{held} bytes there, with unfinished uploads",
            hint="abort uploads that are not needed, or ask the registry's operator for a larger quota",
        )  # fmt: skip

    def _held(self, namespace: Namespace) -> int:
        known = self._sums[namespace.key]
        return known.bytes + known.added

    def _refresh(self, namespace: Namespace, age: float) -> None:
        """Make the sum anew unless it is younger than ``age`` seconds. One thread does, others wait for none."""
        made = time.monotonic()
        with self._lock:
            known = self._sums.get(namespace.key)
            if known is not None and made - known.made < age:
                return
            before = 0 if known is None else known.added
        total = self._stored(namespace)
        with self._lock:
            if self._sums.get(namespace.key) is not known:
                return  # somebody else was faster
            # What was let in while this was summed up may be in it or not: counted twice for a while, never forgotten.
            added = 0 if known is None else known.added - before
            self._sums[namespace.key] = _Sum(total, made, added)

    def _stored(self, namespace: Namespace) -> int:
        mine = select(RepositoryRow.id).join(NamespaceRow).where(NamespaceRow.key == namespace.key)
        linked = select(RepositoryBlobRow.digest).where(RepositoryBlobRow.repository_id.in_(mine))
        blobs = select(func.coalesce(func.sum(BlobRow.size), 0)).where(BlobRow.digest.in_(linked))
        uploads = select(func.coalesce(func.sum(UploadRow.size), 0)).where(UploadRow.repository_id.in_(mine))
        blocks = select(func.coalesce(func.sum(XorbRow.size), 0)).where(
            XorbRow.repository_id.in_(mine), XorbRow.stored.is_(True)
        )
        with self._catalogue.reading() as session:
            return sum(int(session.scalars(query).one()) for query in (blobs, uploads, blocks))

    def _repositories(self, namespace: Namespace) -> int:
        query = select(func.count(RepositoryRow.id)).join(NamespaceRow).where(NamespaceRow.key == namespace.key)
        with self._catalogue.reading() as session:
            return session.scalars(query).one()


def read_quotas(settings: Settings) -> Quotas:
    """The quotas that the settings name. The file has a table for each namespace.

    ::

        [acme]
        bytes = "10T"
        repositories = 500

    Raises:
        SettingError: if one is wrong, or the file cannot be read.
    """
    default = _quota(
        {"bytes": settings.require("quota_bytes"), "repositories": settings.integer(
            "quota_repositories", minimum=0, maximum=limits.JSON_INTEGER)},
        "setting quota_bytes",
    )  # fmt: skip
    path = settings.get("quotas")
    return Quotas(default, {} if path is None else _read(Path(path)))


def _read(path: Path) -> dict[str, Quota]:
    try:
        with durable.reported("read", path), path.open("rb") as file:
            data = file.read(limits.QUOTA_FILE_BYTES + 1)
        if len(data) > limits.QUOTA_FILE_BYTES:
            raise SettingError(f"{path} is too long", expected=f"at most {limits.QUOTA_FILE_BYTES} bytes")
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path} is not a file of quotas", expected="TOML", found=str(error)[:80]) from None
    found: dict[str, Quota] = {}
    for name, value in table.items():
        try:
            key = Namespace(name).key
        except PqregError as error:
            raise SettingError(f"{path} names no namespace", found=str(error)) from None
        if key in found or not isinstance(value, dict):
            raise SettingError(f"{path} is wrong about {name}", expected=f"one table [{name}]")
        found[key] = _quota(value, f"[{name}] in {path}")
    return found


def _quota(table: Mapping[str, Any], where: str) -> Quota:
    size, repositories = table.get("bytes", 0), table.get("repositories", 0)
    if not set(table) <= {"bytes", "repositories"} or type(repositories) is not int or repositories < 0:
        raise SettingError(f"{where} is wrong", expected='bytes = "500G" and repositories = 100, or one of them')
    try:
        return Quota(bytes=parse_rate(str(size)), repositories=repositories)
    except SettingError as error:
        raise SettingError(f"{where} is wrong", expected=error.expected, found=error.found) from None
