# SPDX-License-Identifier: Apache-2.0
"""How the commands that sign say where the log has what they signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pq_registry.client.loganswers import Logged
    from pqreg_cli.console import Output

_WITHOUT_QUORUM = (
    "the log has it, but too few witnesses have cosigned yet; readers whose trust file demands them refuse it until "
    "they have"
)
_PUBLIC = "its name, your identity's id and digests are in the registry's log now, for all who may read that"


def leaf_index(logged: Logged | None) -> int | None:
    """The index of the leaf, for --json; None if nothing was signed, or the registry has no log."""
    return None if logged is None else logged.index


def leaf_text(logged: Logged | None) -> str | None:
    """The same in words."""
    index = leaf_index(logged)
    return None if index is None else f"leaf {index}"


def leaves_text(leaves: Mapping[str, Logged | None]) -> str | None:
    """Several leaves, by what they are, in words."""
    found = [f"{text} ({name})" for name, logged in leaves.items() if (text := leaf_text(logged)) is not None]
    return ", ".join(found) or None


def note_what_is_public(output: Output, logged: Logged | None) -> None:
    """Say what a leaf reveals."""
    if leaf_index(logged) is not None:
        output.note(_PUBLIC)


def warn_without_quorum(output: Output, *leaves: Logged | None) -> None:
    """Say so if a receipt lacks the cosignatures that the registry itself wants."""
    if any(logged is not None and logged.index is not None and not logged.quorum for logged in leaves):
        output.warning(_WITHOUT_QUORUM)
