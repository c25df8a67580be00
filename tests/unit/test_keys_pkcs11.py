# SPDX-License-Identifier: Apache-2.0
"""Identities whose EC half is in a PKCS#11 token, tried on SoftHSM2."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError, KeyCustodyError, SettingError, UsageError
from pqreg_cli.main import run
from pqreg_keys import custody, keycare
from pqreg_keys.custody import SecretIdentity
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.material import TokenMaterial
from pqreg_keys.passphrase import Passphrase, fixed
from pqreg_keys.pkcs11 import TokenAccess, TokenEcHalf, TokenKey

CHEAP = PassphraseCost(64, 1, 1)
MODULES = [
    path
    for folder in ("/usr/lib/softhsm", "/usr/lib64/pkcs11", "/usr/lib64/softhsm", "/usr/local/lib/softhsm")
    if (path := Path(folder) / "libsofthsm2.so").exists()
]
URI = "pkcs11:token=signing;object=alice"


def _missing() -> str | None:
    if importlib.util.find_spec("pkcs11") is None:
        return "python-pkcs11 is not installed (pip install 'pq-registry[pkcs11]')"
    if not MODULES or shutil.which("softhsm2-util") is None:
        return "SoftHSM2 is not installed (Debian: apt install softhsm2)"
    return None


needs_token = pytest.mark.skipif(_missing() is not None, reason=str(_missing()))


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenAccess]:
    """A fresh token "signing" with PIN 1234. SoftHSM2 reads its configuration once per process."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOFTHSM2_CONF", str(folder / "conf"))
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "signing", "--pin", "1234", "--so-pin", "5678"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield TokenAccess(MODULES[0], fixed("1234"))
    patch.undo()


@pytest.fixture(scope="module")
def alice(token: TokenAccess) -> SecretIdentity:
    return custody.generate_on_token(Profile.LEVEL_5, URI, token, create=True)


@needs_token
def test_an_identity_signs_with_the_token(alice: SecretIdentity) -> None:
    envelope = sign_envelope(b"{}", alice)
    verify_envelope(envelope, alice.identity)
    assert sign_envelope(b"{}", alice).ec_signature != envelope.ec_signature


@needs_token
def test_level_3_works_too(token: TokenAccess) -> None:
    bob = custody.generate_on_token(Profile.LEVEL_3, "pkcs11:token=signing;object=bob;id=%01%02", token, create=True)
    verify_envelope(sign_envelope(b"{}", bob), bob.identity)
    with pytest.raises(FormatError):
        custody.generate_on_token(Profile.LEVEL_5, "pkcs11:token=signing;object=bob", token)


@needs_token
def test_the_file_holds_no_ec_key_and_the_token_no_other(
    alice: SecretIdentity, token: TokenAccess, tmp_path: Path
) -> None:
    path = tmp_path / "alice.pqkey"
    custody.store(path, alice, Passphrase("p"), cost=CHEAP)
    again = custody.load(path, fixed("p"), token=token)
    assert again.identity == alice.identity
    verify_envelope(sign_envelope(b"{}", again), alice.identity)
    with pytest.raises(KeyCustodyError, match="stays in its PKCS#11 token"):
        again.material()
    material = again.token_material()
    assert isinstance(material, TokenMaterial)
    assert material.uri == URI
    assert custody.load_recipient(path, fixed("p")).public == alice.recipient.public


@needs_token
def test_without_the_token_the_file_shows_its_public_part_but_signs_nothing(
    alice: SecretIdentity, tmp_path: Path
) -> None:
    path = tmp_path / "alice.pqkey"
    custody.store(path, alice, None)
    assert custody.public_of(path) == alice.identity
    with pytest.raises(SettingError, match="no PKCS#11 module"):
        custody.load(path).sign(b"x")


@needs_token
def test_a_wrong_pin_token_or_key_is_an_error_of_ours(alice: SecretIdentity, token: TokenAccess) -> None:
    spki = alice.identity.ec_spki
    for uri, access in (
        (URI, TokenAccess(token.module, fixed("4321"))),
        ("pkcs11:token=other;object=alice", token),
        ("pkcs11:token=signing;object=nobody", token),
        (URI, TokenAccess(Path("/nonexistent.so"), fixed("1234"))),
        (URI, TokenAccess(token.module, None)),
    ):
        with pytest.raises(KeyCustodyError) as caught:
            TokenEcHalf(Profile.LEVEL_5, TokenKey.parse(uri), spki, access).sign(b"x")
        assert "1234" not in str(caught.value)
        assert caught.value.hint


@needs_token
def test_a_key_in_the_token_is_never_replaced(alice: SecretIdentity, token: TokenAccess) -> None:
    with pytest.raises(KeyCustodyError, match="has such a key already"):
        custody.generate_on_token(Profile.LEVEL_5, URI, token, create=True)
    assert custody.generate_on_token(Profile.LEVEL_5, URI, token).identity.ec_spki == alice.identity.ec_spki


@needs_token
def test_a_token_with_another_key_signs_nothing_that_passes(alice: SecretIdentity, token: TokenAccess) -> None:
    """The key of that name was exchanged: what it signs is caught before anybody sees it."""
    custody.generate_on_token(Profile.LEVEL_5, "pkcs11:token=signing;object=mallory", token, create=True)
    exchanged = TokenEcHalf(
        Profile.LEVEL_5, TokenKey.parse("pkcs11:token=signing;object=mallory"), alice.identity.ec_spki, token
    )
    forged = SecretIdentity(Profile.LEVEL_5, exchanged, alice._pq, alice._recipient_seed)
    with pytest.raises(Exception, match="EC half of the signature is invalid"):
        sign_envelope(b"{}", forged)


@needs_token
def test_backup_and_passphrase_need_no_token(alice: SecretIdentity, token: TokenAccess, tmp_path: Path) -> None:
    path = tmp_path / "alice.pqkey"
    custody.store(path, alice, None)
    keycare.change_passphrase(path, None, Passphrase("p"), cost=CHEAP)
    text = keycare.backup(path, fixed("p"), Passphrase("b"), cost=CHEAP)
    restored, _, _ = keycare.restore(text, fixed("b"), tmp_path, "again", None, cost=CHEAP)
    verify_envelope(sign_envelope(b"{}", custody.load(restored, token=token)), alice.identity)


@needs_token
def test_the_command(
    token: TokenAccess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PQREG_PKCS11_MODULE", str(token.module))
    monkeypatch.setenv("PQREG_PIN", "1234")
    uri = "pkcs11:token=signing;object=carol"
    words = ["key", "generate", "carol", "--no-passphrase", "--pkcs11", uri]
    assert run(words) == 1
    assert not list(tmp_path.iterdir())
    assert run([*words, "--pkcs11-create"]) == 0
    assert run(["key", "show", "carol.pqkey"]) == 0
    assert run(["trust", "init", "trust.json", "--publisher", "acme=carol.pqpub"]) == 0
    assert run(["trust", "sign", "trust.json", "--key", "carol.pqkey"]) == 0
    assert run(["trust", "check", "trust.json", "--signed-by", "carol.pqpub"]) == 0
    monkeypatch.delenv("PQREG_PKCS11_MODULE")
    capsys.readouterr()
    assert run(["trust", "sign", "trust.json", "--key", "carol.pqkey"]) == 2
    assert "PQREG_PKCS11_MODULE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "uri",
    ["", "alice", "pkcs11:", "pkcs11:token=a", "pkcs11:object=a", "pkcs11:token=a;object=b;object=c",
     "pkcs11:token=a;object=b?pin-value=1234", "pkcs11:token=a;object=b;pin-value=1", "pkcs11:token=a;object=%ff",
     "pkcs11:token=a;object=b;module-path=%2Ftmp", "pkcs11:token=a;object=b?module-path=/x.so",
     "PKCS11:token=a;object=b",
     "pkcs11:token=ä;object=b", "pkcs11:token=a;object=" + "b" * 1024],
)  # fmt: skip
def test_a_uri_selects_a_key_and_nothing_else(uri: str) -> None:
    with pytest.raises(UsageError, match="not a PKCS#11 URI"):
        TokenKey.parse(uri)


def test_a_uri_may_be_escaped() -> None:
    key = TokenKey.parse("pkcs11:token=my%20token;serial=00ff;id=%01%ff;type=private")
    assert (key.token, key.serial, key.label, key.key_id) == ("my token", b"00ff", None, b"\x01\xff")
