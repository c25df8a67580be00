# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: nothing of the developer's own settings, home or caches is read or written."""

from __future__ import annotations

import os
import signal
import threading
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
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of its own for each test, and no setting from outside; answers the home."""
    from tests.engines import credentials

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
    return home
