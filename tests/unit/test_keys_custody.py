# SPDX-License-Identifier: Apache-2.0
"""Secret key files on disk: who may read them, that they are whole or absent, and that none is overwritten."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import durable, limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import AlreadyExists, FormatError, KeyFileExposed, StorageError, UsageError, WrongPassphrase
from pqreg_keys import custody
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.passphrase import Passphrase, fixed
from pqreg_keys.source import FileKeySource

CHEAP = PassphraseCost(64, 1, 1)
ALICE = custody.generate()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Alice's key file without a passphrase."""
    path = tmp_path / "alice.pqkey"
    custody.store(path, ALICE, None)
    return path


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o177, 0o277, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Any umask the user may have."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("text", [None, "passphrase"])
def test_a_stored_identity_is_loaded_and_signs(tmp_path: Path, profile: Profile, text: str | None) -> None:
    secret = custody.generate(profile)
    path = tmp_path / "k.pqkey"
    custody.store(path, secret, None if text is None else Passphrase(text), cost=CHEAP)
    loaded = FileKeySource(None if text is None else fixed(text)).open(path)
    assert loaded.identity == secret.identity
    assert loaded.material() == secret.material()
    verify_envelope(sign_envelope(b"{}", loaded), secret.identity)


def test_mode_is_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "k.pqkey"
    custody.store(path, ALICE, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert custody.load(path).identity == ALICE.identity


def test_no_moment_with_a_wider_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever open() makes before fchmod() is never wider than 0600, and O_EXCL makes it ours."""
    seen: list[tuple[int, int]] = []
    real = os.open

    def spy(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT:
            seen.append((flags, mode))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", spy)
    custody.store(tmp_path / "k.pqkey", ALICE, None)
    assert [(bool(flags & os.O_EXCL), mode) for flags, mode in seen] == [(True, 0o600)]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_file_others_may_use_is_refused(stored: Path, mode: int) -> None:
    stored.chmod(mode)
    with pytest.raises(KeyFileExposed) as caught:
        custody.load(stored)
    assert caught.value.found == f"mode {mode:04o}"
    assert "chmod 600" in str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_the_owners_alone_is_read(stored: Path, mode: int) -> None:
    stored.chmod(mode)
    assert custody.load(stored).identity == ALICE.identity


def test_a_foreign_owned_file_is_refused(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: stored.stat().st_uid + 1)
    with pytest.raises(KeyFileExposed, match="another user"):
        custody.load(stored)


def test_a_link_is_judged_by_what_it_points_to(stored: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.pqkey"
    link.symlink_to(stored)
    assert custody.load(link).identity == ALICE.identity
    stored.chmod(0o644)
    with pytest.raises(KeyFileExposed):
        custody.load(link)


def test_a_pipe_a_folder_and_nothing_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(FormatError, match="not a secret key file"):
            custody.load(tmp_path / name)
    with pytest.raises(UsageError):
        custody.load(tmp_path / "nothing")


def test_another_file_is_not_called_exposed(tmp_path: Path) -> None:
    public = tmp_path / "alice.pqpub"
    public.write_bytes(ALICE.identity.to_pem())
    public.chmod(0o644)
    with pytest.raises(FormatError, match="not a secret key file"):
        custody.load(public)


def test_a_file_that_is_too_large_is_refused(stored: Path) -> None:
    with stored.open("ab") as file:
        file.write(bytes(limits.KEY_FILE_BYTES))
    with pytest.raises(FormatError, match="not a secret key file"):
        custody.load(stored)


def test_an_existing_file_stays(stored: Path) -> None:
    before = stored.read_bytes()
    with pytest.raises(AlreadyExists):
        custody.store(stored, custody.generate(), None)
    assert stored.read_bytes() == before
    assert [entry.name for entry in stored.parent.iterdir()] == ["alice.pqkey"]


def test_damage_of_an_unsealed_file_is_found(stored: Path) -> None:
    """No bit of an unsealed file may turn it into another identity unnoticed."""
    original = stored.read_bytes()
    body_end = len(original) - 32  # the recipient seed is covered by no public key
    for position in range(20, body_end, 3):
        stored.write_bytes(original[:position] + bytes([original[position] ^ 4]) + original[position + 1 :])
        with pytest.raises(FormatError):
            custody.load(stored)


def test_a_sealed_file_names_itself_when_it_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "k.pqkey"
    custody.store(path, ALICE, Passphrase("right"), cost=CHEAP)
    with pytest.raises(WrongPassphrase, match=r"k\.pqkey does not open"):
        custody.load(path, fixed("wrong"))


def test_a_pair_is_written(tmp_path: Path) -> None:
    secret_path, public_path = custody.store_pair(tmp_path / "new" / "keys", "alice", ALICE, None)
    assert (secret_path.name, public_path.name) == ("alice.pqkey", "alice.pqpub")
    assert stat.S_IMODE(secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret_path.parent.stat().st_mode) == 0o700
    assert PublicIdentity.from_pem(public_path.read_bytes()) == ALICE.identity
    assert custody.public_of(secret_path) == custody.public_of(public_path) == ALICE.identity


@pytest.mark.parametrize("existing", ["alice.pqkey", "alice.pqpub"])
def test_a_pair_replaces_neither_file(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        custody.store_pair(tmp_path, "alice", ALICE, None)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {existing: b"mine"}


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "alice.pqkey").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyExists):
        custody.store_pair(tmp_path, "alice", ALICE, None)
    with pytest.raises(AlreadyExists):
        custody.store(tmp_path / "alice.pqkey", ALICE, None)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("failing", range(1, 9))
@pytest.mark.parametrize("call", ["open", "fsync", "link", "unlink"])
def test_a_pair_is_whole_or_absent_at_every_failing_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failing: int
) -> None:
    real, count = getattr(os, call), 0

    def fail(*arguments: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        try:
            custody.store_pair(tmp_path, "alice", ALICE, None)
        except StorageError:
            pass
        else:
            assert count < failing or call == "unlink"
    names = {entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(durable.TEMPORARY_SUFFIX)}
    assert names in (set(), {"alice.pqkey", "alice.pqpub"})


def test_a_public_file_that_appears_meanwhile_takes_the_secret_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.write_file

    def race(path: Path, data: bytes, **more: object) -> None:
        if path.suffix == ".pqpub":
            path.write_bytes(b"another's")
        real(path, data, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(custody, "write_file", race)
    with pytest.raises(AlreadyExists):
        custody.store_pair(tmp_path, "alice", ALICE, None)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"alice.pqpub": b"another's"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", ".a", "a b", "a\n", "ä", "a" * 97, "a\x00"])
def test_names_that_could_go_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        custody.store_pair(tmp_path, name, ALICE, None)
    assert not list(tmp_path.iterdir())
