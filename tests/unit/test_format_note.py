# SPDX-License-Identifier: Apache-2.0
"""Notes, verifier keys, checkpoints and cosignatures: one way to write each, and a refusal of all others."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.checkpoint import EMPTY_TREE, Checkpoint, parse_checkpoint_note
from pq_registry.format.cosignature import ed25519_message, join_cosignature, split_cosignature, subtree_message
from pq_registry.format.note import Note, NoteKeyType, SignatureLine, VerifierKey
from tests import note_samples as samples

PUBLISHED = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
"""The example of signed-note.md."""
LINE = SignatureLine("w.example", b"\0\0\0\1", b"sig")
ROOT = base64.b64encode(bytes(32)).decode()


def line_text(text: str) -> bytes:
    return f"text\n\n{text}\n".encode()


@given(samples.notes)
def test_notes_round_trip(note: Note) -> None:
    assert Note.parse(note.encode()) == note
    assert Note.parse(note.encode()).encode() == note.encode()


@given(samples.checkpoints)
def test_checkpoints_round_trip(checkpoint: Checkpoint) -> None:
    assert Checkpoint.parse(checkpoint.encode()) == checkpoint
    assert parse_checkpoint_note(Note(checkpoint.encode(), (LINE,)).encode()) == (
        checkpoint,
        Note(checkpoint.encode(), (LINE,)),
    )


def test_the_published_verifier_key() -> None:
    key = VerifierKey.parse(PUBLISHED)
    assert (key.name, key.type, key.key_id.hex()) == ("example.com/foo", NoteKeyType.ED25519, "530d903a")
    assert str(key) == PUBLISHED


@pytest.mark.parametrize("type_", list(NoteKeyType))
def test_verifier_keys_round_trip(type_: NoteKeyType) -> None:
    for number in range(8):  # base64 with and without '+'
        key = samples.note_signer("log.example/x", type_, number).key
        assert VerifierKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        PUBLISHED.replace("530d903a", "530D903A"),
        PUBLISHED.replace("530d903a", "530d903b"),
        PUBLISHED.replace("530d903a", "30d903a"),
        PUBLISHED.replace("foo", "bar"),
        PUBLISHED.replace("foo", "f o"),
        PUBLISHED + "\n",
        " " + PUBLISHED,
        PUBLISHED[:-1] + "l",
        PUBLISHED + "=",
        PUBLISHED.split("+", maxsplit=1)[0] + "+530d903a+",
        "+530d903a+" + PUBLISHED.rsplit("+", maxsplit=1)[1],
    ],
)
def test_other_verifier_keys_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        VerifierKey.parse(text)


@pytest.mark.parametrize("number", [0, 2, 3, 5, 7, 0xFA, 0xFF])
def test_unknown_types_of_keys_are_refused(number: int) -> None:
    import hashlib

    material = bytes([number]) + bytes(32)
    key_id = hashlib.sha256(b"n\n" + material).digest()[:4].hex()
    with pytest.raises(FormatError, match="unknown type"):
        VerifierKey.parse(f"n+{key_id}+{base64.b64encode(material).decode()}")


@pytest.mark.parametrize("type_", list(NoteKeyType))
@pytest.mark.parametrize("change", [-1, 1])
def test_keys_of_another_length_are_refused(type_: NoteKeyType, change: int) -> None:
    with pytest.raises(FormatError):
        VerifierKey("n", type_, bytes(type_.public_bytes + change))


@pytest.mark.parametrize("name", ["a b", "a+b", "", "a\u00a0b", "a\x85b", "a\x1bb", "a\nb", "\u202ea", "\ud800"])
def test_names_of_keys_are_strict(name: str) -> None:
    with pytest.raises(FormatError):
        VerifierKey(name, NoteKeyType.ED25519, bytes(32))
    with pytest.raises(FormatError):
        Checkpoint(name, 1, bytes(32))


@pytest.mark.parametrize(("length", "good"), [(254, True), (255, True), (256, False)])
def test_the_longest_name_is_what_a_cosignature_can_sign(length: int, good: bool) -> None:
    if good:
        assert VerifierKey("ß" * (length // 2) + "x" * (length % 2), NoteKeyType.ED25519, bytes(32)).name
    else:
        with pytest.raises(FormatError):
            VerifierKey("ß" * (length // 2), NoteKeyType.ED25519, bytes(32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\n\n",
        b"text\n\nline\n",
        line_text("- w.example AAAAAXNpZw=="),
        line_text("—w.example AAAAAXNpZw=="),
        line_text("— w.example AAAAAXNpZw"),
        line_text("— w.example AAAAAXNpZx=="),
        line_text("— w.example  AAAAAXNpZw=="),
        line_text("— w.example AAAAAXNpZw== "),
        line_text("— w.example AAAAAQ=="),
        line_text("— w.example AAAA"),
        line_text("— w+example AAAAAXNpZw=="),
        line_text("—  AAAAAXNpZw=="),
        line_text("— w.example AAAAAXNpZw==")[:-1],
        line_text("— w.example AAAAAXNpZw==\r"),
        line_text("— w\x1b[31m AAAAAXNpZw=="),
        line_text("— w.example AAAAAXNpZw==").replace(b"text", b"te\xffxt"),
        line_text("— w.example AAAAAXNpZw==").replace(b"text", b"te\x00xt"),
        line_text("— w.example AAAAAXNpZw==").replace(b"text", b"te\rxt"),
        line_text("— w.example AAAAAXNpZw==").replace(b"text", b"te\txt"),
    ],
)
def test_other_bytes_are_no_note(data: bytes) -> None:
    with pytest.raises(FormatError):
        Note.parse(data)


def test_a_note_is_split_at_its_last_empty_line() -> None:
    note = Note(b"one\n\ntwo\n\n", (LINE,))
    assert Note.parse(note.encode()).text == b"one\n\ntwo\n\n"


def test_lines_are_found_by_name_and_id() -> None:
    key = samples.witness_signers()[0].key
    mine = SignatureLine(key.name, key.key_id, b"1")
    note = Note(b"t\n", (mine, SignatureLine("other", key.key_id, b"2"), SignatureLine(key.name, b"\0\0\0\0", b"3")))
    assert note.lines_of(key) == [mine]


@pytest.mark.parametrize(("count", "good"), [(0, False), (1, True), (99, True), (100, True), (101, False)])
def test_the_number_of_lines_is_bounded(count: int, good: bool) -> None:
    data = b"text\n\n" + LINE.encode() * count
    if good:
        assert len(Note.parse(data).signatures) == count
    else:
        with pytest.raises(FormatError):
            Note.parse(data)


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_the_size_of_a_note_is_bounded(change: int) -> None:
    tail = b"\n" + LINE.encode()
    data = b"t" * (limits.NOTE_BYTES + change - len(tail) - 1) + b"\n" + tail
    if change <= 0:
        assert Note.parse(data).encode() == data
    else:
        with pytest.raises(FormatError, match="too large"):
            Note.parse(data)


@pytest.mark.parametrize("size", ["-1", "+1", "01", "1_0", " 1", "1 ", "٣", "", "0x1", "1e3", str(2**63), "9" * 4000])
def test_sizes_have_one_decimal_form(size: str) -> None:
    with pytest.raises(FormatError):
        Checkpoint.parse(f"o\n{size}\n{ROOT}\n".encode())


def test_the_largest_size() -> None:
    assert Checkpoint.parse(f"o\n{2**63 - 1}\n{ROOT}\n".encode()).size == 2**63 - 1


@pytest.mark.parametrize(
    "text",
    [
        f"o\n1\n{ROOT}\nextension\n",
        f"o\n1\n{ROOT}\n\n",
        f"o\n1\n{ROOT}",
        "o\n1\n",
        f"o\n1\n{ROOT[:-1]}\n",
        f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"o\n1\n{base64.b64encode(bytes(33)).decode()}\n",
        f"\n1\n{ROOT}\n",
        f"o o\n1\n{ROOT}\n",
        f"o\n0\n{ROOT}\n",
        f"o\r\n1\r\n{ROOT}\r\n",
    ],
)
def test_other_texts_are_no_checkpoint(text: str) -> None:
    with pytest.raises(FormatError):
        Checkpoint.parse(text.encode())


def test_the_empty_tree_has_one_root() -> None:
    assert Checkpoint("o", 0, EMPTY_TREE).size == 0
    with pytest.raises(FormatError):
        Checkpoint("o", 0, bytes(32))
    with pytest.raises(FormatError):
        Checkpoint("o", True, bytes(32))


def test_the_messages_of_cosignatures_are_those_of_the_specification() -> None:
    text = b"o\n1\n" + ROOT.encode() + b"\n"
    assert ed25519_message(text, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + text
    message = subtree_message(cosigner="wit", timestamp=258, origin="log", start=0, end=5, root=bytes(31) + b"\x09")
    assert message == (
        b"subtree/v1\n\x00"
        b"\x03wit"
        b"\x00\x00\x00\x00\x00\x00\x01\x02"
        b"\x03log" + bytes(8) + bytes(7) + b"\x05" + bytes(31) + b"\x09"
    )


@pytest.mark.parametrize("timestamp", [0, -1, 2**63, True])
def test_times_that_say_nothing_are_refused(timestamp: int) -> None:
    with pytest.raises(FormatError):
        ed25519_message(b"t\n", timestamp)
    with pytest.raises(FormatError):
        join_cosignature(timestamp, b"s")


@pytest.mark.parametrize("timestamp", [1, 2**63 - 1])
def test_cosignatures_split(timestamp: int) -> None:
    assert split_cosignature(join_cosignature(timestamp, b"sig")) == (timestamp, b"sig")


@pytest.mark.parametrize("data", [b"", bytes(7), b"\x01" * 8, bytes(8) + b"sig", b"\x80" + bytes(7) + b"sig"])
def test_other_bytes_are_no_cosignature(data: bytes) -> None:
    with pytest.raises(FormatError):
        split_cosignature(data)
