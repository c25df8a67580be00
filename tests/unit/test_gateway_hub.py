# SPDX-License-Identifier: Apache-2.0
"""A gateway over a Hub that is none of ours: its own commits, other names, redirects for small files, other files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.gateway.origins.hub import HubOrigin
from pq_registry.service.hub.model import Commit
from tests.fake_registry import FakeRegistry, Handler, serving
from tests.gateway_site import RunningGateway, running_gateway
from tests.pull_site import FILES
from tests.samples import NOW, publisher, release, trust_file

COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """Answers for one repository, ``mirror/minilm``, as Hugging Face does."""

    def __init__(self, registry: FakeRegistry, files: dict[str, bytes] | None = None, **changes: Any) -> None:
        files = files or FILES
        envelope, manifest = release(files, **changes)
        self.known = "main"
        self.registry = registry
        self.digest = envelope.payload_digest
        self.files = {
            **files, "pqreg.json": manifest, ".gitattributes": b"* text", "README.md": b"not signed",
            "model.sig": encode_bundle(envelope, "ec", publisher().identity.ec_pem),
            "model.pq.sig": encode_bundle(envelope, "pq", publisher().identity.pq_pem),
        }  # fmt: skip
        self.elsewhere = "/api/resolve-cache/"
        registry.rules["/"] = self.answer

    def answer(self, handler: Handler) -> bool:
        path = unquote(handler.path)
        about = "/api/models/mirror/minilm"
        if path in (about, f"{about}/revision/main", f"{about}/revision/{self.known}"):
            return handler.json({"id": "mirror/minilm", "sha": COMMIT, "siblings": []})
        name = path.removeprefix(f"/mirror/minilm/resolve/{COMMIT}/")
        if name in self.files and len(self.files[name]) < 100_000:
            return handler.send(307, b"", headers={"Location": self.elsewhere + name})
        return self._file(handler, name.removeprefix(self.elsewhere))

    def _file(self, handler: Handler, name: str) -> bool:
        content = self.files.get(name)
        if content is None:
            return handler.send(404, b"Entry not found", "text/plain")
        asked = handler.headers.get("Range")
        if asked is None:
            return handler.send(200, content)
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        extent = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return handler.send(206, content[first : last + 1], headers=extent)


@contextmanager
def over(hub: FakeHub, home: Path, **options: Any) -> Iterator[RunningGateway]:
    client = RegistryClient(hub.registry.url, "hub-token", timeout=20, sleep=lambda _seconds: None)
    make: Callable[[], Verifier] = lambda: Verifier(trust_file().encode(), NOW, online=False)
    origin = HubOrigin(client, verifier=make, state_dir=home / "state", organisation=Namespace("mirror"))
    with running_gateway([origin], home / "cache", **options) as gateway:
        yield gateway


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving() as found:
        yield found


def test_a_mirror_is_served_under_the_name_that_was_signed(registry: FakeRegistry, tmp_path: Path) -> None:
    hub = FakeHub(registry)
    with over(hub, tmp_path, verified_seconds=0) as gateway:
        ours = Commit.of_release(hub.digest).value
        for revision in ("main", ours, hub.digest.hex):
            model = gateway.get(f"/api/models/acme/minilm/revision/{revision}").json
            assert (model["id"], model["sha"]) == ("acme/minilm", ours)
        listed = {item["rfilename"] for item in model["siblings"]}
        assert listed == {*FILES, "pqreg.json", "model.sig", "model.pq.sig"}, "and nothing that is not signed"
        for path, content in FILES.items():
            assert gateway.get(f"/acme/minilm/resolve/main/{path}").body == content
        for path in ("README.md", ".gitattributes"):
            assert gateway.get(f"/acme/minilm/resolve/main/{path}").status == 404
        assert gateway.get("/api/models/acme/other").headers["x-error-code"] == "RepoNotFound"
        hub.files["vocab.txt"] = bytes(len(FILES["vocab.txt"]))
        hub.files["config.json"] = b'{"a": 9}'
        assert gateway.get("/acme/minilm/resolve/main/vocab.txt").status == 200, "from the cache"
    with over(hub, tmp_path / "other") as gateway:
        assert gateway.get("/acme/minilm/resolve/main/vocab.txt").status == 422
        assert gateway.get("/acme/minilm/resolve/main/config.json").status == 422
    sent = {seen.headers.get("authorization") for seen in registry.seen if "resolve-cache" not in seen.line}
    assert sent == {"Bearer hub-token"}
    assert {seen.headers.get("authorization") for seen in registry.seen if "resolve-cache" in seen.line} == {None}


def test_a_commit_is_pinned_whatever_the_hub_says_it_is(registry: FakeRegistry, tmp_path: Path) -> None:
    hub = FakeHub(registry)
    ours = Commit.of_release(hub.digest).value
    with over(hub, tmp_path) as gateway:
        model = gateway.get(f"/api/models/acme/minilm/revision/{ours}").json
        assert (model["sha"], model["pqreg"]["proven"]) == (ours, True), "though the Hub does not know this commit"
    older = FakeHub(registry, files={"config.json": b"{}"})
    assert older.digest != hub.digest
    for asked in (ours, COMMIT):
        older.known = asked
        with over(older, tmp_path / asked) as gateway:
            answer = gateway.get(f"/acme/minilm/resolve/{asked}/config.json")
            assert (answer.status, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
            assert gateway.get("/acme/minilm/resolve/main/config.json").body == b"{}", "main is the Hub's word"


def test_a_release_of_another_name_is_none_of_this_one(registry: FakeRegistry, tmp_path: Path) -> None:
    hub = FakeHub(registry, name=RepositoryName.parse("acme/another"))
    with over(hub, tmp_path) as gateway:
        answer = gateway.get("/api/models/acme/minilm/revision/main")
        assert (answer.status, answer.json["type"]) == (422, "/problems/name-mismatch")


@pytest.mark.parametrize("missing", ["pqreg.json", "model.sig", "model.pq.sig"])
def test_without_evidence_there_is_no_release(registry: FakeRegistry, tmp_path: Path, missing: str) -> None:
    hub = FakeHub(registry)
    del hub.files[missing]
    with over(hub, tmp_path) as gateway:
        answer = gateway.get("/api/models/acme/minilm/revision/main")
        assert answer.headers["x-error-code"] == "RevisionNotFound"
        assert missing in answer.headers["x-error-message"]


def test_redirects_lead_to_the_hub_or_to_origins_that_were_allowed(registry: FakeRegistry, tmp_path: Path) -> None:
    hub = FakeHub(registry)
    for elsewhere in ("http://storage.example/", "//storage.example/", "file:///"):
        hub.elsewhere = elsewhere
        with over(hub, tmp_path / Digest.of(elsewhere.encode()).hex) as gateway:
            assert gateway.get("/api/models/acme/minilm/revision/main").status == 502
