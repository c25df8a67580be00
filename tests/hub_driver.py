# SPDX-License-Identifier: Apache-2.0
"""Runs an unmodified ``huggingface_hub`` of any version in a process of its own: knows nothing of this project.

Standard input is JSON, a list of steps; standard output the list of what each answered, or which exception it ended
with. A step is ``[name, arguments]``: one of the functions below, or else a method of ``HfApi``. Environment variables
say where the Hub is. ``tests.hub_clients`` writes and reads this.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import huggingface_hub


def hashes(folder: str) -> dict[str, str]:
    """Path to SHA-256 of every file below a folder, but for the client's own notes."""
    root = Path(folder)
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    names = {path: path.relative_to(root).as_posix() for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for path, name in names.items() if ".cache/" not in name
    }


def snapshot(**arguments: Any) -> dict[str, Any]:
    """``snapshot_download``, and what then lies there."""
    folder = huggingface_hub.snapshot_download(**arguments)
    return {"folder": folder, "hashes": hashes(folder)}


def download(**arguments: Any) -> dict[str, Any]:
    """``hf_hub_download``, and what then lies there."""
    path = Path(huggingface_hub.hf_hub_download(**arguments))
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def cached_absence(**arguments: Any) -> bool:
    """Whether the client has noted for good that a file is not there."""
    found = huggingface_hub.try_to_load_from_cache(**arguments)
    return found is not None and not isinstance(found, str)


def commit(repo_id: str, operations: list[dict[str, str]], **arguments: Any) -> Any:
    """``create_commit`` of additions (``add``, ``text``), removals (``delete``) and copies (``copy``, ``to``)."""
    made: list[Any] = []
    for one in operations:
        if "add" in one:
            made.append(
                huggingface_hub.CommitOperationAdd(path_in_repo=one["add"], path_or_fileobj=one["text"].encode())
            )
        elif "delete" in one:
            made.append(huggingface_hub.CommitOperationDelete(path_in_repo=one["delete"]))
        else:
            made.append(huggingface_hub.CommitOperationCopy(src_path_in_repo=one["copy"], path_in_repo=one["to"]))
    return huggingface_hub.HfApi().create_commit(repo_id, made, **arguments)


def ranges(path: str, wanted: list[list[int]], **arguments: Any) -> list[str]:
    """Parts of a file through ``HfFileSystem``, in hex."""
    with huggingface_hub.HfFileSystem().open(path, "rb", **arguments) as file:
        found = []
        for start, length in wanted:
            file.seek(start)
            found.append(file.read(length).hex())
    return found


def listed(path: str, **arguments: Any) -> list[str]:
    """Every file that ``HfFileSystem`` finds below a path."""
    return sorted(huggingface_hub.HfFileSystem().find(path, **arguments))


def written(path: str, text: str, **arguments: Any) -> None:
    """Write a file through ``HfFileSystem``."""
    with huggingface_hub.HfFileSystem().open(path, "w", **arguments) as file:
        file.write(text)


FUNCTIONS = {one.__name__: one for one in (hashes, snapshot, download, cached_absence, commit, ranges, listed, written)}


def plain(value: Any, depth: int = 5) -> Any:
    """A client's object as JSON can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        facts = getattr(value, "__dict__", None)  # a commit and a repository's URL are text with facts about them
        return plain(dict(facts), depth - 1) if facts else value
    if isinstance(value, datetime):
        return value.isoformat()
    if depth == 0:
        return repr(value)
    if isinstance(value, dict):
        return {str(key): plain(one, depth - 1) for key, one in value.items()}
    if dataclasses.is_dataclass(value) or not isinstance(value, Iterable):
        return {key: plain(one, depth - 1) for key, one in vars(value).items() if not key.startswith("_")}
    return [plain(one, depth - 1) for one in value]


def step(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What one step answers."""
    try:
        function = FUNCTIONS.get(name) or getattr(huggingface_hub.HfApi(), name)
        return {"value": plain(function(**arguments))}
    except Exception as error:  # noqa: BLE001 - the test says which one it expects
        response = getattr(error, "response", None)
        return {
            "error": type(error).__name__,
            "message": str(error)[:2000],
            "status": getattr(response, "status_code", None),
        }


if __name__ == "__main__":
    answers = [step(name, arguments) for name, arguments in json.load(sys.stdin)]
    json.dump({"version": huggingface_hub.__version__, "answers": answers}, sys.stdout)
