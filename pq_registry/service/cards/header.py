# SPDX-License-Identifier: Apache-2.0
r"""The header of a model card: YAML between two lines of ``---`` at the beginning of README.md.

Whoever may push writes it, so it is read with bounds on its length, its depth and the number of its parts, without
aliases (a few of which make gigabytes), without tags (which make objects), and with every name once. All values are
text as written: ``language: no`` is Norwegian, whatever YAML 1.1 makes of a bare ``no``.

>>> read_header("---\nlanguage: [de, no]\n---\n# Teuken")
{'language': ['de', 'no']}
"""

from __future__ import annotations

from typing import Final, TypeAlias

import yaml

from pq_registry import limits
from pq_registry.errors import FormatError

HeaderValue: TypeAlias = "str | list[HeaderValue] | dict[str, HeaderValue]"
_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_FENCE: Final = "---"


def split_card(text: str) -> tuple[str, str]:
    """The header, without its fences, and what follows it; the header is empty if there is none."""
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    start = next((at for at, line in enumerate(lines) if line.strip()), len(lines))
    if start == len(lines) or lines[start].rstrip() != _FENCE:
        return "", text
    for end in range(start + 1, len(lines)):
        if lines[end].rstrip() == _FENCE:
            return "".join(lines[start + 1 : end]), "".join(lines[end + 1 :])
    return "", text


def read_header(content: bytes | str) -> dict[str, HeaderValue]:
    """The header of a card; empty if it has none.

    Raises:
        FormatError: if it cannot be read, or is larger or deeper than a header may be.
    """
    text = decode_card(content) if isinstance(content, bytes) else content
    header, _ = split_card(text)
    if len(header.encode("utf-8", "surrogatepass")) > limits.CARD_HEADER_BYTES:
        raise FormatError("the header is too long", expected=f"at most {limits.CARD_HEADER_BYTES} bytes of YAML")
    try:
        _measure(header)
        node = yaml.compose(header, Loader=_LOADER)
    except (yaml.YAMLError, UnicodeError) as error:
        raise _unreadable(error) from None
    if node is None:
        return {}
    value = _value(node)
    if not isinstance(value, dict):
        raise FormatError("the header is no mapping", expected="lines of 'name: value'", found=type(value).__name__)
    return value


def decode_card(data: bytes) -> str:
    """The text of a card.

    Raises:
        FormatError: if it is too long or not UTF-8.
    """
    if len(data) > limits.CARD_BYTES:
        raise FormatError("the card is too long", expected=f"at most {limits.CARD_BYTES} bytes", found=len(data))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(
            "the card is no text", expected="UTF-8", found=f"something else at byte {error.start}"
        ) from None


def _measure(header: str) -> None:
    """Look at every part before any is kept: the parser reports them one by one, whatever they add up to."""
    depth = 0
    for count, event in enumerate(yaml.parse(header, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent):
            raise FormatError("the header has an alias", expected="every value written out, without & and *")
        if getattr(event, "tag", None) not in (None, "!"):
            raise FormatError("the header has a tag", expected="plain values, without !", found=str(event.tag)[:60])
        if depth > limits.CARD_HEADER_DEPTH:
            raise FormatError("the header is too deep", expected=f"at most {limits.CARD_HEADER_DEPTH} levels")
        if count > limits.CARD_HEADER_EVENTS:
            raise FormatError("the header has too many parts", expected=f"at most {limits.CARD_HEADER_EVENTS}")


def _value(node: yaml.Node) -> HeaderValue:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return str(node.value)
    found: dict[str, HeaderValue] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise FormatError("the header has a name that is no text", expected="name: value")
        name = str(key.value)
        if name in found:
            raise FormatError("the header has a name twice", expected="every name once", found=repr(name)[:60])
        found[name] = _value(value)
    return found


def _unreadable(error: Exception) -> FormatError:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1} of the header"
    problem = getattr(error, "problem", None) or "not YAML"
    return FormatError(
        "the header cannot be read", expected="YAML", found=f"{problem}{where}",
        hint="put values that hold ': ' or '#' in quotes",
    )  # fmt: skip
