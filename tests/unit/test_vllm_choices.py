# SPDX-License-Identifier: Apache-2.0
"""What the vLLM plug-in takes of a release: by its index, by a model's patterns, and nothing from elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pq_registry import limits
from pq_registry.errors import FileSetMismatch, FormatError, ShardMismatch, TensorTableMismatch, UsageError
from pq_registry.loader.integrations.modeldir import check_model_directory
from pq_registry.loader.integrations.vllm import Pinned
from pq_registry.loader.integrations.weightfiles import INDEX, Wanted, read_small, wanted_files
from pq_registry.loader.opening import OpenRelease, open_release
from pq_registry.settings import Settings
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.sealing_site import write_files
from tests.tensors import safetensors_bytes

ONE, TWO, HEAD = (safetensors_bytes({name: ("F16", (3,))}, 1)[0] for name in ("a", "b", "weight"))
FILES = {
    "1_Dense/model.safetensors": HEAD,
    "config.json": b"{}",
    "model-1.safetensors": ONE,
    "model-2.safetensors": TWO,
    "readout.safetensors": HEAD,
    "sparse.pt": b"not safetensors",
}


def opened(home: Path, files: dict[str, bytes]) -> OpenRelease:
    release_directory(home / "r", files)
    settings = Settings({"trust": str(write_trust(home / "trust.json"))}, environment={"HOME": str(home)})
    return open_release(home / "r", expect="acme/minilm", settings=settings, now=NOW)


def index(*paths: object) -> bytes:
    return json.dumps(
        {"metadata": {"total_size": 1.5}, "weight_map": {str(n): p for n, p in enumerate(paths)}}
    ).encode()


@dataclass
class Source:
    """As ``DefaultModelLoader.Source`` of vLLM."""

    model_or_path: str
    allow_patterns_overrides: list[str] | None = None
    subfolder: str | None = None
    prefix: str = ""


def model(**attributes: object) -> SimpleNamespace:
    return SimpleNamespace(**attributes)


def test_without_an_index_all_in_the_root(tmp_path: Path) -> None:
    release = opened(tmp_path, FILES)
    assert wanted_files(release, model(), "dir") == (
        Wanted(("model-1.safetensors", "model-2.safetensors", "readout.safetensors")),
    )
    assert wanted_files(release, model(), "dir", chosen=["model-1.safetensors"]) == (Wanted(("model-1.safetensors",)),)


def test_with_an_index_those_it_names(tmp_path: Path) -> None:
    release = opened(tmp_path, {**FILES, INDEX: index("model-2.safetensors", "model-1.safetensors")})
    assert wanted_files(release, model(), "dir") == (Wanted(("model-1.safetensors", "model-2.safetensors")),)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (index("model-3.safetensors"), UsageError), (index("../model-1.safetensors"), UsageError),
        (index("1_Dense/model.safetensors"), UsageError), (index(7), FormatError), (b"[]", FormatError),
        (b"{", FormatError), (b'{"weight_map": []}', FormatError), (b"[" * 100_000, FormatError),
        (b"\xff", FormatError),
    ],
)  # fmt: skip
def test_an_index_that_makes_no_sense(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        wanted_files(opened(tmp_path, {**FILES, INDEX: content}), model(), "dir")


def test_the_index_is_verified(tmp_path: Path) -> None:
    release = opened(tmp_path, {**FILES, INDEX: index("model-1.safetensors")})
    (tmp_path / "r" / INDEX).write_bytes(index("model-2.safetensors"))
    with pytest.raises(ShardMismatch):
        wanted_files(release, model(), "dir")


def test_a_model_may_say_which(tmp_path: Path) -> None:
    release = opened(tmp_path, FILES)
    assert wanted_files(release, model(allow_patterns_overrides=["[0-9]*/*.safetensors"]), "dir") == (
        Wanted(("1_Dense/model.safetensors",)),
    )
    with pytest.raises(UsageError, match="no such weights"):
        wanted_files(release, model(allow_patterns_overrides=["*.pt"]), "dir")


def test_secondary_weights_of_the_same_release(tmp_path: Path) -> None:
    release = opened(tmp_path, {**FILES, INDEX: index("model-1.safetensors")})
    secondary = [Source("dir", ["readout.safetensors"], prefix="score."), Source("dir", None, "1_Dense", "dense.")]
    assert wanted_files(release, model(secondary_weights=secondary), "dir")[1:] == (
        Wanted(("readout.safetensors",), "score."), Wanted(("1_Dense/model.safetensors",), "dense."),
    )  # fmt: skip
    for wrong in (Source("openai/whisper"), Source("dir", ["sparse.pt"]), Source("dir", None, "2_Dense")):
        with pytest.raises(UsageError):
            wanted_files(release, model(secondary_weights=[wrong]), "dir")


def test_small_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = opened(tmp_path, FILES)
    file = next(file for file in release.files if file.path.text == "config.json")
    assert read_small(release, file) == b"{}"
    monkeypatch.setattr(limits, "READ_FILE_BYTES", 1)
    with pytest.raises(UsageError, match="too large"):
        read_small(release, file)


def test_a_model_directory_may_be_a_pulled_one_or_part_of_it(tmp_path: Path) -> None:
    release = opened(tmp_path, FILES)
    check_model_directory(tmp_path / "r", release)
    part = write_files(tmp_path / "part", {name: FILES[name] for name in ("config.json", "sparse.pt")})
    check_model_directory(part, release)
    (part / "config.json").unlink()
    (part / "config.json").symlink_to(tmp_path / "r" / "config.json")
    with pytest.raises(FileSetMismatch, match=r"config\.json"):
        check_model_directory(part, release)


def test_a_model_directory_that_lacks_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its chat template or its generation settings a model is served with others."""
    release = opened(tmp_path, {**FILES, "chat_template.jinja": b"the one that was signed"})
    (tmp_path / "r" / "chat_template.jinja").unlink()
    with pytest.raises(FileSetMismatch, match="lacks files of acme/minilm") as caught:
        check_model_directory(tmp_path / "r", release)
    assert "chat_template.jinja" in str(caught.value.found)
    monkeypatch.setattr(limits, "READ_FILE_BYTES", 20)  # as pqreg exec would leave it out
    check_model_directory(tmp_path / "r", release)


def test_a_model_directory_is_looked_at_to_the_end_of_every_file(tmp_path: Path) -> None:
    vocabulary = bytes(limits.SHARD_BYTES) + b"end"
    release = opened(tmp_path, {**FILES, "vocab.txt": vocabulary})
    (tmp_path / "r" / "vocab.txt").write_bytes(vocabulary.replace(b"end", b"END"))
    with pytest.raises(ShardMismatch, match=r"shard 1 of vocab\.txt"):
        check_model_directory(tmp_path / "r", release)


def test_the_metadata_of_a_header_is_signed_too(tmp_path: Path) -> None:
    release = opened(tmp_path, FILES)
    header = json.loads(ONE[8 : 8 + int.from_bytes(ONE[:8], "little")])
    altered = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (tmp_path / "r" / "model-1.safetensors").write_bytes(len(altered).to_bytes(8, "little") + altered)
    with pytest.raises(TensorTableMismatch, match=r"model-1\.safetensors"):
        check_model_directory(tmp_path / "r", release)


def test_the_configuration_is_read_strictly() -> None:
    release = f"acme/minilm@sha256:{'0' * 64}"
    assert Pinned.of({"release": release}) == Pinned(release=release)
    full = {"release": release, "directory": "/d", "files": ["a.safetensors"], "device": "cuda:1", "io": "direct",
            "check_on": "device"}  # fmt: skip
    found = Pinned.of(full)
    assert found.files == ("a.safetensors",)
    assert found.request(found.files, device="cpu").device == "cuda:1"
    with pytest.raises(UsageError):
        Pinned.of({"release": release, "io": "fast"}).request(["a"], device="cpu")
