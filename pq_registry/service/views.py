# SPDX-License-Identifier: Apache-2.0
"""Everything the audit page reads besides what the API answers, in one place."""

from __future__ import annotations

from datetime import datetime

from pq_registry.service.clock import Clock
from pq_registry.service.logview import LogView
from pq_registry.service.overview import Overview
from pq_registry.service.signatures import Signatures
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue


class Views:
    """The use cases of the page."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore, clock: Clock) -> None:
        self.overview = Overview(catalogue, clock)
        self.signatures = Signatures(catalogue, blobs)
        self.log = LogView(catalogue)
        self._clock = clock

    def now(self) -> datetime:
        """The service's present instant, against which ages and expiries are shown."""
        return self._clock()
