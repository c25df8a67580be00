# SPDX-License-Identifier: Apache-2.0
"""The specifications say what the code does: limits, ignored paths, dtypes and file types."""

from __future__ import annotations

import re
from pathlib import Path

from pq_registry import limits
from pq_registry.format import executables
from pq_registry.format.statement import IGNORE_PATHS
from pq_registry.format.tensors import DTYPES

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec"


def page(name: str) -> str:
    return (SPEC / name).read_text("utf-8")


def test_the_limits_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)`: .* \| (\d+) \|$", page("names.md"), re.MULTILINE)
    assert len(rows) > 20
    assert {name: int(value) for name, value in rows} == {name: getattr(limits, name) for name, _ in rows}


def test_the_ignored_paths_are_listed_in_order() -> None:
    text = page("statements.md").split("`ignore_paths` is exactly ")[1].split(";")[0]
    assert tuple(re.findall(r"`([^`]+)`", text)) == IGNORE_PATHS


def test_every_dtype_is_listed_with_its_bits() -> None:
    rows = re.findall(r"^\| (\d+) \| ((?:`[A-Z0-9_]+` ?)+) \|$", page("manifest.md"), re.MULTILINE)
    listed = {dtype: int(bits) for bits, names in rows for dtype in re.findall(r"`(\w+)`", names)}
    assert listed == dict(DTYPES)


def test_every_file_type_is_listed() -> None:
    text = page("file-types.md")
    names, rest = text.split("1. **Names**")[1].split("2. **`.safetensors`**")
    assert set(re.findall(r"`(\.\w+)`", names)) == set(executables._NAMES)
    data = rest.split("4. **The rest**")[1].split("What this cannot do")[0]
    assert set(re.findall(r"`(\.\w+)`", data)) == set(executables._DATA)
