# SPDX-License-Identifier: Apache-2.0
r"""Paths inside a release: safe to create on POSIX and on Windows, and never two names for one file (DESIGN §5).

A path is relative, NFC, uses ``/``, has at most 1024 bytes and components of at most 255 bytes. Refused are empty,
``.`` and ``..`` components, control characters, ``\ : * ? " < > |``, a trailing dot or space of a component (Windows
drops them), and Windows' reserved device names with or without an extension. Within a release paths are unique under
case folding, and no file stands where another path needs a directory.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pq_registry import limits
from pq_registry.errors import FormatError

_FORBIDDEN = re.compile(r'[\\:*?"<>|\x00-\x1f\x7f-\x9f]')
_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\.|$)"
)


@dataclass(frozen=True, slots=True, order=True)
class ReleasePath:
    """A path inside a release; ``text`` is its only written form. Ordered by code point."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what could escape, collide or not be created.

        Raises:
            FormatError: naming the rule that was broken.
        """
        broken = _broken_rule(self.text)
        if broken is not None:
            raise FormatError("unsafe path", expected=broken, found=repr(self.text)[:200])

    @property
    def parts(self) -> tuple[str, ...]:
        """The components."""
        return tuple(self.text.split("/"))

    @property
    def suffix(self) -> str:
        """The lower-case extension with its dot, or an empty string."""
        return Path(self.text).suffix.lower()

    def under(self, root: Path) -> Path:
        """This path below ``root``."""
        return root.joinpath(*self.parts)

    def __str__(self) -> str:
        return self.text


def _broken_rule(text: str) -> str | None:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "text that can be written as UTF-8"
    if not 0 < size <= limits.PATH_BYTES:
        return f"1 to {limits.PATH_BYTES} bytes"
    if unicodedata.normalize("NFC", text) != text:
        return "Unicode normalisation form C"
    if _FORBIDDEN.search(text):
        return 'no control characters and none of \\ : * ? " < > |'
    for part in text.split("/"):
        if part in ("", ".", ".."):
            return "a relative path without empty, '.' or '..' components"
        if len(part.encode("utf-8")) > limits.PATH_COMPONENT_BYTES:
            return f"components of at most {limits.PATH_COMPONENT_BYTES} bytes"
        if part[-1] in ". ":
            return "no component that ends in a dot or a space"
        if _DEVICES.match(part.casefold()):
            return "no name that Windows reserves for a device"
    return None


def check_distinct(paths: Iterable[ReleasePath]) -> None:
    """Refuse paths that would meet on a file system that folds case, or a file where a directory must be.

    Raises:
        FormatError: naming two paths that collide.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = _fold(path.text)
        if folded in files:
            raise FormatError(
                "two paths collide",
                expected="paths distinct under case folding",
                found=f"{files[folded]!r} and {path.text!r}",
            )
        files[folded] = path.text
        end = folded.rfind("/")
        while end != -1 and folded[:end] not in folders:
            folders[folded[:end]] = path.text
            end = folded.rfind("/", 0, end)
    for folded, text in files.items():
        if folded in folders:
            raise FormatError(
                "two paths collide",
                expected="no file where a folder must be",
                found=f"{text!r} and {folders[folded]!r}",
            )


def _fold(text: str) -> str:
    # Folding can leave NFC (e.g. U+0345), so normalise again: HFS+ and APFS compare that way.
    return unicodedata.normalize("NFC", text.casefold())
