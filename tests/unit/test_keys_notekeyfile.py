# SPDX-License-Identifier: Apache-2.0
"""Files of note keys: who may read them, that none is overwritten, and that what they hold does not show (A12)."""

from __future__ import annotations

import logging
import os
import stat
import traceback
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import AlreadyExists, FormatError, KeyFileExposed, StorageError, UsageError
from pq_registry.format.checkpoint import Checkpoint
from pqreg_keys.notekeyfile import LOG_TYPES, WITNESS_TYPES, generate_note_keys, load_note_keys
from tests.note_samples import note_signer, witness_signers

CHECKPOINT = Checkpoint("log.example/pqreg", 5, bytes(32))


@pytest.mark.parametrize("types", [LOG_TYPES, WITNESS_TYPES])
def test_what_was_made_is_loaded_and_signs(tmp_path: Path, types) -> None:
    path = tmp_path / "keys"
    made = generate_note_keys(path, "w.example/one", types)
    loaded = load_note_keys(path)
    assert [signer.key for signer in loaded] == [signer.key for signer in made]
    assert [signer.key.type for signer in loaded] == list(types)
    for signer in loaded:
        verify_line(signer.key, CHECKPOINT, signer.sign(CHECKPOINT, 5))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277, 0o777])
def test_mode_is_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        generate_note_keys(tmp_path / "keys", "w.example", WITNESS_TYPES)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    generate_note_keys(path, "w.example", WITNESS_TYPES)
    before = path.read_bytes()
    with pytest.raises(AlreadyExists):
        generate_note_keys(path, "w.example", WITNESS_TYPES)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyExists):
        generate_note_keys(link, "w.example", WITNESS_TYPES)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["keys", "link"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o666, 0o601, 0o777])
def test_a_file_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    generate_note_keys(path, "w.example", WITNESS_TYPES)
    path.chmod(mode)
    with pytest.raises(KeyFileExposed):
        load_note_keys(path)
    path.chmod(0o400)
    assert load_note_keys(path)


def test_what_is_no_file_of_note_keys_is_refused(tmp_path: Path) -> None:
    one, two = (signer.to_text() + "\n" for signer in witness_signers())
    stranger = note_signer("other.example", WITNESS_TYPES[0]).to_text() + "\n"
    path = tmp_path / "keys"
    for content in (
        "", "\n", one[:-1], one + "\n", one + one, one + stranger, "# mine\n" + one, one.replace("\n", "\r\n"), "x\n",
        one + two + "x\n", one.replace("PRIVATE", "private"), one + "\udcff\n",
    ):  # fmt: skip
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        path.chmod(0o600)
        with pytest.raises(FormatError):
            load_note_keys(path)
    path.write_text(one + two)
    assert [signer.to_text() + "\n" for signer in load_note_keys(path)] == [one, two]


@pytest.mark.parametrize("change", [0, 1])
def test_the_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int) -> None:
    path = tmp_path / "keys"
    generate_note_keys(path, "w.example", WITNESS_TYPES)
    monkeypatch.setattr(limits, "NOTE_KEY_FILE_BYTES", path.stat().st_size - change)
    if change:
        with pytest.raises(FormatError):
            load_note_keys(path)
    else:
        assert load_note_keys(path)


def test_the_longest_names_fit(tmp_path: Path) -> None:
    generate_note_keys(tmp_path / "keys", "ß" * 127, WITNESS_TYPES)
    assert len(load_note_keys(tmp_path / "keys")) == 2


def test_other_things_at_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_note_keys(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(FormatError):
        load_note_keys(tmp_path / "pipe")
    with pytest.raises(FormatError):
        load_note_keys(tmp_path)
    with pytest.raises(StorageError):
        generate_note_keys(tmp_path / "no" / "keys", "w.example", WITNESS_TYPES)
    with pytest.raises(FormatError):
        generate_note_keys(tmp_path / "keys", "w example", WITNESS_TYPES)
    assert not (tmp_path / "keys").exists()


def failure(path: Path) -> list[str]:
    """What a program could print of a failed load, the locals of every frame included."""
    try:
        load_note_keys(path)
    except FormatError as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        return [*trace.format(), str(error), repr(error.args)]
    raise AssertionError


def test_a12_the_seeds_never_show(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    signers = generate_note_keys(path, "w.example", WITNESS_TYPES)
    seeds = [signer.to_text().split("+", 4)[4] for signer in signers]
    shown = [repr(signers), str(signers[0])]
    logging.getLogger("test").warning("keys: %s %r", signers, load_note_keys(path))
    path.write_text(path.read_text("utf-8") + "x\n")
    shown += failure(path)
    shown.append(caplog.text)
    for seed in seeds:
        for start in (2, 10, 20):
            assert not [text for text in shown if seed[start : start + 16] in text]
