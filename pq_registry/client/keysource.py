# SPDX-License-Identifier: Apache-2.0
"""Where the library gets recipient keys: from whatever is installed for it, so that it need not know custody.

A distribution offers a class through the entry point group ``pq_registry.key_sources``; its ``from_settings`` makes a
``crypto.recipient.RecipientSource``. The one of this project reads ``.pqkey`` files.
"""

from __future__ import annotations

from pathlib import Path

from pq_registry.crypto.recipient import RecipientKey, RecipientSource
from pq_registry.errors import KeyCustodyError
from pq_registry.settings import Settings

GROUP = "pq_registry.key_sources"
DEFAULT = "pqreg_keys.source:FileKeySource"
"""What is tried where nothing is registered: a source tree that is not installed has no entry points."""


def recipient_key(settings: Settings) -> RecipientKey | None:
    """The configured recipient key, unlocked; None if none is configured.

    Raises:
        KeyCustodyError: if it cannot be used, or nothing is installed that can read it.
        FormatError: if the file does not hold a key.
    """
    path = settings.get("recipient_key")
    if path is None:
        return None
    # Here, because it brings zipfile along, which nothing that only handles models should have at hand.
    from importlib.metadata import EntryPoint, entry_points

    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    for point in points or [EntryPoint("default", DEFAULT, GROUP)]:
        try:
            offered = point.load()
        except (ImportError, AttributeError):
            continue
        source = offered.from_settings(settings)
        if isinstance(source, RecipientSource):
            return source.open_recipient(Path(path))
    raise KeyCustodyError(
        "nothing is installed that reads secret key files",
        expected=f"an entry point in the group {GROUP}",
        hint="install the distribution pq-registry again; or give the library a key object",
    )
