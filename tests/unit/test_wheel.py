# SPDX-License-Identifier: Apache-2.0
"""What is installed: three import names, nothing that does not belong there, and nothing heavy (G5)."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "pkcs11": "python-pkcs11", "OpenSSL": "pyopenssl", "yaml": "pyyaml"}
HEAVY = (
    "alembic",
    "boto3",
    "botocore",
    "fastapi",
    "httptools",
    "huggingface_hub",
    "jinja2",
    "lz4",
    "markupsafe",
    "nh3",
    "oqs",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "requests",
    "sqlalchemy",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
    "uvloop",
)
BASE = ("pq_registry/format", "pq_registry/crypto", "pq_registry/client", "pq_registry/loader", "keys/pqreg_keys")


def build_wheel(into: Path, *, stray: bool) -> Path:
    """Build a wheel of a copy of the sources, with or without things lying about that must not go in."""
    tree = into / "tree"
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for folder in ("pq_registry", "cli", "keys"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignore)
    for file in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / file, tree / file)
    if stray:
        (tree / "pq_registry" / "__pycache__").mkdir()
        for path in (
            "pq_registry/__pycache__/x.cpython-311.pyc",
            "pq_registry/.env",
            "keys/pqreg_keys/alice.pqkey",
            "cli/pqreg_cli/admin.token",
            "cli/stray.py",
        ):
            (tree / path).write_bytes(b"secret")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into / "dist")]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=120)
    (wheel,) = (into / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("first"), stray=False)


def test_g5_two_builds_are_bit_identical_and_strays_stay_out(wheel: Path, tmp_path: Path) -> None:
    assert build_wheel(tmp_path, stray=True).read_bytes() == wheel.read_bytes()


def test_the_wheel_has_three_import_names_and_their_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"pq_registry", "pqreg_cli", "pqreg_keys"}
    assert {f"{top}/py.typed" for top in tops} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".env", ".pqkey", ".token"))]


def is_scratch(path: Path) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(ROOT).parts)


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for parent, package in ((ROOT, "pq_registry"), (ROOT / "cli", "pqreg_cli"), (ROOT / "keys", "pqreg_keys")):
        built = [path for path in (parent / package).rglob("*") if path.is_file() and not is_scratch(path)]
        assert {path.relative_to(parent).as_posix() for path in built} <= names


def test_the_wheel_asks_for_nothing_heavy(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))
    always = re.findall(r"^Requires-Dist: ([\w.-]+)(?![^\n]*extra ==)", metadata, re.MULTILINE)
    assert always
    assert not {requirement.lower() for requirement in always} & set(HEAVY)
    assert "License-Expression: Apache-2.0" in metadata


@pytest.mark.parametrize("name", ["cli", "keys", "tests", "docs"])
def test_folders_of_the_repository_are_no_import_names(wheel: Path, tmp_path: Path, name: str) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pq_registry, pqreg_cli, pqreg_keys; import {name}"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"ModuleNotFoundError: No module named '{name}'" in result.stderr


def modules(folder: str) -> list[str]:
    """Every module below a folder, by its import name."""
    root = ROOT / folder
    start = next(parent for parent in (ROOT / "cli", ROOT / "keys", ROOT) if root.is_relative_to(parent))
    names = (path.relative_to(start).with_suffix("").as_posix().replace("/", ".") for path in root.rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names if not name.endswith("__main__"))


BLOCKER = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError(f"{{name}} is not part of a base install")

sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    importlib.import_module(name)
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""


def import_without_extras(names: list[str], heavy: Iterable[str] = HEAVY) -> set[str]:
    """Import modules in a process where the extras cannot be imported; answers what was imported then."""
    code = BLOCKER.format(heavy=tuple(heavy), names=names)
    path = "import sys; sys.path[:0] = " + repr([str(ROOT), str(ROOT / "cli"), str(ROOT / "keys")])
    result = subprocess.run(
        [sys.executable, "-I", "-c", path + "\n" + code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_client_the_loader_and_the_keys_need_no_extra() -> None:
    # The kernels alone are written in another language than ours; what brings them in asks whether that is there.
    names = [name for folder in BASE for name in modules(folder) if not name.endswith("_triton")]
    assert len(names) > 20
    assert not import_without_extras(["pq_registry", *names]) & set(HEAVY)


def test_a_gateway_needs_neither_the_service_nor_its_database() -> None:
    heavy = set(HEAVY) - {"httptools", "prometheus_client", "starlette", "uvicorn", "uvloop"}
    assert not import_without_extras(modules("pq_registry/gateway"), heavy) & heavy


def test_the_command_line_starts_without_extras_and_without_numpy() -> None:
    assert not import_without_extras(["pq_registry", "pqreg_cli.main"]) & {*HEAVY, "numpy", "cryptography", "urllib3"}


def third_party(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"pq_registry", "pqreg_cli", "pqreg_keys"}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;! ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_every_import_is_declared_where_it_is_used() -> None:
    base = distributions(PROJECT["project"]["dependencies"])
    extras = {name: distributions(needs) for name, needs in PROJECT["project"]["optional-dependencies"].items()}
    allowed = {
        "keys/pqreg_keys": base | extras["pkcs11"],
        # vllm: its plug-in is imported by vLLM and by nobody else.
        "pq_registry/loader": base.union(
            *(extras[name] for name in ("cuda", "fsspec", "torch", "transformers")), {"vllm"}
        ),
        "pq_registry/mirror": base.union(*(extras[name] for name in ("convert", "hf", "mirror", "sigstore"))),
        "pq_registry/gateway": base | extras["gateway"] | extras["server"] | {"anyio"},
        "pq_registry/server": base | extras["server"] | {"anyio", "markupsafe", "pydantic", "starlette"},
        "pq_registry/storage": base | extras["server"] | extras["postgres"] | extras["s3"] | {"botocore"},
        "pq_registry/service": base | extras["server"],
        "cli/pqreg_cli": base.union(*(extras[name] for name in ("postgres", "s3", "torch")), {"botocore"}),
    }
    for path in (path for folder in ("pq_registry", "cli", "keys") for path in (ROOT / folder).rglob("*.py")):
        place = "/".join(path.relative_to(ROOT).parts[:2])
        used = {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in third_party(path)}
        assert used <= allowed.get(place, base), f"{path.relative_to(ROOT)}: {sorted(used - allowed.get(place, base))}"
