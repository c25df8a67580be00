# SPDX-License-Identifier: Apache-2.0
"""C7: files that run code when they are loaded, whatever they are called (CVE-2025-32434, picklescan's bypasses)."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pq_registry.format.executables import refusal
from pq_registry.format.path import ReleasePath
from tests.format_samples import WEIGHTS, safetensors

ROOT = Path(__file__).resolve().parents[2]


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return subprocess.getoutput, ("id",)


def refused(path: str, head: bytes) -> str | None:
    return refusal(ReleasePath(path), head)


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


INNOCENT_NAMES = ("config.json", "vocab.txt", "tokenizer.model", "model.onnx", "weights", "model.safetensors")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", INNOCENT_NAMES)
def test_a_pickle_under_an_innocent_name(name: str, protocol: int) -> None:
    assert refused(name, pickle.dumps(Payload(), protocol)) is not None


HAND_MADE = {
    "inst": b"(S'id'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'id'\no.",
    "reduce after junk": b"I1\n0N0]0cos\nsystem\n(S'id'\ntR.",
    "no stop": b"cos\nsystem\n(S'id'\ntR",
    "garbage after the call": b"cos\nsystem\n(S'id'\ntR\xff\xff\xff",
    "from the memo": b"cos\nsystem\np0\n0S'id'\n\x85p1\n0g0\ng1\nR.",
    "build": b"cos\nsystem\n}b.",
    "newobj": b"cos\nsystem\n)\x81.",
    "extension": b"\x82\x01)R.",
    "stack global": b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93)R.",
}


@pytest.mark.parametrize("head", HAND_MADE.values(), ids=HAND_MADE.keys())
def test_hand_made_pickles_without_a_header(head: bytes) -> None:
    assert refused("notes.txt", head) is not None
    assert refused("tokenizer.model", head) is not None


def test_what_torch_save_writes() -> None:
    archive = zipped("archive/data.pkl", pickle.dumps(Payload()))
    for name in ("pytorch_model.bin", "model.pt", "x.pth", "x.ckpt", *INNOCENT_NAMES):
        assert refused(name, archive) is not None


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.pt",
        "model.PTH",
        "x.ckpt",
        "x.pkl",
        "x.pickle",
        "x.joblib",
        "x.dill",
        "x.npz",
        "x.h5",
        "x.keras",
        "saved_model.pb",
        "x.engine",
        "modeling.py",
        "modeling.pyc",
        "x.so",
        "x.dll",
        "x.exe",
        "run.sh",
        "run.bat",
        "x.jar",
        "x.wasm",
        "x.zip",
        "x.tar",
        "x.tar.gz",
        "x.7z",
        "x.nemo",
        "x.mar",
        "nb.ipynb",
    ],
)
def test_some_names_are_refused_whatever_they_hold(name: str) -> None:
    assert refused(name, b"") is not None
    assert refused(name, b"only text\n") is not None


MAGIC = {
    "zip": zipped("a", b"a"),
    "an empty zip": zipped("a", b"a")[-22:],
    "tar": tarred("a", b"a"),
    "gzip": b"\x1f\x8b\x08\0",
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "rar": b"Rar!\x1a\x07\x00",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "elf": b"\x7fELF\x02\x01\x01",
    "pe": b"MZ\x90\0\x03\0\0\0",
    "mach-o": b"\xcf\xfa\xed\xfe",
    "universal mach-o or java": b"\xca\xfe\xba\xbe",
    "wasm": b"\0asm\x01\0\0\0",
    "ar": b"!<arch>\n",
    "bytecode": b"\xa7\x0d\r\n\0\0\0\0",
    "script": b"#!/bin/sh\nid\n",
}


@pytest.mark.parametrize("head", MAGIC.values(), ids=MAGIC.keys())
@pytest.mark.parametrize("name", INNOCENT_NAMES)
def test_programs_and_archives_under_innocent_names(name: str, head: bytes) -> None:
    assert refused(name, head) is not None


def test_a_polyglot_must_be_safetensors_from_the_first_byte() -> None:
    """A header of 640 bytes begins like a pickle of protocol 2; a pickle in front of a header is no safetensors."""
    genuine = safetensors("{}", pad=b" " * (0x280 - 2))
    assert genuine.startswith(b"\x80\x02")
    assert refused("model.safetensors", genuine) is None
    assert refused("model.json", genuine) is not None
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert refused("model.safetensors", pickle.dumps(Payload(), protocol) + WEIGHTS) is not None


def test_the_library_never_imports_an_unpickler() -> None:
    code = (
        "import sys, pkgutil, importlib\n"
        "import pq_registry.format, pq_registry.client\n"
        "for package in (pq_registry.format, pq_registry.client):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print(sorted({'pickle', '_pickle', 'dill', 'joblib', 'torch'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.strip() == "[]"
