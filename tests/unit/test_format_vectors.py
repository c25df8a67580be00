# SPDX-License-Identifier: Apache-2.0
"""The vectors of tests/vectors/format, which a second implementation can run too.

A directory is a case: its name ends in ``_fail`` if its files must be refused, README.md says why, expect.json holds
the class of the refusal or what must be read. The names of the files say what they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import PqregError
from pq_registry.format.bundle import envelope_from_bundles
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope, pae
from pq_registry.format.manifest import Manifest
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.release import bind, content_digest
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "format"
CASES = sorted(path for path in VECTORS.iterdir() if path.is_dir())
Facts = dict[str, Any]


def _envelope(case: Path) -> Facts:
    data = (case / "envelope.json").read_bytes()
    read = Envelope.parse(data)
    assert read.encode() == data
    return {**_halves(read), "pae": pae(read.payload).hex()}


def _bundles(case: Path) -> Facts:
    return _halves(envelope_from_bundles((case / "model.sig").read_bytes(), (case / "model.pq.sig").read_bytes()))


def _halves(read: Envelope) -> Facts:
    return {
        "payload_digest": str(read.payload_digest),
        "ec": read.ec_signature.hex(),
        "pq": read.pq_signature.hex(),
    }


def _release(case: Path) -> Facts:
    payload, data = (case / "release.json").read_bytes(), (case / "pqreg.json").read_bytes()
    statement = ReleaseStatement.parse(payload)
    manifest = bind(statement, Digest.of(payload), data)
    assert (statement.encode(), manifest.encode()) == (payload, data)
    return {
        "name": str(manifest.name),
        "release": str(Digest.of(payload)),
        "root": str(statement.root),
        "manifest": str(Digest.of(data)),
        "content": str(content_digest(manifest.files)),
        "files": [entry.path.text for entry in manifest.files],
        "size": manifest.total_size,
    }


def _manifest(case: Path) -> Facts:
    return {"name": str(Manifest.parse((case / "pqreg.json").read_bytes()).name)}


def _tag(case: Path) -> Facts:
    payload = (case / "tag.json").read_bytes()
    read = TagStatement.parse(payload)
    assert read.encode() == payload
    return {
        "tag": f"{read.repository}:{read.tag}",
        "sequence": read.sequence,
        "target": None if read.target is None else str(read.target),
        "payload_digest": str(Digest.of(payload)),
    }


def _trust(case: Path) -> Facts:
    read = TrustFile.parse((case / "trust.json").read_bytes())
    return {"version": read.version, "namespaces": sorted(read.namespaces)}


def _safetensors(case: Path) -> Facts:
    content = (case / "model.safetensors").read_bytes()
    table = parse_header(content[: header_size(content[:8], len(content))], len(content))
    return {
        "header_size": table.header_size,
        "metadata": [list(pair) for pair in table.metadata],
        "tensors": [[entry.name, entry.dtype, list(entry.shape), entry.begin, entry.end] for entry in table.tensors],
    }


def _oms(case: Path) -> Facts:
    read = ForeignStatement.parse(parse_foreign_bundle((case / "oms.sig").read_bytes()).payload)
    return {
        "name": read.model_name,
        "resources": {name: digest.hex for name, digest in read.resources},
        "ignore_paths": list(read.ignore_paths),
    }


READERS = {
    "envelope": _envelope,
    "bundles": _bundles,
    "release": _release,
    "manifest": _manifest,
    "tag": _tag,
    "trust": _trust,
    "safetensors": _safetensors,
    "oms": _oms,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_vector_is_judged_as_its_name_says(case: Path) -> None:
    read = READERS[case.name.split("_")[0]]
    expected = json.loads((case / "expect.json").read_text("utf-8"))
    if not case.name.endswith("_fail"):
        assert read(case) == expected
        return
    with pytest.raises(PqregError) as caught:
        read(case)
    assert {"error": caught.value.code()} == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_vector_says_why(case: Path) -> None:
    assert len((case / "README.md").read_text("utf-8").split()) >= 3
    assert ("error" in json.loads((case / "expect.json").read_text("utf-8"))) == case.name.endswith("_fail")


def test_every_kind_has_both_verdicts() -> None:
    for kind in READERS:
        verdicts = {case.name.endswith("_fail") for case in CASES if case.name.split("_")[0] == kind}
        assert verdicts == {True, False}, kind
