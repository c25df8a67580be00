# SPDX-License-Identifier: Apache-2.0
"""Writing to a registry with unmodified clients of the Hub, hf-xet on: what they push is a draft, and comes back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.mending import mark_blobs
from pq_registry.storage.fsck import check_registry
from tests.hub_clients import Client, Step, client
from tests.hub_site import HubSite, hub_site
from tests.stored import change_blob

LARGE = 8 << 20
"""More than one chunk, and more than goes within a commit."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("hub") / "registry") as site:
        yield site


@pytest.fixture(params=["newest", "pinned"])
def hub(request: pytest.FixtureRequest, site: HubSite, tmp_path: Path) -> Client:
    return client(request.param, tmp_path / "home", site.environment(tmp_path / "home"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind a client treats differently: small text, large random and large repetitive bytes, none."""
    root, source = tmp_path_factory.mktemp("model"), random.Random(7)
    (root / "sub").mkdir()
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (root / "config.json").write_text('{"hidden_size": 8}')
    (root / "empty.txt").write_bytes(b"")
    (root / "model.safetensors").write_bytes(source.randbytes(LARGE))
    (root / "sub" / "table.bin").write_bytes(bytes(source.randbytes(64)) * (LARGE // 64))
    return root


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_hf_upload_comes_back_whole(hub: Client, site: HubSite, model: Path, xet: bool, tmp_path: Path) -> None:
    name = f"acme/{hub.name}-{'xet' if xet else 'lfs'}"
    variables = {} if xet else {"HF_HUB_DISABLE_XET": "1"}
    hub.hf("upload", name, model, ".", "--commit-message", "A first draft", variables=variables)
    hub.hf("download", name, "--local-dir", tmp_path / "out")
    (found,) = hub.run(("hashes", {"folder": str(tmp_path / "out")}))
    assert found == hashes(model)
    answer = site.get(f"/api/models/{name}")
    assert answer.headers["x-pqreg-signed"] == "false"
    assert "unsigned-draft" in answer.json["tags"]
    (commits,) = hub.run(("list_repo_commits", {"repo_id": name}))
    assert commits[0]["title"] == "A first draft"


def test_an_upload_is_not_readable_by_readers_and_never_moves_a_signed_tag(hub: Client, site: HubSite) -> None:
    commit = site.releases["acme/minilm:main"].hex[:40]
    name = f"draft-of-{hub.name}.txt"
    (made,) = hub.run(("commit", {
        "repo_id": "acme/minilm", "operations": [{"add": name, "text": "unsigned"}], "commit_message": "Try",
    }))  # fmt: skip
    main, draft, files = hub.run(
        ("model_info", {"repo_id": "acme/minilm"}),
        ("model_info", {"repo_id": "acme/minilm", "revision": "draft"}),
        ("list_repo_files", {"repo_id": "acme/minilm", "revision": "draft"}),
    )
    assert (main["sha"], draft["sha"]) == (commit, made["oid"])
    assert name in files
    assert {"config.json", "weights.bin"} <= set(files), "the draft starts from the signed release"
    reader = site.token_of("reader")
    found = hub.outcomes(
        ("model_info", {"repo_id": "acme/minilm", "revision": "draft", "token": reader}),
        ("model_info", {"repo_id": "acme/minilm", "revision": made["oid"], "token": reader}),
        ("download", {"repo_id": "acme/minilm", "revision": "draft", "filename": name, "token": reader}),
    )
    assert [one.kind for one in found] == ["RevisionNotFoundError"] * 3


def test_branches_tags_commits_and_deletions(hub: Client, site: HubSite) -> None:
    repo = {"repo_id": f"acme/{hub.name}-names"}
    first = {"operations": [{"add": path, "text": path} for path in ("a.txt", "sub/b.txt", "sub/c")]}
    created, again, one = hub.run(
        ("create_repo", repo),
        ("create_repo", {**repo, "exist_ok": True}),
        ("commit", {**repo, **first, "commit_message": "One", "commit_description": "with words"}),
    )
    assert created["repo_id"] == again["repo_id"] == repo["repo_id"]
    _, _, two, _, refs, branch_files, main_files, tag_files = hub.run(
        ("create_branch", {**repo, "branch": "dev/x"}),
        ("create_tag", {**repo, "tag": "v0"}),
        ("commit", {
            **repo, "revision": "dev/x", "parent_commit": one["oid"], "commit_message": "Two",
            "operations": [{"delete": "sub/"}, {"add": "d.txt", "text": "d"}],
        }),
        ("delete_file", {**repo, "path_in_repo": "a.txt", "revision": "dev/x"}),
        ("list_repo_refs", repo),
        ("list_repo_files", {**repo, "revision": "dev/x"}),
        ("list_repo_files", repo),
        ("list_repo_files", {**repo, "revision": "v0"}),
    )  # fmt: skip
    assert {branch["name"] for branch in refs["branches"]} >= {"main", "dev/x"}
    assert [(tag["name"], tag["target_commit"]) for tag in refs["tags"]] == [("v0", one["oid"])]
    assert branch_files == ["d.txt"]
    assert sorted(main_files) == sorted(tag_files) == ["a.txt", "sub/b.txt", "sub/c"]
    stale, taken = hub.outcomes(
        ("commit", {
            **repo, "revision": "dev/x", "parent_commit": one["oid"], "commit_message": "Late",
            "operations": [{"add": "e.txt", "text": "e"}],
        }),
        ("create_branch", {**repo, "branch": "dev/x"}),
    )  # fmt: skip
    assert stale.status == 412
    assert taken.status == 409
    assert two["oid"] != one["oid"]
    _, _, _, squashed, left = hub.run(
        ("delete_branch", {**repo, "branch": "dev/x"}),
        ("delete_tag", {**repo, "tag": "v0"}),
        ("super_squash_history", repo),
        ("list_repo_commits", repo),
        ("list_repo_refs", repo),
    )
    assert len(squashed) == 1
    assert ([branch["name"] for branch in left["branches"]], left["tags"]) == (["main"], [])
    hub.run(("delete_repo", repo))
    assert hub.refused("model_info", **repo).kind == "RepositoryNotFoundError"


def test_signed_releases_are_not_deleted(hub: Client, site: HubSite) -> None:
    refused = hub.refused("delete_repo", repo_id="acme/minilm")
    assert refused.status == 403
    assert "signed" in refused.message
    assert hub.call("model_info", repo_id="acme/minilm")["sha"] == site.releases["acme/minilm:main"].hex[:40]


def test_the_file_system_writes_and_removes(hub: Client) -> None:
    name = f"acme/{hub.name}-files"
    _, _, found = hub.run(
        ("create_repo", {"repo_id": name}),
        ("written", {"path": f"{name}/notes/a.txt", "text": "written through a file system"}),
        ("download", {"repo_id": name, "filename": "notes/a.txt"}),
    )
    assert found["sha256"] == hashlib.sha256(b"written through a file system").hexdigest()


def test_a_reader_writes_nothing(hub: Client, site: HubSite) -> None:
    token = site.token_of("reader")
    steps: list[Step] = [
        ("create_repo", {"repo_id": "acme/by-a-reader", "token": token}),
        ("create_branch", {"repo_id": "acme/minilm", "branch": "mine", "token": token}),
        ("create_tag", {"repo_id": "acme/minilm", "tag": "mine", "token": token}),
        ("commit", {
            "repo_id": "acme/minilm", "operations": [{"add": "x", "text": "x"}], "commit_message": "x", "token": token,
        }),
        ("delete_repo", {"repo_id": "acme/minilm", "token": token}),
    ]  # fmt: skip
    assert [one.status for one in hub.outcomes(*steps)] == [403] * len(steps)


def test_uploading_again_mends_what_fsck_found_damaged(site: HubSite, model: Path, tmp_path: Path) -> None:
    content = (model / "model.safetensors").read_bytes() + b"of this test"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.bin").write_bytes(content)
    digest, parts = Digest.of(content), site.registry.registry
    hub = client("newest", tmp_path / "home", site.environment(tmp_path / "home"))
    step: Step = ("download", {"repo_id": "acme/mended", "filename": "model.bin"})
    hub.hf("upload", "acme/mended", folder, ".")
    change_blob(site.registry.data, digest, lambda _: content[:-1] + b"!")
    begun = utc_now()
    mark_blobs(
        parts.catalogue, check_registry(parts.catalogue, parts.blobs, among={digest}), begun=begun, now=utc_now()
    )
    (refused,) = hub.outcomes(step)
    assert isinstance(refused, Exception)
    again = client("newest", tmp_path / "elsewhere", site.environment(tmp_path / "elsewhere"))
    again.hf("upload", "acme/mended", folder, ".")
    assert again.run(step)[0]["sha256"] == digest.hex
