# SPDX-License-Identifier: Apache-2.0
"""The gateway over a registry of a few lines: what it shows, whole files and ranges, its cache, and what it refuses."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.tag import TagStatement
from tests.fake_registry import FakeRegistry, Handler, serving
from tests.gateway_site import RunningGateway, registry_origin, running_gateway
from tests.pull_site import FILES
from tests.samples import NOW, publisher, release, tag_statement, trust_file

SHARD = limits.SHARD_BYTES
WEIGHTS = "sub/model.safetensors"
BASE = "/acme/minilm/resolve/v1/"


class Node:
    """A node with a gateway, beside a registry that holds one release under v1."""

    def __init__(self, registry: FakeRegistry, home: Path) -> None:
        self.registry = registry
        self.home = home
        self.last: TagStatement | None = None
        self.digest = self.publish()

    def publish(self, files: dict[str, bytes] | None = None, sequence: int = 1) -> Digest:
        chosen = files or FILES
        digest = self.registry.add_release(*release(chosen), chosen)
        previous = None if self.last is None else Digest.of(self.last.encode())
        self.last = tag_statement(digest, sequence=sequence, previous=previous)
        self.registry.tags["v1"] = sign_envelope(self.last.encode(), publisher()).encode()
        return digest

    def gateway(self, **options: object) -> object:
        origin = registry_origin(self.registry.url, self.home, trust_file().encode(), lambda: NOW)
        return running_gateway([origin], self.home / "cache", **options)  # type: ignore[arg-type]

    def served(self) -> int:
        return self.registry.bytes_served()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with serving() as registry:
        yield Node(registry, tmp_path)


@pytest.fixture
def gateway(node: Node) -> Iterator[RunningGateway]:
    with node.gateway() as running:  # type: ignore[attr-defined]
        yield running


def test_a_model_its_tree_and_its_files(node: Node, gateway: RunningGateway) -> None:
    model = gateway.get("/api/models/acme/minilm/revision/v1?blobs=true")
    commit = node.digest.hex[:40]
    assert (model.status, model.json["sha"], model.headers["x-repo-commit"]) == (200, commit, commit)
    assert model.json["pqreg"]["release"] == model.headers["x-pqreg-release"] == str(node.digest)
    assert model.json["pqreg"]["proven"] and model.headers["x-pqreg-signed"] == "true"
    listed = {item["rfilename"]: item["lfs"]["sha256"] for item in model.json["siblings"]}
    assert set(listed) == {*FILES, "pqreg.json", "model.sig", "model.pq.sig"}
    tree = gateway.get(f"/api/models/acme/minilm/tree/{commit}?recursive=true").json
    assert {item["path"] for item in tree if item["type"] == "file"} == set(listed)
    assert [item["path"] for item in gateway.get(f"/api/models/acme/minilm/tree/{commit}/sub").json] == [
        "sub/dir", WEIGHTS,
    ]  # fmt: skip
    for path, digest in listed.items():
        answer = gateway.get(f"/acme/minilm/resolve/{commit}/{path}")
        assert answer.status == 200 and Digest.of(answer.body).hex == digest
        assert answer.headers["etag"] == f'"{digest}"'
        assert FILES.get(path, answer.body) == answer.body
        head = gateway.get(f"/acme/minilm/resolve/{commit}/{path}", "HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


def test_revisions_paths_refs_commits_and_searches(node: Node, gateway: RunningGateway) -> None:
    commit = node.digest.hex[:40]
    for revision in (
        "v1",
        "refs%2Ftags%2Fv1",
        "refs%2Fheads%2Fv1",
        commit,
        node.digest.hex,
        f"sha256:{node.digest.hex}",
    ):
        if revision == commit:
            continue  # a commit is looked up in the repository's listing, which this registry has not; known by now
        assert gateway.get(f"/api/models/acme/minilm/revision/{revision}").json["sha"] == commit, revision
    assert gateway.get(f"/api/models/acme/minilm/revision/{commit}").json["sha"] == commit
    form = urlencode({"paths": ["config.json", "sub", "nothing"], "expand": "true"}, doseq=True).encode()
    found = gateway.get("/api/models/acme/minilm/paths-info/v1", "POST", form)
    assert [(item["path"], item["type"]) for item in found.json] == [("config.json", "file"), ("sub", "directory")]
    assert found.json[0]["lastCommit"]["id"] == commit
    assert [item["id"] for item in gateway.get("/api/models/acme/minilm/commits/v1").json] == [commit]
    assert gateway.get("/api/whoami-v2").json["name"] == "gateway"


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 0), (SHARD - 1, SHARD), (3, SHARD - 1), (SHARD, 2 * SHARD - 1), (2 * SHARD + 7, None), (0, None)],
)
def test_ranges(gateway: RunningGateway, first: int, last: int | None) -> None:
    whole = FILES[WEIGHTS]
    answer = gateway.get(BASE + WEIGHTS, Range=f"bytes={first}-{'' if last is None else last}")
    expected = whole[first : None if last is None else last + 1]
    assert (answer.status, answer.body) == (206, expected)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(whole)}"


def test_ranges_that_cannot_be_served(gateway: RunningGateway) -> None:
    size = len(FILES[WEIGHTS])
    assert gateway.get(BASE + WEIGHTS, Range=f"bytes={size}-").status == 416
    assert gateway.get(BASE + WEIGHTS, Range="bytes=0-1,4-5").status == 416
    assert gateway.get(BASE + WEIGHTS, Range="bytes=-5").body == FILES[WEIGHTS][-5:]
    other = gateway.get(BASE + WEIGHTS, Range="bytes=0-1", If_Range='"another"')
    assert (other.status, len(other.body)) == (200, size)


def test_what_is_cached_is_not_fetched_again_and_is_verified_again(node: Node) -> None:
    with node.gateway() as gateway:  # type: ignore[attr-defined]
        assert gateway.get(BASE + WEIGHTS).body == FILES[WEIGHTS]
        once = node.served()
        assert gateway.get(BASE + WEIGHTS).body == FILES[WEIGHTS]
        assert node.served() == once >= len(FILES[WEIGHTS])
    (kept,) = (node.home / "cache").glob(f"{Digest.of(FILES[WEIGHTS]).hex}-*.shards")
    with kept.open("r+b") as file:
        file.seek(SHARD + 5)
        file.write(b"!!")
    with node.gateway() as gateway:  # type: ignore[attr-defined]
        assert gateway.get(BASE + WEIGHTS).body == FILES[WEIGHTS]
        assert node.served() == once + SHARD, "the shard that was wrong, and no other"
        assert gateway.value("pqreg_gateway_wrong_shards_total") == 1


def test_several_readers_share_one_fetch(node: Node) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(handler: Handler) -> bool:
        inside.set()
        go.wait(60)
        return False

    node.registry.rules[f"GET /v1/blobs/sha256/{Digest.of(FILES[WEIGHTS]).hex}"] = hold
    with node.gateway() as gateway:  # type: ignore[attr-defined]
        bodies: list[bytes] = []
        readers = [
            threading.Thread(target=lambda: bodies.append(gateway.get(BASE + WEIGHTS, Range="bytes=0-99").body))
            for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        assert inside.wait(60)
        gauge = "pqreg_gateway_downloads"
        while gateway.value(gauge) < 4:
            pass  # every one of them has asked for the shard by then
        go.set()
        for reader in readers:
            reader.join(60)
    assert bodies == [FILES[WEIGHTS][:100]] * 4
    assert node.served() == SHARD


def damaged(position: int) -> object:
    """A rule that answers blobs with one byte turned."""

    def answer(handler: Handler) -> bool:
        path = handler.path.rpartition("/")[2]
        data = bytearray(handler.registry.blobs[path])
        if len(data) <= position:
            return False
        data[position] ^= 1
        handler.registry.blobs["0" * 64] = bytes(data)
        handler.path = handler.path.replace(path, "0" * 64)
        return handler.route()

    return answer


def test_a_wrong_first_shard_is_a_refusal_and_no_byte(node: Node) -> None:
    node.registry.rules[f"GET /v1/blobs/sha256/{Digest.of(FILES[WEIGHTS]).hex}"] = damaged(5)  # type: ignore[assignment]
    with node.gateway() as gateway:  # type: ignore[attr-defined]
        answer = gateway.get(BASE + WEIGHTS)
        assert (answer.status, answer.json["type"], answer.json["step"]) == (422, "/problems/shard-mismatch", 8)
        assert WEIGHTS in answer.headers["x-error-message"]
        before = node.served()
        assert gateway.get(BASE + WEIGHTS).status == 422
        assert node.served() == before, "what stayed wrong is remembered"


def test_a_wrong_later_shard_ends_the_answer_before_it(node: Node) -> None:
    node.registry.rules[f"GET /v1/blobs/sha256/{Digest.of(FILES[WEIGHTS]).hex}"] = damaged(2 * SHARD + 5)  # type: ignore[assignment]
    with node.gateway() as gateway:  # type: ignore[attr-defined]
        answer = gateway.get(BASE + WEIGHTS)
        assert (answer.status, answer.complete) == (200, False)
        assert answer.body == FILES[WEIGHTS][: len(answer.body)] and len(answer.body) <= 2 * SHARD
        assert answer.headers["content-length"] == str(len(FILES[WEIGHTS]))
        assert gateway.get(BASE + WEIGHTS, Range=f"bytes={2 * SHARD}-").status == 422
        assert gateway.value("pqreg_gateway_aborted_total") == 1


def test_a_damaged_answer_is_fetched_again(node: Node) -> None:
    rule = damaged(SHARD + 5)
    left = [True]

    def once(handler: Handler) -> bool:
        return bool(left and left.pop() and rule(handler))  # type: ignore[operator]

    with node.gateway() as gateway:  # type: ignore[attr-defined]
        assert gateway.get(BASE + WEIGHTS, Range="bytes=0-9").status == 206
        node.registry.rules[f"GET /v1/blobs/sha256/{Digest.of(FILES[WEIGHTS]).hex}"] = once
        assert gateway.get(BASE + WEIGHTS).body == FILES[WEIGHTS]
        assert not left


def test_what_is_not_there(gateway: RunningGateway) -> None:
    for path, code in (
        ("/api/models/acme/nothing", "RepoNotFound"),
        ("/api/models/acme/nothing/revision/v2", "RepoNotFound"),
        ("/api/models/acme/minilm/revision/draft", "RevisionNotFound"),
        ("/api/models/acme/minilm/revision/draft%2Fx", "RevisionNotFound"),
        ("/api/models/acme/minilm/tree/v1/nothing", "EntryNotFound"),
        (BASE + "nothing", "EntryNotFound"),
        (BASE + "..%2Fconfig.json", "EntryNotFound"),
        ("/api/models/-/x", "RepoNotFound"),
    ):
        answer = gateway.get(path)
        assert (answer.status, answer.headers["x-error-code"]) == (404, code), path
    assert len(gateway.get(BASE + "nothing").headers["x-repo-commit"]) == 40
    assert gateway.get("/api/agent-harnesses").status == 404
    assert gateway.get("/api/repos/create", "POST", b"{}").status == 403


def test_the_release_changes_when_its_tag_does_and_not_before_it_is_verified_anew(node: Node) -> None:
    with node.gateway(verified_seconds=0) as gateway:  # type: ignore[attr-defined]
        assert gateway.get(BASE + "config.json").body == FILES["config.json"]
        node.publish({**FILES, "config.json": b'{"a": 2}'}, sequence=2)
        assert gateway.get(BASE + "config.json").body == b'{"a": 2}'
        node.registry.tags["v1"] = sign_envelope(tag_statement(node.digest).encode(), publisher()).encode()
        back = gateway.get(BASE + "config.json")
        assert (back.status, back.json["type"]) == (422, "/problems/tag-rollback")


def test_a_cache_keeps_to_its_size_and_serves_all_the_same(node: Node) -> None:
    size = 3 * SHARD
    with node.gateway(size=size) as gateway:  # type: ignore[attr-defined]
        for path, content in FILES.items():
            assert gateway.get(BASE + path).body == content
            assert 0 <= gateway.gateway.cache.used <= size
        taken = sum(file.stat().st_blocks * 512 for file in (node.home / "cache").iterdir())
        assert taken <= size + 64 * 1024


def test_a_token_if_one_is_set(node: Node) -> None:
    with node.gateway(token="let-me-in") as gateway:  # type: ignore[attr-defined]
        assert gateway.get(BASE + "config.json").status == 401
        assert gateway.get(BASE + "config.json", Authorization="Bearer let-me").status == 401
        assert gateway.get(BASE + "config.json", Authorization="Bearer let-me-in").status == 200
        assert gateway.get("/livez").status == 200


def test_a_release_that_cannot_be_verified_anew_is_not_served_from_the_cache(node: Node) -> None:
    with node.gateway(verified_seconds=0) as gateway:  # type: ignore[attr-defined]
        assert gateway.get(BASE + WEIGHTS).status == 200
        node.registry.rules["/v1/repos"] = lambda handler: handler.problem(503, "storage-error")
        for revision in ("v1", node.digest.hex[:40], node.digest.hex):
            assert gateway.get(f"/acme/minilm/resolve/{revision}/{WEIGHTS}").status == 502


def test_the_head_does_not_wait_for_ever_for_the_first_shard(node: Node) -> None:
    go = threading.Event()

    def hold(_handler: Handler) -> bool:
        go.wait(60)
        return False

    node.registry.rules[f"GET /v1/blobs/sha256/{Digest.of(FILES[WEIGHTS]).hex}"] = hold
    with node.gateway(patience=0) as gateway:  # type: ignore[attr-defined]
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
        connection.request("GET", BASE + WEIGHTS)
        response = connection.getresponse()
        assert (response.status, go.is_set()) == (200, False)
        go.set()
        assert response.read() == FILES[WEIGHTS]
        connection.close()
