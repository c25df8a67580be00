# SPDX-License-Identifier: Apache-2.0
"""Opening sealed releases: step 7 of DESIGN §5, and a source that gives plaintext.

7. In this order, each with an error of its own: the grant's signature and signer (``Verifier.grant``); it is of this
   release and for this recipient; not older than one seen before (``client.seengrants``), and from here on seen;
   neither withdrawn nor expired; what it wraps opens; the content key is the one the manifest commits to; pqreg.inner,
   whose shards were checked and unsealed, is the one the manifest commits to.
8. ``UnsealingSource`` reads stored shards into memory of its own, checks their BLAKE3 there, and only then decrypts
   them into the caller's memory. Any shard is read without its neighbours.

Whoever does not hold the publisher's signing key cannot make this code decrypt anything: whatever is not exactly the
signed ciphertext ends as ``ShardMismatch``, which says nothing that its sender did not know. ``UnsealFailed`` means
that the publisher signed a shard that does not decrypt. The caller's memory then holds zeros.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import ignored
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import ShardSource
from pq_registry.client.trust import VerifiedRelease, Verifier
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.crypto.sealing import FileSealer, SealingKey, open_grant, require_match
from pq_registry.crypto.shards import SHARD_DIGEST_BYTES, check_shard, shard_digest
from pq_registry.errors import GrantMissing, ShardMismatch, UsageError
from pq_registry.format.grant import GrantStatement
from pq_registry.format.inner import Inner, bind_inner
from pq_registry.format.manifest import FileEntry, Manifest
from pq_registry.format.release import Release

if TYPE_CHECKING:
    from pq_registry.client.transport import RegistryClient


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A sealed release that passed step 7; as a context manager its key is overwritten at the end.

    ``inner_bytes`` are the exact plaintext of pqreg.inner.
    """

    release: Release
    inner: Inner
    inner_bytes: bytes
    key: SealingKey

    def source(self, source: ShardSource, *, attempts: int = 1, meter: Meter | None = None) -> UnsealingSource:
        """The plaintext of ``inner.files``, from a ``source`` of the stored files."""
        return UnsealingSource(source, self, attempts=attempts, meter=meter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.key.wipe()


def fetch_grant(client: RegistryClient, release: Release, recipient: str) -> bytes:
    """The envelope of the latest grant statement, not verified.

    Raises:
        GrantMissing: if the registry has none.
        TransportError: if it does not answer.
    """
    found = client.grant_envelope(release.name, release.digest, recipient)
    if found is None:
        raise no_grant(release, recipient, "the registry has none")
    return found


def no_grant(release: Release, recipient: str, found: str) -> GrantMissing:
    """The error for a recipient to whom nothing was granted."""
    return GrantMissing(
        f"{release.name} is sealed, and there is no grant for this recipient key",
        expected=f"a grant of {release.digest} to recipient {recipient}",
        found=found,
        hint="ask the publisher for one (pqreg grant add); pull --sealed and verify need none",
    )


def no_key(release: Release) -> GrantMissing:
    """The error for somebody who shows no recipient key."""
    return GrantMissing(
        f"{release.name} is sealed",
        expected="a recipient key it was granted to",
        found="no recipient key",
        hint="give --recipient-key FILE, or set PQREG_RECIPIENT_KEY; pull --sealed and verify need none",
    )


def unseal(
    verified: VerifiedRelease,
    grant: bytes,
    *,
    key: RecipientKey,
    source: ShardSource,
    verifier: Verifier,
    seen: SeenGrants,
    receipt: bytes | None = None,
    attempts: int = 1,
) -> Unsealed:
    """Step 7.

    Args:
        verified: the sealed release, which passed steps 0 to 6.
        grant: the envelope of the grant.
        key: the recipient's key.
        source: of the stored files; pqreg.inner is read from it.
        verifier: says who may grant, and what time it is.
        seen: what was seen of grants before.
        receipt: the grant's receipt.
        attempts: how often a damaged shard of pqreg.inner is read.

    Raises:
        UsageError: if the release is not sealed.
        VerificationError: of step 7, or of the step at which the grant's envelope was refused.
        FormatError: for a malformed grant or pqreg.inner.
        PqregError: whatever ``source`` raises.
    """
    statement = verifier.grant(grant, receipt=receipt)
    release = verified.release
    require_match(statement, release=release.digest, repository=release.name, recipient=key.public.id)
    # Accepted, so remembered before anything else can fail: also a withdrawal must not be taken back.
    seen.accept(statement)
    return unseal_with(release, statement, key=key, source=source, now=verifier.now, attempts=attempts)


def unseal_with(
    release: Release,
    statement: GrantStatement,
    *,
    key: RecipientKey,
    source: ShardSource,
    now: datetime,
    attempts: int = 1,
) -> Unsealed:
    """Step 7 with a grant whose signature and signer have been verified.

    Raises:
        VerificationError, FormatError, PqregError: as ``unseal``.
    """
    if release.manifest.sealing is None:
        raise UsageError(f"{release.name} is not sealed", found=f"release {release.digest}")
    sealing_key = open_grant(statement, key=key, manifest=release.manifest, release=release.digest, now=now)
    try:
        data = _read_inner(release.manifest, sealing_key, source, attempts)
        return Unsealed(release, bind_inner(release.manifest, data), data, sealing_key)
    except BaseException:
        sealing_key.wipe()
        raise


def _read_inner(manifest: Manifest, key: SealingKey, source: ShardSource, attempts: int) -> bytes:
    entry = manifest.inner
    assert entry is not None
    sealer = key.file(entry.path, entry.plaintext_size)
    plaintext = bytearray(entry.plaintext_size)
    scratch = memoryview(bytearray(min(entry.slice_size, entry.size)))
    how = _Reading(source, manifest, attempts, Meter())
    for index in range(entry.shard_count):
        offset, length = entry.plaintext_range(index)
        with memoryview(plaintext) as view:
            span = _Span(how, entry, sealer, index, view[offset : offset + length], scratch)
            span.read(ignored)
    return bytes(plaintext)


class UnsealingSource:
    """The plaintext files of a sealed release. Implements ``ShardSource``, and what it delivers is verified.

    Ranges begin and end where shards of the plaintext do. Each thread keeps scratch memory for its largest read.
    """

    def __init__(
        self, source: ShardSource, unsealed: Unsealed, *, attempts: int = 1, meter: Meter | None = None
    ) -> None:
        """Unseal what ``source`` delivers, which is closed with this one; a wrong shard is read ``attempts`` times."""
        self._source = source
        manifest = unsealed.release.manifest
        self._how = _Reading(source, manifest, attempts, meter or Meter())
        self._stored = {
            plain.path.text: (stored, unsealed.key.file(stored.path, plain.size))
            for plain, stored in zip(unsealed.inner.files, manifest.sealed_files, strict=True)
        }
        self._mine = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` with plaintext from ``offset`` of ``file``, one of ``inner.files``.

        Raises:
            ShardMismatch: if the stored bytes are not those that were signed; what ``arrived`` told of is right.
            UnsealFailed: if they are, and do not decrypt.
            PqregError: whatever the source of the stored bytes raises.
        """
        if not len(view):
            return
        stored, sealer = self._stored[file.path.text]
        first = offset // limits.SHARD_BYTES
        if offset % limits.SHARD_BYTES or (
            len(view) % limits.SHARD_BYTES and offset + len(view) != file.size
        ):  # a caller's bug: never reached by outside input
            raise ValueError(f"{file.path}: sealed files are read by whole shards")
        last = first + -(-len(view) // limits.SHARD_BYTES)
        end = sum(stored.shard_range(last - 1))
        scratch = self._scratch(end - stored.shard_range(first)[0])
        _Span(self._how, stored, sealer, first, view, scratch).read(arrived)

    def abort(self) -> None:
        """End every read under way."""
        self._source.abort()

    def close(self) -> None:
        """Close the source of the stored bytes."""
        self._source.close()

    def _scratch(self, size: int) -> memoryview:
        memory: memoryview = getattr(self._mine, "memory", memoryview(b""))
        if len(memory) < size:
            self._mine.memory = memory = memoryview(_mapping(size))
        return memory[:size]


def _mapping(size: int) -> mmap.mmap:
    """Memory that goes back to the system with its last view: an allocator would keep it for each thread that ended."""
    mapping = mmap.mmap(-1, -(-size // limits.SHARD_BYTES) * limits.SHARD_BYTES, flags=mmap.MAP_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without large pages: slower, not wrong
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


@dataclass(frozen=True, slots=True)
class _Reading:
    """How stored shards are read: from ``source``, a wrong one ``attempts`` times; ``manifest`` lists them."""

    source: ShardSource
    manifest: Manifest
    attempts: int
    meter: Meter


class _Span:
    """Neighbouring shards of one stored file on their way into ``view``."""

    def __init__(
        self, how: _Reading, stored: FileEntry, sealer: FileSealer, first: int, view: memoryview, scratch: memoryview
    ) -> None:
        self._how = how
        self._stored = stored
        self._sealer = sealer
        self._view = view
        self._scratch = scratch
        self._busy = 0.0
        self._base, _ = stored.shard_range(first)
        self._first = self._next = first
        self._end = first + -(-len(view) // limits.SHARD_BYTES)
        self._got = 0
        self._wrong = False

    def read(self, arrived: Callable[[int], None]) -> None:
        """Read, check and decrypt all of them, in order; ``arrived`` hears of plaintext."""
        size = sum(self._stored.shard_range(self._end - 1)) - self._base
        begun = time.perf_counter()
        self._how.source.read_into(
            self._stored, self._base, self._scratch[:size], arrived=lambda more: self._count(more, arrived)
        )
        # Shards are taken while others still arrive, in this thread: that time is not reading.
        self._how.meter.add("read", time.perf_counter() - begun - self._busy, size)
        self._got = size
        while self._next < self._end:
            if self._wrong:
                self._again()
            self._go_on(arrived)

    def _count(self, more: int, arrived: Callable[[int], None]) -> None:
        self._got += more
        self._go_on(arrived)

    def _go_on(self, arrived: Callable[[int], None]) -> None:
        """Take every shard that is complete, up to the first that is wrong."""
        while self._next < self._end and not self._wrong:
            begin, end = self._place()
            if end > self._got:
                return
            begun = time.perf_counter()
            with self._how.meter.timed("hash", end - begin):
                self._wrong = shard_digest(self._scratch[begin:end]) != self._stored.shard_digest(self._next)
            if self._wrong:
                return
            with self._how.meter.timed("unseal", end - begin):
                count = self._take(self._scratch[begin:end])
            self._busy += time.perf_counter() - begun
            arrived(count)

    def _again(self) -> None:
        """Read the wrong shard by itself until it is right."""
        begin, end = self._place()
        shard = self._scratch[begin:end]
        for attempt in range(1, self._how.attempts + 1):
            if attempt > 1:
                self._how.source.read_into(self._stored, self._base + begin, shard)
            try:
                check_shard(self._stored.shard_digest(self._next), shard, path=self._stored.path, index=self._next)
            except ShardMismatch as error:
                if attempt == self._how.attempts:
                    raise _explained(error, self._how.manifest, shard_digest(shard)) from None
            else:
                self._wrong = False
                return

    def _take(self, shard: memoryview) -> int:
        start = (self._next - self._first) * limits.SHARD_BYTES
        out = self._view[start : start + self._sealer.plaintext_length(self._next)]
        self._sealer.unseal_into(self._next, shard, out)
        self._next += 1
        return len(out)

    def _place(self) -> tuple[int, int]:
        offset, length = self._stored.shard_range(self._next)
        return offset - self._base, offset - self._base + length


def _explained(error: ShardMismatch, manifest: Manifest, found: bytes) -> ShardMismatch:
    """Say so if the wrong shard is another one of this release: they were reordered or swapped."""
    for entry in manifest.files:
        position = entry.shards.find(found)
        if position >= 0 and position % SHARD_DIGEST_BYTES == 0:
            where = f"shard {position // SHARD_DIGEST_BYTES} of {entry.path}"
            return ShardMismatch(
                f"{error.message}: {where} stands in its place", expected=error.expected, found=error.found,
                hint=error.hint,
            )  # fmt: skip
    return error
