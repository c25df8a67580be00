# SPDX-License-Identifier: Apache-2.0
"""Fixtures around a real registry service on a free loopback port.

The service's parts are imported by the fixtures themselves: tests that need none do not pay for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server_harness import RegistryProcess, RunningRegistry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    """An empty registry of this test's own: ``url``, ``admin_token``, ``data``, and HTTP methods as its admin."""
    from tests.server_harness import running

    with running(tmp_path / "registry") as service:
        yield service


@pytest.fixture(scope="module")
def shared_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """A registry shared by the tests of one module, which must not mind each other."""
    from tests.server_harness import running

    with running(tmp_path_factory.mktemp("shared") / "registry") as service:
        yield service


@pytest.fixture
def registry_process(tmp_path: Path) -> Iterator[RegistryProcess]:
    """A registry in a process of its own, started; ``kill``, ``stop`` and ``start`` it at will."""
    from tests.server_harness import RegistryProcess

    process = RegistryProcess(tmp_path / "registry")
    try:
        yield process.start()
    finally:
        process.close()
