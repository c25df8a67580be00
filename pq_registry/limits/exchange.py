# SPDX-License-Identifier: Apache-2.0
"""Bounds of what moves between registries: replication, and bundles for sites without a network."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.documents import INNER_BYTES
from pq_registry.limits.units import GIB, KIB, MIB

# -- bundles ---------------------------------------------------------------------------------------------------------
BUNDLE_INDEX_BYTES: Final = 32 * MIB
"""bundle.json: about 130 bytes per file, and per GiB of a larger one."""
BUNDLE_VOLUME_INDEX_BYTES: Final = KIB
"""volume.json: about 170 bytes."""
BUNDLE_DOCUMENTS: Final = 20_000
"""Statements and receipts in a bundle; a tag that was renewed daily has as many after 27 years."""
BUNDLE_DOCUMENT_BYTES: Final = INNER_BYTES
"""The largest of them: a release's envelope or its manifest."""
BUNDLE_DOCUMENTS_BYTES: Final = 256 * MIB
"""All of them together, which an import holds in memory."""
BUNDLE_VOLUMES: Final = 10_000
"""Volumes of one bundle: 40 TB on DVDs."""
BUNDLE_SEGMENT_BYTES: Final = GIB
"""The longest piece of a file in a volume: a ustar member has less than 8 GiB."""
BUNDLE_VOLUME_BYTES: Final = MIB
"""The smallest volume somebody may ask for."""

# -- histories -------------------------------------------------------------------------------------------------------
HISTORY_STATEMENTS: Final = 64
"""Statements of one chain recorded by one request."""
HISTORY_BYTES: Final = 8 * MIB
"""Their envelopes in base64: HISTORY_STATEMENTS of grants, or a few of long statuses."""
CHAIN_STATEMENTS: Final = 20_000
"""Statements of one chain somebody follows backwards; as many as a bundle can hold."""
CHAIN_BYTES: Final = 512 * MIB
"""All their envelopes together, which are in memory."""
