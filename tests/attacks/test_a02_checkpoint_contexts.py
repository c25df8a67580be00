# SPDX-License-Identifier: Apache-2.0
"""A2, context confusion: a checkpoint's signature never verifies as another kind of signature, nor the other way round.

All pairs of the three kinds of note signatures, under the very same secret key, and envelopes on both sides.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from pq_registry.crypto.notesigning import NoteSigner, verify_line
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import CheckpointInvalid
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.cosignature import ed25519_message, join_cosignature, subtree_message
from pq_registry.format.dsse import pae
from pq_registry.format.note import NoteKeyType, SignatureLine, VerifierKey
from tests.note_samples import ORIGIN, root_of
from tests.samples import publisher

SEED = bytes(range(32))
NAME = ORIGIN
SIGNERS = {type_: NoteSigner(NAME, type_, SEED) for type_ in NoteKeyType}
CHECKPOINT = Checkpoint(ORIGIN, 5, root_of("a"))
TIME = 1_795_000_000


def recast(line: SignatureLine, source: NoteKeyType, key: VerifierKey) -> list[SignatureLine]:
    """``line`` as one of ``key``: with and without the time in front."""
    bare = line.signature if source is NoteKeyType.ED25519 else line.signature[8:]
    return [SignatureLine(key.name, key.key_id, signature) for signature in (bare, join_cosignature(TIME, bare))]


@pytest.mark.parametrize(
    ("source", "target"),
    list(itertools.permutations(NoteKeyType, 2)),
    ids=lambda value: NoteKeyType(value).name,
)
def test_a2_a_line_of_one_type_is_none_of_another(source: NoteKeyType, target: NoteKeyType) -> None:
    line = SIGNERS[source].sign(CHECKPOINT, TIME)
    key = SIGNERS[target].key
    for candidate in [*recast(line, source, key), line, replace(line, key_id=key.key_id)]:
        with pytest.raises(CheckpointInvalid):
            verify_line(key, CHECKPOINT, candidate)


def test_a2_a_cosignature_of_a_subtree_is_none_of_a_checkpoint() -> None:
    signer = SIGNERS[NoteKeyType.MLDSA44_COSIGNATURE]
    secret = signer._key
    assert isinstance(secret, mldsa.MLDSA44PrivateKey)
    message = subtree_message(cosigner=NAME, timestamp=TIME, origin=ORIGIN, start=1, end=5, root=CHECKPOINT.root)
    line = SignatureLine(NAME, signer.key.key_id, join_cosignature(TIME, secret.sign(message)))
    with pytest.raises(CheckpointInvalid):
        verify_line(signer.key, CHECKPOINT, line)


def test_a2_a_cosignature_is_bound_to_its_cosigner() -> None:
    line = SIGNERS[NoteKeyType.MLDSA44_COSIGNATURE].sign(CHECKPOINT, TIME)
    renamed = replace(SIGNERS[NoteKeyType.MLDSA44_COSIGNATURE].key, name="witness.example")
    with pytest.raises(CheckpointInvalid):
        verify_line(renamed, CHECKPOINT, SignatureLine(renamed.name, renamed.key_id, line.signature))


def test_a2_an_ml_dsa_line_is_under_the_empty_context() -> None:
    signer = SIGNERS[NoteKeyType.MLDSA44_COSIGNATURE]
    secret = signer._key
    assert isinstance(secret, mldsa.MLDSA44PrivateKey)
    message = subtree_message(cosigner=NAME, timestamp=TIME, origin=ORIGIN, start=0, end=5, root=CHECKPOINT.root)
    for context in (b"subtree/v1", b"\0", b"pq-registry"):
        line = SignatureLine(NAME, signer.key.key_id, join_cosignature(TIME, secret.sign(message, context)))
        with pytest.raises(CheckpointInvalid):
            verify_line(signer.key, CHECKPOINT, line)


def test_a2_an_envelopes_signature_is_no_checkpoints() -> None:
    envelope = sign_envelope(CHECKPOINT.encode(), publisher())
    for type_, signer in SIGNERS.items():
        for half in (envelope.ec_signature, envelope.pq_signature):
            body = half if type_ is NoteKeyType.ED25519 else join_cosignature(TIME, half)
            with pytest.raises(CheckpointInvalid):
                verify_line(signer.key, CHECKPOINT, SignatureLine(NAME, signer.key.key_id, body))


def test_a2_what_notes_and_envelopes_sign_never_coincides() -> None:
    # Even under one key: no message of a note is the pre-authentication encoding of any payload.
    messages = [
        CHECKPOINT.encode(),
        ed25519_message(CHECKPOINT.encode(), TIME),
        subtree_message(cosigner=NAME, timestamp=TIME, origin=ORIGIN, start=0, end=5, root=CHECKPOINT.root),
    ]
    assert not any(message.startswith(b"DSSEv1 ") for message in messages)
    public = ed25519.Ed25519PublicKey.from_public_bytes(SIGNERS[NoteKeyType.ED25519].key.public_key)
    signature = SIGNERS[NoteKeyType.ED25519].sign(CHECKPOINT, TIME).signature
    public.verify(signature, messages[0])
    for other in (*messages[1:], pae(messages[0])):
        with pytest.raises(InvalidSignature):
            public.verify(signature, other)


def test_a2_an_origin_cannot_make_a_checkpoint_look_like_a_cosigned_message() -> None:
    # A log's Ed25519 line is over the bare text. Its first line is the origin, which holds no space, so the second
    # line of "cosignature/v1\ntime N\n…" would have to be a size.
    forged = ed25519_message(CHECKPOINT.encode(), TIME)
    from pq_registry.errors import FormatError

    with pytest.raises(FormatError):
        Checkpoint.parse(forged)
