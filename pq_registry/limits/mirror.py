# SPDX-License-Identifier: Apache-2.0
"""Bounds of mirrors on a Hugging Face Hub."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import GIB, KIB, MIB

# -- mirrors.yaml ----------------------------------------------------------------------------------------------------
MIRRORS_FILE_BYTES: Final = 256 * KIB
"""mirrors.yaml: a few lines per mirror."""
MIRRORS_FILE_DEPTH: Final = 8
"""Nesting of mirrors.yaml, which needs three levels."""
MIRRORS: Final = 100
"""Mirrors in one file."""
MIRROR_PATTERNS: Final = 1000
"""Patterns, or names that are changed, of one mirror."""
MIRROR_CARD_BYTES: Final = MIB
"""A card of the operator's own, shown where a release is not mirrored itself."""

# -- pushing ---------------------------------------------------------------------------------------------------------
MIRROR_COMMIT_FILES: Final = 200
"""Files in one commit of a working branch; a Hub gives a commit 60 seconds."""
MIRROR_COMMIT_BYTES: Final = 8 * GIB
"""Bytes in one such commit, more only for a single larger file: what a run that is cut off may have to send again."""
MIRROR_CONFLICTS: Final = 5
"""How often a commit to main is made anew because somebody else's came first."""
MIRROR_TREE_FILES: Final = 200_000
"""Files that a Hub may list: twice as many as a release can have."""
MIRROR_SMALL_BYTES: Final = 16 * MIB
"""A file that a Hub keeps in git, and of which it knows no SHA-256, so that it is read again whole: at most 10 MiB."""
MIRROR_HISTORY_COMMITS: Final = 50
"""Commits of a Hub's main looked at for one of ours."""
MIRROR_STATE_BYTES: Final = 16 * MIB
"""What a mirroring machine remembers about one mirror: about 300 bytes per tag."""
MIRROR_INTERVAL_SECONDS: Final = 60
"""Shortest pause between two rounds of ``pqreg mirror sync --interval``."""
MIRROR_INTERVAL_DAYS: Final = 30
"""Longest one."""

# -- reported to the registry ----------------------------------------------------------------------------------------
MIRROR_RUN_BYTES: Final = 16 * KIB
"""The report of one run, as it is posted."""
MIRROR_RUNS_KEPT: Final = 200
"""Runs a registry remembers per repository, the newest ones."""
MIRROR_REASON_CHARS: Final = 1000
"""Why a run was refused or failed."""
MIRROR_TARGET_CHARS: Final = 300
"""URL of the repository on the Hub."""
MIRROR_RUN_DAYS: Final = 30
"""Longest that a run may have taken."""

# -- speaking to a Hub -----------------------------------------------------------------------------------------------
HUB_PAUSE_SECONDS: Final = 60
"""Longest pause between two tries of a request, and the one where a Hub asks for patience and does not say how long."""
HUB_PATIENCE_SECONDS: Final = 1800
"""How long one request waits, in all, to be taken by a Hub: its rates are counted over five minutes."""
HUB_MESSAGE_CHARS: Final = 300
"""What is quoted of a Hub's own words."""
