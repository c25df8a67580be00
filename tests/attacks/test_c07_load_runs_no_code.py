# SPDX-License-Identifier: Apache-2.0
"""C7: loading runs no code of a release: nothing is unpickled, and files that could execute are not even opened.

numpy imports the module pickle for itself, so its absence from ``sys.modules`` cannot be demanded of a process that
has arrays. What can be: the interpreter's own audit events show that nothing is unpickled, marshalled or compiled from
a release, and that no file of it is opened besides evidence and safetensors.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.releases import release_directory, write_trust
from tests.tensors import safetensors_bytes

SCRIPT = """
import sys
from pathlib import Path
root, trust = Path(sys.argv[1]), sys.argv[2]
import numpy, ml_dtypes
import pq_registry
from pq_registry.loader import api
from pq_registry.format.instant import parse_instant
api.utc_now = lambda: parse_instant("2026-11-21T12:00:00Z")
opened = []
def watch(event, arguments):
    if event in ("pickle.find_class", "marshal.loads", "marshal.load", "exec", "compile", "subprocess.Popen"):
        frame = sys._getframe(1)
        if event in ("exec", "marshal.loads") and "importlib" in frame.f_code.co_filename:
            return  # a module of our own being imported
        if event == "exec" and frame.f_code.co_filename.endswith(("enum.py", "dataclasses.py", "typing.py")):
            return
        raise RuntimeError(f"{event} {arguments!r:.200} in {frame.f_code.co_filename}")
    if event == "open":
        opened.append(str(arguments[0]))
for warm in (False, True):  # the first pass imports what it needs
    if warm:
        sys.addaudithook(watch)
    tensors = pq_registry.load(root, expect="acme/minilm", trust=trust, framework="numpy")
    streamed = dict(pq_registry.iter_tensors(root, expect="acme/minilm", trust=trust, framework="numpy"))
assert tensors.keys() == streamed.keys() == {"w"}
names = {Path(path).name for path in opened}
assert names & {"model.safetensors"}, names
assert not names & {"weights.pt", "code.py", "model.bin"}, names
assert "torch" not in sys.modules
print("done")
"""


def test_c07_nothing_is_unpickled_and_nothing_else_is_opened(tmp_path: Path):
    content, _ = safetensors_bytes({"w": ("BF16", (100, 3))}, 1)
    files = {
        "model.safetensors": content,
        "weights.pt": b"PK\x03\x04 not that anyone looks",
        "code.py": b"raise SystemExit('executed')",
        "model.bin": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    }
    release_directory(tmp_path / "r", files)
    trust = write_trust(tmp_path / "trust.json")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "r"), str(trust)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "done\n"


def test_c07_the_loader_needs_no_torch_to_be_imported(tmp_path: Path):
    """torch brings unpickling, compilers and subprocesses; a node that asks for numpy never imports it."""
    code = "import sys, pq_registry.loader.api; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert result.stdout == "False\n", result.stderr
