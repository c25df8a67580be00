# SPDX-License-Identifier: Apache-2.0
"""A registry of a few lines that can be pushed to, with grants and certificates: ``FakeRegistry`` plus writing.

Everything it was sent is in reach of a test: ``parts`` holds every part of every upload as it arrived.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pq_registry.crypto.shards import shard_digests
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.manifest import MANIFEST_NAME, Manifest
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.strict_json import encode_base64
from tests.fake_registry import FakeRegistry, Handler, serving

PART_SHARDS = 2


@dataclass
class Upload:
    """An unfinished upload."""

    digest: str
    size: int
    slice_size: int
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class SealedRegistry(FakeRegistry):
    """What was sent to it."""

    uploads: dict[str, Upload] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    grants: dict[tuple[str, str], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[str, bytes] = field(default_factory=dict)
    releases: list[str] = field(default_factory=list)
    parts: list[tuple[str, int, bytes]] = field(default_factory=list)

    def manifest(self, release: str) -> Manifest:
        """The manifest of a release."""
        return Manifest.parse(self.blobs[self.manifests[release]])

    def stored(self) -> bytes:
        """Every byte an operator has."""
        statements = b"".join(self.statements.values())
        grants = b"".join(data for chain in self.grants.values() for data in chain)
        return b"".join([*self.blobs.values(), *(data for _, _, data in self.parts), statements, grants])


def answer(handler: Handler) -> bool:
    """The routes of publishing; False for others."""
    registry = handler.registry
    assert isinstance(registry, SealedRegistry)
    path = handler.path.partition("?")[0]
    length = int(handler.headers.get("Content-Length") or 0)
    body = handler.rfile.read(length) if handler.command in ("PUT", "POST") else b""
    for method, pattern, route in ROUTES:
        match = re.fullmatch(pattern, path)
        if method == handler.command and match:
            route(registry, handler, body, *match.groups())
            return True
    return False


def _identities(registry: SealedRegistry, handler: Handler, _body: bytes) -> None:
    handler.json({"items": [{"id": one, "public": pem} for one, pem in registry.identities.items()]})


def _register(registry: SealedRegistry, handler: Handler, body: bytes) -> None:
    from pq_registry.crypto.identity import PublicIdentity

    pem = json.loads(body)["public"]
    registry.identities[PublicIdentity.from_pem(pem.encode()).id] = pem
    handler.json({}, 201)


def _repository(registry: SealedRegistry, handler: Handler, _body: bytes) -> None:
    if not registry.releases:
        handler.problem(404, "not-found")
        return
    items = []
    for release in reversed(registry.releases):
        manifest = registry.manifest(release)
        items.append(
            {
                "digest": f"sha256:{release}", "created": "2026-11-21T12:00:00Z", "size": manifest.total_size,
                "files": len(manifest.files), "signer": manifest.signer,
            }
        )  # fmt: skip
    handler.json({"name": str(manifest.name), "tags": [], "releases": items, "next": None})


def _missing(registry: SealedRegistry, handler: Handler, body: bytes) -> None:
    asked = json.loads(body)["digests"]
    handler.json({"missing": [digest for digest in asked if digest.partition(":")[2] not in registry.blobs]})


def _open(registry: SealedRegistry, handler: Handler, body: bytes) -> None:
    asked = json.loads(body)
    name = asked["digest"].partition(":")[2]
    upload = registry.uploads.setdefault(name, Upload(name, asked["size"], asked["slice_size"]))
    assert upload.slice_size == asked["slice_size"]
    _state(registry, handler, b"", name)


def _state(registry: SealedRegistry, handler: Handler, _body: bytes, name: str) -> None:
    upload = registry.uploads[name]
    handler.json({"id": name, "part_size": PART_SHARDS * upload.slice_size, "parts": sorted(upload.parts)})


def _part(registry: SealedRegistry, handler: Handler, body: bytes, name: str, number: str) -> None:
    upload = registry.uploads[name]
    registry.parts.append((name, int(number), body))
    assert handler.headers["Pqreg-Shards"] == encode_base64(shard_digests(body, upload.slice_size))
    upload.parts[int(number)] = body
    handler.send(204, b"")


def _complete(registry: SealedRegistry, handler: Handler, _body: bytes, name: str) -> None:
    upload = registry.uploads.pop(name)
    content = b"".join(upload.parts[number] for number in sorted(upload.parts))
    assert registry.add_blob(content) == name
    handler.json({"digest": f"sha256:{name}"}, 201)


def _release(registry: SealedRegistry, handler: Handler, body: bytes) -> None:
    envelope = Envelope.parse(body)
    release = envelope.payload_digest
    statement = ReleaseStatement.parse(envelope.payload)
    signed = {resource.path.text: resource.digest.hex for resource in statement.resources}
    assert all(digest in registry.blobs for digest in signed.values())
    registry.statements[release.hex] = body
    registry.manifests[release.hex] = signed[MANIFEST_NAME]
    if release.hex not in registry.releases:
        registry.releases.append(release.hex)
    handler.json({"digest": str(release)}, 201)


def _put_tag(registry: SealedRegistry, handler: Handler, body: bytes, tag: str) -> None:
    registry.tags[tag] = body
    handler.json({}, 201)


def _grants(registry: SealedRegistry, handler: Handler, _body: bytes) -> None:
    items = []
    for (release, recipient), chain in registry.grants.items():
        grant = GrantStatement.parse(Envelope.parse(chain[-1]).payload)
        value = json.loads(Envelope.parse(chain[-1]).payload)["predicate"]
        items.append(
            {
                "release": release, "recipient": recipient, "statement": Digest.of(grant.encode()).hex,
                "sequence": grant.sequence, "issued": value["issued"], "expires": value["expires"],
                "withdrawn": grant.withdrawn, "signer": grant.signer,
            }
        )  # fmt: skip
    handler.json({"items": items})


def _grant(registry: SealedRegistry, handler: Handler, _body: bytes, release: str, recipient: str) -> None:
    chain = registry.grants.get((release, recipient))
    if not chain:
        handler.problem(404, "not-found")
        return
    handler.send(200, chain[-1], "application/vnd.dsse.envelope.v1+json")


def _put_grant(registry: SealedRegistry, handler: Handler, body: bytes, release: str, recipient: str) -> None:
    chain = registry.grants[(release, recipient)]
    grant = GrantStatement.parse(Envelope.parse(body).payload)
    last = Envelope.parse(chain[-1]).payload_digest if chain else None
    if grant.sequence != len(chain) + 1 or grant.previous != last:
        handler.problem(409, "sequence-used")
        return
    assert (grant.release.hex, grant.recipient) == (release, recipient)
    assert registry.manifest(release).sealing is not None
    chain.append(body)
    handler.json({}, 201)


def _certificates(registry: SealedRegistry, handler: Handler, _body: bytes) -> None:
    items = []
    for recipient, body in registry.keys.items():
        value = json.loads(Envelope.parse(body).payload)["predicate"]
        statement = Envelope.parse(body).payload_digest.hex
        items.append(
            {
                "recipient": recipient, "node": value["node"], "statement": statement,
                "not_after": value["not_after"], "signer": value["signer"],
            }
        )  # fmt: skip
    handler.json({"items": items})


def _certificate(registry: SealedRegistry, handler: Handler, _body: bytes, recipient: str) -> None:
    if recipient not in registry.keys:
        handler.problem(404, "not-found")
        return
    handler.send(200, registry.keys[recipient], "application/vnd.dsse.envelope.v1+json")


def _put_certificate(registry: SealedRegistry, handler: Handler, body: bytes, recipient: str) -> None:
    assert KeyStatement.parse(Envelope.parse(body).payload).recipient == recipient
    registry.keys[recipient] = body
    handler.json({}, 201)


_REPO = "/v1/repos/[^/]+/[^/]+"
_HEX = "([0-9a-f]{64})"
ROUTES = (
    ("GET", "/v1/namespaces/[^/]+/identities", _identities),
    ("POST", "/v1/namespaces/[^/]+/identities", _register),
    ("GET", _REPO, _repository),
    ("POST", f"{_REPO}/missing", _missing),
    ("POST", f"{_REPO}/uploads", _open),
    ("GET", f"{_REPO}/uploads/{_HEX}", _state),
    ("PUT", f"{_REPO}/uploads/{_HEX}/parts/(\\d+)", _part),
    ("POST", f"{_REPO}/uploads/{_HEX}/complete", _complete),
    ("POST", f"{_REPO}/releases", _release),
    ("PUT", f"{_REPO}/tags/(.+)", _put_tag),
    ("GET", f"{_REPO}/grants", _grants),
    ("GET", f"{_REPO}/grants/{_HEX}/{_HEX}", _grant),
    ("PUT", f"{_REPO}/grants/{_HEX}/{_HEX}", _put_grant),
    ("GET", "/v1/namespaces/[^/]+/keys", _certificates),
    ("GET", f"/v1/namespaces/[^/]+/keys/{_HEX}", _certificate),
    ("PUT", f"/v1/namespaces/[^/]+/keys/{_HEX}", _put_certificate),
)


@contextmanager
def sealed_registry() -> Iterator[SealedRegistry]:
    """Serve an empty one while the block runs."""
    with serving(SealedRegistry(rules={"/v1/": answer})) as registry:
        assert isinstance(registry, SealedRegistry)
        yield registry
