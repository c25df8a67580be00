# SPDX-License-Identifier: Apache-2.0
"""Shards that the device checks and decrypts: stored bytes cross the bus untouched (``check_on="device"``).

Per run, in this order (DESIGN §5, step 8):

1. ``stored.Untouched`` reads the stored bytes into a page-locked buffer; a copy takes them to a buffer on the device.
2. The device computes BLAKE3 of every shard *there*. The digests come back, and this process compares them with the
   signed ones. Until that is done, nothing else is started for the run.
3. Only then is a sealed shard decrypted (AES-256-CTR from counter 2: GCM's keystream) to a second buffer, and what
   belongs to tensors is copied to them, all within the device.

So what was hashed is what was used: nothing but this process and the driver writes device memory, and a copy that went
wrong on the bus is found too, which a check on the host does not. A wrong shard is read again as often as the source
allows, and then named. The host never sees a plaintext byte.

What GCM's tag adds when the processor unseals, and what is missing here: the tag shows that whoever sealed the shard
held the content key and sealed it for its place. Here the signed digest fixes the ciphertext, the signed commitment
the key, and key and nonce come from the shard's place, so nobody but the signer can choose a plaintext. But if the
publisher signed a shard that was sealed wrongly, the processor says ``UnsealFailed``, and this mode returns what it
decrypts to.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import Progress
from pq_registry.crypto.sealing import FileSealer
from pq_registry.crypto.shards import SHARD_DIGEST_BYTES, require_digest
from pq_registry.errors import DeviceFailed, ShardMismatch
from pq_registry.loader.device.accelerator import Accelerator, DeviceBytes, Pinned, Shards, Ticket, Transfer
from pq_registry.loader.device.layout import Layout
from pq_registry.loader.device.placement import Arrivals
from pq_registry.loader.device.staging import Ring
from pq_registry.loader.device.stored import StoredFiles, StoredRun, Untouched
from pq_registry.loader.placement import Landing
from pq_registry.loader.selection import Run


@dataclass(frozen=True, slots=True)
class Stage:
    """Buffers for one run: stored bytes on the host and on the device, and there, if it is sealed, its plaintext."""

    host: Pinned
    stored: DeviceBytes
    plain: DeviceBytes | None

    @classmethod
    def make(cls, accelerator: Accelerator, *, shards: int, sealed: bool) -> Stage:
        """Room for ``shards``. Raises DeviceFailed or StorageError."""
        size = shards * (limits.SHARD_BYTES + (limits.SEAL_TAG_BYTES if sealed else 0))
        stored = accelerator.allocate(size)
        plain = accelerator.allocate(shards * limits.SHARD_BYTES) if sealed else None
        return cls(accelerator.pin(size), stored, plain)

    def close(self) -> None:
        """Give the host memory back; device memory goes with the last reference."""
        self.host.close()


class CheckedThere(Arrivals):
    """A placement for runs the device checks."""

    def __init__(
        self,
        accelerator: Accelerator,
        layout: Layout,
        ring: Ring[Stage],
        *,
        files: StoredFiles,
        filler: Untouched,
        attempts: int,
        progress: Progress,
        meter: Meter,
    ) -> None:
        """Bring runs of ``files``, which ``filler`` reads, to ``layout`` through ``ring``.

        Raises:
            UsageError: if nothing computes on this device.
            DeviceFailed: if it cannot be made ready.
        """
        super().__init__(accelerator, layout, ring)
        self._kernels = accelerator.kernels(sealed=files.sealed)
        self._stages = ring
        self._files = files
        self._filler = filler
        self._attempts = attempts
        self._progress = progress
        self._meter = meter

    def land(self, run: Run) -> Landing:
        """A stage's host buffer. Waits until the device is done with what was in it."""
        with self._meter.timed("copy"):
            stage = self._stages.take()
        return _OnStage(self, run, self._files.of(run), stage)

    def finish(self, run: Run, stored: StoredRun, stage: Stage) -> None:
        """Steps 1 to 3 for a run that was read. Raises ShardMismatch or DeviceFailed."""
        ticket: Ticket | None = None
        try:
            self._check(stored, stage)
            plain = stage.stored if stored.sealer is None else self._decrypted(run, stored, stored.sealer, stage)
            with self._meter.timed("copy", run.size):
                ticket = self.send(run, [
                    Transfer(plain[part.begin - run.offset : part.end - run.offset], part.target)
                    for part in self._layout.parts(run)
                ], moved=True)  # fmt: skip
        finally:
            self.retire(stage, ticket)
        self._progress.advance(run.size)

    def drop(self, stage: Stage) -> None:
        """Let a stage go that the device was not told of."""
        self._stages.put(stage, None)

    def _check(self, stored: StoredRun, stage: Stage) -> None:
        for attempt in range(1, self._attempts + 1):
            with self._meter.timed("copy"):
                arrived = self._accelerator.bring(
                    [Transfer(stage.host.view[: stored.size], stage.stored[: stored.size])]
                )
            with self._meter.timed("hash", stored.size):
                digests = self._kernels.digest(stage.stored[: stored.size], stored.shards, after=arrived).result()
            wrong = self._wrong(stored, digests, last=attempt == self._attempts)
            if not wrong:
                return
            for number in wrong:
                self._filler.again(stored, number, stage.host.view)

    def _wrong(self, stored: StoredRun, digests: bytes, *, last: bool) -> list[int]:
        """The shards, by their number in the run, that are not what was signed; the first is named if ``last``."""
        if len(digests) != stored.shards.count * SHARD_DIGEST_BYTES:  # fewer would compare as right
            raise DeviceFailed(
                f"{self._accelerator.name} computed too few digests",
                expected=f"{stored.shards.count} of {SHARD_DIGEST_BYTES} bytes",
                found=f"{len(digests)} bytes",
                hint='check_on="cpu" does without it',
            )
        wrong = []
        first = stored.offset // stored.shards.stride
        for number in range(stored.shards.count):
            found = digests[number * SHARD_DIGEST_BYTES : (number + 1) * SHARD_DIGEST_BYTES]
            try:
                require_digest(
                    stored.file.shard_digest(first + number), found, path=stored.file.path, index=first + number
                )
            except ShardMismatch:
                if last:
                    raise
                wrong.append(number)
        return wrong

    def _decrypted(self, run: Run, stored: StoredRun, sealer: FileSealer, stage: Stage) -> DeviceBytes:
        assert stage.plain is not None
        tag = limits.SEAL_TAG_BYTES
        shards = Shards(stored.shards.stride, limits.SHARD_BYTES, stored.shards.last - tag, run.count)
        with self._meter.timed("unseal", run.size), ExitStack() as secrets:
            keys = [secrets.enter_context(sealer.keystream(run.first + number)) for number in range(run.count)]
            self._kernels.decrypt(stage.stored[: stored.size], shards, keys, stage.plain)
        return stage.plain


class _OnStage:
    """A run on a stage, which leaves it once."""

    def __init__(self, placement: CheckedThere, run: Run, stored: StoredRun, stage: Stage) -> None:
        self._placement = placement
        self._run = run
        self._stored = stored
        self._stage: Stage | None = stage
        self.view = stage.host.view[: stored.size]

    def commit(self) -> None:
        """Have it checked, decrypted and brought to its place. Raises ShardMismatch or DeviceFailed."""
        stage, self._stage = self._stage, None
        if stage is not None:
            self._placement.finish(self._run, self._stored, stage)

    def drop(self) -> None:
        """Let the stage go, unless it has gone."""
        stage, self._stage = self._stage, None
        if stage is not None:
            self._placement.drop(stage)
