# SPDX-License-Identifier: Apache-2.0
"""Which files a conversion makes of which: names, and the index of a model in several files.

Weight files of torch that loaders look for by name, and every ``*.pt`` and ``*.pth``, become the safetensors files that
the same loaders look for; ``*.bin`` of other names are no weights, or nobody knows whose. An index
(``pytorch_model.bin.index.json``) says which file holds which tensor; it is written anew with the new names, and only
if every tensor it names is where it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.path import ReleasePath
from pq_registry.format.tensors import TensorTable

_WEIGHTS = re.compile(r"(?P<stem>(?:diffusion_pytorch|pytorch|adapter)_model[^/]*)\.bin|(?P<any>[^/]+)\.pth?", re.ASCII)
_INDEX = re.compile(r"(?P<stem>[^/]+)\.bin(?P<rest>\.index(?:\.[A-Za-z0-9_-]+)?\.json)", re.ASCII)
_RENAMED = "pytorch_model"
"""transformers looks for pytorch_model.bin and for model.safetensors."""


def converted_path(path: ReleasePath) -> ReleasePath | None:
    """What a weight file of torch is called once it is converted; None if this is none by its name.

    Raises:
        FormatError: if no release can hold a file of the new name.
    """
    match = _WEIGHTS.fullmatch(path.parts[-1])
    if match is None:
        return None
    stem = match["stem"] or match["any"]
    if match["stem"] is not None and stem.startswith(_RENAMED):
        stem = f"model{stem.removeprefix(_RENAMED)}"
    return ReleasePath("/".join((*path.parts[:-1], f"{stem}.safetensors")))


def is_weights(path: ReleasePath) -> bool:
    """Whether this is a weight file of torch by its name."""
    return _WEIGHTS.fullmatch(path.parts[-1]) is not None


def planned_conversions(paths: Iterable[ReleasePath]) -> dict[str, ReleasePath]:
    """Which of these files would be converted, and what each would be called then.

    Raises:
        FormatError: if no release can hold a file of the new name.
    """
    listed = list(paths)
    weights = [path for path in listed if is_weights(path)]
    named = ((path, converted_path(path) or converted_index(path, weights)) for path in listed)
    return {path.text: into for path, into in named if into is not None}


def converted_index(path: ReleasePath, weights: Iterable[ReleasePath]) -> ReleasePath | None:
    """What an index is called once its files are converted; None if it is no index of any of the files ``weights``."""
    match = _INDEX.fullmatch(path.parts[-1])
    if match is None:
        return None
    begins = (f"{match['stem']}-", f"{match['stem']}.")
    if not any(one.parts[:-1] == path.parts[:-1] and one.parts[-1].startswith(begins) for one in weights):
        return None
    renamed = converted_path(ReleasePath("/".join((*path.parts[:-1], f"{match['stem']}.bin"))))
    return None if renamed is None else ReleasePath(f"{renamed.text}{match['rest']}")


@dataclass(frozen=True, slots=True)
class ConvertedWeights:
    """A weight file that was converted, and the tensors it holds."""

    path: ReleasePath
    table: TensorTable


def rewrite_index(path: ReleasePath, data: bytes, weights: Mapping[str, ConvertedWeights]) -> bytes:
    """An index with the names of the converted files.

    Args:
        path: where the index lies.
        data: what it says.
        weights: the converted files, by the path of what each was made of.

    Raises:
        FormatError: if it is no index, or it is not about exactly these files and their tensors.
    """
    value = _read(path, data)
    mapped: dict[str, str] = {}
    places: dict[str, ConvertedWeights] = {}
    names: dict[str, frozenset[str]] = {}
    for tensor, file in value["weight_map"].items():
        if not isinstance(file, str):
            raise FormatError(f"{path} is no index", expected="the name of a file", found=repr(file)[:120])
        if file not in places:
            found = weights.get("/".join((*path.parts[:-1], file)))
            if found is None:
                raise FormatError(f"{path} names a file that was not converted", found=repr(file)[:120])
            places[file] = found
            names[file] = frozenset(entry.name for entry in found.table.tensors)
        if tensor not in names[file]:
            raise FormatError(f"{path} names a tensor that is not there", expected=file, found=repr(tensor)[:120])
        mapped[tensor] = places[file].path.parts[-1]
    unnamed = {name for held in names.values() for name in held} - mapped.keys()
    if unnamed:
        raise FormatError(f"{path} leaves out a tensor of its files", found=repr(min(unnamed))[:120])
    metadata = value.get("metadata", {})
    metadata["total_size"] = sum(one.table.data_size for one in places.values())
    written = {"metadata": metadata, "weight_map": dict(sorted(mapped.items()))}
    return json.dumps(written, indent=2, sort_keys=True).encode() + b"\n"


def _read(path: ReleasePath, data: bytes) -> dict[str, dict[str, object]]:
    # Not by strict_json: metadata holds fractions, which are nothing of ours. Duplicate keys are refused all the same.
    def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        return found

    def refuse(_text: str) -> None:
        raise ValueError

    if len(data) > limits.CONVERT_INDEX_BYTES:
        raise FormatError(f"{path} is too large", expected=f"at most {limits.CONVERT_INDEX_BYTES} bytes")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=distinct, parse_constant=refuse)
    except (ValueError, RecursionError):
        value = None
    if (
        not isinstance(value, dict)
        or not value.keys() <= {"metadata", "weight_map"}
        or not isinstance(value.get("weight_map"), dict)
        or not value["weight_map"]
        or not isinstance(value.get("metadata", {}), dict)
    ):
        raise FormatError(f"{path} is no index", expected="an object with weight_map, and metadata or not")
    return value
