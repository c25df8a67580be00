# SPDX-License-Identifier: Apache-2.0
"""The write side of the Hub's protocol over HTTP, beyond what the unmodified clients in tests/e2e happen to send."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.format.digest import Digest
from tests.hub_site import HubSite, hub_site
from tests.server_harness import Answer, Api
from tests.xetsamples import SampleFile, sample_shard, sample_xorb, whole

LFS = {"Content-Type": "application/vnd.git-lfs+json"}
LINES = {"Content-Type": "application/x-ndjson"}
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("push") / "registry") as site:
        yield site


@pytest.fixture
def publisher(site: HubSite) -> Api:
    return site.registry.as_role("publisher")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(key: str, **value: Any) -> bytes:
    return json.dumps({"key": key, "value": value}).encode() + b"\n"


def header(**value: Any) -> bytes:
    return entry("header", **{"summary": "a commit", "description": "", **value})


def file(path: str, data: bytes) -> bytes:
    return entry("file", path=path, encoding="base64", content=base64.b64encode(data).decode())


def large(path: str, data: bytes) -> bytes:
    return entry("lfsFile", path=path, algo="sha256", oid=sha256(data), size=len(data))


def create(caller: Api, name: str) -> str:
    answer = caller.post("/api/repos/create", {"name": name, "organization": "acme"})
    assert answer.status == 200, answer
    return f"acme/{name}"


def commit(caller: Api, model: str, *lines: bytes, revision: str = "main") -> Answer:
    return caller.post(f"/api/models/{model}/commit/{revision}", b"".join(lines), LINES)


def batch(caller: Api, model: str, *contents: bytes, transfers: tuple[str, ...] = ("basic", "multipart")) -> Answer:
    objects = [{"oid": sha256(data), "size": len(data)} for data in contents]
    body = {"operation": "upload", "transfers": list(transfers), "objects": objects, "hash_algo": "sha256"}
    return caller.post(f"/{model}.git/info/lfs/objects/batch", json.dumps(body).encode(), LFS)


def follow(site: HubSite, method: str, url: str, body: bytes | None = None) -> Answer:
    """What clients do with a URL they were given: no token, no header."""
    place = urlsplit(url)
    assert f"{place.scheme}://{place.netloc}" == site.url
    return site.registry.with_token(None).request_once(method, f"{place.path}?{place.query}", body)


def files(site: HubSite, model: str, revision: str = "main") -> dict[str, str]:
    answer = site.get(f"/api/models/{model}/tree/{revision}?recursive=true")
    return {item["path"]: item["lfs"]["oid"] for item in answer.json if item["type"] == "file"}


def test_creating_twice_answers_where_it_is(site: HubSite, publisher: Api) -> None:
    model = create(publisher, "twice")
    again = publisher.post("/api/repos/create", {"name": "twice", "organization": "acme"})
    assert (again.status, again.json["url"]) == (409, f"{site.url}/{model}")
    short = publisher.post("/api/repos/create", {"name": "short"})
    assert short.json["url"] == f"{site.url}/acme/short", "a token of one namespace"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "organization": "lab"}, 403),
        ({"name": "x", "organization": "acme", "type": "dataset"}, 422),
        ({"name": "../x", "organization": "acme"}, 400),
        ({"organization": "acme"}, 422),
        ([], 422),
    ],
)
def test_what_cannot_be_created(publisher: Api, body: object, status: int) -> None:
    assert publisher.post("/api/repos/create", body).status == status


def test_a_token_of_every_namespace_names_one(site: HubSite) -> None:
    admin = site.registry.with_token(site.token)
    assert admin.post("/api/repos/create", {"name": "nowhere"}).status == 422


def test_how_files_are_to_be_sent(publisher: Api) -> None:
    model = create(publisher, "modes")
    wanted = [{"path": "a", "size": limits.HUB_REGULAR_BYTES}, {"path": "b", "size": limits.HUB_REGULAR_BYTES + 1}]
    answer = publisher.post(f"/api/models/{model}/preupload/main", {"files": wanted, "gitIgnore": "*"})
    assert [item["uploadMode"] for item in answer.json["files"]] == ["regular", "lfs"]
    assert not [item for item in answer.json["files"] if item["shouldIgnore"] or "oid" in item]
    assert answer.headers["x-pqreg-signed"] == "false"
    assert commit(publisher, model, header(), file("a", b"one")).status == 200
    again = publisher.post(f"/api/models/{model}/preupload/main", {"files": wanted})
    assert again.json["files"][0]["oid"] == sha256(b"one")


def test_a_file_in_one_request_needs_no_token(site: HubSite, publisher: Api) -> None:
    model, data = create(publisher, "basic"), os.urandom(3 * limits.MIB)
    (item,) = batch(publisher, model, data).json["objects"]
    upload = item["actions"]["upload"]["href"]
    assert "header" not in item["actions"]["upload"]
    assert follow(site, "PUT", upload, os.urandom(len(data))).status == 422, "other bytes"
    assert follow(site, "PUT", upload, data).status == 200
    verify = urlsplit(item["actions"]["verify"]["href"]).path
    said = json.dumps({"oid": sha256(data), "size": len(data)}).encode()
    assert publisher.post(verify, said, LFS).status == 200
    assert publisher.post(verify, said.replace(str(len(data)).encode(), b"1"), LFS).status == 404
    assert "actions" not in batch(publisher, model, data).json["objects"][0]
    assert commit(publisher, model, header(), large("w.bin", data)).status == 200
    assert files(site, model) == {"w.bin": sha256(data)}


def test_a_file_in_parts_goes_on_where_it_broke(site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HUB_MULTIPART_BYTES", limits.PART_BYTES)
    model, data = create(publisher, "parts"), os.urandom(limits.PART_BYTES + 4_321)
    answer = batch(publisher, model, data).json
    assert answer["transfer"] == "multipart"
    action = answer["objects"][0]["actions"]["upload"]
    size = int(action["header"].pop("chunk_size"))
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    urls = [url for _, url in sorted(action["header"].items())]
    assert len(urls) == len(parts) == 2
    first = follow(site, "PUT", urls[0], parts[0])
    assert (first.status, first.headers["etag"]) == (200, '"1"')
    assert follow(site, "PUT", urls[1], parts[1][:-1]).status == 422, "a part of another length"
    assert follow(site, "POST", action["href"]).status == 409, "not all parts"
    action = batch(publisher, model, data).json["objects"][0]["actions"]["upload"]
    assert follow(site, "PUT", action["header"]["00002"], parts[1]).status == 200
    assert follow(site, "PUT", action["header"]["00001"], parts[0]).status == 200, "once more"
    assert follow(site, "POST", action["href"], json.dumps({"oid": sha256(data), "parts": []}).encode()).status == 415
    assert follow(site, "POST", action["href"]).status == 200
    assert follow(site, "POST", action["href"]).status == 200, "the answer got lost"
    assert commit(publisher, model, header(), large("w.bin", data)).status == 200


def test_what_cannot_be_sent_is_said_file_by_file(publisher: Api) -> None:
    model = create(publisher, "refused")
    objects = [{"oid": sha256(b"x"), "size": limits.HUB_FILE_BYTES + 1}, {"oid": sha256(b"y"), "size": 1}]
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects}
    found = publisher.post(f"/{model}.git/info/lfs/objects/batch", json.dumps(body).encode(), LFS).json["objects"]
    assert found[0]["error"]["code"] == 422
    assert "pqreg push" not in found[0] and "actions" in found[1]
    assert publisher.post(f"/{model}.git/info/lfs/objects/batch", {**body, "operation": "download"}).status == 422


BROKEN = {
    "nothing": b"",
    "no header": file("a", b"x"),
    "two headers": header() + header(),
    "no JSON": header() + b"nonsense\n",
    "a list": header() + b"[]\n",
    "an unknown key": header() + entry("submodule", path="a"),
    "no path": header() + entry("deletedFile"),
    "another encoding": header() + entry("file", path="a", encoding="utf-8", content="x"),
    "no base64": header() + entry("file", path="a", encoding="base64", content="*"),
    "another digest": header() + entry("lfsFile", path="a", algo="sha1", oid=sha256(b"x"), size=1),
    "a path twice": header() + file("a", b"x") + file("a", b"y"),
    "a hostile path": header() + file("../a", b"x"),
    "a field twice": b'{"key":"header","key":"header","value":{"summary":"x"}}\n',
    "a parent that is none": header(parentCommit="main"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_commits_are_refused(site: HubSite, publisher: Api, what: str) -> None:
    model = "acme/broken"
    publisher.post("/api/repos/create", {"name": "broken", "organization": "acme"})
    answer = commit(publisher, model, BROKEN[what])
    assert answer.status in (400, 422), answer
    assert not files(site, model)


def test_a_commit_is_bounded(publisher: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create(publisher, "bounded")
    monkeypatch.setattr(limits, "HUB_COMMIT_LINE_BYTES", 2000)
    monkeypatch.setattr(limits, "HUB_COMMIT_LINES", 2)
    assert commit(publisher, model, header(), file("a", bytes(1000))).status == 200
    assert commit(publisher, model, header(), file("a", bytes(2000))).status == 422
    assert commit(publisher, model, header(), b"x" * 3000).status == 422, "a line without an end"
    assert commit(publisher, model, header(), *(file(name, b"x") for name in "abc")).status == 422


def test_a_commit_is_for_the_head_it_was_made_for(site: HubSite, publisher: Api) -> None:
    model = create(publisher, "heads")
    first = commit(publisher, model, header(), file("a", b"1")).json["commitOid"]
    second = commit(publisher, model, header(parentCommit=first[:8]), file("a", b"2")).json["commitOid"]
    stale = commit(publisher, model, header(parentCommit=first), file("a", b"3"))
    assert (stale.status, stale.json["type"]) == (412, "/problems/draft-moved")
    assert commit(publisher, model, header(parentCommit=second), file("a", b"3")).status == 200
    assert files(site, model) == {"a": sha256(b"3")}
    assert commit(publisher, model, header(), file("b", b"1"), revision="dev%2Fx").status == 200, "a new branch"
    assert publisher.post(f"/api/models/{model}/commit/main?create_pr=1", header(), LINES).status == 422


def test_a_copy_needs_no_size_and_what_is_not_there_is_said(site: HubSite, publisher: Api) -> None:
    model = create(publisher, "copies")
    assert commit(publisher, model, header(), file("a", b"copied")).status == 200
    copy = entry("lfsFile", path="b", algo="sha256", oid=sha256(b"copied"))
    assert commit(publisher, model, header(), copy).status == 200
    assert files(site, model) == {name: sha256(b"copied") for name in "ab"}
    assert commit(publisher, model, header(), large("c", b"never sent")).status == 409
    assert commit(publisher, model, header(), entry("deletedFile", path="c")).status == 404
    assert commit(publisher, model, header(), entry("deletedFile", path="a")).status == 200
    assert set(files(site, model)) == {"b"}


def test_a_commit_to_what_is_signed_is_a_draft_of_it(site: HubSite, publisher: Api) -> None:
    before = site.get("/api/models/acme/minilm").json["sha"]
    answer = commit(publisher, "acme/minilm", header(parentCommit=before), file("more.txt", b"more"))
    assert answer.status == 200, answer
    signed = site.get("/api/models/acme/minilm")
    assert (signed.json["sha"], signed.headers["x-pqreg-signed"]) == (before, "true")
    draft = site.get("/api/models/acme/minilm/revision/draft")
    assert (draft.json["sha"], draft.headers["x-pqreg-signed"]) == (answer.json["commitOid"], "false")
    assert {"more.txt", "config.json"} <= set(files(site, "acme/minilm", "draft"))
    deleted = publisher.request("DELETE", "/api/repos/delete", {"name": "minilm", "organization": "acme"})
    assert deleted.status == 403, "it has a release"


def test_branches_and_tags(site: HubSite, publisher: Api) -> None:
    model = create(publisher, "names")
    head = commit(publisher, model, header(), file("a", b"1")).json["commitOid"]
    base = f"/api/models/{model}"
    assert publisher.post(f"{base}/branch/pqreg%2F0123456789ab").status == 200
    assert publisher.post(f"{base}/branch/pqreg%2F0123456789ab").status == 409
    assert publisher.post(f"{base}/branch/more", {"startingPoint": "nowhere"}).status == 404
    assert publisher.post(f"{base}/tag/{head}", {"tag": "v1"}).status == 200
    assert publisher.post(f"{base}/tag/main", {"tag": "v1"}).status == 409
    for unreachable in ("refs/tags/x", "refs/pr/1", "refs/heads/refs/heads/x"):
        written = commit(publisher, model, header(), file("a", b"2"), revision=unreachable.replace("/", "%2F"))
        assert (written.status, "refs" in written.json["expected"]) == (400, True)
    assert publisher.post(f"{base}/tag/main", {"tag": "refs/tags/v1"}).status == 400
    refs = site.get(f"{base}/refs").json
    assert {item["name"] for item in refs["branches"]} == {"main", "pqreg/0123456789ab"}
    assert [item["targetCommit"] for item in refs["tags"]] == [head]
    assert publisher.request("DELETE", f"{base}/branch/main").status == 403
    assert publisher.request("DELETE", f"{base}/branch/pqreg%2F0123456789ab").status == 200
    assert publisher.request("DELETE", f"{base}/tag/v1").status == 200
    squashed = publisher.post(f"{base}/super-squash/main", {"message": "Title\n\nMore"})
    assert squashed.status == 200
    (only,) = site.get(f"{base}/commits/main").json
    assert (only["title"], files(site, model)) == ("Title", {"a": sha256(b"1")})
    assert publisher.request("DELETE", "/api/repos/delete", {"name": model}).status == 200
    assert site.get(base).status == 404


def test_what_a_repository_cannot_be(publisher: Api) -> None:
    model = create(publisher, "settings")
    at = f"/api/models/{model}/settings"
    assert publisher.request("PUT", at, {"visibility": "private", "gated": False}).status == 200
    assert publisher.request("PUT", at, {"visibility": "public"}).status == 403
    assert publisher.request("PUT", at, {"gated": "auto"}).status == 422
    moved = publisher.post("/api/repos/move", {"fromRepo": model, "toRepo": "acme/elsewhere", "type": "model"})
    assert moved.status == 422
    good = publisher.post("/api/validate-yaml", {"content": "---\nlicense: mit\n---\n# A model", "repoType": "model"})
    assert good.json == {"errors": [], "warnings": []}
    bad = publisher.post("/api/validate-yaml", {"content": "---\nlicense: [\n---\n", "repoType": "model"})
    assert bad.status == 200 and bad.json["errors"][0]["message"]


def test_chunked_uploads_become_files(site: HubSite, publisher: Api) -> None:
    model = create(publisher, "chunked")
    token = publisher.get(f"/api/models/{model}/xet-write-token/main")
    cas = urlsplit(token.json["casUrl"]).path
    assert (token.headers["x-xet-access-token"], token.headers["x-xet-cas-url"]) == (
        token.json["accessToken"], token.json["casUrl"],
    )  # fmt: skip
    client = site.registry.with_token(token.json["accessToken"])
    chunks = [os.urandom(size) for size in (70_000, 9_000, 131_072)]
    xorb = sample_xorb(chunks)
    for path in (f"v1/chunks/default/{xorb.name}", f"v1/xorb-grants/default/{xorb.name}", "v2/shards"):
        assert client.post(f"{cas}/{path}", b"", OCTETS).status == 404
    first = client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS)
    assert (first.status, first.json) == (200, {"was_inserted": True})
    assert client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).json == {"was_inserted": False}
    content = chunks[2] + chunks[0]
    runs = ((xorb.name, 2, 3, len(chunks[2])), (xorb.name, 0, 1, len(chunks[0])))
    mixed, empty = SampleFile(Digest.of(content), runs), SampleFile(Digest.of(b""), ())
    answer = client.post(f"{cas}/v1/shards", sample_shard([mixed, empty]), OCTETS)
    assert (answer.status, answer.json) == (200, {"result": 1})
    # Not all chunks are in a file yet, so the xorb is still there for another one; then it goes.
    assert client.post(f"{cas}/v1/shards", sample_shard([whole(xorb)]), OCTETS).status == 200
    assert not site.registry.registry.xorbs.find(site.registry.registry.tokens.holder(
        token.json["accessToken"].split(".")[0], public_read=False, request_id=""), xorb.name)[0].block  # fmt: skip
    # What a client remembers having sent is read from the files that were made of it.
    part = SampleFile(Digest.of(chunks[1]), ((xorb.name, 1, 2, len(chunks[1])),))
    assert client.post(f"{cas}/v1/shards", sample_shard([part]), OCTETS).status == 200
    sent = (large("mixed", content), large("whole", b"".join(chunks)), large("part", chunks[1]), large("empty", b""))
    assert commit(publisher, model, header(), *sent).status == 200
    assert files(site, model)["mixed"] == sha256(content)
    wrong = SampleFile(Digest.of(b"something else"), runs)
    assert client.post(f"{cas}/v1/shards", sample_shard([wrong]), OCTETS).status == 422
    gone = SampleFile(Digest.of(b"y"), (("ab" * 32, 0, 1, 1),))
    assert client.post(f"{cas}/v1/shards", sample_shard([gone]), OCTETS).status == 409
    moved = publisher.get(f"/api/models/{model}/xet-write-token/main").json["casUrl"]
    assert moved != token.json["casUrl"], "so that clients forget what they believe to have sent"


class Chunked:
    """One chunked upload whose file is made when the test says so."""

    def __init__(self, site: HubSite, publisher: Api, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "XET_ANSWER_SECONDS", 0.05)
        self.may = threading.Event()
        self.error: Exception | None = None
        self.model = create(publisher, name)
        token = publisher.get(f"/api/models/{self.model}/xet-write-token/main").json
        self.client, self.cas = site.registry.with_token(token["accessToken"]), urlsplit(token["casUrl"]).path
        self.xorb = sample_xorb([name.encode()])
        self.client.post(f"{self.cas}/v1/xorbs/default/{self.xorb.name}", self.xorb.packed, OCTETS)
        intake = site.registry.registry.intake
        copy = intake.copy

        def slowly(*given: Any, **options: Any) -> None:
            assert self.may.wait(60)
            if self.error is not None:
                raise self.error
            copy(*given, **options)

        monkeypatch.setattr(intake, "copy", slowly)

    def send(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self.client.connect()
        headers = {**OCTETS, "Authorization": f"Bearer {self.client.token}"}
        connection.request("POST", f"{self.cas}/v1/shards", sample_shard([whole(self.xorb)]), headers)
        return connection, connection.getresponse()


def test_while_files_are_made_the_client_is_told_to_wait(
    site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Chunked(site, publisher, "slow", monkeypatch)
    connection, response = upload.send()
    assert (response.status, response.read(1)) == (200, b" ")
    again, twice = upload.send()
    assert twice.read(1) == b" "
    upload.may.set()
    assert json.loads(response.read()) == json.loads(twice.read()) == {"result": 1}
    connection.close()
    again.close()
    assert commit(publisher, upload.model, header(), large("slow", b"slow")).status == 200


def test_what_goes_wrong_after_the_answer_began_breaks_it_off(
    site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Chunked(site, publisher, "broken-off", monkeypatch)
    upload.error = StorageError("the disk is gone")
    connection, response = upload.send()
    assert response.read(1) == b" "
    upload.may.set()
    with pytest.raises((http.client.HTTPException, OSError)):
        response.read()
    connection.close()
