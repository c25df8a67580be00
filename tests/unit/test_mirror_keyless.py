# SPDX-License-Identifier: Apache-2.0
"""Keyless signatures of models: a Sigstore of the test's own, the real verifier, and what each part of it refuses."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

import pytest

from pq_registry.errors import FormatError, SignatureInvalid, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.importing import Verified
from pq_registry.format.path import ReleasePath
from pq_registry.format.statement import ReleaseStatement, Resource
from pq_registry.mirror.upstream import ByIdentity, check_covers, verify_bundle
from tests.samples import NOW
from tests.sigstore_site import Sigstore

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sigstore") is None, reason="PyPI's sigstore is not installed")

FILES = {"config.json": Digest.of(b"{}"), "vocab.txt": Digest.of(b"word\n")}
PAYLOAD = ReleaseStatement(
    "model", tuple(Resource(ReleasePath(path), digest) for path, digest in sorted(FILES.items()))
).encode()
WHO, ISSUER = "release@acme.example", "https://accounts.acme.example"


class Keyless:
    """A Sigstore, its trusted root in a file, and a bundle."""

    def __init__(self, root: Path) -> None:
        self.sigstore = Sigstore()
        self.root = root / "trusted_root.json"
        self.root.write_bytes(self.sigstore.trusted_root())
        self.bundle = self.sigstore.sign(PAYLOAD, identity=WHO, issuer=ISSUER)

    def policy(self, identity: str = WHO, issuer: str = ISSUER) -> ByIdentity:
        return ByIdentity(identity, issuer, self.root)


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Keyless:
    return Keyless(tmp_path_factory.mktemp("sigstore"))


def test_an_identity_is_verified(keyless: Keyless) -> None:
    by = verify_bundle(keyless.bundle, keyless.policy(), now=NOW)
    assert by.verified is Verified.SIGSTORE
    assert dict(by.details) == {"identity": WHO, "issuer": ISSUER}
    assert by.payload == PAYLOAD
    check_covers(by.payload, FILES, [])


def test_a_workflow_is_one_too(keyless: Keyless) -> None:
    name = "https://forge.example/acme/model/.workflows/release.yml@refs/heads/main"
    bundle = keyless.sigstore.sign(PAYLOAD, identity=name, issuer=ISSUER)
    verify_bundle(bundle, keyless.policy(name), now=NOW)


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [
        ("mallory@acme.example", ISSUER),
        (WHO, "https://accounts.mallory.example"),
        (WHO.upper(), ISSUER),
        (WHO + "x", ISSUER),
        (WHO, ISSUER + "/"),
    ],
)
def test_any_other_identity_or_issuer_is_refused(keyless: Keyless, identity: str, issuer: str) -> None:
    with pytest.raises(SignatureInvalid, match="does not hold") as caught:
        verify_bundle(keyless.bundle, keyless.policy(identity, issuer), now=NOW)
    assert caught.value.step == 2


def test_another_sigstore_is_refused(keyless: Keyless) -> None:
    bundle = Sigstore().sign(PAYLOAD, identity=WHO, issuer=ISSUER)
    with pytest.raises(SignatureInvalid):
        verify_bundle(bundle, keyless.policy(), now=NOW)


@pytest.mark.parametrize("service", ["authority", "certificates", "rekor"])
def test_each_service_must_be_the_trusted_one(keyless: Keyless, service: str) -> None:
    other = Sigstore()
    for name in {"authority", "certificates", "rekor"} - {service}:
        setattr(other, name, getattr(keyless.sigstore, name))
    if service != "authority":
        other.root = keyless.sigstore.root
    bundle = other.sign(PAYLOAD, identity=WHO, issuer=ISSUER)
    with pytest.raises(SignatureInvalid):
        verify_bundle(bundle, keyless.policy(), now=NOW)


def test_a_signature_over_something_else_is_refused(keyless: Keyless) -> None:
    bundle = keyless.sigstore.sign(PAYLOAD, identity=WHO, issuer=ISSUER, kind="text/plain")
    with pytest.raises(SignatureInvalid, match="something else"):
        verify_bundle(bundle, keyless.policy(), now=NOW)


def edited(bundle: bytes, change) -> bytes:
    value = json.loads(bundle)
    change(value)
    return json.dumps(value).encode()


def entry(value) -> dict:
    return value["verificationMaterial"]["tlogEntries"][0]


def other_payload(value) -> None:
    value["dsseEnvelope"]["payload"] = base64.b64encode(PAYLOAD.replace(b"vocab", b"vocal")).decode()


EDITS = {
    "payload": other_payload,
    "payload type": lambda value: value["dsseEnvelope"].update(payloadType="text/plain"),
    "signature": lambda value: value["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
    "no log entry": lambda value: value["verificationMaterial"].update(tlogEntries=[]),
    "two log entries": lambda value: value["verificationMaterial"]["tlogEntries"].append(entry(value)),
    "no promise": lambda value: entry(value).pop("inclusionPromise"),
    "time": lambda value: entry(value).update(integratedTime="1"),
    "root": lambda value: entry(value)["inclusionProof"].update(rootHash=base64.b64encode(bytes(32)).decode()),
    "body": lambda value: entry(value).update(canonicalizedBody=base64.b64encode(b"{}").decode()),
    "no envelope": lambda value: value.pop("dsseEnvelope"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_altered_bundles_are_refused(keyless: Keyless, change) -> None:
    with pytest.raises((SignatureInvalid, FormatError)):
        verify_bundle(edited(keyless.bundle, change), keyless.policy(), now=NOW)


def test_a_trusted_root_that_is_none_is_the_callers_mistake(keyless: Keyless, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b"{}")
    for path in (tmp_path / "root.json", tmp_path / "missing.json", keyless.root.parent):
        with pytest.raises(UsageError):
            verify_bundle(keyless.bundle, ByIdentity(WHO, ISSUER, path), now=NOW)
