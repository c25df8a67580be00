# SPDX-License-Identifier: Apache-2.0
r"""A witness: cosigns checkpoints of logs it was told to watch (C2SP tlog-witness v1). No sockets, no files here.

``Witness.add_checkpoint`` decides about one request body, in this order, and answers as the specification says::

    1. malformed body, extension lines                                    400
    2. a log it does not watch                                            404
    3. not signed by every key configured for the log                     403
    4. old size beyond the checkpoint's                                   400
    5. old size is not that of the newest checkpoint it cosigned          409, "<size>\n" as text/x.tlog.size
    6. same size with another root; a consistency proof that fails        422
    7. the clock is behind what it has signed, or storage fails           LogHalted, StorageError: nothing was signed
    8. the cosigned checkpoint is durable                                 200, its signature lines

The state of a log is its newest cosigned checkpoint, with the log's lines and the witness's own. It is replaced before
the lines are answered, under a lock per log, so that at no time two roots of one size carry a released cosignature, and
a larger tree is never followed by a smaller one. What was stored is judged again at the start: a state that this
witness's keys did not sign is refused, never taken for "nothing seen".

Two roots of one size under a log's keys prove that the log equivocates. Both notes are kept before the refusal is
answered; so is a pair for which no consistency was shown, which proves nothing alone (anybody can send a bad proof).
Only the log's own lines are kept of what was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pq_registry.crypto.notesigning import NoteSigner, verify_line
from pq_registry.errors import CheckpointInvalid, ConsistencyInvalid, FormatError, LogHalted, NotFound, SettingError
from pq_registry.format.addcheckpoint import AddCheckpoint
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.note import Note, NoteKeyType, VerifierKey
from pq_registry.log.clockwatch import ClockWatch
from pq_registry.log.merkle import verify_consistency
from pq_registry.log.watchedlog import Evidence, WatchedLog, WitnessStore

SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
_COSIGNERS: Final = (NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE)


class Outcome(StrEnum):
    """What became of a request; the labels of the witness's metrics."""

    COSIGNED = "cosigned"
    MALFORMED = "malformed"
    UNKNOWN_LOG = "unknown-log"
    NOT_SIGNED = "not-signed"
    STALE = "stale"
    INCONSISTENT = "inconsistent"
    EQUIVOCATION = "equivocation"


_STATUS: Final[Mapping[Outcome, int]] = {
    Outcome.COSIGNED: 200,
    Outcome.MALFORMED: 400,
    Outcome.UNKNOWN_LOG: 404,
    Outcome.NOT_SIGNED: 403,
    Outcome.STALE: 409,
    Outcome.INCONSISTENT: 422,
    Outcome.EQUIVOCATION: 422,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with, once everything it says is durable."""

    outcome: Outcome
    origin: str | None
    body: bytes
    media_type: str = TEXT_TYPE

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _STATUS[self.outcome]


class Witness:
    """The state machine. Thread-safe; the only user of its store."""

    def __init__(
        self,
        signers: Sequence[NoteSigner],
        logs: Iterable[WatchedLog],
        store: WitnessStore,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        """Read and judge the state of every log.

        Raises:
            SettingError: if the keys are no witness's, or a log is named twice.
            LogHalted: if a stored state is not what this witness signed.
            StorageError: if the state cannot be read.
        """
        if not signers or {signer.key.type for signer in signers} - {*_COSIGNERS}:
            raise SettingError(
                "not the keys of a witness",
                expected="cosignature keys: Ed25519 (4) and ML-DSA-44 (6)",
                found=", ".join(str(signer.key.type.value) for signer in signers) or "nothing",
                hint="make them with: pqreg witness keygen",
            )
        self.signers = tuple(signers)
        self._store = store
        self._watch, self._watch_lock = ClockWatch(clock, monotonic), threading.Lock()
        self._logs: dict[str, _State] = {}
        for log in logs:
            if log.origin in self._logs or log.origin == self.name:
                raise SettingError("a log is named twice, or named like the witness", found=log.origin)
            self._logs[log.origin] = self._opened(log)

    @property
    def name(self) -> str:
        """The name in its cosignatures."""
        return self.signers[0].key.name

    @property
    def origins(self) -> tuple[str, ...]:
        """The logs it watches."""
        return tuple(self._logs)

    def newest(self, origin: str) -> bytes:
        """The newest cosigned checkpoint of a log, with the log's lines and the witness's.

        Raises:
            NotFound: if the log is not watched, or never had one.
        """
        state = self._logs.get(origin)
        if state is None or state.note is None:
            raise NotFound("no checkpoint of this log was cosigned here", found=origin)
        return state.note

    def size(self, origin: str) -> int:
        """How large the newest cosigned tree of a watched log is."""
        return self._logs[origin].size

    def time(self, origin: str) -> int:
        """When it was cosigned, in seconds since 1970; 0 for never."""
        return self._logs[origin].time

    def add_checkpoint(self, body: bytes) -> Answer:
        """Decide about one request.

        Raises:
            LogHalted: if the clock is behind; nothing was signed.
            StorageError: if the new state, or evidence, may not be durable; nothing is answered.
        """
        try:
            request = AddCheckpoint.parse(body)
            checkpoint, note = parse_checkpoint_note(request.note)
        except FormatError as error:
            return _refusal(Outcome.MALFORMED, None, str(error))
        state = self._logs.get(checkpoint.origin)
        if state is None:
            return _refusal(Outcome.UNKNOWN_LOG, None, "this witness does not watch that log")
        try:
            own = state.log.own_note(checkpoint, note)
        except CheckpointInvalid as error:
            return _refusal(Outcome.NOT_SIGNED, checkpoint.origin, str(error))
        if request.old_size > checkpoint.size:
            return _refusal(Outcome.MALFORMED, checkpoint.origin, "the old size is beyond the checkpoint's")
        with state.lock:
            return self._decide(state, request, checkpoint, own)

    def _decide(self, state: _State, request: AddCheckpoint, checkpoint: Checkpoint, own: bytes) -> Answer:
        seen = state.checkpoint
        if seen is not None and seen.size == checkpoint.size and seen.root != checkpoint.root:
            self._keep(state, Evidence.EQUIVOCATION, own)
            if request.old_size == seen.size:
                return _refusal(Outcome.EQUIVOCATION, checkpoint.origin, "another root of this size was cosigned")
        if request.old_size != state.size:
            return Answer(Outcome.STALE, checkpoint.origin, b"%d\n" % state.size, SIZE_TYPE)
        try:
            if request.old_size == 0 and request.proof:
                raise ConsistencyInvalid("a proof from the empty tree is not empty")
            if seen is not None:
                verify_consistency(
                    old_size=seen.size,
                    old_root=seen.root,
                    new_size=checkpoint.size,
                    new_root=checkpoint.root,
                    proof=request.proof,
                )
        except ConsistencyInvalid as error:
            self._keep(state, Evidence.UNPROVEN, own)
            return _refusal(Outcome.INCONSISTENT, checkpoint.origin, str(error))
        with self._watch_lock:
            now = self._watch.now(state.time)
        lines = tuple(signer.sign(checkpoint, now) for signer in self.signers)
        parsed = Note.parse(own)
        cosigned = Note(parsed.text, (*parsed.signatures, *lines)).encode()
        self._store.store(checkpoint.origin, cosigned)
        # Only now: until it is durable, neither this process nor the next may act on it.
        state.note, state.checkpoint, state.time = cosigned, checkpoint, now
        return Answer(Outcome.COSIGNED, checkpoint.origin, b"".join(line.encode() for line in lines))

    def _keep(self, state: _State, kind: Evidence, own: bytes) -> None:
        if state.note is not None:
            seen = Note.parse(state.note)
            theirs = tuple(line for line in seen.signatures if line.name != self.name)
            self._store.keep_evidence(state.log.origin, kind.value, (Note(seen.text, theirs).encode(), own))

    def _opened(self, log: WatchedLog) -> _State:
        note = self._store.load(log.origin)
        if note is None:
            return _State(log)
        try:
            checkpoint, parsed = parse_checkpoint_note(note)
            if checkpoint.origin != log.origin:
                raise CheckpointInvalid("it is of another log", expected=log.origin, found=checkpoint.origin)
            log.check_lines(checkpoint, parsed)
            times = [_time_of(signer.key, checkpoint, parsed) for signer in self.signers]
        except (FormatError, CheckpointInvalid) as error:
            raise LogHalted(
                f"the state of {log.origin} is not what this witness signed",
                expected="a checkpoint with cosignatures of all its keys",
                found=str(error),
                hint="restore the state directory's newest state; for new keys use a new state directory",
            ) from None
        return _State(log, note, checkpoint, max(times))


class _State:
    """What is known of one log; changed under its lock."""

    __slots__ = ("checkpoint", "lock", "log", "note", "time")

    def __init__(
        self, log: WatchedLog, note: bytes | None = None, checkpoint: Checkpoint | None = None, time: int = 0
    ) -> None:
        self.log = log
        self.note = note
        self.checkpoint = checkpoint
        self.time = time
        self.lock = threading.Lock()

    @property
    def size(self) -> int:
        """The newest cosigned size; 0 if there is none."""
        return 0 if self.checkpoint is None else self.checkpoint.size


def _time_of(key: VerifierKey, checkpoint: Checkpoint, note: Note) -> int:
    lines = note.lines_of(key)
    if len(lines) != 1:
        raise CheckpointInvalid("it lacks a cosignature", expected=f"one line of {key.key_id.hex()}", found=len(lines))
    time = verify_line(key, checkpoint, lines[0])
    assert time is not None  # a witness has cosignature keys only
    return time


def _refusal(outcome: Outcome, origin: str | None, why: str) -> Answer:
    return Answer(outcome, origin, f"{why}\n".encode("utf-8", "replace"))
