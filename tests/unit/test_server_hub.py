# SPDX-License-Identifier: Apache-2.0
"""The Hub's protocol over HTTP, as it stands on the wire: headers, ranges, pages, refusals, and who may read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from pq_registry import limits
from pq_registry.client.trust import Verifier
from pq_registry.client.verify import verify_directory
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName
from pq_registry.format.tlogpolicy import LogPolicy
from tests.hub_site import EVIDENCE, FILES, HubSite, hub_site
from tests.logsamples import compose_policy
from tests.samples import namespace_trust, publisher, trust_file
from tests.server_harness import Answer

WEIGHTS = FILES["weights.bin"]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    """acme/minilm:main, and acme/drafted with a draft dev/x."""
    with hub_site(tmp_path_factory.mktemp("hub") / "registry") as site:
        yield site


@pytest.fixture(scope="module")
def release(site: HubSite) -> Digest:
    return site.releases["acme/minilm:main"]


def commit_of(release: Digest) -> str:
    return release.hex[:40]


def refused(answer: Answer, status: int, code: str | None) -> str:
    """The message of a refusal that is of the Hub's form."""
    assert answer.status == status, answer
    assert answer.headers.get("x-error-code") == code, answer
    assert answer.headers["x-error-message"].isascii()
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["status"] == status
    assert answer.json["instance"] == answer.headers["x-request-id"]
    return str(answer.json["error"])


def next_page(answer: Answer) -> str | None:
    """The path of the next page, from the Link header."""
    link = answer.headers.get("link")
    if link is None:
        return None
    assert link.startswith("<http://127.0.0.1:")
    assert link.endswith('>; rel="next"')
    return "/" + link[1:].partition(">")[0].split("/", 3)[3]


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["resolve", "raw"])
def test_a_file_and_what_is_said_about_it(site: HubSite, release: Digest, kind: str) -> None:
    digest = Digest.of(WEIGHTS)
    path = f"/acme/minilm/{kind}/main/weights.bin"
    head = site.ask("HEAD", path)
    assert head.status == 200, head
    assert "location" not in head.headers
    assert head.headers["content-length"] == str(len(WEIGHTS))
    got = site.get(path)
    whole = site.follow(got)
    assert (whole.status, whole.body) == (200, WEIGHTS)
    for answer in (head, got):
        assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{digest.hex}"'
        assert answer.headers["x-linked-size"] == str(len(WEIGHTS))
        assert answer.headers["x-repo-commit"] == commit_of(release)
        assert answer.headers["x-pqreg-signed"] == "true"
        assert answer.headers["x-pqreg-release"] == str(release)
        assert answer.headers["accept-ranges"] == "bytes"
        assert not [name for name in answer.headers if "xet" in name or name == "link"]
    if got.status == 302:
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["referrer-policy"] == "no-referrer"
    else:
        assert got.headers["content-disposition"] == "attachment"
        assert got.headers["content-type"] == "application/octet-stream"
    assert site.get(path, If_None_Match=f'"{digest.hex}"').status == 304


def test_what_may_be_kept(site: HubSite, release: Digest) -> None:
    commit = commit_of(release)
    by_commit = site.ask("HEAD", f"/acme/minilm/resolve/{commit}/config.json").headers["cache-control"]
    assert by_commit == "private, max-age=31536000, immutable"
    assert site.ask("HEAD", "/acme/minilm/resolve/main/config.json").headers["cache-control"] == "private, no-cache"
    proof = site.ask("HEAD", f"/acme/minilm/resolve/{commit}/model.tlog-proof").headers["cache-control"]
    assert proof == "private, no-cache", "a receipt may be bettered"


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [("bytes=0-0", 0, 1), ("bytes=1000-1999", 1000, 2000), ("bytes=-5", -5, None), ("bytes=262000-", 262000, None)],
)
@pytest.mark.parametrize("path", ["weights.bin", "model.tlog-proof"])
def test_ranges(site: HubSite, path: str, wanted: str, begin: int, end: int | None) -> None:
    whole = site.follow(site.get(f"/acme/minilm/resolve/main/{path}")).body
    answer = site.get(f"/acme/minilm/resolve/main/{path}", Range=wanted)
    if answer.status == 302:
        return  # the store serves ranges itself (tests/unit/test_service_direct.py)
    if begin >= len(whole):
        assert answer.status == 416
        return
    assert answer.status == 206
    assert answer.body == whole[begin:end]
    assert answer.headers["content-range"].endswith(f"/{len(whole)}")


@pytest.mark.parametrize("wanted", ["bytes=9999999-", "bytes=0-1,4-5"])
@pytest.mark.parametrize("path", ["config.json", "model.sig"])
def test_ranges_that_cannot_be_served(site: HubSite, path: str, wanted: str) -> None:
    answer = site.get(f"/acme/minilm/resolve/main/{path}", Range=wanted)
    if answer.status != 302:
        refused(answer, 416, None)
        assert answer.headers["content-range"].startswith("bytes */")


def test_if_range_of_something_else_gets_the_whole(site: HubSite) -> None:
    answer = site.get("/acme/minilm/resolve/main/model.sig", Range="bytes=0-0", If_Range='"other"')
    assert answer.status == 200


def test_an_empty_file(site: HubSite) -> None:
    assert site.follow(site.get("/acme/minilm/resolve/main/empty.txt")).body == b""
    assert site.ask("HEAD", "/acme/minilm/resolve/main/empty.txt").headers["x-linked-size"] == "0"


def test_a_downloaded_directory_verifies_by_its_evidence(site: HubSite, release: Digest, tmp_path: Path) -> None:
    for item in site.get("/api/models/acme/minilm/tree/main?recursive=true").json:
        if item["type"] == "file":
            target = tmp_path / "out" / item["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(site.follow(site.get(f"/acme/minilm/resolve/main/{quote(item['path'])}")).body)
    trust = trust_file(namespace_trust(publisher()), log=(LogPolicy(compose_policy()),))
    verified = verify_directory(tmp_path / "out", Verifier(trust.encode(), utc_now(), online=False), full=True)
    assert verified.release.digest == release


# -- models and trees ------------------------------------------------------------------------------------------------


def test_a_model(site: HubSite, release: Digest) -> None:
    answer = site.get("/api/models/acme/minilm?blobs=true")
    info = answer.json
    assert info["sha"] == commit_of(release) == answer.headers["x-repo-commit"]
    assert (info["id"], info["author"], info["private"], info["gated"]) == ("acme/minilm", "acme", True, False)
    assert info["pqreg"] == {"signed": True, "release": str(release), "sealed": False, "draft": None}
    assert [item["rfilename"] for item in info["siblings"]] == sorted([*FILES, "pqreg.json", *EVIDENCE])
    assert {item["lfs"]["sha256"] for item in info["siblings"]} >= {Digest.of(data).hex for data in FILES.values()}
    assert info["cardData"]["license"] == "apache-2.0"
    assert {"license:apache-2.0", "de", "signed"} <= set(info["tags"])
    for revision in ("main", commit_of(release), release.hex, f"sha256:{release.hex}", "refs%2Fheads%2Fmain"):
        assert site.get(f"/api/models/acme/minilm/revision/{revision}").json["sha"] == info["sha"], revision
    expanded = set(site.get("/api/models/acme/minilm?expand=sha&expand=tags").json)
    assert expanded == {"_id", "id", "modelId", "pqreg", "sha", "tags"}


def test_pages_of_a_tree_are_of_one_revision(site: HubSite, release: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = site.get("/api/models/acme/minilm/tree/main?recursive=true").json
    assert {item["path"] for item in whole} >= {
        "1_Pooling",
        "1_Pooling/deep",
        "1_Pooling/deep/vocab.txt",
        "config.json",
    }
    monkeypatch.setattr("pq_registry.format.hubtree.tree_page.__kwdefaults__", {"limit": 2, "start": 0, "last": None})
    pages: list[object] = []
    path: str | None = "/api/models/acme/minilm/tree/main?recursive=true&expand=true"
    while path is not None:
        answer = site.get(path)
        pages += answer.json
        assert len(answer.json) <= 4  # folders before a file may make a page longer
        path = next_page(answer)
        assert path is None or f"/tree/{commit_of(release)}?" in path
    assert [{key: value for key, value in item.items() if key != "lastCommit"} for item in pages] == whole  # type: ignore[attr-defined]
    assert pages[0]["lastCommit"]["id"] == commit_of(release)  # type: ignore[index]


def test_a_folder(site: HubSite, release: Digest) -> None:
    items = site.get("/api/models/acme/minilm/tree/main/1_Pooling").json
    assert [(item["type"], item["path"]) for item in items] == [
        ("file", "1_Pooling/config.json"), ("directory", "1_Pooling/deep"),
    ]  # fmt: skip
    deeper = site.get("/api/models/acme/minilm/tree/main/1_Pooling%2Fdeep").json
    assert [item["path"] for item in deeper] == ["1_Pooling/deep/vocab.txt"]
    for path in ("nope", "config.json"):
        answer = site.get(f"/api/models/acme/minilm/tree/main/{path}")
        refused(answer, 404, "EntryNotFound")
        assert answer.headers["x-repo-commit"] == commit_of(release)


@pytest.mark.parametrize("kind", [FORM, "application/json"])
def test_paths(site: HubSite, kind: str) -> None:
    asked = {"paths": ["config.json", "1_Pooling", "nope"], "expand": True}
    body = urlencode(asked, doseq=True).encode() if kind == FORM else json.dumps(asked).encode()
    answer = site.ask("POST", "/api/models/acme/minilm/paths-info/main", body, Content_Type=kind)
    assert [(item["type"], item["path"]) for item in answer.json] == [
        ("file", "config.json"),
        ("directory", "1_Pooling"),
    ]
    assert answer.json[0]["lastCommit"]["id"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (FORM, b"paths=a&" * (limits.HUB_PATHS + 3), 422),
        (FORM, b"paths=\xff", 422),
        ("application/json", b"[]", 422),
        ("application/json", b'{"paths": [1]}', 422),
        ("application/json", b'{"paths": "a"}', 422),
        ("application/json", b"{", 422),
        ("text/plain", b"paths=a", 415),
    ],
)
def test_paths_that_make_no_sense(site: HubSite, kind: str, body: bytes, status: int) -> None:
    refused(site.ask("POST", "/api/models/acme/minilm/paths-info/main", body, Content_Type=kind), status, None)


def test_models_are_found_and_paged(site: HubSite) -> None:
    site.registry.publish({"a.json": b"{}"}, RepositoryName.parse("lab/other"))
    names = []
    path: str | None = "/api/models?limit=1"
    while path is not None:
        answer = site.get(path)
        names += [item["id"] for item in answer.json]
        path = next_page(answer)
    assert names == ["acme/minilm", "lab/other"]
    for query, found in (
        ("author=acme", ["acme/minilm"]), ("author=ACME", ["acme/minilm"]), ("author=no%2Fname", []),
        ("search=minilm", ["acme/minilm"]), ("filter=license:apache-2.0,de", ["acme/minilm"]), ("filter=fr", []),
        ("filter=%00", []), ("search=%00", []), ("sort=downloads&limit=5", names), ("sort=createdAt", names[::-1]),
    ):  # fmt: skip
        assert [item["id"] for item in site.get(f"/api/models?{query}").json] == found, query
    reader = site.token_of("reader", "lab")
    assert [item["id"] for item in site.get("/api/models", reader).json] == ["lab/other"]
    for after in ("x", "acme", "~1", "acme/x~1"):
        assert site.get(f"/api/models?sort=lastModified&after={after}").status == 422


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_in_the_hubs_words(site: HubSite, release: Digest) -> None:
    entry = site.get("/acme/minilm/resolve/main/nope.txt")
    assert "no such file" in refused(entry, 404, "EntryNotFound")
    assert entry.headers["x-repo-commit"] == commit_of(release)
    refused(site.get("/acme/minilm/resolve/nope/config.json"), 404, "RevisionNotFound")
    refused(site.get("/api/models/acme/minilm/revision/nope"), 404, "RevisionNotFound")
    for path in (
        "/api/models/acme/absent",
        "/acme/absent/resolve/main/x",
        "/api/models/Acme/minilm",
        "/api/models/gpt2",
        "/gpt2/resolve/main/config.json",
        "/api/datasets/acme/x",
        "/datasets/acme/x/resolve/main/y",
    ):
        refused(site.get(path), 404, "RepoNotFound")
    head = site.ask("HEAD", "/acme/minilm/resolve/main/nope.txt")
    assert (head.status, head.headers["x-error-code"], head.body) == (404, "EntryNotFound", b"")


def test_what_a_hub_has_and_a_registry_has_not_is_said(site: HubSite) -> None:
    for verb, path, words in (
        ("GET", "/api/datasets?limit=3", "models only"),
        ("GET", "/api/spaces", "models only"),
        ("GET", "/api/settings/repositories", "hf models ls"),
        ("GET", "/api/models/acme/minilm/discussions?p=0", "no discussions or pull requests"),
        ("POST", "/api/models/acme/minilm/discussions", "no discussions or pull requests"),
        ("POST", "/api/models/acme/minilm/duplicate", "push it under its other name"),
    ):
        answer = site.ask(verb, path, {"title": "x"} if verb == "POST" else None)
        refused(answer, 404, None)
        assert words in answer.headers["x-error-message"], path


def test_the_message_is_all_a_client_prints(site: HubSite) -> None:
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "sub/con.txt", "content": ""}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    path = "/api/models/acme/minilm/commit/main"
    answer = site.registry.with_token(site.token).post(path, body, {"Content-Type": "application/x-ndjson"})
    assert "sub/con.txt" in refused(answer, 422, None)
    assert "HF_TOKEN" in refused(site.get("/api/models/acme/minilm", ""), 401, "RepoNotFound")


def test_who_is_told_what(site: HubSite) -> None:
    for token in ("", "pqreg_" + "A" * 43):
        answer = site.get("/api/models/acme/minilm", token)
        refused(answer, 401, "RepoNotFound")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        whoami = site.get("/api/whoami-v2", token)
        refused(whoami, 401, None)
        assert whoami.headers["x-error-message"] == "Invalid credentials in Authorization header"
    stranger = site.token_of("owner", "lab")
    for path in ("/api/models/acme/minilm", "/acme/minilm/resolve/main/config.json"):
        refused(site.get(path, stranger), 403, None)
    reader = site.token_of("reader")
    assert site.get("/api/models/acme/minilm/auth-check", reader).status == 200
    refused(site.get("/api/models/acme/minilm/auth-check/write", reader), 403, None)
    refused(site.get("/api/models/acme/absent/auth-check", reader), 404, "RepoNotFound")
    assert site.get("/api/whoami-v2", reader).json["auth"]["accessToken"]["role"] == "read"
    assert site.get("/api/whoami-v2", reader).json["name"] == "acme"


def test_public_reading(tmp_path: Path) -> None:
    with hub_site(tmp_path / "registry", public_read=True) as site:
        assert site.get("/api/models/acme/minilm", "").json["private"] is False
        assert site.get("/acme/minilm", "").headers["location"] == "/models/acme/minilm"
        head = site.ask(
            "HEAD", f"/acme/minilm/resolve/{commit_of(site.releases['acme/minilm:main'])}/config.json", token=""
        )
        assert head.headers["cache-control"].startswith("public, max-age=")
        refused(site.get("/api/whoami-v2", ""), 401, None)
        refused(site.get("/api/models/acme/minilm/auth-check/write", ""), 401, "RepoNotFound")


def test_pages_are_where_the_hub_has_them(site: HubSite) -> None:
    for path in ("/acme/minilm", "/acme/minilm/tree/main", "/acme/minilm/blob/main/config.json",
                 "/acme/minilm/commit/0123", "/acme/minilm/commits/main"):  # fmt: skip
        answer = site.get(path)
        assert (answer.status, answer.headers["location"]) == (302, "/models/acme/minilm")
        assert site.get(path, "").status == 404, "whether it is there is nobody's business"
    for path in ("/acme/absent", "/.git/config", "/static/x", "/session/end"):
        assert site.get(path).status in (404, 405)


# -- drafts ------------------------------------------------------------------------------------------------------------


def test_a_revision_with_a_slash_is_one_segment(site: HubSite) -> None:
    from pq_registry.service.hub.changes import Changes
    from pq_registry.service.hub.model import Branch

    registry = site.registry.registry
    name = RepositoryName.parse("acme/drafted")
    publisher = site.token_of("publisher")
    caller = registry.tokens.authenticate(publisher, public_read=False, request_id="test")
    registry.drafts.create(caller, name, exist_ok=False)
    blob = (site.registry.upload(b"new", name), 3)
    commit = registry.drafts.commit(
        caller, name, Branch("dev/x"), Changes(put={"a b/ü.txt": blob}), title="Ein Entwurf", message="", parent=None
    )
    registry.drafts.drop(caller, name, Branch("main"), head=None)
    path = "/acme/drafted/resolve/dev%2Fx/a%20b/%C3%BC.txt"
    head = site.ask("HEAD", path, token=publisher)
    assert head.headers["x-repo-commit"] == str(commit)
    assert head.headers["x-pqreg-signed"] == "false"
    assert "x-pqreg-release" not in head.headers
    assert head.headers["cache-control"] == "no-store"
    assert site.follow(site.get(path, publisher)).body == b"new"
    info = site.get("/api/models/acme/drafted/revision/dev%2Fx", publisher).json
    assert info["pqreg"] == {"signed": False, "release": None, "sealed": False, "draft": "dev/x"}
    assert "unsigned-draft" in info["tags"]
    assert site.get("/api/models/acme/drafted", publisher).json["sha"] == str(commit), "nothing is called main"
    reader = site.token_of("reader")
    for hidden in (path, f"/acme/drafted/resolve/{commit}/a%20b/%C3%BC.txt", "/api/models/acme/drafted"):
        refused(site.get(hidden, reader), 404, "RepoNotFound")
    assert "acme/drafted" not in [item["id"] for item in site.get("/api/models", reader).json]
    # Decoded before it is taken apart, this would be the file x/config.json of a revision dev.
    refused(site.get("/acme/drafted/resolve/dev/x/a", publisher), 404, "RevisionNotFound")
