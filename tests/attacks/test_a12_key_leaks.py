# SPDX-License-Identifier: Apache-2.0
"""A12, key leaks (PyPI 2024, huggingface_hub #3896): key material never shows, and its files are for one user.

Canary keys and a canary passphrase are used for real; then everything a program can print of them is searched for every
spelling of them: ``repr``, ``str``, ``format``, log records, and tracebacks with the locals of every frame.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import pickle
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pq_registry import durable
from pq_registry.crypto import openssl
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import PqregError
from pqreg_cli.main import run
from pqreg_keys import custody, holding, keyfile, material
from pqreg_keys.custody import SecretIdentity
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.passphrase import Passphrase, fixed, from_file, from_terminal
from pqreg_keys.source import FileKeySource

CHEAP = PassphraseCost(64, 1, 1)
CANARY = "canary-passphrase-3f9c1e"
VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "identities" / "level5.json").read_text("utf-8"))
PLAIN_FILE = bytes.fromhex(VECTOR["key_file_unsealed_hex"])


def canary_identity(folder: Path) -> SecretIdentity:
    path = folder / "canary.pqkey"
    path.write_bytes(PLAIN_FILE)
    path.chmod(0o600)
    return custody.load(path)


def canaries() -> list[bytes]:
    """The parts that are secret: EC scalar, ML-DSA seed, recipient seed, passphrase."""
    body = PLAIN_FILE[54:]
    ec_length = int.from_bytes(body[:2], "big")
    ec_pkcs8 = body[2 : 2 + ec_length]
    pq_pkcs8 = body[4 + ec_length : 4 + ec_length + 54]
    scalar_start = ec_pkcs8.index(b"\x04\x30") + 2
    return [ec_pkcs8[scalar_start : scalar_start + 48], pq_pkcs8[-32:], body[-32:], CANARY.encode()]


def spellings(secret: bytes) -> list[str]:
    """How 12 bytes from the middle of ``secret`` may be printed; enough to be no coincidence."""
    part = secret[6:18]
    base = [base64.b64encode(secret[shift : shift + 15]).decode()[:16] for shift in (6, 7, 8)]
    return [
        part.hex(),
        part.hex().upper(),
        part.hex(" "),
        part.hex(":"),
        repr(part)[2:-1],
        repr(bytearray(part))[12:-2],
        ", ".join(map(str, part)),
        part.decode("latin-1"),
        *base,
    ]


def assert_silent(text: str) -> None:
    for secret in canaries():
        for spelling in spellings(secret):
            assert spelling not in text


def test_a12_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for secret in canaries():
        for leak in (repr(secret), secret.hex(), repr(list(secret)), base64.b64encode(secret).decode(), f"{secret!r:}"):
            with pytest.raises(AssertionError):
                assert_silent(f"key={leak}")


def everything_secret(tmp_path: Path) -> list[object]:
    secret = canary_identity(tmp_path)
    held = secret.material()
    assert isinstance(held, material.KeyMaterial)
    return [
        secret,
        held,
        held.ec_pkcs8,
        held.pq_pkcs8,
        held.recipient_seed,
        secret._ec,
        secret._pq,
        Passphrase(CANARY),
        Passphrase(CANARY).encoded,
        fixed(CANARY),
        FileKeySource(fixed(CANARY)),
        SecretBytes(CANARY.encode()),
    ]


def test_a12_nothing_secret_prints(tmp_path: Path) -> None:
    for value in everything_secret(tmp_path):
        assert_silent(repr(value))
        assert_silent(str(value))
        assert_silent(f"{value} {value!r} {value!s} {[value]} { ({'k': value}) }")
        assert_silent("%s %r" % (value, value))  # noqa: UP031  another way to format


def test_a12_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for value in everything_secret(tmp_path):
            logging.getLogger("test").error("value %s %r", value, value, extra={"value": value})
        sign_envelope(b"{}", canary_identity(tmp_path))
    assert_silent(caplog.text)
    assert_silent("".join(repr(vars(record)) for record in caplog.records))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a12_nothing_secret_is_pickled(tmp_path: Path, protocol: int) -> None:
    for value in everything_secret(tmp_path):
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            pickle.dumps(value, protocol)


def test_a12_nothing_secret_is_copied(tmp_path: Path) -> None:
    for value in everything_secret(tmp_path):
        if isinstance(value, material.KeyMaterial | FileKeySource) or callable(value):
            continue  # containers of what is refused below
        with pytest.raises(TypeError):
            copy.copy(value)
        with pytest.raises(TypeError):
            copy.deepcopy(value)


def test_a12_a_secret_is_not_written_as_json(tmp_path: Path) -> None:
    for value in everything_secret(tmp_path):
        with pytest.raises(TypeError):
            json.dumps(value)
        assert_silent(json.dumps(value, default=repr))


class Boom(Exception):
    """A failure at the worst moment."""


def explode(*_arguments: object, **_more: object) -> Any:
    raise Boom


def traced(action: Callable[[], object]) -> str:
    """The traceback of what ``action`` raises, with the locals of every frame, and of its causes."""
    try:
        action()
    except Exception as error:  # noqa: BLE001
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError("it did not fail")


FAILURES: dict[str, tuple[object, str]] = {
    "writing the file": (custody, "write_file"),
    "deriving the key": (keyfile, "Argon2id"),
    "sealing and unsealing": (keyfile, "AESGCM"),
    "taking the body apart": (material, "_split"),
    "putting the body together": (material, "_joined"),
    "loading PKCS#8": (openssl, "load_der_private_key"),
    "wrapping the EC key": (openssl, "EcPrivateHalf"),
    "wrapping the ML-DSA key": (openssl, "MldsaPrivateHalf"),
    "making the public identity": (holding, "PublicIdentity"),
    "reading the length": (material, "_LENGTH"),
}


class Exploding:
    """Fails however it is used."""

    __call__ = __getattr__ = explode


@pytest.mark.parametrize("name", list(FAILURES))
def test_a12_tracebacks_with_locals_show_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    secret = canary_identity(tmp_path)
    sealed, plain = tmp_path / "sealed.pqkey", tmp_path / "canary.pqkey"
    custody.store(sealed, secret, Passphrase(CANARY), cost=CHEAP)
    module, attribute = FAILURES[name]
    monkeypatch.setattr(module, attribute, Exploding())
    texts = []
    for action in (
        lambda: custody.store(tmp_path / "new.pqkey", secret, Passphrase(CANARY), cost=CHEAP),
        lambda: custody.store(tmp_path / "new2.pqkey", secret, None),
        lambda: custody.load(sealed, fixed(CANARY)),
        lambda: custody.load(plain),
        lambda: FileKeySource(fixed(CANARY)).open(sealed),
    ):
        try:
            texts.append(traced(action))
        except AssertionError:
            continue
    assert texts, "the failure was never reached"
    for text in texts:
        assert_silent(text)


def damaged_files(folder: Path) -> list[Path]:
    changed = {
        "cut": PLAIN_FILE[:-1],
        "long": PLAIN_FILE + b"\x00",
        "ec": PLAIN_FILE[:60] + b"\xff" + PLAIN_FILE[61:],
        "seed": PLAIN_FILE[:-40] + b"\xff" + PLAIN_FILE[-39:],
        "other id": PLAIN_FILE[:22] + bytes(32) + PLAIN_FILE[54:],
        "other profile": PLAIN_FILE[:20] + b"\x03" + PLAIN_FILE[21:],
    }
    paths = []
    for name, data in changed.items():
        path = folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        paths.append(path)
    return paths


def test_a12_errors_about_damaged_files_quote_nothing(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        with pytest.raises(PqregError) as caught:
            custody.load(path)
        assert_silent(f"{caught.value} {vars(caught.value)}")
        assert_silent(traced(lambda path=path: custody.load(path)))  # type: ignore[misc]


def test_a12_wrong_passphrases_are_not_quoted(tmp_path: Path) -> None:
    sealed = tmp_path / "sealed.pqkey"
    custody.store(sealed, custody.generate(Profile.LEVEL_3), Passphrase("right"), cost=CHEAP)
    assert_silent(traced(lambda: custody.load(sealed, fixed(CANARY))))
    answers = iter([CANARY, "another"])
    assert_silent(traced(from_terminal("New", twice=True, ask=lambda _question: next(answers))))
    secret_file = tmp_path / "passphrase"
    secret_file.write_bytes(CANARY.encode() + b"\xff\n")
    secret_file.chmod(0o600)
    assert_silent(traced(from_file(secret_file)))


def test_a12_the_command_shows_nothing_even_with_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PQREG_PASSPHRASE", CANARY)
    canary_identity(tmp_path)
    plain = str(tmp_path / "canary.pqkey")
    for arguments in (
        ["key", "show", plain],
        ["key", "show", plain, "--json"],
        ["key", "export", plain],
        *(["key", "show", str(path), "--debug"] for path in damaged_files(tmp_path)),
    ):
        run(arguments)
        captured = capsys.readouterr()
        assert captured.out or captured.err
        assert_silent(captured.out + captured.err)


def test_a12_files_are_0600_and_nothing_else_is_left(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret_path, public_path = custody.store_pair(tmp_path, "k", canary_identity(tmp_path), None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret_path.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"canary.pqkey", "k.pqkey", "k.pqpub"}
    for secret in canaries()[:3]:
        assert secret not in public_path.read_bytes()


def test_a12_a_failed_write_leaves_no_copy_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = canary_identity(tmp_path)
    folder = tmp_path / "keys"
    folder.mkdir()

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PqregError):
        custody.store(folder / "k.pqkey", secret, None)
    assert list(folder.iterdir()) == []
    assert durable.TEMPORARY_SUFFIX == ".tmp"
