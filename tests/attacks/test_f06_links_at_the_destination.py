# SPDX-License-Identifier: Apache-2.0
"""F6: links, second names and special files, where a pull writes and where a directory is verified.

The Hugging Face cache's share of this case is in ``tests/unit/test_client_hfcache.py``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.verify import verify_directory
from pq_registry.errors import FileSetMismatch, PqregError, SignatureInvalid, UsageError
from pq_registry.format.digest import Digest
from tests.fake_registry import serving
from tests.pull_site import FILES, TENSORS, Site, content


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious").write_bytes(b"precious")
    return directory


@pytest.mark.parametrize("target", ["file", "nothing", "directory"])
@pytest.mark.parametrize("name", ["config.json", "sub", "sub/model.safetensors", "pqreg.json", "model.sig", "other"])
def test_f06_a_link_at_the_destination_is_refused_and_not_followed(
    site: Site, outside: Path, name: str, target: str
) -> None:
    link = site.out / name
    link.parent.mkdir(parents=True)
    link.symlink_to({"file": outside / "precious", "nothing": outside / "new", "directory": outside}[target])
    with pytest.raises(UsageError):
        site.pull(site.add())
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("name", [".pqreg", ".pqreg/incoming", ".pqreg/manifests"])
def test_f06_a_link_for_our_own_directory_is_refused(site: Site, outside: Path, name: str) -> None:
    link = site.out / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(PqregError):
        site.pull(site.add())
    assert [path.name for path in outside.iterdir()] == ["precious"]


def test_f06_the_destination_itself_may_be_reached_by_a_link(site: Site, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    site.out.symlink_to(tmp_path / "real")
    site.pull(site.add())
    assert content(tmp_path / "real") == FILES


def test_f06_a_second_name_of_a_file_is_replaced_and_not_written_through(site: Site, outside: Path) -> None:
    site.out.mkdir()
    os.link(outside / "precious", site.out / "config.json")
    (outside / "large").write_bytes(bytes(len(TENSORS)))
    (site.out / "sub").mkdir()
    os.link(outside / "large", site.out / "sub/model.safetensors")
    site.pull(site.add())
    assert content(site.out) == FILES
    assert (outside / "precious").read_bytes() == b"precious"
    assert (outside / "large").read_bytes() == bytes(len(TENSORS))


@pytest.mark.parametrize("kind", ["link", "second name", "fifo", "directory", "foreign owner"])
def test_f06_what_somebody_put_under_a_staged_name_is_not_written_to(site: Site, outside: Path, kind: str) -> None:
    digest = site.add()
    incoming = site.out / ".pqreg/incoming"
    incoming.mkdir(parents=True)
    staged = incoming / Digest.of(TENSORS).hex
    target = outside / "precious"
    if kind == "link":
        staged.symlink_to(target)
    elif kind == "second name":
        os.link(target, staged)
    elif kind == "fifo":
        os.mkfifo(staged)
    elif kind == "directory":
        (staged / "x").mkdir(parents=True)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        staged.write_bytes(b"x")
        os.chown(staged, 12345, -1)
    if kind == "directory":
        with pytest.raises(PqregError):
            site.pull(digest)
    else:
        site.pull(digest)
        assert content(site.out) == FILES
        assert (site.out / "sub/model.safetensors").stat().st_uid == os.geteuid()
    assert target.read_bytes() == b"precious"


def test_f06_nobody_else_can_enter_the_staging_directory(site: Site) -> None:
    digest = site.add()
    resolved = site.resolve(digest)
    modes = []

    def look(_handler: object) -> bool:
        modes.append(stat.S_IMODE((site.out / ".pqreg/incoming").stat().st_mode))
        return False

    site.registry.rules["GET /v1/blobs"] = look
    site.pull(resolved)
    assert set(modes) == {0o700}


@pytest.fixture
def pulled(site: Site) -> Site:
    site.pull(site.add())
    return site


@pytest.mark.parametrize(
    "link", ["../outside/copy", "../../blobs/x", "/etc/passwd", "../../blobs/../x", "../../../blobs/" + "a" * 64, "."]
)
def test_f06_verify_follows_no_link_but_those_of_a_hub_cache(pulled: Site, outside: Path, link: str) -> None:
    (outside / "copy").write_bytes(FILES["config.json"])
    (pulled.out / "config.json").unlink()
    (pulled.out / "config.json").symlink_to(link)
    with pytest.raises(FileSetMismatch):
        verify_directory(pulled.out, pulled.offline)
    manifest = pulled.resolve(pulled.add()).verified.release.manifest
    entry = next(entry for entry in manifest.files if entry.path.text == "config.json")
    with ReleaseDirectory(pulled.out) as directory, pytest.raises(FileSetMismatch):
        os.close(directory.open(entry))


@pytest.mark.parametrize("name", ["model.sig", "model.pq.sig"])
def test_f06_evidence_behind_a_link_is_missing(pulled: Site, outside: Path, name: str) -> None:
    (pulled.out / name).rename(outside / name)
    (pulled.out / name).symlink_to(outside / name)
    with pytest.raises(SignatureInvalid):
        verify_directory(pulled.out, pulled.offline)


def test_f06_a_linked_folder_is_not_entered(pulled: Site, outside: Path) -> None:
    (pulled.out / "sub").rename(outside / "sub")
    (pulled.out / "sub").symlink_to(outside / "sub")
    with pytest.raises(FileSetMismatch):
        verify_directory(pulled.out, pulled.offline)


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "device"])
def test_f06_a_special_file_neither_hangs_nor_passes(pulled: Site, kind: str) -> None:
    path = pulled.out / "config.json"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises(FileSetMismatch):
        verify_directory(pulled.out, pulled.offline)


@pytest.mark.parametrize("name", ["pqreg.json", "model.sig", "model.pq.sig"])
def test_f06_a_fifo_for_evidence_neither_hangs_nor_passes(pulled: Site, name: str) -> None:
    (pulled.out / name).unlink()
    os.mkfifo(pulled.out / name)
    with pytest.raises(PqregError):
        verify_directory(pulled.out, pulled.offline)
