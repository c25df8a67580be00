# SPDX-License-Identifier: Apache-2.0
"""Scanning a directory to push: what is taken, what is left out, what is refused and how it is opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.scan import Scan, SourceDirectory, SourceFile, check_untouched, read_exactly
from pq_registry.errors import FormatError, PolicyError, SourceChanged, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def scan(root: Path) -> Scan:
    with SourceDirectory(root) as source:
        return source.scan()


def paths(root: Path) -> list[str]:
    return [file.path.text for file in scan(root).files]


def test_every_regular_file_is_taken_hidden_ones_included_and_sorted_by_code_point(root: Path) -> None:
    for name in (".hidden", "a/b/c.txt", "a-b", "Z", "é.txt", ".cache/mine"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert paths(root) == [".cache/mine", ".hidden", "Z", "a-b", "a/b/c.txt", "config.json", "é.txt"]


def test_names_verifiers_skip_and_the_old_manifest_are_left_out_at_the_root_only(root: Path) -> None:
    for name in (
        ".cache/huggingface/x", ".git/config", ".gitattributes", ".github/w.yml", ".gitignore", ".pqreg/y",
        "model.sig", "model.pq.sig", "model.tlog-proof", "pqreg.json",
        "sub/.gitignore", "sub/model.sig", "sub/pqreg.json",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = scan(root)
    assert [file.path.text for file in found.files] == [
        "config.json", "sub/.gitignore", "sub/model.sig", "sub/pqreg.json",
    ]  # fmt: skip
    assert found.skipped == (
        ".cache/huggingface", ".git", ".gitattributes", ".github", ".gitignore", ".pqreg",
        "model.pq.sig", "model.sig", "model.tlog-proof", "pqreg.json",
    )  # fmt: skip
    assert found.size == sum(file.size for file in found.files)


@pytest.mark.parametrize(
    "prepare",
    [lambda root: None, lambda root: (root / ".gitignore").write_text("x")],
    ids=["nothing", "only skipped names"],
)
def test_a_directory_without_a_file_to_push_is_refused(tmp_path: Path, prepare) -> None:
    prepare(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file to push"):
        scan(tmp_path)


def test_something_that_is_no_directory_is_refused(root: Path) -> None:
    for path in (root / "config.json", root / "nothing"):
        with pytest.raises(UsageError, match="is not a directory"):
            SourceDirectory(path)


def test_the_directory_itself_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert paths(tmp_path / "link") == ["config.json"]


@pytest.mark.parametrize("target", ["config.json", "../model/config.json", "sub", "nowhere", "/etc/passwd"])
def test_a_symbolic_link_is_refused_with_a_way_out(root: Path, target: str) -> None:
    (root / "sub").mkdir()
    (root / "link").symlink_to(target)
    with pytest.raises(PolicyError, match="'link' is a symbolic link") as caught:
        scan(root)
    assert "cp -rL" in (caught.value.hint or "")
    assert caught.value.found == f"a link to {target!r}"


def test_fifos_and_sockets_are_refused_without_waiting_for_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(PolicyError, match="'pipe' is not a regular file; expected regular files; found a FIFO"):
        scan(root)
    (root / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # socket paths are short
        listener.bind("s")
        with pytest.raises(PolicyError, match=r"'s' is not a regular file.*a socket"):
            scan(root)


@pytest.mark.parametrize(
    "name", ["a:b", "nul.txt", "trailing.", "e\u0301", "back\\slash", "new\nline", os.fsdecode(b"\xff")]
)
def test_names_no_release_can_carry_are_refused(root: Path, name: str) -> None:
    (root / name).write_text("x")
    with pytest.raises(FormatError, match="a file's name cannot be part of a release") as caught:
        scan(root)
    assert "rename" in (caught.value.hint or "")


def test_names_that_differ_in_case_only_are_refused(root: Path) -> None:
    (root / "CONFIG.json").write_text("x")
    with pytest.raises(FormatError, match="two paths collide"):
        scan(root)


@pytest.mark.parametrize("name", ["PQREG.json", "Model.sig", ".PQREG/x", ".Git/config", "pqreg.JSON/x"])
def test_other_spellings_of_reserved_names_are_refused(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("x")
    with pytest.raises(FormatError, match="where names fold case"):
        scan(root)


def test_the_number_of_files_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "second").write_text("x")
    monkeypatch.setattr(limits, "FILES", 2)
    assert len(paths(root)) == 2
    monkeypatch.setattr(limits, "FILES", 1)
    with pytest.raises(FormatError, match="too many files"):
        scan(root)


def test_a_tree_deeper_than_any_path_is_refused(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    with pytest.raises(FormatError, match="cannot be part of a release"):
        scan(root)


# -- Hugging Face snapshots ----------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    cache = tmp_path / "models--acme--m"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / ("a" * 40)).write_text("small")
    (cache / "blobs" / ("b" * 64)).write_text("large file")
    folder = cache / "snapshots" / ("c" * 40)
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").symlink_to("../../blobs/" + "a" * 40)
    (folder / "onnx" / "weights.txt").symlink_to("../../../blobs/" + "b" * 64)
    return folder


def test_a_snapshot_of_links_to_blobs_is_read_through_them(snapshot: Path) -> None:
    with SourceDirectory(snapshot) as source:
        found = source.scan()
        assert [(file.path.text, file.size) for file in found.files] == [("config.json", 5), ("onnx/weights.txt", 10)]
        descriptor = source.open(found.files[1])
        try:
            assert os.read(descriptor, 100) == b"large file"
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(
    "link",
    [
        "../../../blobs/" + "a" * 40,
        "../blobs/" + "a" * 40,
        "../../blobs/" + "a" * 39,
        "../../blobs/" + "A" * 40,
        "../../blobs/../blobs/" + "a" * 40,
        "../../blobs/" + "a" * 40 + "/",
        "./../../blobs/" + "a" * 40,
        "../../secret/" + "a" * 40,
    ],
)
def test_f6_any_other_form_of_link_is_refused(snapshot: Path, link: str) -> None:
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(link)
    with pytest.raises(PolicyError, match="is a symbolic link"):
        scan(snapshot)


def test_f6_a_blob_that_is_itself_a_link_or_missing_is_refused(snapshot: Path, tmp_path: Path) -> None:
    blob = snapshot / ".." / ".." / "blobs" / ("a" * 40)
    blob.unlink()
    with pytest.raises(PolicyError, match="leads nowhere"):
        scan(snapshot)
    (tmp_path / "secret").write_text("x")
    blob.symlink_to(tmp_path / "secret")
    with pytest.raises(PolicyError, match="leads nowhere"):
        scan(snapshot)
    blob.unlink()
    blob.mkdir()
    with pytest.raises(PolicyError, match="no regular file"):
        scan(snapshot)


# -- after the scan ------------------------------------------------------------------------------------------------


def replace_by_link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (Path.unlink, "no longer there"),
        (replace_by_link, "no longer there"),
        (replace_by_fifo, "it is now a FIFO"),
        (lambda path: path.write_text("{ }"), "it had 2 bytes and has 3"),
    ],
    ids=["gone", "a link", "a FIFO", "longer"],
)
def test_a_file_that_was_replaced_after_the_scan_is_not_opened(root: Path, change, how: str) -> None:
    with SourceDirectory(root) as source:
        (file,) = source.scan().files
        change(root / "config.json")
        with pytest.raises(SourceChanged, match=how) as caught:
            source.open(file)
    assert "'config.json'" in caught.value.message


def test_f6_a_folder_that_became_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "id").write_text("mine")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "id").write_text("keys")
    with SourceDirectory(root) as source:
        file = source.scan().files[1]
        assert file.path.text == "sub/id"
        (root / "sub" / "id").unlink()
        (root / "sub").rmdir()
        (root / "sub").symlink_to(tmp_path / "secrets")
        with pytest.raises(SourceChanged, match="no longer there"):
            source.open(file)


def test_a_write_of_the_same_size_is_noticed_by_its_time(root: Path) -> None:
    with SourceDirectory(root) as source:
        (file,) = source.scan().files
        descriptor = source.open(file)
        try:
            check_untouched(file, descriptor)
            os.utime(root / "config.json", ns=(0, file.mtime_ns + 1))
            with pytest.raises(SourceChanged, match="was written to"):
                check_untouched(file, descriptor)
        finally:
            os.close(descriptor)


def test_reading_past_the_end_is_a_change(root: Path) -> None:
    with SourceDirectory(root) as source:
        (file,) = source.scan().files
        descriptor = source.open(file)
        try:
            buffer = bytearray(2)
            read_exactly(file, descriptor, memoryview(buffer), 0)
            assert buffer == b"{}"
            with pytest.raises(SourceChanged, match="ends after 2 bytes"):
                read_exactly(SourceFile(file.path, 3, 0), descriptor, memoryview(bytearray(3)), 0)
        finally:
            os.close(descriptor)
