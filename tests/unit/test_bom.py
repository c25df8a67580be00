# SPDX-License-Identifier: Apache-2.0
"""Bills of materials: CycloneDX 1.6 by its schema; all that is installed is in one, every algorithm in the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pq_registry.crypto.suites import Profile
from pq_registry.format.recipientfile import Kem
from pqreg_cli.cryptoassets import ALGORITHMS
from pqreg_cli.main import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["--sbom", "--cbom"])
def document(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    assert run(["version", request.param]) == 0
    out = capsys.readouterr().out
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(out)
    assert problem is None, problem
    yield json.loads(out)


def test_a_document_is_of_its_schema_and_refers_to_what_it_holds(document: dict[str, Any]) -> None:
    held = [document["metadata"]["component"], *document["components"]]
    references = [component["bom-ref"] for component in held]
    assert len(references) == len(set(references))
    for entry in document["dependencies"]:
        assert {entry["ref"], *entry.get("dependsOn", []), *entry.get("provides", [])} <= set(references), entry


def test_the_schema_would_notice(document: dict[str, Any]) -> None:
    document["components"][0]["type"] = "thing"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


def test_the_software_is_all_that_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--sbom"]) == 0
    document = json.loads(capsys.readouterr().out)
    listed = {component["name"]: component["version"] for component in document["components"]}
    for name in ("cryptography", "blake3", "sqlalchemy"):
        assert listed[name] == metadata.version(name)
    assert {"python", "openssl"} <= set(listed)
    ours = next(entry for entry in document["dependencies"] if entry["ref"].startswith("pkg:pypi/pq-registry@"))
    assert f"pkg:pypi/blake3@{listed['blake3']}" in ours["dependsOn"]


def test_the_cryptography_is_that_of_the_code() -> None:
    names = {re.sub(r"[^A-Z0-9]", "", algorithm.name.upper()) for algorithm in ALGORITHMS}
    for profile in Profile:
        for half in (profile.ec, profile.pq):
            assert re.sub(r"[^A-Z0-9]", "", half.algorithm.upper()) in names, half.algorithm
    for kem in Kem:
        assert kem.name.replace("_", "") in names, kem
    concept = (ROOT / "docs" / "operations" / "crypto-concept.md").read_text("utf-8")
    assert not [algorithm.name for algorithm in ALGORITHMS if algorithm.name not in concept]
    used = "".join(
        path.read_text("utf-8") for folder in ("pq_registry", "keys") for path in (ROOT / folder).rglob("*.py")
    )
    for word in re.findall(r"\b(?:hashes|ec|mldsa|mlkem|algorithms)\.([A-Z][A-Za-z0-9]+)\(", used):
        known = {"SHA256", "SHA384", "SHA512", "ECDSA", "SECP256R1", "SECP384R1"}
        assert word in known or "PrivateKey" in word or "PublicKey" in word, f"{word} is in no bill of materials"


def test_one_at_a_time() -> None:
    assert run(["version", "--sbom", "--cbom"]) == 2
