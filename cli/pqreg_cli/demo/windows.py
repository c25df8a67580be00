# SPDX-License-Identifier: Apache-2.0
"""Does one file hold a piece of another? Every window of 32 bytes, at any offset of either, in a few seconds.

Of any 32 bytes in a row, one of the words of 8 bytes that begin at a multiple of 25 lies wholly inside. So words of the
wanted content at those offsets are collected, every offset of the searched bytes is compared with them, and where one
is met the 32-byte windows around it are compared in full. Windows of a single repeated byte are nobody's secret and are
left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

WINDOW = 32
_WORD = 8
_STRIDE = WINDOW - _WORD + 1
_BITS = 24
_CHUNK = 16 * 1024 * 1024
_MIX = np.uint64(0x9E3779B97F4A7C15)

Words = npt.NDArray[np.uint64]


class Windows:
    """The windows of some content, to be looked for elsewhere."""

    def __init__(self, contents: Iterable[bytes]) -> None:
        """Take ``contents``; those shorter than a window have none."""
        self._contents = [content for content in contents if len(content) >= WINDOW]
        words = [_words(np.frombuffer(content, np.uint8))[::_STRIDE] for content in self._contents]
        places = [
            np.stack([np.full(len(part), number, np.int64), np.arange(len(part), dtype=np.int64) * _STRIDE])
            for number, part in enumerate(words)
        ]
        joined = np.concatenate(words) if words else np.empty(0, np.uint64)
        order = np.argsort(joined, kind="stable")
        self._words = joined[order]
        self._places = np.concatenate(places, axis=1)[:, order] if places else np.empty((2, 0), np.int64)
        self._filter = np.zeros(1 << _BITS, np.bool_)
        self._filter[_hashed(self._words)] = True

    def found_in(self, path: Path) -> bytes | None:
        """A window of the content that stands in the file at ``path``, or None."""
        with path.open("rb") as file:
            tail = b""
            while data := file.read(_CHUNK):
                window = self.found(tail + data)
                if window is not None:
                    return window
                tail = (tail + data)[-(WINDOW - 1) :]
        return None

    def found(self, stored: bytes) -> bytes | None:
        """A window of the content that stands in ``stored``, or None."""
        if len(stored) < WINDOW or not len(self._words):
            return None
        words = _words(np.frombuffer(stored, np.uint8))
        for position in np.flatnonzero(self._filter[_hashed(words)]):
            low, high = np.searchsorted(self._words, words[position], "left"), 0
            high = int(np.searchsorted(self._words, words[position], "right"))
            for number, offset in self._places[:, int(low) : high].T:
                window = _shared(stored, int(position), self._contents[int(number)], int(offset))
                if window is not None:
                    return window
        return None


def _shared(stored: bytes, position: int, content: bytes, offset: int) -> bytes | None:
    """The first equal window around an equal word."""
    for back in range(_STRIDE):
        here, there = position - back, offset - back
        if here < 0 or there < 0:
            break
        window = stored[here : here + WINDOW]
        if len(window) == WINDOW and window == content[there : there + WINDOW] and len(set(window)) > 1:
            return window
    return None


def _words(data: npt.NDArray[np.uint8]) -> Words:
    """The 8-byte words at every offset."""
    return np.lib.stride_tricks.sliding_window_view(data, _WORD).copy().view(np.uint64).reshape(-1)


def _hashed(words: Words) -> npt.NDArray[np.int64]:
    return ((words * _MIX) >> np.uint64(64 - _BITS)).astype(np.int64)
