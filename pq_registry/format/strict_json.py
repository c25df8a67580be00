# SPDX-License-Identifier: Apache-2.0
"""Strict JSON: one value or one error, never a guess.

Two forms are read:

* ``parse_strict``: any JSON text that RFC 7493 (I-JSON) allows and that holds integers only. Duplicate keys, NaN,
  fractions and exponents, integers beyond 2^53 - 1, lone surrogates, a byte order mark, bytes that are not UTF-8 and
  nesting deeper than ``limits.JSON_DEPTH`` are refused. For files people edit (trust.json) and foreign statements.
* ``parse_canonical``: the above, and the bytes must be the RFC 8785 form of their value. For everything this project
  signs or hashes: there is exactly one byte string per value, so no two readers can see different documents.

``Fields`` then takes an object apart: each accessor names what it expects, and ``done`` refuses unknown fields.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

import rfc8785

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError

_TYPE_NAMES = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean", type(None): "null"}

Value = None | bool | int | str | list["Value"] | dict[str, "Value"]
T = TypeVar("T")


class _NotStrict(ValueError):
    """Raised inside the json module's hooks; becomes a FormatError."""


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _NotStrict("an object holds the same key twice")
    return result


def _integer(text: str) -> int:
    # The length check comes first: int() of a million digits is itself an attack.
    if len(text) > 17 or abs(int(text)) > limits.JSON_INTEGER or text == "-0":
        raise _NotStrict("an integer is outside +-(2^53 - 1)")
    return int(text)


def _no_fraction(_text: str) -> NoReturn:
    raise _NotStrict("a number has a fraction or an exponent")


def _no_constant(text: str) -> NoReturn:
    raise _NotStrict(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_no_fraction, parse_constant=_no_constant
)

_SORTED_BY_CODE_POINT = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_BEYOND_BMP = re.compile(rb"[\xf0-\xf4]")  # the first byte of such a character in UTF-8


def parse_strict(data: bytes, *, what: str, limit: int) -> Value:
    """Parse ``data``, which is called ``what`` in messages and may be ``limit`` bytes long.

    Raises:
        FormatError: if ``data`` is longer than ``limit`` or is not strict JSON.
    """
    if len(data) > limit:
        raise FormatError(f"{what} is too large", expected=f"at most {limit} bytes", found=f"{len(data)} bytes")
    try:
        text = data.decode("utf-8")
        if text.startswith("\ufeff"):
            raise _NotStrict("it begins with a byte order mark")
        value: Value = _DECODER.decode(text)
        _check_depth(value)
        if b"\\u" in data:
            _check_escapes(value)
    except RecursionError:
        raise FormatError(f"{what} is not strict JSON", expected=f"nesting up to {limits.JSON_DEPTH}") from None
    except (ValueError, UnicodeError) as error:
        raise FormatError(f"{what} is not strict JSON", found=str(error)[:200]) from None
    return value


def parse_canonical(data: bytes, *, what: str, limit: int) -> Value:
    """Parse ``data``, which must be the RFC 8785 encoding of its value.

    Raises:
        FormatError: if ``data`` is too long, not strict JSON, or not canonical.
    """
    value = parse_strict(data, what=what, limit=limit)
    # Without a character beyond U+FFFF anywhere, encode_plain's condition on the keys holds.
    plain = data.isascii() or not _BEYOND_BMP.search(data)
    if (encode_plain(value) if plain else encode_canonical(value)) != data:
        raise FormatError(f"{what} is not in canonical form", expected="the RFC 8785 encoding of its value")
    return value


def encode_canonical(value: object) -> bytes:
    """The RFC 8785 encoding of ``value``.

    Raises:
        FormatError: if ``value`` holds anything but objects with string keys, arrays, text, numbers and constants.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # its own recursive type does not accept ours
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise FormatError("cannot be written as canonical JSON", found=str(error)) from None


def encode_plain(value: Value) -> bytes:
    """The RFC 8785 encoding of a value whose keys hold no character beyond U+FFFF; several times faster.

    For such a value, without fractions, json's own encoder writes the same bytes: its one difference is that it sorts
    keys by code point and RFC 8785 by UTF-16 code unit. The caller vouches for the condition.

    Raises:
        FormatError: if ``value`` holds text that cannot be written as UTF-8.
    """
    try:
        return _SORTED_BY_CODE_POINT.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("cannot be written as canonical JSON", found=str(error)) from None


def _check_depth(value: Value) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _depth in range(limits.JSON_DEPTH):
        below: list[Value] = []
        for item in level:
            below.extend(item.values() if isinstance(item, dict) else item)
        level = [item for item in below if isinstance(item, dict | list)]
    if level:
        raise _NotStrict(f"it is nested deeper than {limits.JSON_DEPTH}")


def _check_escapes(value: Value) -> None:
    # The text was UTF-8, so a lone surrogate can only come from an escape; encoding it again finds it.
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict):
        for key, member in value.items():
            key.encode("utf-8")
            _check_escapes(member)
    elif isinstance(value, list):
        for member in value:
            _check_escapes(member)


class Fields:
    """An object being taken apart; every complaint names the document and the field.

    Each accessor removes its field; ``done`` then refuses whatever is left.

    Raises:
        FormatError: from every accessor, if the field is missing or not of the demanded kind.
    """

    def __init__(self, value: Value, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise FormatError(f"{where} is malformed", expected="an object", found=_TYPE_NAMES[type(value)])
        self._left = dict(value)

    def fail(self, name: str, expected: str, found: object) -> NoReturn:
        """Refuse the field ``name``."""
        raise FormatError(f"{self.where}: field {name!r} is wrong", expected=expected, found=repr(found)[:120])

    def has(self, name: str) -> bool:
        """Whether the field is there and not yet taken."""
        return name in self._left

    def names(self) -> tuple[str, ...]:
        """The fields that are not yet taken, where they are not known beforehand."""
        return tuple(self._left)

    def take(self, name: str) -> Value:
        """The field's value, whatever it is."""
        if name not in self._left:
            raise FormatError(f"{self.where}: field {name!r} is missing")
        return self._left.pop(name)

    def text(self, name: str, *, limit: int = 4096) -> str:
        """A non-empty string of at most ``limit`` characters."""
        value = self.take(name)
        if not isinstance(value, str) or not 0 < len(value) <= limit:
            self.fail(name, f"a string of 1 to {limit} characters", value)
        return value

    def parsed(self, name: str, parse: Callable[[str], T], *, limit: int = 4096) -> T:
        """A string given to ``parse``, whose complaint is reported as this field's."""
        text = self.text(name, limit=limit)
        try:
            return parse(text)
        except (FormatError, NameSyntaxError) as error:
            raise FormatError(
                f"{self.where}: field {name!r}: {error.message}", expected=error.expected, found=error.found
            ) from None

    def optional(self, name: str, parse: Callable[[str], T], *, limit: int = 4096) -> T | None:
        """Like ``parsed``, but the field may be null. It must be there."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.parsed(name, parse, limit=limit)

    def integer(self, name: str, *, minimum: int = 0, maximum: int = limits.JSON_INTEGER) -> int:
        """An integer within bounds; true and false are not integers."""
        value = self.take(name)
        if type(value) is not int or not minimum <= value <= maximum:
            self.fail(name, f"an integer from {minimum} to {maximum}", value)
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.take(name)
        if not isinstance(value, bool):
            self.fail(name, "true or false", value)
        return value

    def literal(self, name: str, expected: Value) -> None:
        """Exactly this value, of this type."""
        value = self.take(name)
        if type(value) is not type(expected) or value != expected:
            self.fail(name, repr(expected), value)

    def base64(self, name: str, *, limit: int) -> bytes:
        """Padded base64 without line breaks, of at most ``limit`` decoded bytes; may be empty."""
        value = self.take(name)
        if not isinstance(value, str):
            self.fail(name, "padded base64", value)
        return decode_base64(value, what=f"{self.where}: field {name!r}", limit=limit)

    def optional_base64(self, name: str, *, limit: int) -> bytes | None:
        """Like ``base64``, but the field may be null. It must be there."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.base64(name, limit=limit)

    def array(self, name: str, *, limit: int, minimum: int = 0) -> list[Value]:
        """An array of ``minimum`` to ``limit`` items."""
        value = self.take(name)
        if not isinstance(value, list):
            self.fail(name, "an array", value)
        if not minimum <= len(value) <= limit:
            self.fail(name, f"{minimum} to {limit} items", f"{len(value)} items")
        return value

    def texts(self, name: str, *, limit: int) -> list[str]:
        """An array of non-empty strings."""
        items = self.array(name, limit=limit)
        for item in items:
            if not isinstance(item, str) or not item:
                self.fail(name, "an array of non-empty strings", item)
        return [str(item) for item in items]

    def object(self, name: str) -> Fields:
        """A nested object, to be taken apart in turn."""
        return Fields(self.take(name), f"{self.where}.{name}")

    def objects(self, name: str, *, limit: int, minimum: int = 0) -> list[Fields]:
        """An array of nested objects."""
        items = self.array(name, limit=limit, minimum=minimum)
        return [Fields(item, f"{self.where}.{name}[{index}]") for index, item in enumerate(items)]

    def done(self) -> None:
        """Refuse fields nobody took."""
        if self._left:
            names = ", ".join(sorted(self._left))[:120]
            raise FormatError(f"{self.where}: unknown fields", expected="none", found=names)


def decode_base64(text: str, *, what: str, limit: int) -> bytes:
    """Decode padded base64 (RFC 4648 §4) that re-encodes to the same text.

    Raises:
        FormatError: if ``text`` is not that, or decodes to more than ``limit`` bytes.
    """
    if len(text) > (limit + 2) // 3 * 4:
        raise FormatError(f"{what} is too large", expected=f"at most {limit} bytes", found=f"{len(text)} characters")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what} is not base64", expected="padded base64 (RFC 4648)") from None
    if encode_base64(data) != text:  # non-zero trailing bits: two texts for the same bytes
        raise FormatError(f"{what} is not canonical base64", expected="zero trailing bits")
    return data


def encode_base64(data: bytes) -> str:
    """Padded base64 (RFC 4648 §4)."""
    return base64.b64encode(data).decode("ascii")
