# SPDX-License-Identifier: Apache-2.0
"""One checkpoint put before one witness: requests, answers, and what is believed of them.

A witness's answer counts only if each of its lines under a key of the policy verifies over exactly this checkpoint, and
is dated neither before the checkpoint nor in the future. Redirects are not followed; answers are bounded in bytes and
in time. See ``service.witnessing`` for what each outcome means.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import urllib3

from pq_registry import limits
from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import CheckpointInvalid, FormatError
from pq_registry.format.addcheckpoint import AddCheckpoint
from pq_registry.format.checkpoint import Checkpoint, parse_decimal
from pq_registry.format.note import SignatureLine, VerifierKey, parse_lines
from pq_registry.service.clock import Clock

Consistency = Callable[[int], tuple[bytes, ...]]
_CHUNK: Final = 4096


class Outcome(StrEnum):
    """What became of asking a witness."""

    COSIGNED = "cosigned"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    AHEAD = "ahead"
    LYING = "lying"
    CLOCK = "clock"


class NotCosignedError(Exception):
    """Ends one exchange with an outcome; the pool counts it and lets it go no further."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


@dataclass
class Asked:
    """One URL of the policy and the keys expected there; touched by one exchange at a time."""

    url: str
    keys: dict[str, VerifierKey]
    size: int | None = None
    cosigned: datetime | None = None
    problem: str | None = None
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    running: Future[tuple[SignatureLine, ...]] | None = None

    @property
    def name(self) -> str:
        """The name, or names, in its cosignatures."""
        return ", ".join(dict.fromkeys(key.name for key in self.keys.values()))


@dataclass(frozen=True, slots=True)
class Exchange:
    """One checkpoint put before one witness."""

    http: urllib3.PoolManager
    witness: Asked
    note: bytes
    checkpoint: Checkpoint
    consistency: Consistency
    deadline: float
    times: tuple[int, Clock]

    def run(self) -> tuple[SignatureLine, ...]:
        """Its cosignatures, verified.

        Raises:
            PqregError: if no consistency proof can be made.
        """
        old = min(self.witness.size or 0, self.checkpoint.size)
        for _ in range(limits.WITNESS_ATTEMPTS):
            proof = self.consistency(old) if 0 < old < self.checkpoint.size else ()
            status, kind, body = self._post(AddCheckpoint(old, proof, self.note).encode())
            if status == 200:
                lines = self._verified(body)
                self.witness.size = self.checkpoint.size
                return lines
            if status != 409 or not kind.startswith("text/x.tlog.size"):
                raise NotCosignedError(
                    Outcome.REFUSED, f"HTTP {status}: {body[:200].decode('utf-8', 'replace').strip()}"
                )
            old = self._size_of(body)
        raise NotCosignedError(Outcome.REFUSED, "it names another size each time")

    def _size_of(self, body: bytes) -> int:
        try:
            size = parse_decimal(body.decode("ascii").removesuffix("\n"), "the witness's size")
        except (FormatError, UnicodeDecodeError):
            raise NotCosignedError(Outcome.LYING, "it answered 409 without a size") from None
        self.witness.size = size
        if size > self.checkpoint.size:
            found = f"it has cosigned {size} leaves, this log has {self.checkpoint.size}"
            raise NotCosignedError(Outcome.AHEAD, found)
        return size

    def _verified(self, body: bytes) -> tuple[SignatureLine, ...]:
        try:
            lines = parse_lines(body)
        except FormatError as error:
            raise NotCosignedError(Outcome.LYING, f"it answered 200 without signature lines: {error}") from None
        known = [(key, line) for key in self.witness.keys.values() for line in lines if is_of(line, key)]
        if not known:
            raise NotCosignedError(Outcome.LYING, "no line is of a key the policy names")
        signed_at, clock = self.times
        latest = int(clock().timestamp()) + limits.CLOCK_SKEW_SECONDS
        for key, line in known:
            try:
                said = verify_line(key, self.checkpoint, line) or 0
            except CheckpointInvalid as error:
                raise NotCosignedError(Outcome.LYING, str(error)) from None
            if not signed_at <= said <= latest:
                raise NotCosignedError(Outcome.CLOCK, f"it says {said}; the checkpoint is of {signed_at}")
        return tuple(line for _, line in known)

    def _post(self, body: bytes) -> tuple[int, str, bytes]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise NotCosignedError(Outcome.UNREACHABLE, "no time was left to ask it")
        try:
            answer = self.http.request(
                "POST",
                f"{self.witness.url}/add-checkpoint",
                body=body,
                headers={"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"},
                timeout=urllib3.Timeout(total=left),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            content = self._read(answer)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NotCosignedError(Outcome.UNREACHABLE, str(error) or type(error).__name__) from None
        return answer.status, answer.headers.get("Content-Type", ""), content

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        content = bytearray()
        try:
            for chunk in answer.stream(_CHUNK):
                content += chunk
                if len(content) > limits.WITNESS_ANSWER_BYTES:
                    raise NotCosignedError(Outcome.LYING, f"it answered more than {limits.WITNESS_ANSWER_BYTES} bytes")
                if time.monotonic() > self.deadline:
                    raise NotCosignedError(Outcome.UNREACHABLE, "its answer did not arrive in time")
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return bytes(content)


def is_of(line: SignatureLine, key: VerifierKey) -> bool:
    """Whether the line claims to be of the key."""
    return line.name == key.name and line.key_id == key.key_id


def has_line(lines: Sequence[SignatureLine], key: VerifierKey) -> bool:
    """Whether one of the lines does."""
    return any(is_of(line, key) for line in lines)
