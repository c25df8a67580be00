# SPDX-License-Identifier: Apache-2.0
"""A small, strict part of YAML for files that people write: mappings, lists and scalars, and nothing that is clever.

One document; every key once, and a string; no anchors, aliases, tags or directives. A scalar without quotes is a
string, except ``true``, ``false``, ``null`` and decimal integers, so ``no`` is a word and ``1.0`` a version. Built from
the parser's events, never from its constructors, so no object but these is ever made.
"""

from __future__ import annotations

import re
from typing import Any

from pq_registry import limits
from pq_registry.errors import FormatError, UsageError
from pq_registry.format.strict_json import Value

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)
_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None, "": None}


def parse_yaml(data: bytes, *, what: str) -> Value:
    """The value of a document of at most ``limits.MIRRORS_FILE_BYTES``.

    Raises:
        FormatError: if it is not exactly of this form; it names the line.
        UsageError: if PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise UsageError("PyYAML is not installed", hint="pip install 'pq-registry[mirror]'") from None
    if len(data) > limits.MIRRORS_FILE_BYTES:
        raise FormatError(f"{what} is too large", expected=f"at most {limits.MIRRORS_FILE_BYTES} bytes")
    try:
        events = yaml.parse(data.decode("utf-8"), Loader=yaml.SafeLoader)
        return _Builder(events, what).document()
    except UnicodeDecodeError:
        raise FormatError(f"{what} is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else f"line {mark.line + 1}"
        raise FormatError(f"{what} is not YAML", expected=getattr(error, "problem", None), found=line) from None


class _Builder:
    """Makes a value of events; each method consumes those of what it is named for."""

    def __init__(self, events: Any, what: str) -> None:
        self._events = events
        self._what = what

    def document(self) -> Value:
        self._next("StreamStart")
        start = self._next("DocumentStart")
        if start.version or start.tags:
            raise self._refusal(start, "a directive")
        value = self._value(self._take(), 0)
        self._next("DocumentEnd")
        self._next("StreamEnd")
        return value

    def _value(self, event: Any, depth: int) -> Value:
        kind = _kind(event)
        if depth > limits.MIRRORS_FILE_DEPTH:
            raise self._refusal(event, f"more than {limits.MIRRORS_FILE_DEPTH} levels")
        if kind == "Alias" or event.anchor:
            raise self._refusal(event, "an anchor or alias")
        if event.tag:
            raise self._refusal(event, "a tag")
        if kind == "Scalar":
            return _scalar(event.value) if event.style is None else str(event.value)
        if kind == "SequenceStart":
            items: list[Value] = []
            while _kind(item := self._take()) != "SequenceEnd":
                items.append(self._value(item, depth + 1))
            return items
        table: dict[str, Value] = {}
        while _kind(key := self._take()) != "MappingEnd":
            name = self._value(key, depth + 1)
            if not isinstance(name, str):
                raise self._refusal(key, "a key that is no string")
            if name in table:
                raise self._refusal(key, f"{name!r} a second time")
            table[name] = self._value(self._take(), depth + 1)
        return table

    def _take(self) -> Any:
        return next(self._events)

    def _next(self, kind: str) -> Any:
        event = self._take()
        if _kind(event) != kind:
            raise self._refusal(event, "an empty file, or a second document")
        return event

    def _refusal(self, event: Any, found: str) -> FormatError:
        return FormatError(
            f"{self._what}, line {event.start_mark.line + 1}, is no plain YAML",
            expected="mappings, lists and scalars, each key once", found=found,
        )  # fmt: skip


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


def _scalar(text: str) -> Value:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else text
