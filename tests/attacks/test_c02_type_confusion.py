# SPDX-License-Identifier: Apache-2.0
"""C2: one document read as two kinds (CVE-2021-41190). Declared type and content must agree, and only one kind fits."""

from __future__ import annotations

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.dsse import MEDIA_TYPE
from pq_registry.format.instant import utc_now
from tests.samples import FILES, YEAR, publisher, release, tag_statement
from tests.server_harness import RunningRegistry

WRONG = [
    "application/json",
    "application/octet-stream",
    "application/vnd.oci.image.manifest.v1+json",
    "text/plain",
    "",
    MEDIA_TYPE + "; charset=latin-1",
    MEDIA_TYPE + ", application/json",
    "application/vnd.dsse.envelope.v2+json",
]


@pytest.mark.parametrize("kind", WRONG)
def test_an_envelope_declared_as_something_else(shared_registry: RunningRegistry, kind: str) -> None:
    body = release()[0].encode()
    for method, path in (("POST", "/v1/repos/acme/minilm/releases"), ("PUT", "/v1/repos/acme/minilm/tags/v1")):
        assert shared_registry.request(method, path, body, {"Content-Type": kind}).code == "unsupported-media-type"


@pytest.mark.parametrize("path", ["/v1/tokens", "/v1/repos/acme/minilm/uploads", "/v1/repos/acme/minilm/missing",
                                  "/v1/namespaces/acme/identities"])  # fmt: skip
@pytest.mark.parametrize(
    "kind", [MEDIA_TYPE, "text/json", "application/octet-stream", "application/json; charset=utf-16"]
)
def test_json_declared_as_something_else(shared_registry: RunningRegistry, path: str, kind: str) -> None:
    assert shared_registry.post(path, b"{}", {"Content-Type": kind}).code == "unsupported-media-type"


def test_a_part_declared_as_something_else(shared_registry: RunningRegistry) -> None:
    upload = shared_registry.open_upload(b"typed").json["id"]
    answer = shared_registry.put_part(upload, 0, b"typed", Content_Type="application/json")
    assert answer.code == "unsupported-media-type"


def test_two_declarations(shared_registry: RunningRegistry) -> None:
    connection = shared_registry.connect()
    connection.putrequest("POST", "/v1/tokens")
    connection.putheader("Authorization", f"Bearer {shared_registry.admin_token}")
    for kind in ("application/json", MEDIA_TYPE):
        connection.putheader("Content-Type", kind)
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{}")
    assert connection.getresponse().status == 415
    connection.close()


def test_a_tag_statement_is_no_release_and_the_other_way_round(registry: RunningRegistry) -> None:
    digest = registry.publish()
    now = utc_now()
    tag = sign_envelope(tag_statement(digest, issued=now, expires=now + YEAR).encode(), publisher())
    assert registry.post_release(tag).code == "statement-mismatch"
    statement = tag_statement(digest)
    answer = registry.put_envelope(release(FILES)[0], statement.repository, statement.tag)
    assert answer.code in ("statement-mismatch", "format-error")
    assert registry.put_tag(digest).status == 201


def test_both_shapes_in_one_document(registry: RunningRegistry) -> None:
    registry.publish()
    envelope = release()[0].encode()
    for addition in (b'"layers":[],', b'"dead":[],', b'"_type":"https://in-toto.io/Statement/v1",'):
        assert registry.post_release(b"{" + addition + envelope[1:]).code == "format-error"
    assert registry.post_release(envelope.replace(b"{", b"{ ", 1)).code == "format-error"


def test_what_is_served_says_what_it_is(registry: RunningRegistry) -> None:
    digest = registry.publish({"page.html": b"<script>alert(1)</script>"})
    registry.put_tag(digest)
    content = registry.upload(b"<script>alert(1)</script>")
    blob = registry.get(f"/v1/blobs/sha256/{content.hex}", {"Accept": "text/html"})
    assert blob.headers["content-type"] == "application/octet-stream"
    assert (
        blob.headers.get("x-content-type-options") == "nosniff" or blob.headers["content-disposition"] == "attachment"
    )
    assert (
        "content-encoding" not in registry.get(f"/v1/blobs/sha256/{content.hex}", {"Accept-Encoding": "gzip"}).headers
    )
    assert registry.get("/v1/repos/acme/minilm/tags/v1").headers["content-type"] == MEDIA_TYPE
