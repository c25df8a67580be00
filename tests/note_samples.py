# SPDX-License-Identifier: Apache-2.0
"""Note keys from fixed seeds, and strategies for everything of the log's formats."""

from __future__ import annotations

import hashlib
import string
from datetime import timedelta
from functools import cache

from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.crypto.notesigning import NoteSigner
from pq_registry.format.checkpoint import EMPTY_TREE, Checkpoint
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.note import Note, NoteKeyType, SignatureLine
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.format.tlogproof import TlogProof
from tests.strategies import digests, ids, instants, namespaces, repositories

ORIGIN = "log.example/pqreg"
_NAME_CHARACTERS = string.ascii_letters + string.digits + "./:-_äß中\U0001f600"


@cache
def note_signer(name: str, type_: NoteKeyType, number: int = 0) -> NoteSigner:
    """The signer of this name; the same one in every process."""
    return NoteSigner(name, type_, hashlib.sha256(f"{name} {type_.value} {number}".encode()).digest())


def log_signers(origin: str = ORIGIN) -> list[NoteSigner]:
    """A log's two keys."""
    return [note_signer(origin, kind) for kind in (NoteKeyType.ED25519, NoteKeyType.MLDSA44_COSIGNATURE)]


def witness_signers(name: str = "witness.example/one") -> list[NoteSigner]:
    """A witness's two keys."""
    return [note_signer(name, kind) for kind in (NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE)]


def root_of(text: str) -> bytes:
    """Some root."""
    return hashlib.sha256(text.encode()).digest()


hashes = st.binary(min_size=32, max_size=32)
key_names = st.text(_NAME_CHARACTERS, min_size=1, max_size=40)
sizes = st.integers(1, limits.TREE_SIZE) | st.integers(1, 300)
checkpoints = st.builds(Checkpoint, key_names, sizes, hashes) | st.builds(
    Checkpoint, key_names, st.just(0), st.just(EMPTY_TREE)
)
lines = st.builds(SignatureLine, key_names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=200))
note_texts = st.text(_NAME_CHARACTERS + " +\n", max_size=60).map(lambda text: (text + "\n").encode())
notes = st.builds(Note, note_texts, st.lists(lines, min_size=1, max_size=4).map(tuple))
proofs = st.builds(
    TlogProof,
    st.integers(0, limits.TREE_SIZE - 1),
    st.lists(hashes, max_size=6).map(tuple),
    notes.map(Note.encode),
    st.none() | st.binary(min_size=1, max_size=300),
)


@st.composite
def leaves(draw: st.DrawFn) -> Leaf:
    """A leaf of any kind."""
    kind = draw(st.sampled_from(Kind))
    return Leaf(
        identity=draw(ids),
        kind=kind,
        name=str(draw(namespaces if kind.of_namespace else repositories)),
        payload=draw(digests),
        ec=draw(digests),
        pq=draw(digests),
        time=draw(st.integers(0, limits.JSON_INTEGER)),
    )


@st.composite
def revocations(draw: st.DrawFn) -> Revocation:
    """An entry of any kind."""
    kind = draw(st.sampled_from(RevocationKind))
    is_id = kind in {RevocationKind.IDENTITY, RevocationKind.RECIPIENT}
    return Revocation(kind, draw(ids if is_id else digests.map(str)), draw(instants))


@st.composite
def status_statements(draw: st.DrawFn) -> StatusStatement:
    """A first or a later statement."""
    sequence = draw(st.integers(1, 3) | st.integers(1, limits.JSON_INTEGER))
    issued = draw(instants)
    entries = draw(st.lists(revocations(), max_size=5, unique_by=lambda entry: entry.key))
    return StatusStatement(
        namespace=draw(namespaces),
        signer=draw(ids),
        sequence=sequence,
        previous=None if sequence == 1 else draw(digests),
        revoked=tuple(sorted(entries, key=lambda entry: entry.key)),
        issued=issued,
        expires=issued + timedelta(seconds=draw(st.integers(1, 10**8))),
    )
