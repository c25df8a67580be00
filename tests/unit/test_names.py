# SPDX-License-Identifier: Apache-2.0
"""Names, references and instants: one written form each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, in_window, is_expired, parse_instant
from pq_registry.format.name import Namespace, Reference, RepositoryName, Tag

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "tag", "digest"),
    [
        ("acme/minilm", "main", None),
        ("acme/minilm:v1", "v1", None),
        (f"acme/minilm@sha256:{HEX}", None, HEX),
        (f"acme/minilm:v1@sha256:{HEX}", "v1", HEX),
    ],
)
def test_reference_forms(text: str, tag: str | None, digest: str | None) -> None:
    reference = Reference.parse(text)
    assert reference.repository == RepositoryName(Namespace("acme"), "minilm")
    assert reference.tag == (Tag(tag) if tag else None)
    assert reference.digest == (Digest(digest) if digest else None)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "/x",
        "acme/",
        "a/b/c",
        "acme/x:",
        "acme/x@",
        f"acme/x@{HEX}",
        "acme/-x",
        ".a/x",
        "a..b/x",
        "a--b/x",
        "acme/x:" + "a" * 40,
        "acme/x:" + "A" * 64,
        "acme/x:-v",
        "acme/x y",
        "acme/ü",
        "acme/x\n",
        f"acme/x@sha256:{HEX[:-1]}",
        f"acme/x@sha256:{HEX.upper()}",
        "a" * 97 + "/x",
        "acme/x:" + "v" * 129,
        "acme/x@sha512:" + HEX,
    ],
)
def test_reference_refused(text: str) -> None:
    with pytest.raises(NameSyntaxError):
        Reference.parse(text)


def test_names_compare_without_case() -> None:
    assert RepositoryName.parse("Acme/MiniLM").key == RepositoryName.parse("acme/minilm").key


def test_instant_round_trip_and_junk() -> None:
    instant = datetime(2026, 11, 21, 18, 52, 0, tzinfo=UTC)
    assert parse_instant(format_instant(instant)) == instant
    for text in (
        "2026-11-21",
        "2026-11-21T18:52:00+00:00",
        "2026-02-30T00:00:00Z",
        "2026-11-21T18:52:00.0Z",
        "2026-11-21t18:52:00z",
        "٢٠٢٦-11-21T18:52:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T18:52:00Z\n",
    ):
        with pytest.raises(FormatError):
            parse_instant(text)


def test_windows_are_half_open() -> None:
    edge = datetime(2026, 1, 1, tzinfo=UTC)
    second = timedelta(seconds=1)
    assert in_window(edge, edge, None) and not in_window(edge - second, edge, None)
    assert in_window(edge - second, None, edge) and not in_window(edge, None, edge)
    assert is_expired(edge, edge) and not is_expired(edge - second, edge)
    assert not is_expired(edge, edge, second) and is_expired(edge + second, edge, second)
