# SPDX-License-Identifier: Apache-2.0
"""C4, hostile names: what hides under the name of a file that a verifier does not look into.

A verified directory holds its release and, besides, only what DESIGN §4 lists. A folder that is named like a piece of
evidence is none of that, nor is a link, nor evidence where an unsealed directory has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry.client.verify import verify_directory
from pq_registry.errors import FileSetMismatch
from tests.sealed_registry import sealed_registry
from tests.sealing_site import SealingSite, model_files, recipient, write_files

EVIDENCE = ("pqreg.json", "model.sig", "model.pq.sig", "model.tlog-proof")


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SealingSite, Path, Path]]:
    """An unsealed directory, and one still sealed."""
    home = tmp_path_factory.mktemp("c4")
    with sealed_registry() as registry:
        site = SealingSite(registry, home)
        site.push(write_files(home / "model", model_files()), recipient().public)
        site.pull(recipient(), home / "unsealed")
        site.pull_sealed(home / "sealed")
        yield site, home / "unsealed", home / "sealed"
        site.close()


def folder(path: Path) -> None:
    path.mkdir()
    (path / "code.py").write_text("print('run me')")


def link(path: Path) -> None:
    os.symlink("/etc/passwd", path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [folder, link, pipe])
@pytest.mark.parametrize("name", EVIDENCE)
def test_c4_nothing_hides_in_an_unsealed_directory(
    pulled: tuple[SealingSite, Path, Path], tmp_path: Path, name: str, plant: Callable[[Path], None]
) -> None:
    site, unsealed, _sealed = pulled
    copy = tmp_path / "copy"
    copied(unsealed, copy)
    verify_directory(copy, site.verifier())
    (copy / name).unlink(missing_ok=True)
    plant(copy / name)
    for full in (False, True):
        with pytest.raises(FileSetMismatch):
            verify_directory(copy, site.verifier(), full=full)


@pytest.mark.parametrize("name", ["model.pq.sig", "model.tlog-proof"])
def test_c4_an_unsealed_directory_has_no_evidence_of_its_own(
    pulled: tuple[SealingSite, Path, Path], tmp_path: Path, name: str
) -> None:
    site, unsealed, _sealed = pulled
    copy = tmp_path / "copy"
    copied(unsealed, copy)
    (copy / name).write_bytes(b"{}")
    with pytest.raises(FileSetMismatch):
        verify_directory(copy, site.verifier())


def test_c4_an_unsealed_directory_may_lack_the_bundle_for_stock_tools(
    pulled: tuple[SealingSite, Path, Path], tmp_path: Path
) -> None:
    site, unsealed, _sealed = pulled
    copy = tmp_path / "copy"
    copied(unsealed, copy)
    (copy / "model.sig").unlink()
    verify_directory(copy, site.verifier())


@pytest.mark.parametrize("plant", [folder, link, pipe])
def test_c4_nothing_hides_beside_the_evidence_of_a_release(
    pulled: tuple[SealingSite, Path, Path], tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    site, _unsealed, sealed = pulled
    copy = tmp_path / "copy"
    copied(sealed, copy)
    verify_directory(copy, site.verifier())
    plant(copy / "model.tlog-proof")
    with pytest.raises(FileSetMismatch):
        verify_directory(copy, site.verifier())


def copied(directory: Path, target: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(directory)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
