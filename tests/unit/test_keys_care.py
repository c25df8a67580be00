# SPDX-License-Identifier: Apache-2.0
"""A key file after it was made: another passphrase, backup, restore; and how a service without a terminal opens it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.slhdsa import SUITES, SlhSecret
from pq_registry.crypto.suites import Profile
from pq_registry.errors import AlreadyExists, FormatError, KeyFileExposed, StorageError, UsageError, WrongPassphrase
from pq_registry.settings import Settings
from pqreg_cli.main import run
from pqreg_keys import custody, keycare
from pqreg_keys.custody import AnySecret, SecretIdentity
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.passphrase import Passphrase, configured, fixed, from_descriptor

CHEAP = PassphraseCost(64, 1, 1)
OLD, NEW, KEPT = Passphrase("old"), Passphrase("new"), Passphrase("of the backup")


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id at a cost that is fit for tests only."""
    for function in (custody.store, custody.store_pair, keycare.change_passphrase, keycare.backup, keycare.restore):
        monkeypatch.setattr(function, "__kwdefaults__", {"cost": CHEAP})


def slh_secret(profile: Profile = Profile.LEVEL_5) -> SlhSecret:
    """Bytes of the right length; no library is needed to keep them."""
    return SlhSecret.from_bytes(profile, SecretBytes(os.urandom(SUITES[profile].secret_bytes)))


SECRETS: dict[str, AnySecret] = {
    "identity": custody.generate(),
    "identity of level 3": custody.generate(Profile.LEVEL_3),
    "recipient": custody.generate_recipient(),
    "slh": slh_secret(),
    "slh of level 3": slh_secret(Profile.LEVEL_3),
}


def id_of(secret: AnySecret) -> str:
    return secret.identity.id if isinstance(secret, SecretIdentity) else secret.public.id


@pytest.fixture(params=list(SECRETS))
def secret(request: pytest.FixtureRequest) -> AnySecret:
    return SECRETS[request.param]


@pytest.fixture
def path(tmp_path: Path, secret: AnySecret) -> Path:
    path = tmp_path / "k.pqkey"
    custody.store(path, secret, OLD)
    return path


def test_a_new_passphrase_replaces_the_old_one(path: Path, secret: AnySecret) -> None:
    assert keycare.change_passphrase(path, lambda: OLD, NEW) is True
    assert id_of(custody.opened(path, lambda: NEW)) == id_of(secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(WrongPassphrase):
        custody.opened(path, lambda: OLD)
    assert [entry.name for entry in path.parent.iterdir()] == ["k.pqkey"]


def test_a_file_can_be_unsealed_and_sealed_again(path: Path, secret: AnySecret) -> None:
    assert keycare.change_passphrase(path, lambda: OLD, None) is True
    assert id_of(custody.opened(path)) == id_of(secret)
    assert keycare.change_passphrase(path, None, NEW) is False
    assert id_of(custody.opened(path, lambda: NEW)) == id_of(secret)


def test_whatever_refuses_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with pytest.raises(WrongPassphrase):
        keycare.change_passphrase(path, lambda: NEW, KEPT)

    def full(*_arguments: object, **_more: object) -> None:
        raise StorageError("no space")

    monkeypatch.setattr(keycare, "write_file", full)
    with pytest.raises(StorageError):
        keycare.change_passphrase(path, lambda: OLD, NEW)
    assert path.read_bytes() == before


def test_an_exposed_file_is_not_touched(path: Path) -> None:
    path.chmod(0o644)
    for attempt in (
        lambda: keycare.change_passphrase(path, lambda: OLD, NEW),
        lambda: keycare.backup(path, lambda: OLD, KEPT),
    ):
        with pytest.raises(KeyFileExposed):
            attempt()


def test_a_link_to_a_key_file_stays_a_link(path: Path) -> None:
    link = path.with_name("link.pqkey")
    link.symlink_to(path)
    keycare.change_passphrase(link, lambda: OLD, NEW)
    assert link.is_symlink()
    custody.opened(path, lambda: NEW)


def test_a_backup_is_restored_under_another_passphrase(path: Path, secret: AnySecret, tmp_path: Path) -> None:
    text = keycare.backup(path, lambda: OLD, KEPT)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 64
    restored = keycare.restore(text, lambda: KEPT, tmp_path / "there", "again", NEW)
    assert restored[:2] == (tmp_path / "there" / "again.pqkey", tmp_path / "there" / "again.pqpub")
    assert id_of(restored[2]) == id_of(secret)
    assert restored[1].read_bytes() == custody.public_file(secret)
    again = custody.opened(restored[0], lambda: NEW)
    assert custody.public_file(again) == custody.public_file(secret)
    if isinstance(secret, SecretIdentity) and isinstance(again, SecretIdentity):
        assert again.recipient.public == secret.recipient.public
        assert again.material() == secret.material()


def test_a_backup_opens_with_its_own_passphrase_only(path: Path, tmp_path: Path) -> None:
    text = keycare.backup(path, lambda: OLD, KEPT)
    with pytest.raises(WrongPassphrase):
        keycare.restore(text, lambda: OLD, tmp_path, "again", NEW)
    body = text.splitlines()
    body[3] = body[3][::-1]
    with pytest.raises((WrongPassphrase, FormatError)):
        keycare.restore(b"\n".join(body) + b"\n", lambda: KEPT, tmp_path, "again", NEW)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["k.pqkey"]


def test_nothing_is_overwritten(path: Path, tmp_path: Path) -> None:
    text = keycare.backup(path, lambda: OLD, KEPT)
    before = path.read_bytes()
    with pytest.raises(AlreadyExists):
        keycare.restore(text, lambda: KEPT, tmp_path, "k", NEW)
    keycare.write_backup(tmp_path / "b", text)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    with pytest.raises(AlreadyExists):
        keycare.write_backup(tmp_path / "b", text)
    assert path.read_bytes() == before


def test_what_is_no_backup_is_refused(path: Path, tmp_path: Path) -> None:
    text = keycare.backup(path, lambda: OLD, KEPT)
    lines = text.splitlines(keepends=True)
    plain = tmp_path / "plain.pqkey"
    custody.store(plain, SECRETS["recipient"], None)
    import base64

    unsealed = lines[0] + base64.b64encode(plain.read_bytes())[:64] + b"\n" + lines[-1]
    for junk in (b"", b"junk", text[1:], text + b"x", lines[0] + lines[-1], lines[0] + b"?\n" + lines[-1],
                 lines[0] + b"AAA\n" + lines[-1], path.read_bytes(), unsealed):  # fmt: skip
        with pytest.raises(FormatError):
            keycare.restore(junk, lambda: KEPT, tmp_path, "again", NEW)
    keycare.restore(text.replace(b"\n", b"\r\n"), lambda: KEPT, tmp_path, "mailed", NEW)


def test_a_descriptor_gives_its_first_line_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe\r\nmore\n")
    os.close(writer)
    source = from_descriptor(reader)
    assert source() == source() == Passphrase("from a pipe")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
    with pytest.raises(UsageError, match="cannot be read from descriptor"):
        from_descriptor(reader)()


def settings(environment: dict[str, str], tmp_path: Path, **given: str) -> Settings:
    return Settings(given, environment=environment, config_file=tmp_path / "none.toml")


def test_systemd_hands_over_a_passphrase(tmp_path: Path) -> None:
    credential = tmp_path / "pqreg-passphrase"
    credential.write_bytes(b"from systemd\n")
    credential.chmod(0o440)  # how an access control list looks
    found = configured(settings({"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path), question="?")
    assert found is not None
    assert found() == Passphrase("from systemd")
    other = configured(
        settings({"CREDENTIALS_DIRECTORY": str(tmp_path), "PQREG_PASSPHRASE": "set"}, tmp_path), question="?"
    )
    assert other is not None
    assert other() == Passphrase("set")


def test_a_credential_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pqreg_keys.passphrase.has_terminal", lambda: False)
    assert configured(settings({"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path), question="?") is None
    (tmp_path / "pqreg-passphrase").write_bytes(b"from systemd\n")
    # A new key is not sealed by accident with the passphrase of the service that happens to run.
    assert configured(settings({"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path), question="?", twice=True) is None


def test_a_descriptor_comes_before_other_settings(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"piped\n")
    os.close(writer)
    found = configured(settings({"PQREG_PASSPHRASE": "set"}, tmp_path, passphrase_fd=str(reader)), question="?")
    assert found is not None
    assert found() == Passphrase("piped")


def words(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")
        (folder / name).chmod(0o600)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words(tmp_path, old="old", new="new", kept="of the backup")
    assert run(["key", "generate", "alice", "--passphrase-file", "old"]) == 0
    identity = PublicIdentity.from_pem(Path("alice.pqpub").read_bytes())
    change = ["key", "passphrase", "alice.pqkey", "--passphrase-file", "old", "--new-passphrase-file", "new"]
    assert run(change) == 0
    assert "sealed with the new passphrase" in capsys.readouterr().out
    assert run(change) == 1
    backup = ["key", "backup", "alice.pqkey", "--passphrase-file", "new", "--backup-passphrase-file", "kept"]
    assert run([*backup, "--out", "alice.pqbackup"]) == 0
    assert run([*backup, "--out", "alice.pqbackup"]) == 1
    restore = ["key", "restore", "alice.pqbackup", "alice", "--backup-passphrase-file", "kept"]
    assert run([*restore, "--passphrase-file", "new"]) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert run([*restore, "--dir", "there", "--passphrase-file", "new", "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["id"] == identity.id
    assert custody.load(tmp_path / "there" / "alice.pqkey", fixed("new")).identity == identity
    assert run(["key", "passphrase", "alice.pqkey", "--passphrase-file", "new", "--no-passphrase"]) == 0
    assert custody.load(tmp_path / "alice.pqkey").identity == identity


def test_a_passphrase_from_a_descriptor_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words(tmp_path, old="old")
    assert run(["key", "generate", "alice", "--passphrase-file", "old"]) == 0
    with open("old", "rb") as file:
        assert run(["key", "show", "alice.pqkey", "--passphrase-fd", str(os.dup(file.fileno()))]) == 0
    assert run(["key", "show", "alice.pqkey", "--passphrase-fd", "x"]) == 2
    assert run(["key", "show", "alice.pqkey", "--passphrase-fd", "3", "--passphrase-file", "old"]) == 2


def test_without_a_terminal_the_error_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pqreg_cli.keycare.has_terminal", lambda: False)
    assert run(["key", "generate", "alice", "--no-passphrase"]) == 0
    assert run(["key", "passphrase", "alice.pqkey"]) == 1
    assert "--new-passphrase-file" in capsys.readouterr().err
    assert run(["key", "backup", "alice.pqkey", "--out", "b"]) == 1
    assert "--backup-passphrase-file" in capsys.readouterr().err
    assert not Path("b").exists()
