# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: nothing of the developer's own settings, home or caches is read or written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A shell starts background jobs with SIGINT ignored, and children inherit that: whoever runs the suite in one (some CI
# does) would see every test of an interrupt fail.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SETTINGS = ("PQREG_", "XDG_", "HF_", "AWS_")
pytest_plugins = ["tests.fixtures_server", "tests.engines"]

# Tests share their machine with one another: how long one example takes says nothing about the code.
hypothesis.settings.register_profile(
    "house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def isolated_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A home of its own for each test, and no setting from outside; answers the home."""
    from tests.engines import credentials
    from tests.stack import SHARED, forget_below

    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(SETTINGS) or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    yield home
    if SHARED and "tmp_path" in request.node.funcargs:
        forget_below(request.node.funcargs["tmp_path"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the second stack: only what touches a registry without bringing stores, and not what is about directories."""
    from tests.stack import SHARED, is_for_both

    if not SHARED:
        return
    left_out = [item for item in items if not is_for_both(Path(item.path))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if is_for_both(Path(item.path))]
    for item in items:
        for mark in item.iter_markers("directory_only"):
            item.add_marker(pytest.mark.skip(f"only with a data directory: {mark.args[0]}"))
