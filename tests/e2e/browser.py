# SPDX-License-Identifier: Apache-2.0
"""Chromium for tests: found on this machine, never downloaded. Without it, tests are left out and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOCALES = {"en": "en-GB", "de": "de-DE"}
SETTLED = "() => [...document.querySelectorAll('[data-proof]')].every(panel => panel.dataset.verdict)"
Open = Callable[..., Any]


def require_chromium() -> str:
    """The path of Chromium; skips the module that asks if there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium", path="/usr/bin:/usr/local/bin:/snap/bin")
    if found is None:
        pytest.skip("there is no chromium here (apt-get install chromium)", allow_module_level=True)
    return str(found)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's sandbox does not work as root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=require_chromium(), args=arguments)
        yield started
        started.close()


@contextmanager
def visitor(browser: Any) -> Iterator[Open]:
    """Opens pages in browsers that have never been here; what a console complains about is an error."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_page(*, language: str = "en", viewport: dict[str, int] = WIDE, **options: Any) -> Any:
        context = browser.new_context(locale=LOCALES[language], viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []
