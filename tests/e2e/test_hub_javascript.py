# SPDX-License-Identifier: Apache-2.0
"""The unmodified JavaScript client of the Hub, ``@huggingface/hub`` of npm, against a registry."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_clients import ROOT, run_node
from tests.hub_site import EVIDENCE, FILES, HubSite, hub_site
from tests.stack import SHARED

SCRIPT = ROOT / "tests" / "js" / "client.cjs"
LARGE = 4 << 20
Node = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("hub") / "registry") as site:
        yield site


@pytest.fixture
def node(site: HubSite, tmp_path: Path) -> Node:
    """Runs steps; every one must succeed, unless ``expect`` is the name of an error.

    The client refuses to send a token that does not begin with ``hf_``, so that is put before ours.
    """

    def run(*steps: tuple[str, dict[str, Any]], token: str | None = None, expect: str | None = None) -> list[Any]:
        arguments = {"hubUrl": site.url, "accessToken": f"hf_{token or site.token}", "steps": steps}
        answers = run_node(SCRIPT, arguments, site.environment(tmp_path))
        assert [one.get("error") for one in answers] == [expect] * len(steps), answers
        return [one if expect else one["value"] for one in answers]

    return run


def test_who_am_i_and_what_is_there(node: Node, site: HubSite) -> None:
    me, models, exists, absent = node(
        ("whoAmI", {}),
        ("models", {"search": {"owner": "acme"}}),
        ("repoExists", {"repo": "acme/minilm"}),
        ("repoExists", {"repo": "acme/nothing"}),
    )
    assert me["auth"]["accessToken"]["role"] == "write"
    assert "acme/minilm" in [one["name"] for one in models]
    assert (exists, absent) == (True, False)


def test_files_are_listed_with_size_and_digest(node: Node) -> None:
    top, below, info, commits = node(
        ("list", {"repo": "acme/minilm"}),
        ("list", {"repo": "acme/minilm", "recursive": True}),
        ("fileDownloadInfo", {"repo": "acme/minilm", "path": "weights.bin"}),
        ("commits", {"repo": "acme/minilm"}),
    )
    assert {"1_Pooling"} == {one["path"] for one in top if one["type"] == "directory"}
    files = {one["path"]: one for one in below if one["type"] == "file"}
    assert set(files) == {*FILES, *EVIDENCE, "pqreg.json"}
    digest = hashlib.sha256(FILES["weights.bin"]).hexdigest()
    assert (files["weights.bin"]["size"], files["weights.bin"]["lfs"]["oid"]) == (len(FILES["weights.bin"]), digest)
    assert info["size"] == len(FILES["weights.bin"])
    # It follows redirects and reads the tag of where it arrives: that of an object store is the store's own.
    assert SHARED or info["etag"].strip('"') == digest
    assert len(commits[0]["oid"]) == 40


def test_files_are_downloaded_whole_and_in_part(node: Node) -> None:
    weights = FILES["weights.bin"]
    whole, deep, piece, none = node(
        ("download", {"repo": "acme/minilm", "path": "weights.bin"}),
        ("download", {"repo": "acme/minilm", "path": "1_Pooling/deep/vocab.txt", "revision": "main"}),
        ("part", {"repo": "acme/minilm", "path": "weights.bin", "start": 1000, "end": 5000}),
        ("download", {"repo": "acme/minilm", "path": "not/there.txt"}),
    )
    assert whole == {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    assert deep["sha256"] == hashlib.sha256(FILES["1_Pooling/deep/vocab.txt"]).hexdigest()
    assert bytes.fromhex(piece) == weights[1000:5000]
    assert none is None


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_an_upload_becomes_a_draft(node: Node, site: HubSite, xet: bool) -> None:
    name = f"acme/js-{'xet' if xet else 'lfs'}"
    pattern = bytes(range(251)) * 13
    large = pattern * (LARGE // len(pattern))
    files = [
        {"path": "README.md", "content": base64.b64encode(b"# From JavaScript\n").decode()},
        {"path": "data/model.bin", "content": base64.b64encode(pattern).decode(), "repeat": LARGE // len(pattern)},
    ]
    _, sent, listed, again = node(
        ("createRepo", {"repo": name}),
        ("upload", {"repo": name, "files": files, "commitTitle": "Add a model", "useXet": xet}),
        ("list", {"repo": name, "recursive": True}),
        ("download", {"repo": name, "path": "data/model.bin"}),
    )
    assert len(sent["commit"]["oid"]) == 40
    assert {one["path"] for one in listed if one["type"] == "file"} == {"README.md", "data/model.bin"}
    assert again == {"size": len(large), "sha256": hashlib.sha256(large).hexdigest()}
    answer = site.get(f"/{name}/resolve/main/README.md")
    assert answer.headers["x-pqreg-signed"] == "false"


def test_branches_are_made_and_files_deleted(node: Node) -> None:
    name = "acme/js-branches"
    one = {"path": "a.txt", "content": base64.b64encode(b"a").decode()}
    two = {"path": "sub/b.txt", "content": base64.b64encode(b"b").decode()}
    _, _, _, _, here, there, _ = node(
        ("createRepo", {"repo": name}),
        ("upload", {"repo": name, "files": [one, two]}),
        ("createBranch", {"repo": name, "branch": "dev/x"}),
        ("deleteFile", {"repo": name, "path": "a.txt", "branch": "dev/x"}),
        ("list", {"repo": name, "recursive": True}),
        ("list", {"repo": name, "recursive": True, "revision": "dev/x"}),
        ("deleteBranch", {"repo": name, "branch": "dev/x"}),
    )
    assert {entry["path"] for entry in here if entry["type"] == "file"} == {"a.txt", "sub/b.txt"}
    assert {entry["path"] for entry in there if entry["type"] == "file"} == {"sub/b.txt"}


def test_refusals_say_what_is_wrong(node: Node, site: HubSite) -> None:
    (absent,) = node(("list", {"repo": "acme/nothing"}), expect="HubApiError")
    assert absent["status"] == 404
    reader = site.token_of("reader")
    upload = {"repo": "acme/minilm", "files": [{"path": "a.txt", "content": "YQ=="}]}
    (denied,) = node(("upload", upload), token=reader, expect="HubApiError")
    assert denied["status"] == 403
    (unknown,) = node(("whoAmI", {}), token="notatoken", expect="HubApiError")
    assert unknown["status"] == 401
