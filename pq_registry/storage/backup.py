# SPDX-License-Identifier: Apache-2.0
"""A backup: the rows of the catalogue as lines of JSON, independent of the database they came from and go to.

::

    DIR/backup.json             what this is: written last, so a backup without it is none
    DIR/tables/<table>.jsonl    {"columns":[[name, type], …],"table":…}, then one array for each row
    DIR/log/checkpoint, vkey    as readers saw them when it was made
    DIR/log.key                 the log's secret keys, only where that was asked for

``backup.json`` names every file with its size and SHA-256, the schema's revision, the newest checkpoint of the log and
the settings of the registry (no secret among them). The rows are one consistent state, read beside the running service.

Blobs are referred to: table ``blobs`` has digest, size and copy of each. The log's tiles are not in it either: a
restore makes them again from the rows, and they must have the root the log signed.

Unfinished uploads and leases are left out: the former are begun again, the latter belong to processes. So are the keys
of capabilities, which are made anew, and the blocks of chunked uploads, which are sent again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Table, func, select, type_coerce
from sqlalchemy.orm import Session

from pq_registry import __version__, durable, limits
from pq_registry.errors import FormatError, NotFound, UsageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.strict_json import Fields, encode_base64, encode_canonical, encode_plain, parse_canonical
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.storage.backupdir import backup_directory
from pq_registry.storage.catalogue import migrate
from pq_registry.storage.catalogue.columns import InstantColumn
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import Base, BlobRow, LogStateRow
from pq_registry.storage.tiles import VKEY_PATH, LogFiles

SCHEMA = "pqreg-backup/1"
INDEX = "backup.json"
LOG_KEY = "log.key"
LEFT_OUT = frozenset({"uploads", "upload_parts", "leases", "service_keys", "xorbs", "xorb_sources", "xet_places"})
"""Tables that are not copied, for the reasons above."""
_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFile:
    """One file of a backup; ``rows`` are those of a table, 0 in other files."""

    path: str
    size: int
    sha256: Digest
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupIndex:
    """``backup.json``. ``leaves`` and ``root`` are those of the log's newest checkpoint, 0 and None without a log."""

    created: datetime
    version: str
    revision: str
    leaves: int
    root: str | None
    blobs: int
    blob_bytes: int
    settings: Mapping[str, str]
    files: tuple[BackupFile, ...]

    def encode(self) -> bytes:
        """Its exact bytes."""
        return encode_canonical(
            {
                "schema": SCHEMA,
                "created": format_instant(self.created),
                "version": self.version,
                "revision": self.revision,
                "leaves": self.leaves,
                "root": self.root,
                "blobs": self.blobs,
                "blob_bytes": self.blob_bytes,
                "settings": dict(self.settings),
                "files": [
                    {"path": file.path, "size": file.size, "sha256": file.sha256.hex, "rows": file.rows}
                    for file in self.files
                ],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> BackupIndex:
        """Read it.

        Raises:
            FormatError: if ``data`` is none.
        """
        fields = Fields(parse_canonical(data, what=INDEX, limit=limits.BACKUP_INDEX_BYTES), INDEX)
        fields.literal("schema", SCHEMA)
        files = fields.objects("files", limit=limits.BACKUP_FILES)
        settings = fields.object("settings")
        index = cls(
            created=fields.parsed("created", parse_instant),
            version=fields.text("version"),
            revision=fields.text("revision"),
            leaves=fields.integer("leaves"),
            root=fields.optional("root", str),
            blobs=fields.integer("blobs"),
            blob_bytes=fields.integer("blob_bytes"),
            settings={name: settings.text(name) for name in settings.names()},
            files=tuple(
                BackupFile(
                    path=one.text("path"), size=one.integer("size"), sha256=one.parsed("sha256", Digest),
                    rows=one.integer("rows"),
                )
                for one in files
            ),
        )  # fmt: skip
        for one in files:
            one.done()
        fields.done()
        return index


def write_backup(
    target: Path,
    catalogue: Catalogue,
    tiles: LogFiles,
    *,
    now: datetime,
    settings: Mapping[str, str],
    log_key: Path | None = None,
) -> BackupIndex:
    """Write a backup into a new directory, or one that an interrupted backup left.

    Args:
        target: the directory.
        catalogue: of the registry.
        tiles: the files of its log.
        now: when.
        settings: how it is configured, without secrets.
        log_key: the file of the log's secret keys, if it is to be copied.

    Raises:
        AlreadyExists: if there is anything else at ``target``.
        StorageError: if something cannot be read or written. A directory without ``backup.json`` is no backup.
    """
    with backup_directory(target, parts=_parts()):
        return _write_all(target, catalogue, tiles, now=now, settings=settings, log_key=log_key)


def _write_all(
    target: Path,
    catalogue: Catalogue,
    tiles: LogFiles,
    *,
    now: datetime,
    settings: Mapping[str, str],
    log_key: Path | None,
) -> BackupIndex:
    durable.make_directory(target / "tables", 0o700)
    durable.make_directory(target / "log", 0o700)
    files = list(_log_files(target, tiles))  # before the catalogue, so that it is not ahead of it
    with catalogue.reading() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name not in LEFT_OUT]
        files.extend(_write_table(target, session, table) for table in tables)
        note = session.scalar(select(LogStateRow.note))
        blobs, size = session.execute(select(func.count(), func.coalesce(func.sum(BlobRow.size), 0))).one()
    if log_key is not None:
        with durable.reported("read", log_key):
            files.append(_write(target, LOG_KEY, log_key.read_bytes()))
    for file in files:
        _sync(target / file.path)
    checkpoint = None if note is None else parse_checkpoint_note(note)[0]
    index = BackupIndex(
        created=now,
        version=__version__,
        revision=migrate.head(),
        leaves=0 if checkpoint is None else checkpoint.size,
        root=None if checkpoint is None else checkpoint.root.hex(),
        blobs=blobs,
        blob_bytes=int(size),
        settings=settings,
        files=tuple(files),
    )
    durable.write_file(target / INDEX, index.encode(), mode=0o600)
    return index


def read_index(source: Path) -> BackupIndex:
    """What a backup says it is.

    Raises:
        UsageError: if there is no backup.
        FormatError: if its index is malformed.
    """
    try:
        with (source / INDEX).open("rb") as file:
            data = file.read(limits.BACKUP_INDEX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{source} is not a backup", expected=INDEX, found=error.strerror) from None
    return BackupIndex.parse(data)


def verify_files(source: Path, index: BackupIndex) -> None:
    """Make sure that every file of the backup is there, byte for byte.

    Raises:
        FormatError: if one is not.
        StorageError: if one cannot be read.
    """
    for file in index.files:
        path = _inside(source, file.path)
        sha256, size = hashlib.sha256(), 0
        with durable.reported("read", path), path.open("rb") as opened:
            while data := opened.read(limits.HASH_CHUNK_BYTES):
                sha256.update(data)
                size += len(data)
        if (size, sha256.hexdigest()) != (file.size, file.sha256.hex):
            raise FormatError(
                f"{file.path} of the backup is damaged", expected=f"{file.size} bytes, {file.sha256}",
                found=f"{size} bytes, sha256:{sha256.hexdigest()}", hint="use another backup",
            )  # fmt: skip


def read_file(source: Path, index: BackupIndex, path: str) -> bytes | None:
    """A small file of a backup whose files were verified; None if the backup has no such file."""
    if path not in {file.path for file in index.files}:
        return None
    with durable.reported("read", source / path):
        return (source / path).read_bytes()


def _parts() -> set[str]:
    tables = {f"tables/{table.name}.jsonl" for table in Base.metadata.sorted_tables}
    return {LOG_KEY, f"log/{CHECKPOINT_PATH}", f"log/{VKEY_PATH}", *tables}


def _inside(source: Path, path: str) -> Path:
    if path in _parts():
        return source / path
    raise FormatError("the backup lists a file that is none of a backup", found=repr(path)[:80])


def _log_files(target: Path, tiles: LogFiles) -> Iterator[BackupFile]:
    for name in (CHECKPOINT_PATH, VKEY_PATH):
        try:
            yield _write(target, f"log/{name}", tiles.read(name))
        except NotFound:
            continue


def _write(target: Path, path: str, data: bytes) -> BackupFile:
    durable.write_file(target / path, data, mode=0o600)
    return BackupFile(path=path, size=len(data), sha256=Digest.of(data))


def _write_table(target: Path, session: Session, table: Table) -> BackupFile:
    path = f"tables/{table.name}.jsonl"
    columns = [type_coerce(each, BigInteger) if isinstance(each.type, InstantColumn) else each for each in table.c]
    query = select(*columns).order_by(*table.primary_key).execution_options(yield_per=_ROWS)
    sha256, size, rows = hashlib.sha256(), 0, 0
    with durable.reported("write", target / path):
        descriptor = os.open(target / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            header: Any = {"columns": [[each.name, column_type(each.type)] for each in table.c], "table": table.name}
            for line in _lines(header, session.execute(query)):
                file.write(line)
                sha256.update(line)
                size += len(line)
                rows += 1
    return BackupFile(path=path, size=size, sha256=Digest(sha256.hexdigest()), rows=rows - 1)


def _lines(header: Any, rows: Any) -> Iterator[bytes]:
    yield encode_plain(header) + b"\n"
    for row in rows:
        yield encode_plain([encode_base64(bytes(each)) if _is_bytes(each) else each for each in row]) + b"\n"


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def column_type(kind: object) -> str:
    """How the values of a column are written: instants are whole seconds since 1970, bytes are base64."""
    if isinstance(kind, LargeBinary):
        return "bytes"
    if isinstance(kind, Boolean):
        return "boolean"
    return "integer" if isinstance(kind, Integer | InstantColumn) else "text"


def _sync(path: Path) -> None:
    with durable.reported("write", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        durable.sync_directory(path.parent)
