# SPDX-License-Identifier: Apache-2.0
"""A12 for sealing: content keys, recipient seeds and what is derived from them never show."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pq_registry.crypto import recipient as recipient_module
from pq_registry.crypto import sealing as sealing_module
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.sealing import SealingKey, open_grant
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import DEFAULT_PROFILE
from pq_registry.errors import PqregError, WrongPassphrase
from pq_registry.format.path import ReleasePath
from pq_registry.format.recipientfile import Kem
from pqreg_keys import custody, keyfile
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.material import RecipientMaterial
from pqreg_keys.passphrase import Passphrase, fixed
from tests.attacks.test_a12_key_leaks import Boom, Exploding, spellings
from tests.samples import NOW
from tests.sealing_samples import seal

SEED = SecretBytes(b"canary-recipient-seed-0123456789")
CONTENT_KEY = SecretBytes(b"canary-content-key-0123456789abc")
NODE = SecretRecipient(Kem.MLKEM1024_P384, SEED)
SEALED = seal({"a": b"secret"}, content_key=CONTENT_KEY)
GRANT = SEALED.grant(NODE)
PATH = ReleasePath("sealed/00000")
CHEAP = PassphraseCost(64, 1, 1)


def canaries() -> list[bytes]:
    key = SealingKey(CONTENT_KEY, SEALED.manifest.release_id)
    return [bytes(SEED), bytes(CONTENT_KEY), bytes(key._prk), bytes(key.file(PATH, 6)._derived(0))]


CANARIES = canaries()


def assert_silent(text: str) -> None:
    for secret in CANARIES:
        for spelling in spellings(secret):
            assert spelling not in text


def everything_secret() -> list[object]:
    key = SealingKey(CONTENT_KEY, SEALED.manifest.release_id)
    return [
        NODE, NODE.seed(), key, key.file(PATH, 6), key._prk, key.file(PATH, 6)._derived(0), CONTENT_KEY,
        RecipientMaterial(DEFAULT_PROFILE, NODE.public.id, NODE.seed()),
        open_grant(GRANT, key=NODE, manifest=SEALED.manifest, release=SEALED.release, now=NOW),
    ]  # fmt: skip


def test_a12_nothing_of_sealing_prints(caplog: pytest.LogCaptureFixture) -> None:
    for value in everything_secret():
        assert_silent(f"{value} {value!r} {[value]} { ({'k': value}) }")
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("test").error("value %s %r", value, value)
        with pytest.raises(TypeError):
            json.dumps(value)
    assert_silent(caplog.text)


def test_a12_nothing_of_sealing_is_pickled_or_copied() -> None:
    for value in everything_secret():
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            pickle.dumps(value)
        if not isinstance(value, RecipientMaterial):  # a container of what is refused
            with pytest.raises(TypeError):
                copy.copy(value)
        with pytest.raises(TypeError):
            copy.deepcopy(value)


def traced(action: Callable[[], object]) -> str:
    try:
        action()
    except (Boom, PqregError) as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError("it did not fail")


ACTIONS: dict[str, Callable[[], object]] = {
    "opening a grant": lambda: open_grant(GRANT, key=NODE, manifest=SEALED.manifest, release=SEALED.release, now=NOW),
    "sealing": lambda: SealingKey(CONTENT_KEY, "5e" * 16).file(PATH, 6).seal_into(0, b"secret", bytearray(22)),
    "unsealing": lambda: SealingKey(CONTENT_KEY, "5e" * 16).file(PATH, 6).unseal_into(0, bytes(22), bytearray(6)),
    "expanding the seed": lambda: SecretRecipient(Kem.MLKEM1024_P384, SEED),
    "expanding the seed, level 3": lambda: SecretRecipient(Kem.MLKEM768_X25519, SEED),
    "wrapping": lambda: NODE.public.wrap(CONTENT_KEY, SEALED.release),
}
FAILURES: list[tuple[Any, str, str]] = [
    (recipient_module, "_suite", "opening a grant"),
    (recipient_module, "_suite", "wrapping"),
    (recipient_module, "_public", "wrapping"),
    (recipient_module, "mlkem", "expanding the seed"),
    (recipient_module, "ec", "expanding the seed"),
    (recipient_module, "hpke", "expanding the seed"),
    (recipient_module, "x25519", "expanding the seed, level 3"),
    (sealing_module, "parse_release_id", "opening a grant"),
    (sealing_module, "hmac", "opening a grant"),
    (sealing_module, "hmac", "sealing"),
    (sealing_module, "AESGCM", "sealing"),
    (sealing_module, "AESGCM", "unsealing"),
]


@pytest.mark.parametrize(("module", "attribute", "action"), FAILURES, ids=lambda value: str(value)[:30])
def test_a12_tracebacks_with_locals_show_nothing_of_sealing(
    monkeypatch: pytest.MonkeyPatch, module: Any, attribute: str, action: str
) -> None:
    monkeypatch.setattr(module, attribute, Exploding())
    assert_silent(traced(ACTIONS[action]))


def test_a12_a_shard_that_does_not_open_shows_nothing() -> None:
    assert_silent(traced(ACTIONS["unsealing"]))


@pytest.mark.parametrize("text", [None, "canary passphrase"])
def test_a12_recipient_files_are_for_one_user(tmp_path: Path, text: str | None) -> None:
    passphrase = None if text is None else Passphrase(text)
    secret, public = custody.store_pair(tmp_path, "node1", NODE, passphrase, cost=CHEAP)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    data = secret.read_bytes()
    assert data.startswith(keyfile.RECIPIENT_MAGIC)
    assert (bytes(SEED) in data) is (text is None)
    assert bytes(SEED) not in public.read_bytes()
    source = None if text is None else fixed(text)
    assert custody.load_recipient(secret, source).public == NODE.public
    secret.chmod(0o640)
    with pytest.raises(PqregError, match="others may use"):
        custody.load_recipient(secret, source)


def test_a12_errors_of_recipient_files_show_nothing(tmp_path: Path) -> None:
    secret, _ = custody.store_pair(tmp_path, "node1", NODE, None)
    data = secret.read_bytes()
    sealed, _ = custody.store_pair(tmp_path, "node2", NODE, Passphrase("right"), cost=CHEAP)
    for bad in (
        data[:-1],
        data + b"\0",
        data[:-1] + b"\0",
        data[:20] + b"\3" + data[21:],
        data[:22] + bytes(32) + data[54:],
    ):
        secret.write_bytes(bad)
        assert_silent(traced(lambda: custody.load_recipient(secret)))
    with pytest.raises(WrongPassphrase):
        custody.load_recipient(sealed, fixed("wrong"))
    sealed.write_bytes(sealed.read_bytes().replace(keyfile.RECIPIENT_MAGIC, keyfile.MAGIC))
    with pytest.raises(WrongPassphrase):  # the magic is authenticated like the rest of the header
        custody.load(sealed, fixed("right"))


def test_a12_a_recipient_signs_nothing(tmp_path: Path) -> None:
    secret, public = custody.store_pair(tmp_path, "node1", NODE, None)
    with pytest.raises(PqregError, match="only unseals"):
        custody.load(secret)
    with pytest.raises(PqregError, match="of a recipient"):
        custody.public_of(public)
    assert custody.shown(public) == custody.shown(secret) == NODE.public
    assert not hasattr(NODE, "sign")
