# SPDX-License-Identifier: Apache-2.0
"""A log's files in an object store, below ``PREFIX/log/``, exactly as readers see them: a CDN may serve that prefix.

The catalogue's lock decides what the tree is. Here, as in a directory, a tile that stands with other bytes halts the
log, and the checkpoint never shrinks. Where the provider knows conditional writes, they hold that even against another
writer; where it does not, what stands is read first, and the lock and the lease keep writers apart. The tiles of one
call are written several at once: no reader looks for them before a checkpoint says that they are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import ClientError

from pq_registry import limits
from pq_registry.errors import FormatError, LogHalted, NotFound, StorageError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.tile import WIDTH, TilePath
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.storage.s3.answers import reported, status_of
from pq_registry.storage.s3.holding import remove_object
from pq_registry.storage.s3.reading import read_whole
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.tiles import VKEY_PATH

PREFIX = "log/"
_HINT = "see docs/operations/log.md, and run pqreg fsck"
_MOST_BYTES = max(limits.ENTRY_BUNDLE_BYTES, limits.NOTE_BYTES)
_TAKEN = frozenset({409, 412})
_OTHERWISE = _TAKEN | {404}
"""How a provider says that a condition does not hold; 404 where what should be replaced is gone."""
_BINARY, _TEXT = "application/octet-stream", "text/plain; charset=utf-8"
_FOR_GOOD, _FOR_NOW = "public, max-age=31536000, immutable", "public, max-age=2"


class S3Tiles:
    """``LogFiles`` in an object store."""

    def __init__(self, session: S3Session) -> None:
        self.session = session
        self._written: tuple[bytes, str] | None = None

    def read(self, path: str) -> bytes:
        """The file at ``path``.

        Raises:
            FormatError: if ``path`` is not that of a file of a log.
            NotFound: if there is no such file.
            StorageError: if it cannot be read, or is larger than any file of a log.
        """
        return self._read(path)[0]

    def write(self, tiles: Sequence[tuple[str, bytes]]) -> None:
        """Write tiles; each is whole or not there, and all are there when this returns.

        Raises:
            LogHalted: if other bytes stand under one of the paths.
            StorageError: if the store fails; some of them may then be there.
        """
        for path, _ in tiles:
            _name(path)
        if len(tiles) < 2:
            for path, data in tiles:
                self._add(path, data)
        else:
            with ThreadPoolExecutor(min(limits.S3_TILE_WRITERS, len(tiles)), "tiles") as writers:
                # The first failure is raised once all have ended: none goes on writing behind the log's back.
                for done in [writers.submit(self._add, path, data) for path, data in tiles]:
                    done.result()
        for path, _ in tiles:
            self._drop_partial(path)

    def write_checkpoint(self, note: bytes) -> None:
        """Replace the checkpoint, unless that would show less than before.

        Raises:
            LogHalted: if the present one is of a larger tree, or of another log, or damaged.
            StorageError: if the store fails.
        """
        new, _ = parse_checkpoint_note(note)
        # What was written last is looked at again only where the provider's condition would not notice another's.
        present = self._written if self.session.capabilities.conditional_replace else None
        self._written = None
        for _ in range(limits.S3_ATTEMPTS):
            present = present or self._present()
            if present is not None:
                if present[0] == note:
                    self._written = present
                    return
                _require_growth(present[0], new)
            etag = self._replaced(note, None if present is None else present[1])
            if etag is not None:
                self._written = (note, etag) if etag else None
                return
            present = None
        raise StorageError("the checkpoint in the object store changes faster than it can be replaced", hint=_HINT)

    def write_vkey(self, text: bytes) -> None:
        """Replace the verifier keys' text.

        Raises:
            StorageError: if the store fails.
        """
        self._put(VKEY_PATH, text)

    def replace(self, path: str, data: bytes) -> None:
        """Overwrite a damaged file, whatever stands there: for repairs only.

        Raises:
            FormatError: if ``path`` is not that of a file of a log.
            StorageError: if the store fails.
        """
        self._put(path, data)

    def has_tiles(self) -> bool:
        """Whether there is any tile.

        Raises:
            StorageError: if the store fails.
        """
        return next(self.session.names(f"{PREFIX}tile/"), None) is not None

    def names(self) -> Iterator[str]:
        """The path of every file below the log's prefix, in the store's order, whether or not it is one of a log.

        Raises:
            StorageError: if the store fails.
        """
        for item in self.session.names(PREFIX):
            yield item["Key"].removeprefix(PREFIX)

    def sweep(self) -> None:
        """Nothing: an object is stored whole or not at all."""

    def _add(self, path: str, data: bytes) -> None:
        if self.session.capabilities.conditional_put:
            with reported("write", PREFIX + path):
                try:
                    self._attempt(path, data, IfNoneMatch="*")
                except ClientError as error:
                    if status_of(error) not in _TAKEN:
                        raise
                else:
                    return
            # Taken: by a try of ours whose answer was lost, or by an interrupted write before, or by somebody else.
        try:
            present = self.read(path)
        except NotFound:
            self._put(path, data)
            return
        if present != data:
            raise LogHalted(
                f"{path} stands in the tile store with other bytes", expected=f"{len(data)} bytes as signed", hint=_HINT
            )

    def _present(self) -> tuple[bytes, str] | None:
        try:
            return self._read(CHECKPOINT_PATH)
        except NotFound:
            return None

    def _replaced(self, note: bytes, etag: str | None) -> str | None:
        """Write the checkpoint if the one of ``etag``, or none, is there; answers its new tag, None if it was not."""
        able = self.session.capabilities
        condition: dict[str, str] = {}
        if etag is None and able.conditional_put:
            condition = {"IfNoneMatch": "*"}
        elif etag is not None and able.conditional_replace:
            condition = {"IfMatch": etag}
        with reported("write", PREFIX + CHECKPOINT_PATH):
            try:
                return self._attempt(CHECKPOINT_PATH, note, **condition)
            except ClientError as error:
                if not condition or status_of(error) not in _OTHERWISE:
                    raise
                return None

    def _read(self, path: str) -> tuple[bytes, str]:
        try:
            return read_whole(self.session, _name(path), limit=_MOST_BYTES)
        except NotFound:
            raise NotFound(f"the log has no {path}") from None

    def _put(self, path: str, data: bytes) -> None:
        with reported("write", PREFIX + path):
            self._attempt(path, data)

    def _attempt(self, path: str, data: bytes, **condition: str) -> str:
        changing = path in (CHECKPOINT_PATH, VKEY_PATH)
        answer = self.session.attempt(
            "put_object", _name(path), **self.session.body(data), ContentType=_TEXT if changing else _BINARY,
            CacheControl=_FOR_NOW if changing else _FOR_GOOD, **self.session.encryption, **condition,
        )  # fmt: skip
        return str(answer.get("ETag", ""))

    def _drop_partial(self, path: str) -> None:
        """Remove the partial tiles that a full one has replaced: readers of old checkpoints take the full one."""
        if TilePath.parse(path).width != WIDTH:
            return
        # What cannot be removed only takes room.
        try:
            for item in self.session.names(f"{PREFIX}{path}.p/"):
                remove_object(self.session, item["Key"])
        except (StorageError, NotFound):
            return


def _name(path: str) -> str:
    if path not in (CHECKPOINT_PATH, VKEY_PATH):
        TilePath.parse(path)
    return PREFIX + path


def _require_growth(present: bytes, new: Checkpoint) -> None:
    try:
        old, _ = parse_checkpoint_note(present)
    except FormatError as error:
        raise LogHalted("the checkpoint in the tile store is damaged", found=error, hint=_HINT) from error
    if old.origin != new.origin or old.size > new.size:
        raise LogHalted(
            "the tile store shows a larger tree, or another log",
            expected=f"at most {new.size} leaves of {new.origin}",
            found=f"{old.size} of {old.origin}",
            hint=_HINT,
        )
