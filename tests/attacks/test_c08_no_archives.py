# SPDX-License-Identifier: Apache-2.0
"""C8: no archive is ever unpacked, so no two readers can disagree about one (PyPI's ZIP confusion of 2025-08)."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pq_registry", "cli/pqreg_cli", "keys/pqreg_keys")
UNPACKERS = {
    "tarfile",
    "zipfile",
    "zipimport",
    "gzip",
    "bz2",
    "lzma",
    "zlib.decompress",
    "zlib.decompressobj",
    "shutil.unpack_archive",
}
UNPICKLERS = {"pickle", "_pickle", "pickletools", "marshal", "shelve", "copyreg", "dill", "cloudpickle", "joblib"}


def imported(source: str) -> set[str]:
    """Every module a source imports, and every name it imports from one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def forbidden(source: str) -> set[str]:
    names = imported(source)
    return {
        name for name in names for banned in UNPACKERS | UNPICKLERS if name == banned or name.startswith(banned + ".")
    }


def test_no_source_imports_an_unpacker() -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(sources) > 30
    assert not {str(path.relative_to(ROOT)): names for path in sources if (names := forbidden(path.read_text("utf-8")))}


def test_the_test_can_fail() -> None:
    for source in (
        "import zipfile",
        "import os, tarfile as t",
        "from zipfile import ZipFile",
        "def f():\n    import pickle",
        "import importlib\nimportlib.import_module('tarfile')",
        "import shutil\nshutil.unpack_archive('x')",
    ):
        assert forbidden(source), source
