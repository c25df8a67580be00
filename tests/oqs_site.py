# SPDX-License-Identifier: Apache-2.0
"""liboqs for tests: where it is, or the reason for which its tests are left out."""

from __future__ import annotations

import importlib.util
import shutil
from functools import cache
from pathlib import Path

import pytest

from pq_registry.crypto import liboqs
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.errors import ProviderUnavailable


@cache
def _found() -> Path | str:
    if importlib.util.find_spec("oqs") is None:
        return "liboqs-python is not installed (pip install 'pq-registry[liboqs]')"
    try:
        return liboqs.installed()
    except ProviderUnavailable as error:
        tools = (
            "" if shutil.which("cargo") and shutil.which("cmake") else ", and there is no cargo or cmake to build it"
        )
        return f"{error.message}{tools} (make liboqs)"


def library() -> Path:
    """The library file; skips the test where there is none."""
    found = _found()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def providers() -> list[Provider]:
    """Every provider that is installed; attacks on verification are tried on all of them."""
    found = _found()
    return [OPENSSL] if isinstance(found, str) else [OPENSSL, liboqs.LibOqsProvider(found)]


needs_liboqs = pytest.mark.skipif(isinstance(_found(), str), reason=str(_found()))
