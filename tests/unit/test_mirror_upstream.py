# SPDX-License-Identifier: Apache-2.0
"""Signatures that models carry on a Hub: by key and by certificate, made by the stock tool, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pq_registry.errors import (
    FileDigestMismatch,
    FileSetMismatch,
    FormatError,
    PqregError,
    SignatureInvalid,
    StatementMismatch,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.importing import SIGNATURE_NAME, Verified
from pq_registry.mirror.upstream import (
    ByCertificate,
    ByIdentity,
    ByKey,
    check_covers,
    signature_path,
    verify_bundle,
)
from tests import oms_signers
from tests.fake_hub import FakeHub, fake_hub
from tests.hub_site import go_online
from tests.import_site import bring, files_in
from tests.oms_signers import Authority, public_pem, sign_with_certificate, sign_with_key

pytestmark = pytest.mark.skipif(oms_signers.LACKING, reason=oms_signers.REASON)

FILES = {"config.json": b"{}", "sub/vocab.txt": b"word\n" * 100}
DIGESTS = {name: Digest.of(data) for name, data in FILES.items()}


def model_in(root: Path) -> Path:
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


class Signed:
    """A model signed with a key and by a certificate, once for all tests."""

    def __init__(self, root: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.by_key = sign_with_key(model_in(root / "a"), self.key, root / "work-a")
        self.authority = Authority.new()
        between_key = ec.generate_private_key(ec.SECP384R1())
        self.between = self.authority.issue("between", between_key, ca=True)
        own_key = ec.generate_private_key(ec.SECP256R1())
        office = Authority(between_key, self.between, self.authority.now)
        self.own = office.issue("Acme release", own_key)
        self.by_certificate = sign_with_certificate(
            model_in(root / "b"), own_key, self.own, root / "work-b", (self.between,)
        )
        self.now = self.authority.now + timedelta(hours=1)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"))


@pytest.fixture(scope="module")
def running() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def hub(running: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    go_online(monkeypatch)
    running.reset()
    return running


def changed(bundle: bytes, edit) -> bytes:
    value = json.loads(bundle)
    edit(value)
    return json.dumps(value).encode()


def test_a_key_is_verified(signed):
    by = verify_bundle(signed.by_key, ByKey(public_pem(signed.key)), now=signed.now)
    assert by.verified is Verified.KEY
    assert check_covers(by.payload, DIGESTS, ["model.sig"]).model_name == "a"
    assert dict(by.details)["key"] == Digest.of(public_pem(signed.key)).hex


def test_another_key_is_refused(signed):
    other = public_pem(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(SignatureInvalid) as caught:
        verify_bundle(signed.by_key, ByKey(other), now=signed.now)
    assert caught.value.step == 2


def test_a_certificate_is_verified_by_its_chain(signed):
    by = verify_bundle(signed.by_certificate, ByCertificate(signed.authority.pem), now=signed.now)
    assert by.verified is Verified.CERTIFICATE
    assert dict(by.details)["subject"] == "CN=Acme release"
    check_covers(by.payload, DIGESTS, [])


def test_an_authority_that_nobody_named_is_refused(signed):
    with pytest.raises(SignatureInvalid, match="not to be believed"):
        verify_bundle(signed.by_certificate, ByCertificate(Authority.new().pem), now=signed.now)
    # Nor does one count that comes with the signature.
    with_root = changed(
        signed.by_certificate,
        lambda value: value["verificationMaterial"]["x509CertificateChain"]["certificates"].append(
            {
                "rawBytes": base64.b64encode(
                    signed.authority.certificate.public_bytes(oms_signers.serialization.Encoding.DER)
                ).decode()
            }
        ),
    )
    with pytest.raises(SignatureInvalid):
        verify_bundle(with_root, ByCertificate(Authority.new().pem), now=signed.now)


@pytest.mark.parametrize("when", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_certificates_must_be_valid_now(signed, when):
    with pytest.raises(SignatureInvalid, match="not to be believed"):
        verify_bundle(signed.by_certificate, ByCertificate(signed.authority.pem), now=signed.authority.now + when)


@pytest.mark.parametrize("usage", ["tls", "none", "ca"])
def test_certificates_for_something_else_are_refused(tmp_path, signed, usage):
    key = ec.generate_private_key(ec.SECP384R1())
    own = signed.authority.issue("server", key, usage=usage, ca=usage == "ca")
    bundle = sign_with_certificate(model_in(tmp_path / "model"), key, own, tmp_path / "work")
    with pytest.raises(SignatureInvalid, match="not for signing"):
        verify_bundle(bundle, ByCertificate(signed.authority.pem), now=signed.now)


def test_a_code_signing_certificate_is_accepted(tmp_path, signed):
    key = ec.generate_private_key(ec.SECP384R1())
    own = signed.authority.issue("code", key, usage="code")
    bundle = sign_with_certificate(model_in(tmp_path / "model"), key, own, tmp_path / "work")
    verify_bundle(bundle, ByCertificate(signed.authority.pem), now=signed.now)


def test_an_end_certificate_cannot_issue_others(tmp_path, signed):
    middle_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    middle = signed.authority.issue("no authority", middle_key)
    own = Authority(middle_key, middle, signed.authority.now).issue("forged", key)
    bundle = sign_with_certificate(model_in(tmp_path / "model"), key, own, tmp_path / "work", (middle,))
    with pytest.raises(SignatureInvalid, match="not to be believed"):
        verify_bundle(bundle, ByCertificate(signed.authority.pem), now=signed.now)


def test_each_kind_is_refused_where_another_is_required(signed):
    identity = ByIdentity("a@b.example", "https://issuer.example")
    wrong: list[tuple[bytes, ByKey | ByCertificate | ByIdentity]] = [
        (signed.by_key, ByCertificate(signed.authority.pem)),
        (signed.by_key, identity),
        (signed.by_certificate, ByKey(public_pem(signed.key))),
        (signed.by_certificate, identity),
    ]
    for bundle, policy in wrong:
        with pytest.raises((FormatError, SignatureInvalid)):
            verify_bundle(bundle, policy, now=signed.now)


def payload(value) -> dict:
    return json.loads(base64.b64decode(value["dsseEnvelope"]["payload"]))


def set_payload(value, statement) -> None:
    value["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


EDITS = {
    "statement": lambda value: set_payload(value, {**payload(value), "extra": 1}),
    "two signatures": lambda value: value["dsseEnvelope"]["signatures"].append({"sig": "AAAA"}),
    "none": lambda value: value["dsseEnvelope"]["signatures"].clear(),
    "payload type": lambda value: value["dsseEnvelope"].update(payloadType="text/plain"),
    "media type": lambda value: value.update(mediaType="application/json"),
    "log entries": lambda value: value["verificationMaterial"].update(tlogEntries=[{}]),
    "material": lambda value: value["verificationMaterial"].update(more=1),
    "signature": lambda value: value["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
    "base64": lambda value: value["dsseEnvelope"].update(payload="%"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_altered_bundles_are_refused(signed, edit, kind):
    bundle = signed.by_key if kind == "key" else signed.by_certificate
    policy = ByKey(public_pem(signed.key)) if kind == "key" else ByCertificate(signed.authority.pem)
    with pytest.raises((FormatError, SignatureInvalid)):
        verify_bundle(changed(bundle, edit), policy, now=signed.now)


@pytest.mark.parametrize(
    "bundle", [b"", b"{}", b"[]", b"\xff", b"null", b'{"mediaType": 1}', b"[" * 10_000], ids=range(7)
)
def test_any_bytes_are_refused_by_an_error_of_ours(bundle, signed):
    for policy in (
        ByKey(public_pem(signed.key)), ByCertificate(signed.authority.pem), ByIdentity("a", "https://b.example"),
    ):  # fmt: skip
        with pytest.raises(PqregError):
            verify_bundle(bundle, policy, now=signed.now)


def test_authorities_that_cannot_be_read_are_the_callers_mistake(signed):
    with pytest.raises(UsageError):
        verify_bundle(signed.by_certificate, ByCertificate(b"no certificates"), now=signed.now)
    with pytest.raises(FormatError):
        verify_bundle(signed.by_key, ByKey(b"no key"), now=signed.now)


def test_every_file_that_is_imported_must_be_covered(signed):
    by = verify_bundle(signed.by_key, ByKey(public_pem(signed.key)), now=signed.now)
    with pytest.raises(FileSetMismatch, match="not about these files") as caught:
        check_covers(by.payload, {**DIGESTS, "more.txt": Digest.of(b"")}, [])
    assert "'more.txt' is not covered" in (caught.value.found or "")
    with pytest.raises(FileSetMismatch):
        check_covers(by.payload, {"config.json": DIGESTS["config.json"]}, [])
    check_covers(by.payload, {"config.json": DIGESTS["config.json"]}, ["sub/vocab.txt"])
    with pytest.raises(FileDigestMismatch):
        check_covers(by.payload, {**DIGESTS, "config.json": Digest.of(b"other")}, [])
    with pytest.raises((StatementMismatch, FormatError)):
        check_covers(b'{"_type": "https://in-toto.io/Statement/v1"}', DIGESTS, [])


def test_which_file_is_the_signature():
    assert signature_path({"a": 1, "model.sig": 1, "x.oms.sig": 1}, None) == "model.sig"
    assert signature_path({"a": 1, "skill.oms.sig": 1, "sub/x.oms.sig": 1}, None) == "skill.oms.sig"
    assert signature_path({"a": 1, "b.sig": 1}, None) is None
    assert signature_path({"a": 1, "b.sig": 1}, "b.sig") == "b.sig"
    for paths, named in [({"a.oms.sig": 1, "b.oms.sig": 1}, None), ({"a": 1}, "b.sig")]:
        with pytest.raises(UsageError):
            signature_path(paths, named)


def test_a_signed_model_is_imported_and_keeps_its_signature(hub, tmp_path, signed):
    hub.add({**FILES, ".gitattributes": b"x", "model.sig": signed.by_key})
    staged = bring(hub, tmp_path / "place", require=ByKey(public_pem(signed.key)))
    assert staged.statement.signature is not None
    assert staged.statement.signature.verified is Verified.KEY
    assert files_in(staged.directory)[SIGNATURE_NAME] == signed.by_key
    hub.add({**FILES, "model.sig": signed.by_key, "config.json": b"{ }"})
    with pytest.raises(FileDigestMismatch):
        bring(hub, tmp_path / "place", require=ByKey(public_pem(signed.key)))
    hub.add({**FILES, "model.sig": signed.by_key, "README.md": b"added later"})
    with pytest.raises(FileSetMismatch):
        bring(hub, tmp_path / "place", require=ByKey(public_pem(signed.key)))
    bring(hub, tmp_path / "place", require=ByKey(public_pem(signed.key)), exclude=("README.md",))
    hub.add(FILES)
    with pytest.raises(SignatureInvalid, match="no signature"):
        bring(hub, tmp_path / "place", require=ByKey(public_pem(signed.key)))
