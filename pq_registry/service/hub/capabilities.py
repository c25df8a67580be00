# SPDX-License-Identifier: Apache-2.0
"""Capabilities: texts that let whoever holds one make one kind of request, as one token, for a while.

The Hub's clients send the parts of a large file, and the blocks of a chunked upload, without the token they asked with.
What they send instead is ``<token id>.<unix time>.<HMAC-SHA256>``; the code is over these and the *subject*, which is
what the request is for. The key is in the catalogue, made by the first instance that needs it, so that all instances
know each other's. A capability is worth no more than its token at the time of the request: the service looks that
token up again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from datetime import timedelta

from sqlalchemy import select

from pq_registry import limits
from pq_registry.errors import NotAuthenticated
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.intaketables import ServiceKeyRow

_NAME = "capabilities"
_KEY_BYTES = 32
_TEXT = re.compile(r"([0-9a-f]{16})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)
_CONTEXT = b"pqreg/v1/capability\x00"


def is_capability(text: str) -> bool:
    """Whether ``text`` has the form of a capability: no token has."""
    return len(text) <= limits.CAPABILITY_CHARS and _TEXT.fullmatch(text) is not None


class Capabilities:
    """Makes and opens them."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def make(self, caller: Caller, subject: str, seconds: int) -> str:
        """A capability for ``subject``, good for ``seconds`` and no longer than the caller's token.

        Raises:
            NotAuthenticated: if the caller has no token.
            StorageError: if the catalogue fails.
        """
        if not caller.token_id:
            raise NotAuthenticated("this needs a token", expected="a token made by pqreg")
        until = self._clock() + timedelta(seconds=seconds)
        if caller.expires is not None:
            until = min(until, caller.expires)
        head = f"{caller.token_id}.{int(until.timestamp())}"
        return f"{head}.{self._code(head, subject)}"

    def open(self, text: str, subject: str) -> str:
        """The id of the token a capability for ``subject`` was made for.

        Raises:
            NotAuthenticated: if it is none for that, or is over.
            StorageError: if the catalogue fails.
        """
        match = _TEXT.fullmatch(text) if len(text) <= limits.CAPABILITY_CHARS else None
        code = "" if match is None else self._code(f"{match[1]}.{match[2]}", subject)
        if match is None or not hmac.compare_digest(code, match[3]):
            raise NotAuthenticated(
                "this request was not signed by the registry", hint="ask again where the upload is to be sent"
            )
        if self._clock().timestamp() >= int(match[2]):
            raise NotAuthenticated(
                "the registry's signature of this request has expired",
                hint="ask again where the upload is to be sent; what was sent before need not be sent again",
            )
        return match[1]

    def _code(self, head: str, subject: str) -> str:
        message = _CONTEXT + head.encode() + b"\x00" + subject.encode()
        return hmac.new(self._shared_key(), message, hashlib.sha256).hexdigest()

    def _shared_key(self) -> bytes:
        with self._lock:
            if self._key is None:
                self._key = self._find_key() or self._make_key()
            return self._key

    def _find_key(self) -> bytes | None:
        with self._catalogue.reading() as session:
            return session.scalars(select(ServiceKeyRow.key).where(ServiceKeyRow.name == _NAME)).one_or_none()

    def _make_key(self) -> bytes:
        with self._catalogue.writing() as session:  # one at a time, whichever instance: the first one's stays
            row = session.get(ServiceKeyRow, _NAME)
            if row is None:
                row = ServiceKeyRow(name=_NAME, key=secrets.token_bytes(_KEY_BYTES), created=self._clock())
                session.add(row)
            return row.key
