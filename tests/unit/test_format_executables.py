# SPDX-License-Identifier: Apache-2.0
"""What may be published: data in a format that is recognised."""

from __future__ import annotations

import pickletools

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.format import pickle_opcodes
from pq_registry.format.executables import refusal
from pq_registry.format.path import ReleasePath
from tests.format_samples import WEIGHTS

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }   \n"


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("model.safetensors", WEIGHTS),
        ("sub/model-00001-of-00002.SAFETENSORS", WEIGHTS),
        ("config.json", b'{"a":1}'),
        ("config.json", b"{}\r\n"),
        ("config.json", b""),
        ("model.safetensors.index.json", b'{"weight_map":{}}'),
        ("tokenizer.json", '{"\U0001f600":1}'.encode()),
        ("cut.json", ('"' + "é" * limits.HEAD_BYTES).encode()[: limits.HEAD_BYTES]),
        ("vocab.txt", b"[PAD]\n[unused0]\n!\n"),
        ("merges.txt", b"#version: 0.2\ni n\nt h\n"),
        ("words.txt", b"cat\ndog\nRome\n"),
        ("README.md", b"MZ is a prefix of many words.\n"),
        ("README.md", b"PKware made the zip format.\n"),
        ("LICENSE", b"Apache License\n"),
        ("tokenizer.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n"),
        ("chat_template.jinja", b"{% for message in messages %}"),
        ("config.yaml", b"a: 1\n"),
        ("x.gguf", b"GGUF\x03\0\0\0"),
        ("x.onnx", b"\x08\x07\x12\x07pytorch"),
        ("x.tflite", b"\x1c\0\0\0TFL3"),
        ("x.npy", NPY),
        ("logo.png", PNG),
        ("photo.JPG", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("paper.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
        ("speech.wav", b"RIFF\x24\0\0\0WAVE"),
    ],
)
def test_data_is_published(path: str, head: bytes) -> None:
    assert refusal(ReleasePath(path), head) is None


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("unknown", b"\xfe\xff\0\x01"),
        ("unknown.dat", b"\0\0\0\0"),
        ("latin1.txt", "Löwe".encode("latin-1")),
        ("utf16.txt", "text".encode("utf-16")),
        ("config.json", b"{}\0"),
        ("logo.png", b"GIF89a"),
        ("x.gguf", b"version https://git-lfs.github.com/spec/v1\n"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ("model.safetensors", b""),
        ("config.yaml", b"a: !!python/object/apply:os.system ['id']\n"),
        ("config.yml", b"a: !<tag:yaml.org,2002:python/name:os.system> x\n"),
    ],
)
def test_what_is_not_recognised_is_not(path: str, head: bytes) -> None:
    reason = refusal(ReleasePath(path), head)
    assert reason is not None
    assert reason.startswith("is ")


def test_arrays_of_objects_are_pickles() -> None:
    assert np.dtype("O").str == "|O"
    for descr in (b"'|O'", b"[('a', '|O')]", b"'<f4' if 1 else '|O'"):
        assert refusal(ReleasePath("x.npy"), NPY.replace(b"'<f4'", descr)) is not None


def test_the_walk_knows_every_opcode() -> None:
    """Against the standard library's own table: arguments and the number of values pushed and popped."""
    forms = pickle_opcodes._FORMS
    assert {chr(code) for code in forms} == {opcode.code for opcode in pickletools.opcodes}
    for opcode in pickletools.opcodes:
        form = forms[ord(opcode.code)]
        before, after = list(opcode.stack_before), list(opcode.stack_after)
        if pickletools.markobject in before:
            assert form.pops == pickle_opcodes._TO_MARK, opcode.name
            # What lies below the mark stays where it is in our count.
            below = before.index(pickletools.markobject)
            assert form.pushes == len(after) - below, opcode.name
        elif opcode.name not in ("MARK", "MEMOIZE"):  # a mark counts for itself; MEMOIZE only looks at the top
            assert (form.pops, form.pushes) == (len(before), len(after)), opcode.name
        argument = opcode.arg
        if argument is None:
            assert (form.fixed, form.lines, form.length) == (0, 0, 0), opcode.name
        elif argument.n >= 0:
            assert form.fixed == argument.n, opcode.name
        elif argument.n == pickletools.UP_TO_NEWLINE:
            assert form.lines == (2 if opcode.name in ("GLOBAL", "INST") else 1), opcode.name
        else:
            widths = {
                pickletools.TAKEN_FROM_ARGUMENT1: 1,
                pickletools.TAKEN_FROM_ARGUMENT4: 4,
                pickletools.TAKEN_FROM_ARGUMENT4U: 4,
                pickletools.TAKEN_FROM_ARGUMENT8U: 8,
            }
            assert form.length == widths[argument.n], opcode.name
