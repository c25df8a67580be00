# SPDX-License-Identifier: Apache-2.0
"""What this client has seen: per tag the newest statement it accepted, so that no registry can take it back.

One file per tag, ``STATE/tags/<sha256 of "ns/name:tag">.json``, canonical JSON::

    {"payload": "sha256:...", "reference": "ns/name:tag", "schema": "urn:pq-registry:seen-tag:v1", "sequence": 7}

The repository is written in lower case, because its name is compared without regard to case; tags are not.
It is keyed by name and not by URL: a mirror is held to what the registry showed. Changes happen under a lock on the
directory and are durable. A damaged file is an error, not a clean slate: forgetting would allow a rollback.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pq_registry import limits
from pq_registry.client.trust import SeenTag
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import FormatError, StorageError, TagEquivocation, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference
from pq_registry.format.strict_json import Fields, encode_canonical, parse_canonical

SCHEMA = "urn:pq-registry:seen-tag:v1"


class SeenTags:
    """The record under ``state_dir``, which is made when there is something to record."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._directory = state_dir / "tags"

    def get(self, reference: Reference) -> SeenTag | None:
        """The newest statement of this tag accepted so far.

        Raises:
            FormatError: if the record is damaged.
            StorageError: if it cannot be read.
        """
        label, path = self._place(reference)
        newest = read_newest(path, schema=SCHEMA, field="reference", label=label, what="statement")
        return None if newest is None else SeenTag(*newest)

    def advance(self, reference: Reference, seen: SeenTag) -> None:
        """Record an accepted statement. An older one than is recorded meanwhile changes nothing.

        Raises:
            TagEquivocation: if another statement with the same sequence was recorded meanwhile.
            FormatError: if the record is damaged.
            StorageError: if it cannot be written.
        """
        label, path = self._place(reference)
        make_directory(self._directory, 0o700)
        with locked(self._directory):
            known = self.get(reference)
            if known is not None and known.sequence == seen.sequence and known.payload != seen.payload:
                raise TagEquivocation(
                    f"two different statements of {label} carry sequence {seen.sequence}",
                    expected=known.payload,
                    found=seen.payload,
                )
            if known is None or known.sequence < seen.sequence:
                document = {
                    "payload": str(seen.payload),
                    "reference": label,
                    "schema": SCHEMA,
                    "sequence": seen.sequence,
                }
                write_file(path, encode_canonical(document), mode=0o600)

    def _place(self, reference: Reference) -> tuple[str, Path]:
        if reference.tag is None:
            raise UsageError(f"{reference} names no tag")
        label = f"{reference.repository.key}:{reference.tag}"
        return label, self._directory / f"{hashlib.sha256(label.encode()).hexdigest()}.json"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one of this user's processes that changes what is recorded in ``directory``.

    Raises:
        StorageError: if it cannot be locked.
    """
    with reported("lock", directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with reported("lock", directory):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_record(path: Path, limit: int) -> bytes | None:
    """The record at ``path``, or one byte more than ``limit``; None if there is none.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        with reported("read", path), path.open("rb") as file:
            return file.read(limit + 1)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_newest(path: Path, *, schema: str, field: str, label: str, what: str) -> tuple[int, Digest] | None:
    """Sequence and payload digest in the record at ``path``, which must be of ``label``; None if there is none.

    Raises:
        FormatError: if the record is damaged; ``what`` is the kind of statement it is of.
        StorageError: if it cannot be read.
    """
    data = read_record(path, limits.SEEN_TAG_BYTES)
    if data is None:
        return None
    try:
        fields = Fields(parse_canonical(data, what="the record", limit=limits.SEEN_TAG_BYTES), "record")
        fields.literal("schema", schema)
        fields.literal(field, label)
        newest = fields.integer("sequence", minimum=1), fields.parsed("payload", Digest.parse)
        fields.done()
    except FormatError as error:
        raise FormatError(
            f"the record of the last {what} seen of {label} is damaged",
            expected=error.expected,
            found=error.found or error.message,
            hint=f"find out who changed {path}; deleting it allows an older {what} to be accepted",
        ) from None
    return newest
