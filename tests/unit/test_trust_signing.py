# SPDX-License-Identifier: Apache-2.0
"""Signed trust files: who must have signed, what follows from what, and the commands."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client import trustedit
from pq_registry.client.trust import Verifier
from pq_registry.crypto.slhdsa import SlhPublic, SlhSecret
from pq_registry.crypto.suites import Profile
from pq_registry.crypto.trustsigning import TrustSigner, accept_update, check_keys, root_of, sign_trust, verify_trust
from pq_registry.errors import (
    FormatError,
    PqregError,
    SignatureInvalid,
    TrustExpired,
    TrustMissing,
    TrustRollback,
    UntrustedSigner,
    UsageError,
)
from pq_registry.format.dsse import Envelope, pae
from pq_registry.format.trustfile import TrustFile, TrustRoot
from pq_registry.format.trustsignature import PAYLOAD_TYPE, TrustSignature, message
from pqreg_cli.main import run
from pqreg_keys import custody
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.passphrase import Passphrase
from tests.oqs_site import needs_liboqs
from tests.samples import NOW, YEAR, publisher, trust_file

ROOT, OTHER = publisher("root"), publisher("another root")
BY_ROOT = TrustSigner(ROOT.identity)


def root_entry(signer: Any = ROOT, slh: SlhPublic | None = None) -> TrustRoot:
    return TrustRoot(
        signer.identity.id, signer.identity.to_pem().decode(), None if slh is None else slh.to_pem().decode()
    )


CURRENT = replace(trust_file(), version=4, root=root_entry())
FOLLOWING = replace(CURRENT, version=5)
SIGNED = sign_trust(FOLLOWING.encode(), ROOT)


def test_what_was_signed_verifies() -> None:
    verify_trust(FOLLOWING.encode(), SIGNED, BY_ROOT)
    assert TrustSignature.parse(SIGNED.encode()) == SIGNED
    assert accept_update(CURRENT, FOLLOWING.encode(), SIGNED, now=NOW) == FOLLOWING


def test_the_payload_type_is_part_of_what_is_signed() -> None:
    assert message(b"ab") == b"DSSEv1 %d %b 2 ab" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode())
    assert message(b"ab") != pae(b"ab")


def test_an_envelope_of_a_statement_is_no_signature_of_a_trust_file() -> None:
    payload = FOLLOWING.encode()
    ec, pq = ROOT.sign(pae(payload))
    with pytest.raises(UntrustedSigner):
        verify_trust(payload, TrustSignature(payload, ec, pq), BY_ROOT)
    with pytest.raises(FormatError, match="payloadType"):
        TrustSignature.parse(Envelope(payload, ec, pq).encode())
    with pytest.raises(FormatError, match="payloadType"):
        Envelope.parse(SIGNED.encode())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"ec_signature": b"x"}, SignatureInvalid),
        ({"pq_signature": bytes(4627)}, SignatureInvalid),
        ({"ec_signature": b"x", "pq_signature": b"x"}, UntrustedSigner),
        ({"payload": FOLLOWING.encode() + b"\n"}, SignatureInvalid),
    ],
)
def test_every_part_counts(change: dict[str, bytes], error: type[PqregError]) -> None:
    with pytest.raises(error):
        accept_update(CURRENT, FOLLOWING.encode(), replace(SIGNED, **change), now=NOW)


def test_somebody_elses_signature_counts_for_nothing() -> None:
    payload = replace(FOLLOWING, root=root_entry(OTHER)).encode()
    with pytest.raises(UntrustedSigner):
        accept_update(CURRENT, payload, sign_trust(payload, OTHER), now=NOW)


@pytest.mark.parametrize("version", [1, 3, 4])
def test_an_older_or_equal_version_is_refused(version: int) -> None:
    payload = replace(FOLLOWING, version=version).encode()
    with pytest.raises(TrustRollback) as caught:
        accept_update(CURRENT, payload, sign_trust(payload, ROOT), now=NOW)
    assert caught.value.step == 0


def test_without_a_root_nothing_follows() -> None:
    with pytest.raises(TrustMissing, match="names no root"):
        accept_update(replace(CURRENT, root=None), FOLLOWING.encode(), SIGNED, now=NOW)


def test_an_expired_file_is_refused_at_the_second() -> None:
    ends = FOLLOWING.expires
    assert accept_update(CURRENT, FOLLOWING.encode(), SIGNED, now=ends - timedelta(seconds=1)) == FOLLOWING
    for late in (ends, ends + YEAR):
        with pytest.raises(TrustExpired):
            accept_update(CURRENT, FOLLOWING.encode(), SIGNED, now=late)


def test_an_expired_present_file_can_still_be_replaced() -> None:
    old = replace(CURRENT, created=NOW - 2 * YEAR, expires=NOW - YEAR)
    assert accept_update(old, FOLLOWING.encode(), SIGNED, now=NOW) == FOLLOWING


def test_a_root_is_replaced_by_the_one_before() -> None:
    second = replace(FOLLOWING, root=root_entry(OTHER))
    third = replace(second, version=6)
    assert accept_update(CURRENT, second.encode(), sign_trust(second.encode(), ROOT), now=NOW) == second
    with pytest.raises(UntrustedSigner):
        accept_update(second, third.encode(), sign_trust(third.encode(), ROOT), now=NOW)
    assert accept_update(second, third.encode(), sign_trust(third.encode(), OTHER), now=NOW) == third


def test_what_the_root_signed_must_still_be_usable() -> None:
    assert CURRENT.root is not None
    wrong = replace(FOLLOWING, root=replace(CURRENT.root, id="ab" * 32)).encode()
    ec, pq = ROOT.sign(message(wrong))
    with pytest.raises(FormatError, match="its id is not that of its keys"):
        accept_update(CURRENT, wrong, TrustSignature(wrong, ec, pq), now=NOW)
    with pytest.raises(FormatError, match="its id is not that of its keys"):
        Verifier(wrong, NOW, online=True)
    for junk in (b"", b"{}", FOLLOWING.encode()[:-3]):
        with pytest.raises(FormatError):
            sign_trust(junk, ROOT)


def test_no_half_of_the_root_is_in_another_identity() -> None:
    alice = publisher("alice")
    mixed = custody.SecretIdentity(Profile.LEVEL_5, alice._ec, ROOT._pq, alice._recipient_seed)
    with pytest.raises(FormatError, match="shares a signing half with the root"):
        check_keys(replace(CURRENT, root=root_entry(mixed)))
    check_keys(replace(CURRENT, root=root_entry(alice)))  # the same identity may be both


def test_files_from_before_there_were_roots_still_load() -> None:
    document = json.loads(trust_file().encode())
    assert document.pop("root") is None
    assert TrustFile.parse(json.dumps(document).encode()) == trust_file()


@pytest.mark.parametrize(
    "root",
    [True, "x", [], {}, {"id": "ab" * 32, "public": "x"}, {"id": "ab", "public": "x", "slh": None},
     {"id": "ab" * 32, "public": "", "slh": None}, {"id": "ab" * 32, "public": "x", "slh": 1},
     {"id": "ab" * 32, "public": "x", "slh": None, "more": 1}, {"id": "ab" * 32, "public": "x" * 16385, "slh": None},
     {"id": "ab" * 32, "public": "x", "slh": ""}],
)  # fmt: skip
def test_a_malformed_root_is_refused(root: Any) -> None:
    document = json.loads(trust_file().encode()) | {"root": root}
    with pytest.raises(FormatError):
        TrustFile.parse(json.dumps(document).encode())


def test_signature_files_have_exactly_one_form() -> None:
    document = json.loads(SIGNED.encode())
    halves = document["signatures"]
    for wrong in (
        document | {"more": 1},
        document | {"payloadType": "application/vnd.in-toto+json"},
        document | {"payload": document["payload"] + "="},
        document | {"signatures": []},
        document | {"signatures": halves[:1]},
        document | {"signatures": [*halves, *halves]},
        document | {"signatures": [{**halves[0], "keyid": "x"}, halves[1]]},
        document | {"signatures": [{**halves[0], "sig": ""}, halves[1]]},
        document | {"signatures": {}},
    ):
        with pytest.raises((FormatError, SignatureInvalid)):
            TrustSignature.parse(json.dumps(wrong, separators=(",", ":"), sort_keys=True).encode())
    with pytest.raises(FormatError):
        TrustSignature.parse(json.dumps(document).encode())
    with pytest.raises(FormatError):
        TrustSignature(b"x", b"x", b"x", bytes(limits.SLH_SIGNATURE_BYTES + 1))
    with pytest.raises(SignatureInvalid):
        TrustSignature(b"x", b"x", b"x", b"")


def test_the_root_must_be_of_level_5() -> None:
    with pytest.raises(UsageError, match="below level 5"):
        trustedit.set_root(CURRENT, publisher("low", 3).identity, None)
    with pytest.raises(UsageError, match="already"):
        trustedit.set_root(CURRENT, ROOT.identity, None)


@needs_liboqs
def test_the_third_signature_cannot_be_stripped_or_exchanged() -> None:
    slh, other = SlhSecret.generate(Profile.LEVEL_5), SlhSecret.generate(Profile.LEVEL_5)
    current = replace(CURRENT, root=root_entry(slh=slh.public))
    payload = replace(current, version=5).encode()
    signed = sign_trust(payload, ROOT, slh)
    assert root_of(current) == TrustSigner(ROOT.identity, slh.public)
    assert accept_update(current, payload, TrustSignature.parse(signed.encode()), now=NOW).version == 5
    with pytest.raises(SignatureInvalid, match="lacks the SLH-DSA signature"):
        accept_update(current, payload, replace(signed, slh_signature=None), now=NOW)
    for forged in (bytes(29792), bytes(16224), b"x", other.sign(message(payload)), slh.sign(payload)):
        with pytest.raises(SignatureInvalid, match="SLH-DSA signature is invalid"):
            accept_update(current, payload, replace(signed, slh_signature=forged), now=NOW)
    # Whoever does not ask for it is not kept from using the file.
    verify_trust(payload, replace(signed, slh_signature=None), BY_ROOT)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    custody.store_pair(tmp_path, "root", ROOT, None)
    custody.store_pair(tmp_path, "other", OTHER, None)
    Path("alice.pqpub").write_bytes(publisher("alice").identity.to_pem())
    Path("bob.pqpub").write_bytes(publisher("bob").identity.to_pem())
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub", "--root", "root.pqpub"]) == 0
    return tmp_path


def test_a_site_follows_its_root(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.json").write_bytes(Path("trust.json").read_bytes())
    assert run(["trust", "add", "new.json", "--publisher", "acme=bob.pqpub"]) == 0
    assert run(["trust", "sign", "new.json", "--key", "root.pqkey"]) == 0
    assert run(["trust", "check", "new.json", "--signed-by", "root.pqpub"]) == 0
    assert f"signed by {ROOT.identity.id}" in capsys.readouterr().out
    assert run(["trust", "check", "new.json", "--signed-by", "other.pqpub"]) == 1
    sent = Path("new.json").read_bytes()
    assert run(["trust", "update", "trust.json", "new.json"]) == 0
    assert Path("trust.json").read_bytes() == sent
    assert run(["trust", "check", "trust.json", "--signed-by", "root.pqpub"]) == 0
    assert run(["trust", "update", "trust.json", "new.json", "new.json.sig"]) == 1
    assert "not newer" in capsys.readouterr().err


def test_a_site_does_not_follow_anybody_else(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("trust.json").read_bytes()
    Path("new.json").write_bytes(before)
    assert run(["trust", "add", "new.json", "--publisher", "acme=bob.pqpub", "--root", "other.pqpub"]) == 0
    assert run(["trust", "update", "trust.json", "new.json"]) == 2  # no signature file
    assert run(["trust", "sign", "new.json", "--key", "other.pqkey"]) == 0
    assert run(["trust", "update", "trust.json", "new.json"]) == 1
    assert run(["trust", "sign", "new.json", "--key", "root.pqkey"]) == 0
    Path("new.json").write_bytes(Path("new.json").read_bytes().replace(b'"grace_days": 0', b'"grace_days": 9'))
    assert run(["trust", "update", "trust.json", "new.json"]) == 1
    assert Path("trust.json").read_bytes() == before
    assert not Path("trust.json.sig").exists()


def test_contradicting_options_are_refused(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trust", "check", "trust.json", "--slh-signed-by", "root.pqpub"]) == 2
    assert run(["trust", "check", "trust.json", "--signed-by", "root.pqpub", "--slh-signed-by", "root.pqpub"]) == 2
    assert run(["trust", "check", "trust.json", "--signed-by", "trust.json"]) == 2
    assert run(["trust", "sign", "trust.json", "--key", "root.pqkey"]) == 0
    assert run(["trust", "check", "trust.json", "--signed-by", "root.pqpub", "--provider", "both"]) == 2


@needs_liboqs
def test_the_commands_with_slh_dsa_and_liboqs(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "generate", "slh", "--slh", "--no-passphrase"]) == 0
    assert run(["key", "show", "slh.pqpub", "--json"]) == 0
    capsys.readouterr()
    assert run(["key", "export", "slh.pqkey"]) == 0
    assert capsys.readouterr().out == Path("slh.pqpub").read_text()
    assert run(["key", "export", "slh.pqkey", "--recipient"]) == 2
    assert run(["trust", "add", "trust.json", "--root", "root.pqpub", "--root-slh", "slh.pqpub"]) == 0
    Path("new.json").write_bytes(Path("trust.json").read_bytes())
    assert run(["trust", "add", "new.json", "--expires-days", "30"]) == 0
    assert run(["trust", "sign", "new.json", "--key", "root.pqkey"]) == 0
    assert run(["trust", "update", "trust.json", "new.json"]) == 1
    assert "lacks the SLH-DSA signature" in capsys.readouterr().err
    assert run(["trust", "sign", "new.json", "--key", "root.pqkey", "--slh-key", "slh.pqkey"]) == 0
    check = ["trust", "check", "new.json", "--signed-by", "root.pqpub", "--slh-signed-by", "slh.pqpub"]
    assert run([*check, "--provider", "liboqs"]) == 0
    assert run(["trust", "update", "trust.json", "new.json", "--provider", "liboqs"]) == 0
    assert run(["trust", "sign", "new.json", "--key", "root.pqkey", "--slh-key", "root.pqkey"]) == 1
    assert run(["trust", "sign", "new.json", "--key", "slh.pqkey"]) == 1


@needs_liboqs
def test_one_descriptor_opens_both_keys(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The passphrase of --slh-key is that of --key unless another is given; a descriptor can be read once."""
    word, cheap = Passphrase("the same for both"), PassphraseCost(memory_kib=64, passes=1, lanes=1)
    custody.store_pair(site, "sealed", ROOT, word, cost=cheap)
    custody.store_pair(site, "slh", SlhSecret.generate(Profile.LEVEL_3), word, cost=cheap)
    Path("word").write_text("the same for both\n")
    Path("word").chmod(0o600)
    sign = ["trust", "sign", "trust.json", "--key", "sealed.pqkey", "--slh-key", "slh.pqkey"]
    with open("word", "rb") as file:
        assert run([*sign, "--passphrase-fd", str(os.dup(file.fileno()))]) == 0
    assert run([*sign, "--passphrase-file", "word"]) == 0
    check = ["trust", "check", "trust.json", "--signed-by", "sealed.pqpub", "--slh-signed-by", "slh.pqpub"]
    assert run(check) == 0
