# SPDX-License-Identifier: Apache-2.0
"""A model from a Hub on its way into a release: pinned, compared, judged, and what is said of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator

import pytest

from pq_registry import limits
from pq_registry.errors import (
    Conflict,
    ContentError,
    FileSetMismatch,
    FormatError,
    NotFound,
    PolicyError,
    ResponseInvalid,
    SignatureInvalid,
    StorageError,
    TrustMissing,
    UnsafeFileType,
    UntrustedSigner,
    UsageError,
)
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.importing import IMPORT_NAME, SIGNATURE_NAME, ImportStatement, LeftOut, Verified
from pq_registry.mirror.upstream import ByRelease
from tests.fake_hub import FakeHub, fake_hub
from tests.hub_site import go_online
from tests.import_site import bring, files_in, trusting
from tests.samples import publisher, release
from tests.tensors import safetensors_bytes

TENSORS, _ = safetensors_bytes({"w": ("F32", (300,))}, 1)
MODEL = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# A model\n",
    "config.json": b'{"a": 1}',
    "model.safetensors": TENSORS,
    "sub/vocab.txt": b"word\n" * 100,
}


@pytest.fixture(scope="module")
def running() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def hub(running: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    go_online(monkeypatch)
    running.reset()
    return running


def test_a_model_is_brought_and_described(hub, tmp_path):
    commit = hub.add(MODEL)
    staged = bring(hub, tmp_path / "place", token="hf_x")
    found = files_in(staged.directory)
    statement = ImportStatement.parse(found.pop(IMPORT_NAME))
    assert statement == staged.statement
    assert found == {name: data for name, data in MODEL.items() if name != ".gitattributes"}
    source = statement.source
    assert (source.endpoint, source.repository, source.revision, source.commit) == (
        hub.url,
        "org/model",
        "main",
        commit,
    )
    assert {file.path.text: file.found for file in statement.imported} == {
        name: Digest.of(data) for name, data in found.items()
    }
    stated = {file.path.text: file for file in statement.files}
    assert stated["model.safetensors"].sha256 == Digest.of(TENSORS)
    assert stated["config.json"].git_sha1 == hashlib.sha1(b'blob 8\0{"a": 1}').hexdigest()
    assert stated[".gitattributes"].left_out is LeftOut.IGNORED
    assert statement.signature is None
    assert hub.tokens == {"Bearer hf_x"}
    assert staged.directory.stat().st_mode & 0o777 == 0o700


def test_a_second_run_fetches_nothing_and_says_the_same(hub, tmp_path):
    hub.add(MODEL)
    first = bring(hub, tmp_path / "place")
    hub.asked.clear()
    assert bring(hub, tmp_path / "place").statement.encode() == first.statement.encode()
    assert not [line for line in hub.asked if line.startswith("GET /org/model/resolve")]


def test_another_revision_leaves_nothing_of_the_one_before(hub, tmp_path):
    hub.add({**MODEL, "old/gone.txt": b"gone"})
    bring(hub, tmp_path / "place")
    hub.add({**MODEL, "config.json": b'{"b": 2}'})
    staged = bring(hub, tmp_path / "place")
    found = files_in(staged.directory)
    assert found["config.json"] == b'{"b": 2}'
    assert not (staged.directory / "old").exists()
    staged = bring(hub, tmp_path / "place", exclude=("sub/*",))
    assert "sub/vocab.txt" not in files_in(staged.directory)
    assert {file.path.text: file.left_out for file in staged.statement.left_out}["sub/vocab.txt"] is LeftOut.EXCLUDED


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_other_bytes_than_stated_are_refused_and_removed(hub, tmp_path, path):
    hub.add(MODEL)
    hub.lies[path] = bytes(byte ^ 1 for byte in MODEL[path])
    with pytest.raises(ResponseInvalid, match="other bytes"):
        bring(hub, tmp_path / "place")
    assert not (tmp_path / "place" / path).exists()
    hub.lies.clear()
    assert files_in(bring(hub, tmp_path / "place").directory)[path] == MODEL[path]


def test_what_was_damaged_on_the_way_is_fetched_again(hub, tmp_path):
    hub.add(MODEL)
    place = bring(hub, tmp_path / "place").directory
    (place / "config.json").write_bytes(b'{"a": 2}')
    (place / "model.safetensors").write_bytes(b"cut")
    found = files_in(bring(hub, place).directory)
    assert found["config.json"] == MODEL["config.json"]
    assert found["model.safetensors"] == TENSORS


def test_more_than_was_stated_is_not_taken(hub, tmp_path):
    hub.add(MODEL)
    hub.lies["config.json"] = b"x" * (8 * limits.MIB)
    with pytest.raises(ResponseInvalid, match="sends more"):
        bring(hub, tmp_path / "place")
    assert not (tmp_path / "place/config.json").exists()


def test_refusals_that_pass_are_waited_out(hub, tmp_path):
    hub.add(MODEL)
    hub.refusals = [(429, {"Retry-After": "1"}), (503, {}), (429, {"RateLimit": '"api";r=0;t=1'})]
    assert len(bring(hub, tmp_path / "place").statement.imported) == 4


@pytest.mark.parametrize(
    "stated",
    [
        {"size": -1}, {"size": "4"}, {"size": True}, {"oid": "0" * 39}, {"oid": None}, {"oid": "G" * 40},
        {"lfs": {"oid": "0" * 64, "size": 5, "pointerSize": 1}},
        {"lfs": {"oid": "0" * 63, "size": 8, "pointerSize": 1}},
        {"lfs": {"oid": None, "size": 8, "pointerSize": 1}}, {"lfs": []}, {"path": 7}, {"path": None},
    ],
)  # fmt: skip
def test_statements_without_sense_are_refused(hub, tmp_path, stated):
    hub.add(MODEL)
    hub.stated["config.json"] = stated
    with pytest.raises(ResponseInvalid):
        bring(hub, tmp_path / "place")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    "path",
    ["../escape", "/etc/passwd", "a/../../b", "a//b", "C:/x", "a\\b", "con", "x\0y", "new\nline", ".", "a/", "x" * 256],
)
def test_paths_that_no_release_can_hold_are_refused(hub, tmp_path, path):
    hub.add(MODEL)
    hub.stated["config.json"] = {"path": path}
    with pytest.raises(FormatError):
        bring(hub, tmp_path / "place")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("other", ["README.MD", "readme.md", "PQREG.JSON", "sub/vocab.txt/x"])
def test_names_that_collide_are_refused(hub, tmp_path, other):
    hub.add({**MODEL, other: b"x"})
    with pytest.raises(FormatError):
        bring(hub, tmp_path / "place")


@pytest.mark.parametrize("commit", ["main", "0" * 39, "", None, 7, "0" * 64, "../../x"])
def test_a_commit_is_a_commit(hub, tmp_path, commit):
    hub.add(MODEL)
    hub.commits["org/model"] = commit
    with pytest.raises(ResponseInvalid):
        bring(hub, tmp_path / "place")


def test_another_commit_than_the_one_asked_for_is_refused(hub, tmp_path):
    commit = hub.add(MODEL)
    assert bring(hub, tmp_path / "place", f"hf://org/model@{commit}").statement.source.commit == commit
    with pytest.raises(ResponseInvalid, match="another commit"):
        bring(hub, tmp_path / "place", "hf://org/model@" + "0" * 40)


def test_what_is_not_there_is_said(hub, tmp_path):
    with pytest.raises(NotFound):
        bring(hub, tmp_path / "place")
    hub.add({".gitattributes": b""})
    with pytest.raises(UsageError, match="no file to import"):
        bring(hub, tmp_path / "place")


def test_formats_that_run_code_are_refused_before_anything_is_fetched(hub, tmp_path):
    hub.add({**MODEL, "pytorch_model.bin": b"x" * 100, "modeling.py": b"import os\n"})
    with pytest.raises(UnsafeFileType, match=r"modeling\.py") as caught:
        bring(hub, tmp_path / "place")
    assert "pytorch_model.bin" in (caught.value.found or "")
    assert not [line for line in hub.asked if "/resolve/" in line]
    staged = bring(hub, tmp_path / "place", exclude=("*.bin", "*.py"))
    assert [file.path.text for file in staged.statement.left_out] == [
        ".gitattributes", "modeling.py", "pytorch_model.bin",
    ]  # fmt: skip
    assert bring(hub, tmp_path / "other", allow_unsafe=True).statement.imported


def test_a_place_without_room_is_refused_first(hub, tmp_path, monkeypatch):
    hub.add(MODEL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 100})())
    with pytest.raises(StorageError, match="no room"):
        bring(hub, tmp_path / "place")
    assert not [line for line in hub.asked if "/resolve/" in line]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_place_that_others_may_write_to_is_refused(hub, tmp_path, mode):
    hub.add(MODEL)
    for shared in (tmp_path / "above", tmp_path / "above/place"):
        place = tmp_path / "above/place"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        shared.chmod(mode)
        with pytest.raises(PolicyError, match="others may write"):
            bring(hub, place)
        shared.chmod(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "above/place")
    with pytest.raises(PolicyError, match="others may write"):
        bring(hub, tmp_path / "link")
    assert not [line for line in hub.asked if "/resolve/" in line]


def test_one_import_at_a_time(hub, tmp_path):
    from pq_registry.client.destination import lock
    from pq_registry.client.tree import Tree

    hub.add(MODEL)
    (tmp_path / "place").mkdir()
    with Tree(tmp_path / "place") as tree:
        lock(tree)
        with pytest.raises(Conflict):
            bring(hub, tmp_path / "place")


# -- models that are releases of this project ------------------------------------------------------------------------


def evidence_of(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a release of acme's, as a mirror holds them."""
    envelope, manifest = release(files)
    identity = publisher().identity
    return {
        **files,
        "pqreg.json": manifest,
        "model.sig": encode_bundle(envelope, "ec", identity.ec_pem),
        "model.pq.sig": encode_bundle(envelope, "pq", identity.pq_pem),
    }


PLAIN = {"config.json": b'{"a": 1}', "vocab.txt": b"word\n" * 100}


def test_a_release_is_verified_by_the_trust_file(hub, tmp_path):
    hub.add({".gitattributes": b"x", **evidence_of(PLAIN)})
    staged = bring(hub, tmp_path / "place", verifier=trusting, require=ByRelease())
    assert files_in(staged.directory).keys() == {*PLAIN, IMPORT_NAME}
    signature = staged.statement.signature
    assert signature is not None
    assert signature.verified is Verified.RELEASE
    assert dict(signature.details)["name"] == str(staged.lineage[0].name)
    assert dict(signature.details)["release"] == str(staged.lineage[0].release)
    assert {file.path.text for file in staged.statement.left_out} >= {"pqreg.json", "model.sig", "model.pq.sig"}


def test_a_release_is_never_taken_on_trust(hub, tmp_path):
    files = evidence_of(PLAIN)
    hub.add(files)
    with pytest.raises(TrustMissing):
        bring(hub, tmp_path / "one")
    hub.add({**files, "config.json": b'{"a": 2}'})
    with pytest.raises(ContentError):
        bring(hub, tmp_path / "two", verifier=trusting)
    hub.add({**files, "more.txt": b"not signed"})
    with pytest.raises(FileSetMismatch):
        bring(hub, tmp_path / "three", verifier=trusting)
    hub.add({**files, **_signed_by_a_stranger(PLAIN)})
    with pytest.raises(UntrustedSigner):
        bring(hub, tmp_path / "four", verifier=trusting)


def _signed_by_a_stranger(files: dict[str, bytes]) -> dict[str, bytes]:
    stranger = publisher("mallory")
    envelope, manifest = release(files, signer=stranger)
    return {
        "pqreg.json": manifest,
        "model.sig": encode_bundle(envelope, "ec", stranger.identity.ec_pem),
        "model.pq.sig": encode_bundle(envelope, "pq", stranger.identity.pq_pem),
    }


def test_parts_of_a_release_and_sealed_ones_are_refused(hub, tmp_path):
    hub.add(evidence_of(PLAIN))
    with pytest.raises(UsageError, match="signed release"):
        bring(hub, tmp_path / "place", verifier=trusting, exclude=("vocab.txt",))
    hub.add({**evidence_of(PLAIN), "pqreg.inner": b"x"})
    with pytest.raises(PolicyError, match="sealed"):
        bring(hub, tmp_path / "place", verifier=trusting)
    hub.add(MODEL)
    with pytest.raises(SignatureInvalid, match="no evidence"):
        bring(hub, tmp_path / "place", verifier=trusting, require=ByRelease())


def test_an_unchecked_signature_is_kept_and_said_to_be_unchecked(hub, tmp_path):
    hub.add({**MODEL, "model.sig": b'{"some": "bundle"}'})
    staged = bring(hub, tmp_path / "place")
    signature = staged.statement.signature
    assert signature is not None
    assert (signature.verified, str(signature.kept)) == (None, SIGNATURE_NAME)
    found = files_in(staged.directory)
    assert found[SIGNATURE_NAME] == b'{"some": "bundle"}'
    assert "model.sig" not in found
