# SPDX-License-Identifier: Apache-2.0
"""Access from the host itself, past the API: for operators who lost every token. It works beside a running service.

What is done so is an audit event like any other. Its token is empty, and instead of a request it names the account that
logged in to this machine, as the kernel remembers it across ``sudo`` and ``su``.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.tokens import Tokens, host_caller
from pq_registry.storage.stores import StoreConfig, opened

_LOGIN_ID = Path("/proc/self/loginuid")
_NOBODY_LOGGED_IN = 2**32 - 1
_MOST_CHARS = 32


def operator() -> Caller:
    """Who works on this host, with all rights; the request is ``host:<account>``."""
    return replace(host_caller(), request_id=f"host:{_account()}"[:_MOST_CHARS])


def _account() -> str:
    user = os.getuid()
    try:
        login = int(_LOGIN_ID.read_text("ascii"))
    except (OSError, ValueError):  # a kernel without auditing
        login = _NOBODY_LOGGED_IN
    if login != _NOBODY_LOGGED_IN:
        user = login
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # an account of this number only, as in containers
        return str(user)


@contextmanager
def open_tokens(config: StoreConfig, clock: Clock) -> Iterator[Tokens]:
    """The tokens of a registry that exists.

    Raises:
        UsageError: if there is no registry there.
        StorageError: if its catalogue cannot be used.
    """
    with opened(config) as stores:
        yield Tokens(stores.catalogue, clock)
