# SPDX-License-Identifier: Apache-2.0
"""Lines of checkpoints: signed, verified, altered; and secret note keys as text."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from pq_registry.crypto.notesigning import NoteSigner, verify_line
from pq_registry.errors import CheckpointInvalid, FormatError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.note import NoteKeyType, SignatureLine
from tests.note_samples import ORIGIN, note_signer, root_of

TYPES = list(NoteKeyType)
COSIGNATURES = [NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE]
CHECKPOINT = Checkpoint(ORIGIN, 70_000, root_of("a"))


@pytest.mark.parametrize("type_", TYPES)
def test_a_line_verifies_and_says_its_time(type_: NoteKeyType) -> None:
    signer = note_signer("w.example", type_)
    line = signer.sign(CHECKPOINT, 1_795_000_000)
    assert (line.name, line.key_id) == ("w.example", signer.key.key_id)
    assert verify_line(signer.key, CHECKPOINT, line) == (None if type_ == NoteKeyType.ED25519 else 1_795_000_000)


@pytest.mark.parametrize("type_", TYPES)
def test_a_line_is_of_one_checkpoint_and_one_key(type_: NoteKeyType) -> None:
    signer = note_signer("w.example", type_)
    line = signer.sign(CHECKPOINT, 5)
    for other in (
        replace(CHECKPOINT, origin="log.example/pqreg2"),
        replace(CHECKPOINT, size=70_001),
        replace(CHECKPOINT, root=root_of("b")),
    ):
        with pytest.raises(CheckpointInvalid):
            verify_line(signer.key, other, line)
    stranger = note_signer("w.example", type_, 1).key
    with pytest.raises(CheckpointInvalid):
        verify_line(stranger, CHECKPOINT, line)
    with pytest.raises(CheckpointInvalid):
        verify_line(stranger, CHECKPOINT, replace(line, key_id=stranger.key_id))
    with pytest.raises(CheckpointInvalid):
        verify_line(replace(signer.key, name="v.example"), CHECKPOINT, line)


@pytest.mark.parametrize("type_", TYPES)
def test_no_bit_of_a_signature_may_change(type_: NoteKeyType) -> None:
    signer = note_signer("w.example", type_)
    line = signer.sign(CHECKPOINT, 5)
    for position in (0, 7, 8, 40, len(line.signature) - 1):
        altered = bytearray(line.signature)
        altered[position] ^= 1
        with pytest.raises(CheckpointInvalid):
            verify_line(signer.key, CHECKPOINT, replace(line, signature=bytes(altered)))
    for signature in (line.signature[:-1], line.signature + b"\0", line.signature[:8], b"\1"):
        with pytest.raises(CheckpointInvalid):
            verify_line(signer.key, CHECKPOINT, replace(line, signature=signature))


@pytest.mark.parametrize("type_", COSIGNATURES)
@pytest.mark.parametrize("timestamp", [0, -1, 2**63])
def test_a_time_that_says_nothing_is_not_signed(type_: NoteKeyType, timestamp: int) -> None:
    with pytest.raises(FormatError):
        note_signer("w.example", type_).sign(CHECKPOINT, timestamp)


def test_a_genuine_signature_without_a_time_is_refused() -> None:
    signer = note_signer("w.example", NoteKeyType.MLDSA44_COSIGNATURE)
    secret = signer._key
    assert isinstance(secret, mldsa.MLDSA44PrivateKey)
    message = (
        b"subtree/v1\n\0\x09w.example" + bytes(8) + bytes([len(ORIGIN)]) + ORIGIN.encode()
        + bytes(8) + (70_000).to_bytes(8, "big") + CHECKPOINT.root
    )  # fmt: skip
    line = SignatureLine("w.example", signer.key.key_id, bytes(8) + secret.sign(message))
    with pytest.raises(CheckpointInvalid):
        verify_line(signer.key, CHECKPOINT, line)
    timed = message.replace(bytes(8), bytes(7) + b"\x05", 1)
    good = SignatureLine("w.example", signer.key.key_id, bytes(7) + b"\x05" + secret.sign(timed))
    assert verify_line(signer.key, CHECKPOINT, good) == 5


def test_a_logs_ed25519_line_is_over_the_text() -> None:
    signer = note_signer(ORIGIN, NoteKeyType.ED25519)
    line = signer.sign(CHECKPOINT, 1)
    ed25519.Ed25519PublicKey.from_public_bytes(signer.key.public_key).verify(line.signature, CHECKPOINT.encode())


@pytest.mark.parametrize("type_", TYPES)
def test_a_key_that_signs_wrongly_is_noticed(type_: NoteKeyType) -> None:
    signer = NoteSigner("w.example", type_, bytes(32))
    other = NoteSigner("w.example", type_, b"\1" * 32)
    signer._key = other._key
    with pytest.raises(CheckpointInvalid):
        signer.sign(CHECKPOINT, 5)


@pytest.mark.parametrize("type_", TYPES)
def test_secret_keys_round_trip_as_text(type_: NoteKeyType) -> None:
    signer = NoteSigner.generate("w.example", type_)
    text = signer.to_text()
    assert text.startswith(f"PRIVATE+KEY+w.example+{signer.key.key_id.hex()}+")
    assert NoteSigner.from_text(text).key == signer.key
    assert NoteSigner.generate("w.example", type_).key != signer.key


def test_other_texts_are_no_secret_key() -> None:
    text = note_signer("w.example", NoteKeyType.ED25519).to_text()
    public = str(note_signer("w.example", NoteKeyType.ED25519).key)
    for bad in (
        "", public, text.removeprefix("PRIVATE+"), text + "\n", text.replace("w.example", "v.example"),
        text[:-4], text.replace("w.example", "w example"), text.upper(), text.replace("+A", "+/", 1),
    ):  # fmt: skip
        with pytest.raises(FormatError) as caught:
            NoteSigner.from_text(bad)
        assert text[-20:-2] not in str(caught.value)


def test_a_secret_key_shows_its_public_half_only() -> None:
    signer = note_signer("w.example", NoteKeyType.MLDSA44_COSIGNATURE)
    secret = signer.to_text().split("+", 4)[4]
    for shown in (repr(signer), str(signer), f"{signer}"):
        assert str(signer.key) in shown
        assert secret[4:20] not in shown
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(signer)
