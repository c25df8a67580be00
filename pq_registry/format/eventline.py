# SPDX-License-Identifier: Apache-2.0
"""One line of an export of audit events: an event, bound to every event before it.

A line is the RFC 8785 form of an object and a line feed::

    {"action":"tag-set","at":"2026-11-22T02:00:00Z","detail":{...},"hash":"<64 hex>","id":17,
     "previous":"<64 hex>","request":"0f3c9a1b2d4e5f60","subject":"acme/minilm:v1","token":"9d9db3c9759be5e6"}

``hash`` is the SHA-256 of the same object without ``hash``; ``previous`` is the ``hash`` of the event before, 64 zeros
for the first event of a registry. So whoever keeps the hash of one event can tell whether any event up to it was
changed, left out or put in since: no key is needed to check, and none could be used to make another history fit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import EventsInvalid, FormatError
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.strict_json import Value, encode_canonical, parse_canonical

START = "0" * 64
"""What the first event is bound to."""
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBERS = {"action", "at", "detail", "hash", "id", "previous", "request", "subject", "token"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One audit event. ``token`` is empty for what was done on the host; ``detail`` holds no secret."""

    id: int
    at: datetime
    request: str
    token: str
    action: str
    subject: str
    detail: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Link:
    """An event in its chain: what it is bound to, and what the next one is."""

    event: Event
    previous: str
    hash: str

    @classmethod
    def after(cls, previous: str, event: Event) -> Link:
        """Bind an event to the one before."""
        return cls(event, previous, hashlib.sha256(encode_canonical(_members(event, previous))).hexdigest())

    def encode(self) -> bytes:
        """The line, with its line feed."""
        return encode_canonical({**_members(self.event, self.previous), "hash": self.hash}) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Link:
        """Read a line, with or without its line feed.

        Raises:
            FormatError: if it is not of the form above.
            EventsInvalid: if its hash is not that of its event.
        """
        value = parse_canonical(line.removesuffix(b"\n"), what="the event", limit=limits.EVENT_BYTES)
        if not isinstance(value, dict) or set(value) != _MEMBERS:
            raise FormatError("not an audit event", expected=", ".join(sorted(_MEMBERS)))
        number, detail, previous, found = value["id"], value["detail"], value["previous"], value["hash"]
        texts = {name: value[name] for name in ("action", "at", "request", "subject", "token")}
        if type(number) is not int or number < 1 or not isinstance(detail, dict):
            raise FormatError("not an audit event", expected="id: a positive integer, detail: an object")
        if not all(isinstance(text, str) for text in (*texts.values(), previous, found)):
            raise FormatError("not an audit event", expected="texts")
        words = {name: str(text) for name, text in texts.items()}
        event = Event(
            id=number, at=parse_instant(words["at"]), request=words["request"], token=words["token"],
            action=words["action"], subject=words["subject"], detail=detail,
        )  # fmt: skip
        link = cls.after(_hash(str(previous)), event)
        if link.hash != found:
            raise EventsInvalid(f"event {number} was changed", expected=f"hash {link.hash}", found=str(found))
        return link


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise FormatError("not an audit event", expected="previous: 64 hex digits", found=repr(text)[:80])
    return text


def _members(event: Event, previous: str) -> dict[str, object]:
    return {
        "id": event.id,
        "at": format_instant(event.at),
        "request": event.request,
        "token": event.token,
        "action": event.action,
        "subject": event.subject,
        "detail": dict(event.detail),
        "previous": previous,
    }
