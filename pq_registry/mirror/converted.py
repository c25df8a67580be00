# SPDX-License-Identifier: Apache-2.0
"""The conversions of one import: in its staging directory, after everything in it was verified as it came.

What was converted is set aside among the library's notes, where no push looks, and put back by the next run: an import
that was cut off after its conversion does not fetch the originals again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pq_registry import __version__, limits
from pq_registry.client.progress import Progress
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.format.digest import Digest
from pq_registry.format.importfiles import ConvertedFile
from pq_registry.format.path import ReleasePath
from pq_registry.mirror.converter import convert
from pq_registry.mirror.converting import ConvertedWeights, is_weights, rewrite_index

_ASIDE = "pqreg-converted"


@dataclass(frozen=True, slots=True)
class Converted:
    """What was made, by the path of what it was made of.

    ``network`` says whether a file was read by a process that could have reached a network, because the kernel gave it
    none of its own.
    """

    files: Mapping[str, ConvertedFile]
    network: bool = False


def convert_files(place: Path, planned: Mapping[str, ReleasePath], progress: Progress) -> Converted:
    """Convert the files ``planned`` of the directory ``place``: weights first, then what says where they are.

    Raises:
        UnsafeFileType: if one holds anything but tensors by name.
        FormatError: if one is damaged, or an index is not about the tensors that are there.
        StorageError: if the disk fails or has no room.
    """
    paths = {text: ReleasePath(text) for text in sorted(planned)}
    weights = [path for path in paths.values() if is_weights(path)]
    made: dict[str, ConvertedFile] = {}
    tables: dict[str, ConvertedWeights] = {}
    network = False
    with reported("look at", place):
        total = sum(os.stat(path.under(place)).st_size for path in weights)
    progress.start("convert", total)
    try:
        for path in weights:
            into = planned[path.text]
            done = convert(path.under(place), into.under(place), advance=progress.advance)
            made[path.text] = ConvertedFile(
                path=into, size=done.size, sha256=done.sha256, tool=__version__, torch=done.torch
            )
            tables[path.text] = ConvertedWeights(into, done.table)
            network = network or done.network
    finally:
        progress.done()
    for text, path in paths.items():
        if text not in made:
            into = planned[text]
            data = rewrite_index(path, _read(path.under(place)), tables)
            write_file(into.under(place), data)
            made[text] = ConvertedFile(path=into, size=len(data), sha256=Digest.of(data), tool=__version__)
    return Converted(made, network)


def set_aside(place: Path, notes: str, planned: Mapping[str, ReleasePath]) -> None:
    """Move the originals out of the directory that is to be published. Raises StorageError."""
    for text in planned:
        path = ReleasePath(text)
        aside = path.under(place / notes / _ASIDE)
        make_directory(aside.parent)
        with reported("move", path.under(place)):
            os.rename(path.under(place), aside)


def put_back(place: Path, notes: str, planned: Mapping[str, ReleasePath]) -> None:
    """Move originals that a run before set aside to where they were fetched; others go. Raises StorageError."""
    aside = place / notes / _ASIDE
    with reported("move back from", aside):
        if not aside.is_dir():
            return
        for text in planned:
            path = ReleasePath(text)
            if path.under(aside).is_file() and not path.under(place).exists():
                make_directory(path.under(place).parent)
                os.rename(path.under(aside), path.under(place))
        shutil.rmtree(aside)


def _read(path: Path) -> bytes:
    with reported("read", path), path.open("rb") as file:
        return file.read(limits.CONVERT_INDEX_BYTES + 1)
