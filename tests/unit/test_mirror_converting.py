# SPDX-License-Identifier: Apache-2.0
"""Conversions as far as they need no torch: names, indexes, and how an archive of torch must look from outside."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, UnsafeFileType, UsageError
from pq_registry.format.path import ReleasePath
from pq_registry.format.tensors import TensorEntry, TensorTable
from pq_registry.mirror.converting import ConvertedWeights, planned_conversions, rewrite_index
from pq_registry.mirror.selection import ImportOptions, Selection
from pq_registry.mirror.torcharchive import check_archive
from tests.import_site import hub_entry

NAMES = {
    "pytorch_model.bin": "model.safetensors",
    "2_Dense/pytorch_model.bin": "2_Dense/model.safetensors",
    "pytorch_model.fp16.bin": "model.fp16.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
    "adapter_model.bin": "adapter_model.safetensors",
    "pytorch_model-00001-of-00002.bin": "model-00001-of-00002.safetensors",
    "consolidated.00.pth": "consolidated.00.safetensors",
    "best.pt": "best.safetensors",
    "pytorch_model.bin.index.json": "model.safetensors.index.json",
    "pytorch_model.bin.index.fp16.json": "model.safetensors.index.fp16.json",
}


def test_files_are_called_what_loaders_look_for() -> None:
    others = ["training_args.bin", "model.ckpt", "weights.pkl", "config.json", "sub/pytorch_model.bin.index.json"]
    planned = planned_conversions([ReleasePath(name) for name in (*NAMES, *others)])
    assert {text: into.text for text, into in planned.items()} == NAMES


# -- which are taken -------------------------------------------------------------------------------------------------


def select(*names: str, convert: bool = True, **options) -> Selection:
    chosen = ImportOptions(convert=convert, **options)
    selection = Selection.of("org/model", [hub_entry(name) for name in names], chosen)
    selection.judge(chosen)
    return selection


@pytest.fixture
def with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "2.10.0+cpu")


def test_without_the_option_nothing_is_converted_and_the_option_is_named(with_torch) -> None:
    with pytest.raises(UnsafeFileType, match=r"pytorch_model\.bin") as caught:
        select("config.json", "pytorch_model.bin", convert=False)
    assert "--convert" in (caught.value.hint or "")
    with pytest.raises(UnsafeFileType) as caught:
        select("config.json", "run.py", convert=False)
    assert "--convert" not in (caught.value.hint or "")


def test_what_is_no_weights_by_its_name_is_refused_all_the_same(with_torch) -> None:
    with pytest.raises(UnsafeFileType, match=r"training_args\.bin") as caught:
        select("pytorch_model.bin", "training_args.bin", "run.py")
    assert "pytorch_model.bin" not in (caught.value.found or "")
    selection = select("pytorch_model.bin", "training_args.bin", exclude=("training*",))
    assert selection.held == {"model.safetensors"}
    assert selection.imported == {"pytorch_model.bin"}


@pytest.mark.parametrize("other", ["model.safetensors", "model.pt", "model.pth", "MODEL.safetensors"])
def test_two_files_of_one_name_are_refused(with_torch, other) -> None:
    with pytest.raises((UsageError, FormatError)):
        select("pytorch_model.bin", other)


@pytest.mark.parametrize("version", [None, "2.9.1", "1.13", "unknown"])
def test_torch_is_asked_for_before_anything_is_fetched(monkeypatch, version) -> None:
    def found(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", found)
    with pytest.raises(UsageError, match="torch") as caught:
        select("pytorch_model.bin")
    assert "pip install 'pq-registry[convert]'" in (caught.value.hint or "")
    assert select("model.safetensors").planned == {}


# -- the index -------------------------------------------------------------------------------------------------------

INDEX = ReleasePath("a/pytorch_model.bin.index.json")


def weights(path: str, *names: str) -> ConvertedWeights:
    entries = tuple(TensorEntry(name, "F32", (2,), at * 8, at * 8 + 8) for at, name in enumerate(names))
    return ConvertedWeights(ReleasePath(path), TensorTable(100, (), entries))


MADE = {"a/1.bin": weights("a/1.safetensors", "x", "y"), "a/2.bin": weights("a/2.safetensors", "z")}
MAP = {"x": "1.bin", "y": "1.bin", "z": "2.bin"}


def index(**fields: object) -> bytes:
    return json.dumps({"metadata": {"total_size": 1.5e9, "more": "x"}, "weight_map": MAP, **fields}).encode()


def test_an_index_names_the_converted_files() -> None:
    assert json.loads(rewrite_index(INDEX, index(), MADE)) == {
        "metadata": {"total_size": 24, "more": "x"},
        "weight_map": {"x": "1.safetensors", "y": "1.safetensors", "z": "2.safetensors"},
    }


BROKEN = {
    "no JSON": b"{",
    "not text": b"\xff",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "no map": b'{"metadata": {}}',
    "an empty map": index(weight_map={}),
    "another field": index(more=1),
    "metadata that is none": index(metadata=[]),
    "twice the same": b'{"weight_map": {"x": "1.bin", "x": "2.bin"}}',
    "not a number": b'{"metadata": {"a": NaN}, "weight_map": {"x": "1.bin"}}',
    "another file": index(weight_map={**MAP, "w": "3.bin"}),
    "a file elsewhere": index(weight_map={**MAP, "w": "../1.bin"}),
    "no file": index(weight_map={**MAP, "w": 3}),
    "a tensor that is not there": index(weight_map={**MAP, "w": "2.bin"}),
    "a tensor in the other file": index(weight_map={**MAP, "z": "1.bin"}),
    "a tensor left out": index(weight_map={"x": "1.bin", "z": "2.bin"}),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_an_index_that_is_not_about_the_files_is_refused(data) -> None:
    with pytest.raises(FormatError, match=r"index\.json"):
        rewrite_index(INDEX, data, MADE)


def test_an_index_is_read_up_to_its_limit(monkeypatch) -> None:
    monkeypatch.setattr(limits, "CONVERT_INDEX_BYTES", len(index()) - 1)
    with pytest.raises(FormatError, match="too large"):
        rewrite_index(INDEX, index(), MADE)


# -- the archive -----------------------------------------------------------------------------------------------------


def archive(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
        file.comment = comment
    return buffer.getvalue()


def check(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        check_archive(descriptor, len(data))
    finally:
        os.close(descriptor)


PLAIN = archive({"m/data.pkl": b"pickle", "m/data/0": b"12345678"})


def test_a_plain_archive_passes(tmp_path) -> None:
    check(tmp_path, PLAIN)


def overlapping() -> bytes:
    """The second entry of the directory leads to the first one's bytes, under the same name length."""
    data = archive({"m/data/0": b"x" * 500, "m/data/1": b"y" * 500})
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    return data[: second + 42] + b"\0\0\0\0" + data[second + 46 :]


HOSTILE = {
    "empty": b"",
    "a pickle": b"\x80\x02}q\x00.",
    "a bomb": archive({"m/data.pkl": b"\0" * 10_000_000}, zipfile.ZIP_DEFLATED),
    "compressed a little": archive({"m/data.pkl": b"ab" * 20}, zipfile.ZIP_DEFLATED),
    "cut off": PLAIN[:-1],
    "cut in half": PLAIN[: len(PLAIN) // 2],
    "something before it": b"x" + PLAIN,
    "something after it": PLAIN + b"x",
    "a comment": archive({"m/data.pkl": b"x"}, comment=b"PK\x05\x06"),
    "nothing in it": b"PK\x03\x04" + archive({}),
    "a second directory in front": PLAIN + PLAIN,
    "entries that overlap": overlapping(),
    "another name in the directory": PLAIN[::-1].replace(b"0/atad/m", b"1/atad/m", 1)[::-1],
    "encrypted": PLAIN.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01", 1),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_archives_that_torch_does_not_write_are_refused(tmp_path, data) -> None:
    with pytest.raises(FormatError):
        check(tmp_path, data)


def test_two_entries_of_one_name_are_refused(tmp_path) -> None:
    data = archive({"m/data/0": b"x", "m/data/1": b"y"}).replace(b"m/data/1", b"m/data/0")
    with pytest.raises(FormatError, match="same name"):
        check(tmp_path, data)


def test_bounds_are_kept(tmp_path, monkeypatch) -> None:
    for name, least in (("CONVERT_ARCHIVE_ENTRIES", 2), ("CONVERT_DIRECTORY_BYTES", 110), ("CONVERT_PICKLE_BYTES", 6)):
        with monkeypatch.context() as patched:
            patched.setattr(limits, name, least)
            check(tmp_path, PLAIN)
            patched.setattr(limits, name, least - 1 if name != "CONVERT_DIRECTORY_BYTES" else 50)
            with pytest.raises(FormatError, match="too large"):
                check(tmp_path, PLAIN)


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_are_an_archive_or_an_error_of_ours(tmp_path, seed) -> None:
    changed = bytearray(PLAIN)
    for at in range(seed, len(changed), 40):
        changed[at] ^= 0xFF
        with contextlib.suppress(FormatError):
            check(tmp_path, bytes(changed))
        changed[at] ^= 0xFF
