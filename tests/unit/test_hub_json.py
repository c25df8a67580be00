# SPDX-License-Identifier: Apache-2.0
"""What the Hub's clients read: trees page by page, pointers, errors that fit into headers. Pure functions."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import EntryNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.hubjson import ModelView, caller_item, error_headers, model_item, references
from pq_registry.format.hubtree import (
    CommitView,
    Json,
    file_item,
    find_file,
    has_folder,
    path_items,
    pointer,
    siblings,
    tree_page,
)
from pq_registry.format.name import RepositoryName
from pq_registry.service.hub.model import HubFile

COMMIT = "c" * 40
WHEN = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
LAST = CommitView(id=COMMIT, title="a commit", message="", author="alice", date=WHEN)
PATHS = st.lists(
    st.lists(st.sampled_from(["a", "a-b", "a.b", "a0", "b", "é", "0"]), min_size=1, max_size=4).map("/".join),
    max_size=14,
)
"""Components around the slash in the order of code points: ``-`` and ``.`` before it, ``0`` right after it."""


def files_of(*paths: str) -> list[HubFile]:
    return sorted(HubFile(path, len(path), Digest.of(path.encode())) for path in paths)


def all_pages(files: list[HubFile], folder: str, *, recursive: bool, limit: int) -> list[Json]:
    items: list[Json] = []
    start: int | None = 0
    while start is not None:
        page = tree_page(files, folder, commit=COMMIT, recursive=recursive, start=start, limit=limit)
        assert page.following is None or page.following > start
        items += page.items
        start = page.following
    return items


def expected(paths: set[str], folder: str, *, recursive: bool) -> set[tuple[str, str]]:
    """Files and folders below ``folder``, told the long way."""
    prefix = f"{folder}/" if folder else ""
    found = set()
    for path in paths:
        if path.startswith(prefix):
            parts = path.removeprefix(prefix).split("/")
            found |= {("directory", prefix + "/".join(parts[:depth])) for depth in range(1, len(parts))}
            found.add(("file", path))
    return {(kind, path) for kind, path in found if recursive or "/" not in path.removeprefix(prefix)}


@given(paths=PATHS, recursive=st.booleans(), limit=st.integers(1, 5), folder=st.sampled_from(["", "a", "a/b", "a-b"]))
def test_pages_of_a_tree_hold_everything_once(paths: list[str], recursive: bool, limit: int, folder: str) -> None:
    # No path is both a file and a folder, as in every release.
    kept = {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}
    items = all_pages(files_of(*kept), folder, recursive=recursive, limit=limit)
    found = [(item["type"], item["path"]) for item in items]
    assert len(found) == len(set(found))
    assert set(found) == expected(kept, folder, recursive=recursive)
    assert has_folder(files_of(*kept), folder) == (not folder or any(path.startswith(f"{folder}/") for path in kept))


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 100_000])
@pytest.mark.parametrize("folder", ["", "a", "b", "c"])
def test_a_page_may_begin_anywhere(start: int, folder: str) -> None:
    files = files_of("a/1", "a/2", "b/3")
    page = tree_page(files, folder, commit=COMMIT, recursive=True, start=start)
    assert page.following is None
    assert {item["path"] for item in page.items if item["type"] == "file"} == {
        file.path for file in files[start:] if file.path.startswith(folder)
    }


def test_a_file_is_shown_as_a_large_one() -> None:
    file = HubFile("a.bin", 5, Digest.of(b"hello"))
    item = file_item(file, LAST)
    assert pointer(file) == (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\nsize 5\n"
    )
    # What git itself says of this pointer (git hash-object).
    assert item["oid"] == hashlib.sha1(b"blob 126\x00" + pointer(file), usedforsecurity=False).hexdigest()
    assert item["lfs"] == {"oid": file.sha256.hex, "size": 5, "pointerSize": 126}
    assert item["lastCommit"] == {"id": COMMIT, "title": "a commit", "date": "2026-11-22T09:00:00.000Z"}
    assert siblings([file], blobs=False) == [{"rfilename": "a.bin"}]
    assert siblings([file], blobs=True)[0]["lfs"]["sha256"] == file.sha256.hex
    assert not [key for key in item if "xet" in key.lower()]


def test_paths_are_files_and_folders_and_nothing_that_is_not_there() -> None:
    files = files_of("a/b.txt", "a/c/d.txt", "e")
    items = path_items(files, ["e", "a/c/", "nope", "a", "", "e", "a/b"], commit=COMMIT)
    assert [(item["type"], item["path"]) for item in items] == [("file", "e"), ("directory", "a/c"), ("directory", "a")]
    assert find_file(files, "a") is None
    assert find_file(files, "a/c/d.txt") == 1


def test_references() -> None:
    found = references([("main", COMMIT)], [("v1", COMMIT)], pull_requests=True)
    assert found["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}]
    assert found["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": COMMIT}]
    assert found["pullRequests"] == found["converts"] == []
    assert "pullRequests" not in references([], [], pull_requests=False)


@pytest.mark.parametrize(
    ("release", "sealed", "tags"),
    [(Digest("a" * 64), False, ["de", "signed"]), (Digest("a" * 64), True, ["de", "signed", "sealed"]),
     (None, False, ["de", "unsigned-draft"])],
)  # fmt: skip
def test_a_model_says_whether_it_is_signed(release: Digest | None, sealed: bool, tags: list[str]) -> None:
    view = ModelView(
        name=RepositoryName.parse("acme/minilm"), commit=COMMIT, release=release, sealed=sealed, private=True,
        created=WHEN, modified=WHEN, tags=("de",), draft=None if release else "main",
    )  # fmt: skip
    item = model_item(view)
    assert item["tags"] == tags
    assert item["pqreg"]["signed"] == (release is not None)
    assert item["pqreg"]["release"] == (None if release is None else f"sha256:{'a' * 64}")
    assert set(model_item(view, ["tags"])) == {"_id", "id", "modelId", "pqreg", "tags"}


def test_the_user_of_a_token_for_one_namespace_is_the_namespace() -> None:
    assert caller_item("t", ["acme"], writes=True, everywhere=False)["name"] == "acme"
    assert caller_item("t", ["acme"], writes=True, everywhere=True)["name"] == "token-t"
    assert caller_item("t", ["acme", "lab"], writes=False, everywhere=False)["name"] == "token-t"


@given(st.text(max_size=1200))
def test_an_error_fits_into_a_header(message: str) -> None:
    error = EntryNotFound(message, commit=COMMIT)
    headers = error_headers(error, message, "EntryNotFound")
    said = headers["X-Error-Message"]
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= 500
    assert headers["X-Repo-Commit"] == COMMIT
    assert headers["X-Error-Code"] == "EntryNotFound"
    assert "X-Error-Code" not in error_headers(None, message, None)
