# SPDX-License-Identifier: Apache-2.0
"""Loading the rows of a backup into an empty catalogue, in one transaction: all of them or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Integer,
    LargeBinary,
    Table,
    Text,
    column,
    delete,
    func,
    insert,
    select,
    table,
    text,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from pq_registry import durable, limits
from pq_registry.errors import FormatError, UsageError
from pq_registry.format.strict_json import Value, decode_base64, parse_strict
from pq_registry.storage.backup import LEFT_OUT, BackupIndex, column_type
from pq_registry.storage.catalogue import migrate
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import Base

_TYPES: dict[str, type[TypeEngine[Any]]] = {
    "text": Text,
    "integer": BigInteger,
    "boolean": Boolean,
    "bytes": LargeBinary,
}
_PYTHON: dict[str, type] = {"text": str, "integer": int, "boolean": bool, "bytes": str}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    kind: str
    nullable: bool

    def value(self, given: Value, where: str) -> object:
        if given is None and self.nullable:
            return None
        if type(given) is not _PYTHON[self.kind]:
            raise FormatError(f"{where} of the backup holds a wrong value", expected=self.kind, found=self.name)
        if self.kind == "bytes":
            return decode_base64(cast("str", given), what=self.name, limit=limits.BACKUP_LINE_BYTES)
        return given


def require_empty(catalogue: Catalogue) -> None:
    """Refuse a catalogue that holds anything.

    Raises:
        UsageError: if it does.
    """
    with catalogue.reading() as session:
        for each in Base.metadata.sorted_tables:
            if each.name not in LEFT_OUT and session.execute(select(1).select_from(each).limit(1)).first() is not None:
                raise UsageError(
                    "the catalogue is not empty", expected="a new one", found=f"rows in {each.name}",
                    hint="restore into a new data directory or database; nothing was changed. If a restore was "
                    "interrupted here, remove the catalogue it began and run it again (docs/operations/backup.md)",
                )  # fmt: skip


def require_schema(index: BackupIndex) -> None:
    """Refuse a backup of another version's schema.

    Raises:
        FormatError: if it is one.
    """
    if index.revision != migrate.head():
        raise FormatError(
            "the backup has the schema of another version", expected=migrate.head(), found=index.revision,
            hint=f"restore it with version {index.version}, then start this one: it brings the catalogue up to date",
        )  # fmt: skip


def load_rows(session: Session, source: Path, index: BackupIndex, *, copies: bool) -> None:
    """Insert every row of a backup whose files were verified.

    Args:
        session: a writing transaction on an empty catalogue.
        source: the backup.
        index: its index.
        copies: whether the blob store tells copies of a blob apart; a directory does not.

    Raises:
        FormatError: if the backup's rows do not fit this version's schema.
    """
    require_schema(index)
    for each in Base.metadata.sorted_tables:
        if each.name in LEFT_OUT:
            continue
        described = [file for file in index.files if file.path == f"tables/{each.name}.jsonl"]
        if len(described) != 1:
            raise FormatError("the backup lacks a table", expected=each.name)
        rows = _rows(source / described[0].path, each)
        if each.name == "blobs" and not copies:
            rows = ({**row, "copy": ""} for row in rows)
        loaded = _insert(session, each, _parents_first(each, rows))
        if loaded != described[0].rows:
            raise FormatError(f"{each.name} of the backup is not whole", expected=described[0].rows, found=loaded)
        _go_on_counting(session, each)


def empty(session: Session) -> None:
    """Take back what ``load_rows`` did."""
    for each in reversed(Base.metadata.sorted_tables):
        session.execute(delete(each))


def _rows(path: Path, each: Table) -> Iterator[dict[str, object]]:
    columns = [_Column(one.name, column_type(one.type), bool(one.nullable)) for one in each.c]
    header = {"columns": [[one.name, one.kind] for one in columns], "table": each.name}
    with durable.reported("read", path), path.open("rb") as file:
        number = 0
        while line := file.readline(limits.BACKUP_LINE_BYTES + 1):
            where = f"line {number + 1} of {each.name}"
            value = parse_strict(line.removesuffix(b"\n"), what=where, limit=limits.BACKUP_LINE_BYTES)
            if number == 0:
                if value != header:
                    raise FormatError(f"{each.name} of the backup has other columns", expected=header, found=value)
            elif not isinstance(value, list) or len(value) != len(columns):
                raise FormatError(f"{where} of the backup is no row", expected=f"{len(columns)} values")
            else:
                yield {one.name: one.value(given, where) for one, given in zip(columns, value, strict=True)}
            number += 1


def _parents_first(each: Table, rows: Iterator[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Rows that refer to rows of their own table come after those."""
    own = [key.parent.name for key in each.foreign_keys if key.column.table is each]
    if not own:
        yield from rows
        return
    (key,), (reference,) = [one.name for one in each.primary_key], own
    waiting: dict[object, list[dict[str, object]]] = {}
    for row in rows:
        waiting.setdefault(row[reference], []).append(row)
    ready = waiting.pop(None, [])
    while ready:
        row = ready.pop()
        yield row
        ready += waiting.pop(row[key], [])


def _insert(session: Session, each: Table, rows: Iterator[dict[str, object]]) -> int:
    # Not the mapped table: its columns would take seconds for datetimes.
    plain = table(each.name, *(column(one.name, _TYPES[column_type(one.type)]()) for one in each.c))
    statement, count, size = insert(plain), 0, 0
    batch: list[dict[str, object]] = []
    for row in rows:
        batch.append(row)
        count += 1
        size += sum(len(value) for value in row.values() if isinstance(value, bytes | str))
        if len(batch) == limits.BACKUP_ROWS or size > limits.BACKUP_BATCH_BYTES:
            session.execute(statement, batch)
            batch, size = [], 0
    if batch:
        session.execute(statement, batch)
    return count


def _go_on_counting(session: Session, each: Table) -> None:
    """Let a key that counts up by itself go on after the highest one there is; SQLite does so anyway."""
    keys = list(each.primary_key)
    if session.get_bind().dialect.name != "postgresql" or len(keys) != 1 or not isinstance(keys[0].type, Integer):
        return
    sequence = session.scalar(text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": each.name, "c": keys[0].name})
    highest = session.scalar(select(func.max(keys[0])))
    if sequence is not None and highest is not None:
        session.execute(text("SELECT setval(CAST(:s AS regclass), :v)"), {"s": sequence, "v": highest})
