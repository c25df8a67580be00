# SPDX-License-Identifier: Apache-2.0
"""C7 at push: what can execute code is not published unknowingly, and what poses as safetensors not at all.

CVE-2025-32434 and picklescan's many bypasses: loaders that look at a name, scanners that look for known bad content.
Push knows what it allows, by content and by name, refuses the rest before a byte is hashed or sent, and never unpickles
or unpacks anything to find out.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry.client import push as module
from pq_registry.client.hashing import hash_files
from pq_registry.errors import FormatError, ServerRefused, UnsafeFileType
from tests.format_samples import WEIGHTS, safetensors, tensor
from tests.publishing import Registry, make_model, observed, publisher_at, push_as, running_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


class Bomb:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('executed')",))


PICKLE = pickle.dumps(Bomb(), protocol=2)
POLYGLOTS = {
    "a pickle": PICKLE,
    "a zip": b"PK\x03\x04" + bytes(200),
    "safetensors with a pickle behind it": WEIGHTS + PICKLE,
    "a pickle with a header behind it": PICKLE + WEIGHTS,
    "a hole for a payload": safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 8, 12)}, bytes(12)),
    "one name twice": safetensors(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
}


@pytest.mark.parametrize("kind", POLYGLOTS)
@pytest.mark.parametrize("allowed", [False, True], ids=["", "allow-unsafe"])
def test_c7_a_file_that_poses_as_safetensors_is_never_published(
    registry: Registry, tmp_path: Path, kind: str, allowed: bool
) -> None:
    model = make_model(tmp_path / "model", kind)
    (model / "model-00002.safetensors").write_bytes(POLYGLOTS[kind])
    asked: list[str] = []
    client = observed(registry.client(), before=lambda method, path: asked.append(path))
    with pytest.raises(FormatError, match=r"'model-00002\.safetensors' is not a sound safetensors file"):
        push_as(publisher_at(registry, tmp_path, client=client), model, "acme/posing", allow_unsafe=allowed)
    assert asked == []
    assert registry.releases("acme/posing") == []


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "config.json", "notes.txt", "sub/weights.gguf", "tokenizer", "model.PT", ".hidden"]
)
def test_c7_a_pickle_is_refused_under_every_name(registry: Registry, tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "model", name)
    (model / name).write_bytes(PICKLE)
    with pytest.raises(UnsafeFileType) as caught:
        push_as(publisher_at(registry, tmp_path), model, "acme/pickled")
    assert name in (caught.value.found or "")
    assert registry.releases("acme/pickled") == []


def test_c7_the_service_parses_safetensors_itself(registry: Registry, tmp_path: Path) -> None:
    """A publisher who skips every check of the client still cannot publish a table that is not the file's."""
    model = make_model(tmp_path / "model", "lying")
    original = hash_files

    def lying(*arguments, **options):
        entries = original(*arguments, **options)
        return tuple(
            replace(entry, tensors=replace(entry.tensors, tensors=(replace(entry.tensors.tensors[0], name="other"),)))
            if entry.tensors
            else entry
            for entry in entries
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "hash_files", lying)
        with pytest.raises(Exception, match="tensor table") as caught:
            push_as(publisher_at(registry, tmp_path), model, "acme/lying")
    assert not isinstance(caught.value, ServerRefused)
    assert registry.releases("acme/lying") == []


def test_c7_nothing_that_runs_code_is_imported_by_a_push(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "imports")
    (model / "pytorch_model.bin").write_bytes(PICKLE)
    script = f"""
import sys
from pathlib import Path
from pq_registry.client.scan import SourceDirectory
from pq_registry.client.screen import screen
from pq_registry.client import push
with SourceDirectory(Path({str(model)!r})) as source:
    print(screen(source, source.scan(), allow_unsafe=True))
print(sorted(set(sys.modules) & {{"pickle", "tarfile", "zipfile", "torch", "dill"}}))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.splitlines()[0] == "('pytorch_model.bin',)"
    assert done.stdout.splitlines()[1] == "[]"
