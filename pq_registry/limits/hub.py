# SPDX-License-Identifier: Apache-2.0
"""Bounds of the Hub's protocol: what is listed, what is kept in memory for it."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import MIB

HUB_TREE_ITEMS: Final = 1000
"""Files and folders in one page of a tree, as on the Hub."""
HUB_COMMIT_ITEMS: Final = 100
"""Commits in one page of a history; each may have a message of its own."""
HUB_MODEL_ITEMS: Final = 1000
"""Models in one page of a listing, at most and where no limit is given: as on the Hub."""
HUB_QUERY_CHARS: Final = 200
"""What models are searched for, and each filter."""
HUB_FILTERS: Final = 16
"""Filters of one search."""
HUB_PATHS: Final = 10_000
"""Paths in one question about files; REQUEST_BODY_BYTES holds as many of usual length."""
HUB_REVISION_CHARS: Final = 256
"""A revision's name: ``draft/`` or ``refs/heads/`` before a branch of 200 characters."""
HUB_LISTING_BYTES: Final = 64 * MIB
"""Listings of releases kept in memory, by estimate; the newest is kept whatever it takes (100 000 files: 110 MiB)."""
HUB_LISTING_FILE_BYTES: Final = 512
"""The estimate for one file of a listing: path, digest and the objects around them."""
HUB_LISTINGS_AT_ONCE: Final = 4
"""Manifests read and parsed at a time; each may be MANIFEST_BYTES."""
HUB_LOOKERS: Final = 16
"""Revisions looked up at a time, in threads of their own: HUB_LISTINGS_AT_ONCE may be parsing, nobody else waits."""
HUB_ERROR_CHARS: Final = 500
"""An error's message in a header, where proxies bound a line."""
HUB_WHOAMI_ORGS: Final = 100
"""Namespaces named to a token that reaches all of them."""

DRAFT_LISTING_BYTES: Final = 32 * MIB
"""The listing of one draft commit: 100 000 files with paths of 250 bytes."""
DRAFT_LISTINGS_BYTES: Final = 256 * MIB
"""Listings of all draft commits of one repository; beyond that the oldest commits are forgotten, never a head."""
DRAFT_COMMITS: Final = 2000
"""Draft commits one repository keeps; beyond that the oldest are forgotten, never a head."""
DRAFT_NAMES: Final = 256
"""Unsigned branches and tags of one repository."""
DRAFT_TITLE_CHARS: Final = 500
"""The title of a draft commit."""
DRAFT_MESSAGE_CHARS: Final = 16 * 1024
"""What else is said about a draft commit."""
DRAFT_TRIES: Final = 8
"""How often a commit to a draft that others move at the same time is put on top of theirs."""
HUB_REVISION_SLASHES: Final = 4
"""How many segments behind a revision that is none are tried as the rest of its name."""
