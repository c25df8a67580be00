# SPDX-License-Identifier: Apache-2.0
"""A whole log in memory, with witnesses, made from fixed seeds: for tests to read, to bend and to fork.

::

    log = MemoryLog(witnesses=2)
    receipt = log.log(envelope, kind=Kind.TAG, name="acme/minilm", identity=signer.identity.id)
    verify_receipt(receipt, envelope=envelope, kind=…, name=…, identity=…, policies=log.policies())

Keys depend on the origin and the witness's number only, so a fork, or a second log of the same origin, signs alike.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from datetime import datetime

from pq_registry.crypto.notesigning import NoteSigner
from pq_registry.errors import NotFound
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.note import Note, NoteKeyType, SignatureLine
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.log.receipt import make_receipt
from pq_registry.log.tree import Edge, TileReader, Tree

ORIGIN = "log.example/pqreg"
TIME = 1795262400
"""2026-11-21T12:00:00Z, the NOW of tests/samples.py."""


def signer(name: str, type_: NoteKeyType) -> NoteSigner:
    """The note key of that name and type; always the same."""
    return NoteSigner(name, type_, hashlib.sha256(f"{name} {int(type_)}".encode()).digest())


def log_signers(origin: str = ORIGIN) -> tuple[NoteSigner, NoteSigner]:
    """A log's two keys: Ed25519 and ML-DSA-44."""
    return signer(origin, NoteKeyType.ED25519), signer(origin, NoteKeyType.MLDSA44_COSIGNATURE)


def witness_signers(number: int) -> tuple[NoteSigner, NoteSigner]:
    """The two keys of witness ``number``: Ed25519 and ML-DSA-44 cosignatures."""
    name = f"witness{number}.example"
    return signer(name, NoteKeyType.ED25519_COSIGNATURE), signer(name, NoteKeyType.MLDSA44_COSIGNATURE)


def compose_policy(origin: str = ORIGIN, witnesses: int = 0, quorum: int | None = None) -> Policy:
    """The policy of a log and its first witnesses, named w1, w2, …; all of them unless ``quorum`` says fewer."""
    ed25519, mldsa = log_signers(origin)
    members = [
        (f"w{number}", [key.key for key in witness_signers(number)], f"https://witness{number}.example")
        for number in range(1, witnesses + 1)
    ]
    return Policy.compose(ed25519.key, mldsa.key, members, witnesses if quorum is None else quorum)


def resigned(note: bytes, *, drop: Sequence[str] = (), add: Sequence[SignatureLine] = ()) -> bytes:
    """The note without the lines of the keys named in ``drop``, and with others added."""
    parsed = Note.parse(note)
    lines = [line for line in parsed.signatures if line.name not in drop]
    return Note(parsed.text, (*lines, *add)).encode()


class Files(dict[str, bytes]):
    """A log's files as a ``TileReader``."""

    def read(self, path: str) -> bytes:
        """The file at ``path``."""
        try:
            return self[path]
        except KeyError:
            raise NotFound("the log has no such file", found=path) from None


class MemoryLog:
    """A log and its witnesses. ``files`` is what it serves: ``checkpoint`` and ``tile/…``, as last published.

    Args:
        origin: its name.
        witnesses: how many cosign every checkpoint, each with both keys.
        quorum: how many of them ``policy()`` demands; all, if not said.
        time: what its and the witnesses' clocks say, in seconds since 1970; may be set between calls.
    """

    def __init__(
        self, origin: str = ORIGIN, *, witnesses: int = 0, quorum: int | None = None, time: int = TIME
    ) -> None:
        self.origin, self.witnesses, self.quorum, self.time = origin, witnesses, quorum, time
        self.entries: list[bytes] = []
        self.notes: dict[int, bytes] = {}
        self.files = Files()
        self._edge = Edge()

    @property
    def size(self) -> int:
        """Leaves so far, published or not."""
        return len(self.entries)

    def append_raw(self, *entries: bytes) -> int:
        """Add leaves as they are; the index of the first."""
        index = len(self.entries)
        self.entries.extend(entries)
        return index

    def append(self, envelope: Envelope, *, kind: Kind, name: str, identity: str, time: int | None = None) -> int:
        """Add the leaf of an envelope, whose signatures nobody checks; its index."""
        leaf = Leaf.of(envelope, kind=kind, name=name, identity=identity, time=self.time if time is None else time)
        return self.append_raw(leaf.encode())

    def publish(self, now: int | datetime | None = None, *, cosigned: bool = True) -> bytes:
        """Publish a checkpoint over all leaves, and the tiles; with ``cosigned=False`` no witness answered."""
        if now is not None:
            self.time = int(now.timestamp()) if isinstance(now, datetime) else now
        growth = self._edge.grow(self.entries[self._edge.size :])
        self._edge = growth.edge
        self.files.update(growth.tiles)
        note = self.sign(Checkpoint(self.origin, self._edge.size, self._edge.root), cosigned=cosigned)
        self.files["checkpoint"] = self.notes[self._edge.size] = note
        return note

    def sign(self, checkpoint: Checkpoint, *, cosigned: bool = True) -> bytes:
        """Any checkpoint as the log and its witnesses would sign it now."""
        keys = [*log_signers(self.origin)]
        for number in range(1, self.witnesses + 1) if cosigned else ():
            keys += witness_signers(number)
        return Note(checkpoint.encode(), tuple(key.sign(checkpoint, self.time) for key in keys)).encode()

    def log(self, envelope: Envelope, *, kind: Kind, name: str, identity: str, time: int | None = None) -> bytes:
        """Append, publish and answer the receipt."""
        index = self.append(envelope, kind=kind, name=name, identity=identity, time=time)
        self.publish()
        return self.receipt(index)

    def receipt(self, index: int, note: bytes | None = None) -> bytes:
        """The receipt of a leaf under ``note``, or the checkpoint published last."""
        note = note or self.files["checkpoint"]
        return make_receipt(self.tree(note), index, entry=self.entries[index], note=note)

    def tree(self, note: bytes | None = None) -> Tree:
        """The tree of ``note``, or of the checkpoint published last."""
        checkpoint, _ = parse_checkpoint_note(note or self.files["checkpoint"])
        return Tree(self.files, checkpoint.size, checkpoint.root)

    def reader(self) -> TileReader:
        """Reads ``files``."""
        return self.files

    def policy(self) -> Policy:
        """Whom to believe about this log."""
        return compose_policy(self.origin, self.witnesses, self.quorum)

    def policies(self, not_before: datetime | None = None, not_after: datetime | None = None) -> tuple[LogPolicy, ...]:
        """The same for a trust file's field ``log``."""
        return (LogPolicy(self.policy(), not_before, not_after),)

    def fork(self, at: int) -> MemoryLog:
        """A log with the same keys and the first ``at`` leaves, which may go on otherwise."""
        other = copy.copy(self)
        other.entries, other.notes, other.files, other._edge = self.entries[:at], {}, Files(), Edge()
        return other
