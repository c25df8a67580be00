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
S3_OWN_URL_SECONDS: Final = 60
"""The same for requests the service makes itself, at once."""
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
S3_SKEW_SECONDS: Final = 300
"""Difference between the store's clock and ours above which a service does not start: providers refuse signatures at
900, and a presigned URL that is only good for S3_URL_SECONDS would be over, or not begin, too early."""
S3_SLOW_DOWN_SECONDS: Final = 5
"""Retry-After with which a request is refused while the object store or database is out of reach."""

# -- uploads into an object store ------------------------------------------------------------------------------------
SIGNED_PARTS: Final = 64
"""Parts one request may ask to have signed: a thousandth of a second each, and 1 KiB of answer."""
VERIFYING_TASKS: Final = 4
"""Large blobs one instance verifies at once: SHA-256 of two of them takes as many processors."""
VERIFYING_AHEAD: Final = 2
"""Ranges of one blob, each of PART_BYTES, that are read ahead of its hashing."""
VERIFYING_SECONDS: Final = 60
"""How long an instance's claim to verify an upload holds; after it died, another goes on that much later."""
VERIFYING_RENEWAL_SECONDS: Final = 10
"""How often that claim is renewed, and how far it has come is written down."""
VERIFYING_WAIT_SECONDS: Final = 20
"""How long a request to complete an upload waits for the end; less than the TIMEOUT_SECONDS of clients."""
VERIFYING_WAITERS: Final = 64
"""Requests that wait for that at once: a quarter of LOG_WAITERS, so that others wait for receipts. More are told to ask
again at once."""
VERIFYING_POLL_SECONDS: Final = 1
"""Pause between two looks at an upload that another instance verifies, and between two requests of a client."""
RETAINING_TASKS: Final = 8
"""Blobs of one release whose retention is set at once."""
ORPHAN_UPLOAD_SECONDS: Final = 24 * 3600
"""Age at which an upload the store has and the catalogue does not know is abandoned."""
LOCATION_MARGIN_SECONDS: Final = 60
"""How much earlier than its end the service takes a presigned URL for over: clocks differ, and requests take time."""

# -- PostgreSQL and several instances ----------------------------------------------------------------------------------
CATALOGUE_CLOSE_SECONDS: Final = 10
"""How long a catalogue that is closed waits for transactions under way in other threads."""
CATALOGUE_CONNECTIONS: Final = 16
"""Connections to PostgreSQL that one instance keeps for requests; PostgreSQL's usual max_connections is 100."""
CATALOGUE_CONNECT_SECONDS: Final = 5
"""Longest wait for a connection to PostgreSQL."""
CATALOGUE_STATEMENT_SECONDS: Final = 60
"""Longest run of one statement in PostgreSQL; migrations have no such bound."""
CATALOGUE_LOCK_SECONDS: Final = 15
"""How long a writing transaction waits for those before it; less than the TIMEOUT_SECONDS of clients."""
CATALOGUE_IDLE_SECONDS: Final = 5
"""How long a writing transaction may do nothing: an instance that died without a word holds up the others no longer."""
CATALOGUE_READER_IDLE_SECONDS: Final = 3600
"""The same for a reading one, which holds up nobody: a check or a backup looks at what it reads for a while."""
LEASE_SECONDS: Final = 5.0
"""How long the instance that writes the log may do so without renewing that; another takes over that much later."""
LEASE_RENEWAL_SECONDS: Final = 1.5
"""How often it is renewed: two renewals may fail."""
LEASE_MARGIN_SECONDS: Final = 1.0
"""How long before the end of its lease, as far as it knows, an instance stops to write."""
LEASE_STATEMENT_SECONDS: Final = 2
"""Longest run of one statement about a lease."""
LEASE_LOOK_SECONDS: Final = 0.25
"""How often the other instances look whether it has expired."""
LEASE_START_SECONDS: Final = 15.0
"""How long a start waits for a lease that must be its own, or for the log to be begun by another instance."""
LEASE_PAUSE_SECONDS: Final = 5.0
"""How long an instance that cannot go on with the log lets others try."""
LEADERLESS_SECONDS: Final = 15.0
"""For how long nobody may hold the lease before an instance says that it is not ready."""
RECEIPT_ASK_SECONDS: Final = 1.0
"""How often an instance asks the one that writes the log again for a leaf it waits for."""

# -- collection --------------------------------------------------------------------------------------------------------
GC_GRACE_SECONDS: Final = 7 * 24 * 3600
"""How long gc leaves what nothing refers to, unless told otherwise; the same as UPLOAD_IDLE_SECONDS."""
GC_LEAST_GRACE_SECONDS: Final = 3600
"""Shortest grace gc takes: a push sends its last files and commits within it."""
GC_PROMISE_SECONDS: Final = 600
"""How often it is written down that a publisher was told of a blob; gc's grace counts from then."""
GC_BATCH: Final = 64
"""Blobs removed in one transaction, during which nobody else writes."""

# -- backup ------------------------------------------------------------------------------------------------------------
BACKUP_INDEX_BYTES: Final = MIB
"""backup.json: a line for each table and setting."""
BACKUP_FILES: Final = 200
"""Files of one backup: the tables, and a few."""
BACKUP_LINE_BYTES: Final = 128 * MIB
"""One row in a backup: an envelope, or the digests of a blob's slices, in base64."""
BACKUP_ROWS: Final = 500
"""Rows written by one statement of a restore."""
BACKUP_BATCH_BYTES: Final = 8 * MIB
"""What those rows may have together, unless it is a single one."""
