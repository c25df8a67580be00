# SPDX-License-Identifier: Apache-2.0
"""Bounds of what a registry keeps things in: object stores, databases, several instances, copies of it all."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import KIB, MIB

# -- object store ----------------------------------------------------------------------------------------------------
S3_CONNECT_SECONDS: Final = 10
"""Longest wait for a connection to the object store."""
S3_SILENCE_SECONDS: Final = 30
"""Longest silence of the object store; the clients' TIMEOUT_SECONDS is the same."""
S3_ATTEMPTS: Final = 4
"""Tries of one request to the object store; with their pauses they take about five seconds where it answers at once."""
S3_CONNECTIONS: Final = 32
"""Connections to the object store that one process keeps."""
S3_URL_SECONDS: Final = 900
"""Life of a presigned URL: enough for a part over a slow line, short enough that a leaked one is soon worth nothing."""
S3_RANGE_BYTES: Final = 64 * MIB
"""What the service asks for in one request when it reads a blob from end to end."""
S3_PUT_BYTES: Final = 64 * MIB
"""Largest object the service itself stores in one request: envelopes and manifests are smaller."""
S3_KEY_BYTES: Final = KIB
"""Length of an object's key (S3's bound)."""
S3_LIST_PAGE: Final = 1000
"""Objects in one page of a listing (S3's bound)."""
S3_TILE_WRITERS: Final = 8
"""Tiles of one batch that are written at once."""
S3_SKEW_SECONDS: Final = 60
"""Difference between the store's clock and ours above which a start warns; providers refuse signatures at 900."""
S3_SLOW_DOWN_SECONDS: Final = 5
"""Retry-After with which a request is refused while the object store or database is out of reach."""
