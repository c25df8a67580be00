# SPDX-License-Identifier: Apache-2.0
"""A graph of models as geometry for SVG: a column for each step, bases on the left, what was made from them right.

Names are cut for the picture only; the document has them whole, and the same as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Final

from pq_registry.service.cards import Edge, Graph, Node

BOX_WIDTH: Final = 216
BOX_HEIGHT: Final = 52
_COLUMN: Final = 316
_ROW: Final = 72
_MARGIN: Final = 4
_NAME_CHARS: Final = 24


@dataclass(frozen=True, slots=True)
class Box:
    """One model: its place, and its name in two lines that fit."""

    node: Node
    x: int
    y: int
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Line:
    """One edge: a curve, and where its word stands."""

    edge: Edge
    path: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of it, in units of its own view box."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    box_width: int = BOX_WIDTH
    box_height: int = BOX_HEIGHT


def draw(graph: Graph) -> Drawing:
    """Place every model; columns are centred on the tallest one."""
    columns = [list(nodes) for _, nodes in groupby(graph.nodes, key=lambda node: node.level)]
    tallest = max(map(len, columns))
    boxes = {}
    for at, nodes in enumerate(columns):
        top = _MARGIN + (tallest - len(nodes)) * _ROW // 2
        for row, node in enumerate(nodes):
            namespace, _, name = node.name.rpartition("/")
            first, second = (_cut(f"{namespace}/"), _cut(name)) if namespace else (_cut(name), "")
            boxes[node.name] = Box(node, _MARGIN + at * _COLUMN, top + row * _ROW, first, second)
    lines = tuple(_line(edge, boxes[edge.base], boxes[edge.derived]) for edge in graph.edges)
    width = (len(columns) - 1) * _COLUMN + BOX_WIDTH + 2 * _MARGIN
    height = (tallest - 1) * _ROW + BOX_HEIGHT + 2 * _MARGIN
    return Drawing(width, height, tuple(boxes.values()), lines)


def _line(edge: Edge, base: Box, derived: Box) -> Line:
    start, end = base.x + BOX_WIDTH, derived.x
    above, below = base.y + BOX_HEIGHT // 2, derived.y + BOX_HEIGHT // 2
    bend = max(40, (end - start) // 2)
    path = f"M{start} {above}C{start + bend} {above} {end - bend} {below} {end} {below}"
    return Line(edge, path, (start + end) // 2, (above + below) // 2 + 4)


def _cut(text: str) -> str:
    return text if len(text) <= _NAME_CHARS else f"{text[: _NAME_CHARS - 1]}\N{HORIZONTAL ELLIPSIS}"
