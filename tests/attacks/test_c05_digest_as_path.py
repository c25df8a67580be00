# SPDX-License-Identifier: Apache-2.0
"""C5: a digest that is a path (CVE-2024-37032, CVE-2026-7020): nothing but 64 lowercase hex digits becomes a Digest."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Reference
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import changed, documents, put, tag_statement, trust_file

PAYLOAD, MANIFEST = documents()
HEX = "ab" * 32
BENT = [
    "../" * 21 + "x",
    "..%2f" * 12 + "abcd",
    "/" + HEX[1:],
    HEX[:-1] + "/",
    HEX[:-3] + "/..",
    HEX[:-1] + "\n",
    HEX + "\n",
    "\n" + HEX,
    " " + HEX[1:],
    HEX[:-1] + "\0",
    HEX.upper(),
    "0x" + HEX[2:],
    HEX[:-1],
    HEX + "0",
    "",
    "٣" * 64,
    "\uff41" * 64,  # fullwidth a
    "\U0001d7d8" * 64,  # mathematical zero
    HEX[:32] + "-" + HEX[33:],
    "g" * 64,
    "latest",
]


@pytest.mark.parametrize("text", BENT, ids=ascii)
def test_what_is_bent_is_no_digest(text: str) -> None:
    with pytest.raises(NameSyntaxError):
        Digest(text)
    for written in ("sha256:" + text, "sha256-" + text, text, "sha512:" + text, "SHA256:" + text, "sha256::" + text):
        with pytest.raises(NameSyntaxError):
            Digest.parse(written)
    with pytest.raises(NameSyntaxError):
        Reference.parse("acme/minilm@sha256:" + text)


@pytest.mark.parametrize("text", [text for text in BENT if "\0" not in text], ids=ascii)
def test_it_gets_into_no_document(text: str) -> None:
    members: tuple[tuple[Callable[[bytes], object], bytes, tuple[str | int, ...]], ...] = (
        (Manifest.parse, MANIFEST, ("files", 0, "sha256")),
        (Manifest.parse, MANIFEST, ("lineage", 0, "release")),
        (TagStatement.parse, tag_statement().encode(), ("predicate", "target")),
        (TagStatement.parse, tag_statement().encode(), ("predicate", "previous")),
        (TrustFile.parse, trust_file().encode(), ("namespaces", "acme", "pinned", 0)),
        (ReleaseStatement.parse, PAYLOAD, ("predicate", "resources", 0, "digest")),
        (ReleaseStatement.parse, PAYLOAD, ("subject", 0, "digest", "sha256")),
    )
    for parse, data, keys in members:
        written = text if parse == ReleaseStatement.parse else "sha256:" + text
        with pytest.raises(FormatError):
            parse(changed(data, put(*keys, value=written)))


@given(st.text() | st.text(string.hexdigits + "./\\:", min_size=60, max_size=70))
@example(HEX)
def test_whatever_is_a_digest_is_a_plain_file_name(text: str) -> None:
    try:
        digest = Digest(text)
    except NameSyntaxError:
        return
    assert len(digest.hex) == 64
    assert set(digest.hex) <= set("0123456789abcdef")
    assert (Path("/root") / digest.hex).resolve().parent == Path("/root")
    assert Digest.parse(str(digest)) == digest == Digest(digest.raw.hex())


@pytest.mark.parametrize("value", [None, 0, b"ab" * 32, bytearray(64), ["a"] * 64], ids=ascii)
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(NameSyntaxError):
        Digest(value)  # type: ignore[arg-type]
