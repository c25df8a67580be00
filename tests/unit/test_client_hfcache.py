# SPDX-License-Identifier: Apache-2.0
"""Pull into a Hugging Face cache: their tools find the release offline, and ours verify it where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from pq_registry.client.hfcache import HubCache
from pq_registry.client.pull import PullResult
from pq_registry.client.verify import verify_directory
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import PolicyError, UsageError
from pq_registry.format.name import Reference
from tests.fake_registry import serving
from tests.pull_site import FILES, Site, content
from tests.samples import publisher, tag_statement
from tests.tensors import safetensors_bytes

TENSORS, TRUTH = safetensors_bytes({"w": ("F32", (3, 1000)), "b": ("I64", (7,))}, 5)
TOKENIZER = Tokenizer(WordLevel({"hello": 0, "world": 1, "?": 2}, unk_token="?")).to_str().encode()
MODEL = {"config.json": b"{}", "nested/config.json": b"{}", "model.safetensors": TENSORS, "tokenizer.json": TOKENIZER}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def pull_to_cache(site: Site, files: dict[str, bytes], tag: str, sequence: int = 1) -> PullResult:
    digest = site.add(files)
    statement = tag_statement(
        digest, tag=Reference.parse(f"acme/minilm:{tag}").tag, sequence=sequence,
        previous=None if sequence == 1 else digest,
    )  # fmt: skip
    site.registry.tags[tag] = sign_envelope(statement.encode(), publisher()).encode()
    resolved = site.resolve(tag)
    return site.pull(resolved, HubCache(site.home / "hub", resolved))


def test_the_hub_client_finds_it_offline_and_its_content_is_the_original(site: Site) -> None:
    result = pull_to_cache(site, MODEL, "v1")
    hub = site.home / "hub"
    for revision in (None, "v1", "main", result.digest.hex[:40]):
        found = snapshot_download("acme/minilm", cache_dir=hub, revision=revision, local_files_only=True)
        assert Path(found) == result.path
    loaded = load_file(result.path / "model.safetensors")
    assert set(loaded) == set(TRUTH)
    assert all(np.array_equal(loaded[name].view(np.uint8), TRUTH[name].view(np.uint8)) for name in TRUTH)
    assert Tokenizer.from_file(str(result.path / "tokenizer.json")).encode("world").ids == [1]


def test_the_layout_is_theirs(site: Site) -> None:
    result = pull_to_cache(site, FILES, "v1")
    folder = site.home / "hub" / "models--acme--minilm"
    assert result.path == folder / "snapshots" / result.digest.hex[:40]
    assert {path.name for path in folder.iterdir()} == {"blobs", "refs", "snapshots"}
    assert {path.name: path.read_text() for path in (folder / "refs").iterdir()} == {
        "v1": result.digest.hex[:40],
        "main": result.digest.hex[:40],
    }
    assert os.readlink(result.path / "sub/dir/config.json").startswith("../../../../blobs/")
    for name in ("pqreg.json", "model.sig", "model.pq.sig"):
        assert (result.path / name).is_file() and not (result.path / name).is_symlink()
    assert len(list((folder / "blobs").iterdir())) == len(set(FILES.values()))
    assert not scan_cache_dir(site.home / "hub").warnings


def test_a_snapshot_verifies_where_it_is(site: Site) -> None:
    result = pull_to_cache(site, FILES, "v1")
    assert verify_directory(result.path, site.offline, full=True).release.digest == result.digest
    assert content(result.path) == FILES


def test_releases_share_blobs_and_leave_each_other_alone(site: Site) -> None:
    first = pull_to_cache(site, FILES, "v1")
    second = pull_to_cache(site, {**FILES, "config.json": b"changed"}, "v2")
    assert second.fetched == len(b"changed")
    assert content(first.path) == FILES
    again = pull_to_cache(site, FILES, "v1", sequence=2)
    assert (again.path, again.fetched) == (first.path, 0)
    assert (site.home / "hub/models--acme--minilm/refs/main").read_text() == first.digest.hex[:40]


def test_a_damaged_blob_is_replaced(site: Site) -> None:
    result = pull_to_cache(site, FILES, "v1")
    blob = (result.path / "vocab.txt").resolve()
    data = bytearray(blob.read_bytes())
    data[0] ^= 1
    blob.write_bytes(data)
    pull_to_cache(site, FILES, "v1", sequence=2)
    assert content(result.path) == FILES


def test_f06_a_world_writable_cache_is_refused(site: Site) -> None:
    hub = site.home / "hub"
    hub.mkdir()
    hub.chmod(0o777)
    with pytest.raises(PolicyError, match="everybody may write"):
        pull_to_cache(site, FILES, "v1")


@pytest.mark.parametrize("part", ["", "models--acme--minilm", "models--acme--minilm/blobs"])
def test_f06_a_cache_of_somebody_else_is_refused(site: Site, part: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    directory = site.home / "hub" / part
    directory.mkdir(parents=True)
    os.chown(directory, 12345, -1)
    with pytest.raises(PolicyError, match="belongs to somebody else"):
        pull_to_cache(site, FILES, "v1")
    assert not list((site.home / "hub").rglob("pqreg.json"))


@pytest.mark.parametrize("part", ["models--acme--minilm", "models--acme--minilm/blobs", "models--acme--minilm/.pqreg"])
def test_f06_a_link_for_a_directory_of_the_cache_is_refused(site: Site, tmp_path: Path, part: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = site.home / "hub" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(Exception) as caught:
        pull_to_cache(site, FILES, "v1")
    assert type(caught.value).__module__.startswith("pq_registry.errors.")
    assert list(outside.iterdir()) == []


def test_f06_a_foreign_file_in_the_snapshot_is_refused(site: Site) -> None:
    result = pull_to_cache(site, FILES, "v1")
    (result.path / "evil.py").write_text("import os")
    with pytest.raises(UsageError, match=r"evil\.py"):
        pull_to_cache(site, FILES, "v1", sequence=2)


def test_f06_a_link_in_the_snapshot_to_elsewhere_is_replaced(site: Site, tmp_path: Path) -> None:
    result = pull_to_cache(site, FILES, "v1")
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["config.json"])
    (result.path / "config.json").unlink()
    (result.path / "config.json").symlink_to(outside)
    with pytest.raises(Exception, match="no regular file"):
        verify_directory(result.path, site.offline)
    pull_to_cache(site, FILES, "v1", sequence=2)
    assert os.readlink(result.path / "config.json").startswith("../../blobs/")
    assert outside.read_bytes() == FILES["config.json"]
