# SPDX-License-Identifier: Apache-2.0
"""The service over HTTP, as a client of the native API sees it."""

from __future__ import annotations

import base64
import os

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from tests.samples import FILES, REPOSITORY, publisher, release
from tests.server_harness import RunningRegistry


def test_publish_and_read_back(registry: RunningRegistry) -> None:
    digest = registry.publish()
    assert registry.put_tag(digest).status == 201
    listing = registry.get("/v1/repos").json
    assert [(item["name"], item["releases"], item["tags"]) for item in listing["items"]] == [("acme/minilm", 1, 1)]
    view = registry.get("/v1/repos/acme/minilm").json
    assert [item["digest"] for item in view["releases"]] == [str(digest)]
    assert [(item["tag"], item["target"]) for item in view["tags"]] == [("v1", str(digest))]
    found = registry.get(f"/v1/repos/acme/minilm/releases/{digest.hex}").json
    assert found["files"] == len(FILES)
    envelope = base64.b64decode(registry.get(f"/v1/statements/{found['statement']}").json["envelope"])
    assert Digest.of(envelope) != digest
    manifest = Digest.parse(found["manifest"])
    assert Digest.of(registry.get(f"/v1/blobs/sha256/{manifest.hex}").body) == manifest
    content = registry.get(f"/v1/repos/acme/minilm/releases?content={found['content']}").json
    assert [item["digest"] for item in content["items"]] == [str(digest)]


def test_committing_the_same_payload_again_answers_the_first(registry: RunningRegistry) -> None:
    digest = registry.publish()
    statement = registry.get(f"/v1/statements/{digest.hex}").body
    envelope, _ = release()
    answer = registry.post_release(envelope)  # the same payload; hedged signatures differ
    assert (answer.status, answer.json["digest"]) == (200, str(digest))
    assert registry.get(f"/v1/statements/{digest.hex}").body == statement


def test_a_blob_in_several_parts(registry: RunningRegistry) -> None:
    content = os.urandom(2 * limits.PART_BYTES + 5)
    digest = registry.upload(content)
    path = f"/v1/blobs/sha256/{digest.hex}"
    assert registry.get(path).status == 200
    assert registry.get(path).body == content
    part = registry.get(path, {"Range": f"bytes={limits.PART_BYTES - 3}-{limits.PART_BYTES + 2}"})
    assert (part.status, part.body) == (206, content[limits.PART_BYTES - 3 : limits.PART_BYTES + 3])
    assert part.headers["content-range"] == f"bytes {limits.PART_BYTES - 3}-{limits.PART_BYTES + 2}/{len(content)}"
    head = registry.request("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")


def test_tags_move_by_sequence_and_can_be_withdrawn(registry: RunningRegistry) -> None:
    digest = registry.publish()
    first = registry.put_tag(digest)
    previous = Digest.parse(first.json["digest"])
    assert registry.put_tag(digest, sequence=3, previous=previous).code == "sequence-used"
    assert registry.put_tag(digest, sequence=2, previous=digest).code == "sequence-used"
    assert registry.put_tag(digest).status in (200, 409)
    assert registry.put_tag(None, sequence=2, previous=previous).status == 201
    assert registry.get("/v1/repos/acme/minilm").json["tags"][0]["target"] is None
    assert registry.get("/v1/repos").json["items"][0]["tags"] == 0
    assert registry.get("/v1/repos/acme/minilm/tags/v1").status == 200


def test_whoami(registry: RunningRegistry) -> None:
    assert registry.get("/v1/whoami").json["role"] == "admin"
    owner = registry.as_role("owner")
    me = owner.get("/v1/whoami").json
    assert (me["role"], me["namespaces"]) == ("owner", ["acme"])
    assert me["expires"] > utc_now().isoformat()[:10]


def test_missing_asks_only_about_what_the_caller_may_read(registry: RunningRegistry) -> None:
    digest = registry.publish()
    manifest = registry.get(f"/v1/repos/acme/minilm/releases/{digest.hex}").json["manifest"]
    body = {"digests": [manifest, str(Digest.of(b"elsewhere"))]}
    assert registry.post(f"/v1/repos/{REPOSITORY}/missing", body).json["missing"] == body["digests"][1:]
    other = registry.as_role("publisher", "lab")
    assert other.post("/v1/repos/lab/x/missing", body).json["missing"] == body["digests"]
    assert other.get(f"/v1/blobs/sha256/{Digest.parse(manifest).hex}").code == "not-found"
    assert other.get(f"/v1/statements/{digest.hex}").code == "not-found"
    assert publisher().identity.id not in other.get("/v1/repos").body.decode()
