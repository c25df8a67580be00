# SPDX-License-Identifier: Apache-2.0
"""G4: what the container installs is pinned by version and hash, and is what pyproject.toml asks for (`make lock`)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ENTRY = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\]+?))? \\\n(?P<hashes>(?: {4}--hash=.*\n)+)",
    re.MULTILINE,
)
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?\n")


def locked(name: str) -> dict[str, list[tuple[Version, str | None]]]:
    """Every version of every distribution of a lock, with its marker."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    found: dict[str, list[tuple[Version, str | None]]] = {}
    rest = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    for entry in ENTRY.finditer(rest):
        assert HASH.sub("", entry["hashes"]) == "", entry["name"]
        found.setdefault(canonicalize_name(entry["name"]), []).append((Version(entry["version"]), entry["marker"]))
    assert ENTRY.sub("", rest) == "", "lines that are no pinned requirement"
    return found


def asked() -> list[str]:
    extras = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *extras["server"], *extras["s3"], *extras["postgres"]]


@pytest.mark.parametrize("requirement", asked())
def test_g4_the_container_gets_what_the_project_asks_for(requirement: str) -> None:
    wanted = Requirement(requirement)
    versions = locked("container.lock")[canonicalize_name(wanted.name)]
    assert all(version in wanted.specifier for version, _ in versions), f"{requirement}: run make lock"


def test_g4_the_builder_is_pinned_too() -> None:
    found = locked("build.lock")
    assert {"pip", "hatchling"} <= set(found)
    (backend,) = [
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    ]
    assert all(version in backend.specifier for version, _ in found["hatchling"])


def test_g4_nothing_is_there_twice_for_the_same_machine() -> None:
    for name in ("container.lock", "build.lock"):
        for distribution, versions in locked(name).items():
            markers = [marker for _, marker in versions]
            assert len(versions) == 1 or (None not in markers and len(set(markers)) == len(markers)), distribution
