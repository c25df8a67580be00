# SPDX-License-Identifier: Apache-2.0
"""Access from the host itself, past the API: for operators who lost every token. It works beside a running service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pq_registry.service.clock import Clock
from pq_registry.service.tokens import Tokens
from pq_registry.storage.stores import StoreConfig, opened


@contextmanager
def open_tokens(config: StoreConfig, clock: Clock) -> Iterator[Tokens]:
    """The tokens of a registry that exists.

    Raises:
        UsageError: if there is no registry there.
        StorageError: if its catalogue cannot be used.
    """
    with opened(config) as stores:
        yield Tokens(stores.catalogue, clock)
