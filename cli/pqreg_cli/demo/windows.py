# SPDX-License-Identifier: Apache-2.0
"""Does one file hold a piece of another? Windows of 32 bytes, at any offset of either, in a few seconds.

Any 32 bytes in a row wholly contain two of the words of 8 bytes that begin at multiples of 12. So words of the wanted
content at those offsets are collected, every offset of the searched bytes is compared with them, and where one is met
the windows around it are compared in full. Words of one repeated byte are left out: they stand everywhere, and a window
made of nothing else is nobody's secret.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

WINDOW = 32
_WORD = 8
_STRIDE = 12
_CHUNK = 256 * 1024  # the words at all of its offsets fit a core's cache
_MIXES = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_LARGEST_FILTER = 26

Words = npt.NDArray[np.uint64]


class Windows:
    """The windows of some content, to be looked for elsewhere."""

    def __init__(self, contents: Iterable[bytes]) -> None:
        """Take ``contents``; those shorter than a window have none."""
        kept = [content for content in contents if len(content) >= WINDOW]
        self._joined = b"".join(kept) or bytes(_WORD)
        self._ends = list(itertools.accumulate(map(len, kept)))
        words = _words(self._joined, _STRIDE)
        places = np.arange(len(words), dtype=np.int64) * _STRIDE
        varied = words != (words & np.uint64(0xFF)) * np.uint64(0x0101010101010101)
        words, places = words[varied], places[varied]
        order = np.argsort(words)
        self._words, self._places = words[order], places[order]
        bits = min(_LARGEST_FILTER, len(words).bit_length() + 5)
        self._shift = np.uint64(64 - bits)
        self._filters = [np.zeros(1 << bits, np.bool_) for _ in _MIXES]
        for mix, one in zip(_MIXES, self._filters, strict=True):
            one[self._hashed(self._words, mix)] = True

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
        words = _words(stored, 1)
        first, second = self._filters
        positions = np.flatnonzero(first.take(self._hashed(words, _MIXES[0])))
        positions = positions[second.take(self._hashed(words[positions], _MIXES[1]))]
        low = np.searchsorted(self._words, words[positions], "left")
        high = np.searchsorted(self._words, words[positions], "right")
        for met in np.flatnonzero(low < high):
            for place in self._places[low[met] : high[met]]:
                window = self._around(stored, int(positions[met]), int(place))
                if window is not None:
                    return window
        return None

    def _around(self, stored: bytes, position: int, place: int) -> bytes | None:
        """The first equal window around an equal word."""
        content = bisect.bisect_right(self._ends, place)
        begin, end = self._ends[content - 1] if content else 0, self._ends[content]
        for back in range(min(position, place - begin, WINDOW - _WORD), -1, -1):
            if place - back + WINDOW > end:
                continue  # it would reach into the next content
            window = stored[position - back : position - back + WINDOW]
            if len(window) == WINDOW and window == self._joined[place - back : place - back + WINDOW]:
                return window
        return None

    def _hashed(self, words: Words, mix: np.uint64) -> npt.NDArray[np.int64]:
        return ((words * mix) >> self._shift).view(np.int64)


def _words(data: bytes, stride: int) -> Words:
    """The 8-byte words at every ``stride``-th offset."""
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _WORD)[::stride]
    return np.ascontiguousarray(windows).view(np.uint64).reshape(-1)
