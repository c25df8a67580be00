# SPDX-License-Identifier: Apache-2.0
"""Which safetensors files of a release are the weights of a model, as vLLM's own loader would choose them.

It takes the ``*.safetensors`` in the root of the model's directory, and of those only the ones that
``model.safetensors.index.json`` names where there is one: releases also hold the same weights in another layout
(``consolidated.safetensors``) or adapters. A model may say ``allow_patterns_overrides`` instead, and may want
``secondary_weights`` from further files under a prefix. All of it is taken from the signed list of files and the
verified index, never from a directory. What is not in the release, such as an encoder in a repository of its own, or
not safetensors, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.errors import FormatError, UsageError
from pq_registry.format.manifest import SAFETENSORS_SUFFIX, FileEntry
from pq_registry.loader.selection import Run

if TYPE_CHECKING:
    from pq_registry.loader.opening import OpenRelease

INDEX: Final = "model.safetensors.index.json"
_ALL: Final = (f"*{SAFETENSORS_SUFFIX}",)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Files to read, and what is put before the names of their tensors."""

    files: tuple[str, ...]
    prefix: str = ""


def wanted_files(
    opened: OpenRelease, model: object, directory: str, *, chosen: Sequence[str] | None = None
) -> tuple[Wanted, ...]:
    """What ``model`` is to be filled with.

    Args:
        opened: the release.
        model: may have ``allow_patterns_overrides`` and ``secondary_weights``, as vLLM's models do.
        directory: the model's directory, by the name under which secondary weights may name it.
        chosen: the files to take for the model itself, whatever it says.

    Raises:
        UsageError: if there are none, or the model wants something that is not in the release.
        PqregError: if the index cannot be had or is not what was signed.
    """
    patterns = getattr(model, "allow_patterns_overrides", None)
    if chosen is not None:
        primary = tuple(chosen)
    elif patterns is not None:
        primary = _matching(opened, patterns)
    else:
        primary = _indexed(opened)
    secondary = getattr(model, "secondary_weights", ())
    return (Wanted(primary), *(_secondary(opened, source, directory) for source in secondary))


def read_small(opened: OpenRelease, file: FileEntry) -> bytes:
    """The content of one file, verified.

    Raises:
        UsageError: if it is larger than ``limits.READ_FILE_BYTES``.
        PqregError: if it cannot be had, or is not what was signed.
    """
    if file.size > limits.READ_FILE_BYTES:
        raise UsageError(
            f"{file.path} is too large to be read whole", expected=f"at most {limits.READ_FILE_BYTES}", found=file.size
        )
    data = bytearray(file.size)
    if data:
        filler = opened.filler(NullProgress(), Meter())
        try:
            with memoryview(data) as view:
                filler.fill(Run(file, 0, file.shard_count, range(0), None), view, lambda: False)
        finally:
            filler.close()
    return bytes(data)


def _indexed(opened: OpenRelease) -> tuple[str, ...]:
    """The files in the root, of which an index takes its choice."""
    root = _matching(opened, _ALL)
    index = next((file for file in opened.files if file.path.text == INDEX), None)
    if index is None:
        return root
    named = _named(read_small(opened, index))
    missing = sorted(named - set(root))
    if missing:
        raise UsageError(
            f"{INDEX} names files that are not in the release", expected=", ".join(root)[:300],
            found=", ".join(missing)[:300], hint='choose them in the plug-in\'s configuration: "files": [...]',
        )  # fmt: skip
    return tuple(path for path in root if path in named)


def _named(index: bytes) -> set[str]:
    try:
        weight_map = json.loads(index)["weight_map"]
        named = {path for path in weight_map.values() if isinstance(path, str)}
        if len(named) == len(set(map(str, weight_map.values()))):
            return named
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise FormatError(f"{INDEX} is not an index", expected="an object with weight_map: names of tensors and of files")


def _secondary(opened: OpenRelease, source: Any, directory: str) -> Wanted:
    if source.model_or_path != directory:
        raise UsageError(
            f"the model wants weights that are not in {opened.verified.release.name}", found=str(source.model_or_path),
            hint="publish them with the model, and change its configuration to its own directory",
        )  # fmt: skip
    patterns: Iterable[str] = source.allow_patterns_overrides or _ALL
    folder = source.subfolder
    within = [pattern if folder is None else str(PurePosixPath(folder) / pattern) for pattern in patterns]
    return Wanted(_matching(opened, within), source.prefix)


def _matching(opened: OpenRelease, patterns: Iterable[str]) -> tuple[str, ...]:
    """The safetensors files that ``patterns`` mean; as in a shell, ``*`` does not reach into folders."""
    patterns = tuple(patterns)
    parts = [pattern.split("/") for pattern in patterns]
    found = tuple(
        file.path.text
        for file in opened.files
        if file.tensors is not None
        and any(len(one) == len(file.path.parts) and all(map(fnmatchcase, file.path.parts, one)) for one in parts)
    )
    if not found:
        raise UsageError(
            f"{opened.verified.release.name} has no such weights", expected=f"safetensors files like {patterns}",
            found=", ".join(file.path.text for file in opened.files)[:300],
            hint="only safetensors are loaded; nothing else can be verified tensor by tensor without running code",
        )  # fmt: skip
    return found
