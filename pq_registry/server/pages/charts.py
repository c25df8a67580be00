# SPDX-License-Identifier: Apache-2.0
"""Plots as geometry for SVG: one row per namespace or witness, named beside it, so that no colour has a meaning.

Coordinates are in the units of a row's own view box. Every plot has its numbers as a table beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pq_registry.format.note import VerifierKey
from pq_registry.service.logview import CheckpointView
from pq_registry.service.overview import Activity

WIDTH: Final = 640
HEIGHT: Final = 48
_GAP: Final = 3
_LEAST: Final = 2
"""A value above nothing is this high at least."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One value."""

    x: float
    y: float
    width: float
    height: float
    value: int
    start: datetime


@dataclass(frozen=True, slots=True)
class BarRow:
    """The values of one namespace."""

    name: str
    bars: tuple[Bar, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Dot:
    """How long after the log a witness cosigned one checkpoint; None where it did not. ``x`` is the row's middle."""

    x: float
    y: float
    lag: timedelta | None
    size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class DotRow:
    """The checkpoints of one witness."""

    name: str
    dots: tuple[Dot, ...]
    missing: int
    worst: timedelta | None


def bars(activity: Activity) -> tuple[BarRow, ...]:
    """Signatures per week; all rows have one scale."""
    most = highest(activity)
    step = WIDTH / max(1, len(activity.starts))
    return tuple(
        BarRow(
            name,
            tuple(
                _bar(at * step, step - _GAP, value, most, start)
                for at, (value, start) in enumerate(zip(values, activity.starts, strict=True))
            ),
            sum(values),
        )
        for name, values in activity.rows
    )


def highest(activity: Activity) -> int:
    """The most signatures of a week."""
    return max((value for _, values in activity.rows for value in values), default=0)


def _bar(x: float, width: float, value: int, most: int, start: datetime) -> Bar:
    height = max(float(_LEAST), HEIGHT * value / most) if value else 0.0
    return Bar(round(x, 1), round(HEIGHT - height, 1), round(width, 1), round(height, 1), value, start)


def dots(
    checkpoints: Sequence[CheckpointView], log: VerifierKey, witnesses: Sequence[tuple[str, VerifierKey]]
) -> tuple[DotRow, ...]:
    """Each witness's lag behind the log's own timestamped line; all rows have one scale."""
    dated = [(view, signed) for view in checkpoints if (signed := view.time_of(log)) is not None]
    lags = [[_lag(view, signed, key) for view, signed in dated] for _, key in witnesses]
    most = max((lag.total_seconds() for row in lags for lag in row if lag is not None), default=0.0)
    step = WIDTH / max(1, len(dated))
    rows = []
    for (name, _), row in zip(witnesses, lags, strict=True):
        known = [lag for lag in row if lag is not None]
        places = (
            Dot(
                round((at + 0.5) * step, 1), _height(lag, most), lag, view.checkpoint.size, view.at
            )
            for at, (lag, (view, _)) in enumerate(zip(row, dated, strict=True))
        )  # fmt: skip
        rows.append(DotRow(name, tuple(places), len(row) - len(known), max(known, default=None)))
    return tuple(rows)


def _lag(view: CheckpointView, signed: datetime, key: VerifierKey) -> timedelta | None:
    time = view.time_of(key)
    return None if time is None else max(timedelta(0), time - signed)


def _height(lag: timedelta | None, most: float) -> float:
    margin = 6
    share = 0.0 if lag is None or most == 0 else lag.total_seconds() / most
    return round(HEIGHT - margin - share * (HEIGHT - 2 * margin), 1)
