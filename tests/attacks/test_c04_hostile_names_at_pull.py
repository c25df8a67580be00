# SPDX-License-Identifier: Apache-2.0
"""C4 at pull: a publisher whose signature is genuine names files so that they leave the directory or meet another.

huggingface_hub #1429, #3896 and #4086, go-tuf CVE-2026-24686. The manifest and the statement are built by hand and
signed; the client refuses while resolving, and nothing is written anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import FormatError, PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.release import statement_of
from pq_registry.format.strict_json import encode_canonical
from tests.fake_registry import serving
from tests.pull_site import Site
from tests.samples import manifest, publisher

ONE = [
    "../evil", "/etc/passwd", "a/../../evil", "a//b", "./a", "a/.", "..", ".", "", "C:\\evil", "C:evil",
    "\\\\host\\share",
    "a\\..\\..\\evil", "nul", "a/COM1.txt", "aux.", "a\0b", "a\nb", "a.", "a ", "a/b ", "~/../x\x7f", "a" * 256,
    "/".join(["a" * 200] * 6), "e\u0301", "a\ud800", "a:b", "a|b", "<a>", 'a"b', "a?b", "a*b",
    ".pqreg/incoming/x", ".pqreg", ".PQREG/x", "model.sig", "Model.Sig", "model.pq.sig", "model.tlog-proof",
    "pqreg.json",
    "PQREG.JSON", ".git/hooks/post-checkout", ".cache/huggingface/x",
]  # fmt: skip
TWO = [
    ("README.md", "readme.md"), ("stra\u00dfe", "STRASSE"), ("a", "a/b"), ("A/x", "a/y/../x"), ("a/B", "a/b"),
    ("\u212b", "\u00c5"), ("same", "same"),
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def publish(site: Site, names: tuple[str, ...]) -> Digest:
    """Sign and serve a release with these names, whatever they are."""
    files = {f"file{number}": b"evil %d" % number for number in range(len(names))}
    honest = manifest(files)
    document: dict[str, Any] = json.loads(honest.encode())
    for entry, name in zip(document["files"], names, strict=True):
        entry["path"] = name
    data = written(document)
    statement: dict[str, Any] = json.loads(statement_of(honest, data).encode())
    for number, resource in enumerate(statement["predicate"]["resources"][: len(names)]):
        resource["name"] = names[number]
    payload = written(statement)
    return site.registry.add_release(sign_envelope(payload, publisher()), data, files)


def written(document: object) -> bytes:
    try:
        return encode_canonical(document)
    except FormatError:  # a lone surrogate
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def refused(site: Site, names: tuple[str, ...]) -> None:
    site.out.mkdir()
    with pytest.raises(PqregError) as caught:
        site.pull(publish(site, names))
    assert caught.value.step in (2, 3)
    assert sorted(path.name for path in site.home.iterdir()) == ["out"]
    assert list(site.out.iterdir()) == []
    assert not site.registry.ranges


@pytest.mark.parametrize("name", ONE, ids=ascii)
def test_c04_a_signed_hostile_name_writes_nothing(site: Site, name: str) -> None:
    refused(site, (name,))


@pytest.mark.parametrize("names", TWO, ids=ascii)
def test_c04_two_signed_names_that_meet_write_nothing(site: Site, names: tuple[str, ...]) -> None:
    refused(site, names)


def test_c04_the_same_by_hand_with_an_honest_name_is_pulled(site: Site) -> None:
    """The control: what is refused above is refused for its name."""
    site.pull(publish(site, ("honest/name.txt",)))
    assert (site.out / "honest/name.txt").read_bytes() == b"evil 0"
