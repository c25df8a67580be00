# SPDX-License-Identifier: Apache-2.0
"""Reading a registry with unmodified clients of the Hub, the newest and an older one that is pinned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_clients import Client, client
from tests.hub_site import EVIDENCE, FILES, HubSite, hub_site

REPO = "acme/minilm"
LISTED = {*FILES, *EVIDENCE, "pqreg.json"}
HASHES = {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
WEIGHTS = FILES["weights.bin"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("hub") / "registry") as site:
        site.publish("acme/minilm:v1", {**FILES, "added.txt": b"later\n"})
        yield site


@pytest.fixture(params=["newest", "pinned"])
def hub(request: pytest.FixtureRequest, site: HubSite, tmp_path: Path) -> Client:
    return client(request.param, tmp_path / "home", site.environment(tmp_path / "home"))


def signed(found: dict[str, str]) -> dict[str, str]:
    return {path: digest for path, digest in found.items() if path in HASHES}


def test_hf_download(hub: Client, site: HubSite, tmp_path: Path) -> None:
    hub.hf("download", REPO, "--local-dir", tmp_path / "out")
    two = ("config.json", "1_Pooling/config.json")
    hub.hf("download", REPO, *two, "--revision", "v1", "--local-dir", tmp_path / "some")
    hub.hf("download", REPO, "--revision", "nothing", expect=1)
    whole, some = hub.run(("hashes", {"folder": str(tmp_path / "out")}), ("hashes", {"folder": str(tmp_path / "some")}))
    assert set(whole) == LISTED
    assert signed(whole) == HASHES
    assert some == {path: HASHES[path] for path in two}


def test_snapshots_are_of_a_commit_and_need_no_network_afterwards(hub: Client, site: HubSite) -> None:
    commit = site.releases["acme/minilm:main"].hex[:40]
    arguments = {"repo_id": REPO, "ignore_patterns": ["*.tlog-proof"]}
    by_tag, by_commit, one = hub.run(
        ("snapshot", arguments),
        ("snapshot", {**arguments, "revision": commit}),
        ("download", {"repo_id": REPO, "filename": "1_Pooling/deep/vocab.txt"}),
    )
    assert Path(by_tag["folder"]).name == commit
    assert by_commit == by_tag
    assert signed(by_tag["hashes"]) == HASHES
    assert one["sha256"] == HASHES["1_Pooling/deep/vocab.txt"]
    (offline,) = hub.run(("snapshot", arguments), HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline == by_tag


def test_every_file_in_the_cache_is_named_by_its_sha256(hub: Client) -> None:
    snapshot = hub.call("snapshot", repo_id=REPO)
    blobs = Path(snapshot["folder"]).parent.parent / "blobs"
    names = {path.name for path in blobs.iterdir() if ".incomplete" not in path.name}
    assert names == set(snapshot["hashes"].values())


def test_hf_cache_verify_knows_every_byte(site: HubSite, tmp_path: Path) -> None:
    """The newest client alone has the command: it compares with the listing, whose digests must then be SHA-256."""
    hub = client("newest", tmp_path / "home", site.environment(tmp_path / "home"))
    folder = Path(hub.call("snapshot", repo_id=REPO)["folder"])
    hub.hf("cache", "verify", REPO)
    blob = (folder / "config.json").resolve()
    blob.chmod(0o644)
    blob.write_bytes(FILES["config.json"].replace(b"8", b"9"))
    done = hub.hf("cache", "verify", REPO, expect=None)
    assert done.returncode != 0
    assert "config.json" in done.stdout + done.stderr


def test_listings(hub: Client, site: HubSite) -> None:
    main, v1 = (site.releases[f"acme/minilm:{tag}"].hex[:40] for tag in ("main", "v1"))
    me, models, names, info, tree, paths, refs, commits, exists, absent = hub.run(
        ("whoami", {}),
        ("list_models", {"author": "acme", "limit": 10}),
        ("list_repo_files", {"repo_id": REPO, "revision": "v1"}),
        ("model_info", {"repo_id": REPO, "files_metadata": True}),
        ("list_repo_tree", {"repo_id": REPO, "recursive": True, "expand": True}),
        ("get_paths_info", {"repo_id": REPO, "paths": ["config.json", "1_Pooling", "not/there"]}),
        ("list_repo_refs", {"repo_id": REPO}),
        ("list_repo_commits", {"repo_id": REPO, "revision": "v1"}),
        ("file_exists", {"repo_id": REPO, "filename": "weights.bin"}),
        ("file_exists", {"repo_id": REPO, "filename": "weights.safetensors"}),
    )
    assert me["auth"]["accessToken"]["role"] == "write"
    assert REPO in [one["id"] for one in models]
    assert set(names) == LISTED | {"added.txt"}
    assert info["sha"] == main
    assert {one["rfilename"]: one["size"] for one in info["siblings"]}["weights.bin"] == len(WEIGHTS)
    files = {one["path"]: one for one in tree if "blob_id" in one}
    assert set(files) == LISTED
    assert {path: files[path]["lfs"]["sha256"] for path in HASHES} == HASHES
    assert {one["path"] for one in tree} - set(files) == {"1_Pooling", "1_Pooling/deep"}
    assert [one["path"] for one in paths] == ["config.json", "1_Pooling"]
    targets = {one["name"]: one["target_commit"] for one in [*refs["branches"], *refs["tags"]]}
    assert (targets["main"], targets["v1"]) == (main, v1)
    assert commits[0]["commit_id"] == v1
    assert (exists, absent) == (True, False)


def test_what_is_not_there_has_its_own_error(hub: Client, site: HubSite) -> None:
    nothing, revision, entry, model, signed_out = hub.outcomes(
        ("snapshot", {"repo_id": "acme/nothing"}),
        ("snapshot", {"repo_id": REPO, "revision": "v9"}),
        ("download", {"repo_id": REPO, "filename": "not/there.txt"}),
        ("model_info", {"repo_id": "other/nothing"}),
        ("model_info", {"repo_id": REPO, "token": "hf_notatoken"}),
    )
    kinds = [one.kind for one in (nothing, revision, entry, model)]
    assert kinds[0] == kinds[3] == "RepositoryNotFoundError"
    assert kinds[1] == "RevisionNotFoundError"
    assert kinds[2] in ("EntryNotFoundError", "RemoteEntryNotFoundError")
    assert signed_out.status == 401
    assert hub.call("cached_absence", repo_id=REPO, filename="not/there.txt"), "the commit was not named with the error"


def test_the_file_system_reads_ranges(hub: Client) -> None:
    wanted = [[0, 10], [len(WEIGHTS) - 7, 7], [100_000, 70_000], [5, 0]]
    for found in hub.run(("ranges", {"path": f"{REPO}/weights.bin", "wanted": wanted})):
        assert [bytes.fromhex(one) for one in found] == [WEIGHTS[at : at + size] for at, size in wanted]
    everything, folder = hub.run(
        ("listed", {"path": REPO}),
        ("listed", {"path": f"{REPO}@v1/1_Pooling"}),
    )
    assert everything == sorted(f"{REPO}/{path}" for path in LISTED)
    assert folder == [f"{REPO}@v1/1_Pooling/config.json", f"{REPO}@v1/1_Pooling/deep/vocab.txt"]
