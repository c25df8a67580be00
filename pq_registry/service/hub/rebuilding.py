# SPDX-License-Identifier: Apache-2.0
"""Files made of the xorbs that were sent: what a shard of the Xet protocol asks for.

Each file is read from its pieces, in order, and taken in as any other (``intake``): what it is, its SHA-256 decides and
nothing the client said about chunks. That takes as long as the files are large, so it is a job of this instance's;
requests wait for it, and one that comes again while it runs waits for the same. If the instance dies, what was written
by then is not written again.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.errors import BlobDamaged, Conflict, FormatError, NotFound, StorageError, TooManyRequests
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.format.xetshard import Term, XetFile, parse_xet_shard
from pq_registry.service.access import Caller
from pq_registry.service.hub.intake import Bytes, Intake
from pq_registry.service.hub.xorbs import Made, Xorb, Xorbs
from pq_registry.service.visible import find_blob
from pq_registry.storage.blobs import BlobReader, BlobStore, StoredBlob
from pq_registry.storage.blocks import Blocks
from pq_registry.storage.catalogue.database import Catalogue

_XORBS = 64
_READERS = 8
"""What of either is kept at hand for one shard: files mostly follow their xorbs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes of a file, which are in ``place`` from ``offset`` on. Without a copy that is a blob."""

    start: int
    length: int
    place: StoredBlob | Digest
    size: int | None
    offset: int


class Rebuilding:
    """Makes files of xorbs."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore, blocks: Blocks, xorbs: Xorbs, intake: Intake) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._blocks = blocks
        self._xorbs = xorbs
        self._intake = intake
        self._pool = ThreadPoolExecutor(limits.XET_REBUILDING_TASKS, "rebuilding")
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, str, bytes], Future[None]] = {}
        self._closing = False

    def start(self, caller: Caller, repository: RepositoryName, shard: bytes) -> Future[None]:
        """Make the files a shard describes; the same shard again is the same job while that runs.

        Raises:
            FormatError: if it is malformed.
            TooManyRequests: if too many others wait.
        """
        key = (caller.token_id, str(repository), hashlib.sha256(shard).digest())
        with self._lock:
            job = self._jobs.get(key)
        if job is not None:
            return job
        files = parse_xet_shard(shard)
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                if len(self._jobs) >= limits.XET_JOBS:
                    error = TooManyRequests("too many uploads are being put together", hint="try again in a moment")
                    error.retry_after = limits.REQUEST_PAUSE_SECONDS
                    raise error
                job = self._jobs[key] = self._pool.submit(self._run, caller, repository, files)
        job.add_done_callback(lambda _job: self._jobs.pop(key, None))
        return job

    def close(self) -> None:
        """End, in the middle of a file if need be."""
        self._closing = True
        self._pool.shutdown(cancel_futures=True)

    # ------------------------------------------------------------------------------------------------------------------

    def _run(self, caller: Caller, repository: RepositoryName, files: Sequence[XetFile]) -> None:
        session = _Session(self._catalogue, self._blobs, self._blocks, self._xorbs, caller)
        runs: list[Made] = []
        with contextlib.closing(session):
            for file in files:
                located = session.pieces(file)
                if located is None:
                    self._xorbs.move(repository)
                    raise Conflict(
                        "the upload refers to chunks that are not here any more", expected="chunks sent before",
                        hint="upload once more: the client will send all of them",
                    )  # fmt: skip
                pieces, found = located
                _require_contents(file, pieces)
                starts = [piece.start for piece in pieces]

                def read(offset: int, length: int, pieces: list[Piece] = pieces, starts: list[int] = starts) -> Bytes:
                    if self._closing:
                        raise StorageError("the registry is stopping", hint="try again")
                    return session.read(pieces, starts, offset, length)

                blocks = {piece.place: piece.size or 0 for piece in pieces if isinstance(piece.place, StoredBlob)}
                self._intake.copy(
                    caller, repository, file.sha256, file.size, read, replacing=min(file.size, sum(blocks.values()))
                )
                runs += found
        self._xorbs.made(runs)


class _Session:
    """What the files of one shard are read from."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore, blocks: Blocks, xorbs: Xorbs, caller: Caller) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._blocks = blocks
        self._xorbs = xorbs
        self._caller = caller
        self._found: dict[str, list[Xorb]] = {}
        self._readers: dict[StoredBlob | Digest, BlobReader] = {}

    def pieces(self, file: XetFile) -> tuple[list[Piece], list[Made]] | None:
        """Where the bytes of a file are, and which runs of the caller's own xorbs it has; None if some are not there.

        Raises:
            FormatError: if a xorb has other chunks than the shard says.
        """
        pieces: list[Piece] = []
        runs: list[Made] = []
        offset = 0
        for term in file.terms:
            located = self._locate(term, offset)
            if located is None:
                return None
            found, xorb_id = located
            pieces += found
            if xorb_id is not None:
                runs.append(Made(xorb_id, term.first, term.end, file.sha256, offset))
            offset += term.size
        return pieces, runs

    def read(self, pieces: Sequence[Piece], starts: Sequence[int], offset: int, length: int) -> Bytes:
        """Bytes of a file.

        Raises:
            StorageError: if they cannot be read now.
        """
        result = bytearray()
        index = bisect.bisect_right(starts, offset) - 1
        while length:
            piece = pieces[index]
            skipped = offset - piece.start
            count = min(length, piece.length - skipped)
            result += self._reader(piece).read(piece.offset + skipped, count)
            offset, length, index = offset + count, length - count, index + 1
        return result

    def close(self) -> None:
        """Close what is open."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _locate(self, term: Term, start: int) -> tuple[list[Piece], str | None] | None:
        """The pieces of a term, and the xorb they are in as far as it is the caller's own and stored; None if gone."""
        for xorb in self._lookup(term.xorb):
            offset, length = xorb.span(term)
            if xorb.block is not None:
                piece = Piece(start, length, xorb.block, xorb.size, offset)
                return [piece], xorb.id if xorb.own else None
            found = _within_files(xorb, term, start)
            if found and all(self._is_readable(piece.place) for piece in found):
                return found, None
        return None

    def _lookup(self, name: str) -> list[Xorb]:
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._xorbs.find(self._caller, name)
            if len(self._found) > _XORBS:
                del self._found[next(iter(self._found))]
        return found

    def _is_readable(self, place: StoredBlob | Digest) -> bool:
        assert isinstance(place, Digest)
        try:
            with self._catalogue.reading() as session:
                find_blob(session, self._caller, place)
        except (NotFound, BlobDamaged):  # then the client sends its chunks again
            return False
        return True

    def _reader(self, piece: Piece) -> BlobReader:
        reader = self._readers.get(piece.place)
        if reader is None:
            with _present():
                if isinstance(piece.place, StoredBlob):
                    reader = self._blocks.open(piece.place, piece.size or 0)
                else:
                    with self._catalogue.reading() as session:
                        blob, size = find_blob(session, self._caller, piece.place)
                    reader = self._blobs.open(blob, size=size)
            self._readers[piece.place] = reader
            if len(self._readers) > _READERS:
                self._readers.pop(next(iter(self._readers))).close()
        return reader


def _require_contents(file: XetFile, pieces: Sequence[Piece]) -> None:
    """Refuse a file that is little but one thing again and again, before anything of it is written.

    Raises:
        FormatError: if it is.
    """
    distinct, reached = 0, dict[StoredBlob | Digest, int]()
    for piece in sorted(pieces, key=lambda piece: piece.offset):  # runs may overlap
        before, end = reached.get(piece.place, 0), piece.offset + piece.length
        distinct += max(0, end - max(before, piece.offset))
        reached[piece.place] = max(before, end)
    most = max(limits.XET_REPEATED_BYTES, limits.XET_REPEATS * distinct)
    if file.size > most:
        raise FormatError(
            "a file repeats its chunks too often for this way of uploading", found=f"{file.size} bytes",
            expected=f"at most {most} bytes made of {distinct}", hint="use pqreg push for it",
        )  # fmt: skip


def _within_files(xorb: Xorb, term: Term, start: int) -> list[Piece]:
    """The pieces of a term whose xorb is only known by the files made of it; none if they do not have all of it."""
    pieces: list[Piece] = []
    chunk = term.first
    while chunk < term.end:
        source = next((source for source in xorb.sources if source.first <= chunk < source.end), None)
        if source is None:
            return []
        end = min(source.end, term.end)
        offset, length = xorb.start(chunk), xorb.start(end) - xorb.start(chunk)
        pieces.append(Piece(start, length, source.digest, None, source.offset + offset - xorb.start(source.first)))
        start, chunk = start + length, end
    return pieces


@contextmanager
def _present() -> Iterator[None]:
    """What was there a moment ago went because a file was made of it: who tries again finds it there."""
    try:
        yield
    except (NotFound, BlobDamaged) as error:
        raise StorageError("what an upload is made of moved meanwhile", hint="try again") from error
