# SPDX-License-Identifier: Apache-2.0
"""Who may read what nobody signed: the operator's decision about drafts."""

from __future__ import annotations

from enum import StrEnum, unique

from pq_registry.format.name import Namespace
from pq_registry.service.access import Caller, Permission


@unique
class DraftPolicy(StrEnum):
    """The values of the setting ``drafts``."""

    PUBLISHERS = "publishers"
    """Drafts are there for those who may publish in their namespace, and for nobody else."""
    READERS = "readers"
    """Whoever may read the namespace may read its drafts."""
    OFF = "off"
    """None can be written. Those that are there already are read by publishers, who can sign or drop them."""

    def readable(self, caller: Caller, namespace: Namespace) -> bool:
        """Whether drafts in ``namespace`` are there for the caller."""
        if self is DraftPolicy.READERS and caller.may(Permission.READ, namespace.key):
            return True
        return caller.sees_as_publisher(namespace.key)

    @property
    def writable(self) -> bool:
        """Whether drafts can be written."""
        return self is not DraftPolicy.OFF
