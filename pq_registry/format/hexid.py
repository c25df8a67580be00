# SPDX-License-Identifier: Apache-2.0
"""Identifiers written as bare lowercase hex: identities, recipients and release ids (DESIGN §5, "Exact forms").

They are names, not digests of stored bytes: no path is built from one, and nothing is looked up by a prefix of one.
"""

from __future__ import annotations

import re

from pq_registry.errors import FormatError

_IDENTITY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_RELEASE = re.compile(r"[0-9a-f]{32}", re.ASCII)


def parse_identity_id(text: str) -> str:
    """An identity's id, unchanged.

    Raises:
        FormatError: if ``text`` is not 64 lowercase hex digits.
    """
    return _matching(_IDENTITY, text, "an identity id", "64 lowercase hex digits")


def parse_recipient_id(text: str) -> str:
    """A recipient's id, unchanged.

    Raises:
        FormatError: if ``text`` is not 64 lowercase hex digits.
    """
    return _matching(_IDENTITY, text, "a recipient id", "64 lowercase hex digits")


def parse_release_id(text: str) -> str:
    """A release id (16 random bytes), unchanged.

    Raises:
        FormatError: if ``text`` is not 32 lowercase hex digits.
    """
    return _matching(_RELEASE, text, "a release id", "32 lowercase hex digits")


def _matching(pattern: re.Pattern[str], text: str, what: str, expected: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise FormatError(f"not {what}", expected=expected, found=repr(text)[:80])
    return text
