# SPDX-License-Identifier: Apache-2.0
"""Bills of materials of this installation, CycloneDX 1.6 JSON: of its software, and of its cryptography.

The SBOM lists every distribution installed beside this one, in this environment, and what the compiled ones bring:
Python and OpenSSL. The CBOM lists the algorithms (``cryptoassets``), by which library each is provided.
"""

from __future__ import annotations

import platform
import re
from importlib import metadata
from typing import Any

from pq_registry import __version__
from pqreg_cli.cryptoassets import ALGORITHMS, Algorithm

Json = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LICENSE_CHARS = 100
_OURS = f"pkg:pypi/pq-registry@{__version__}"


def sbom() -> Json:
    """The software: this, what is installed beside it, and which needs which."""
    found = {_normal(one.name): one for one in metadata.distributions() if one.name}
    found.pop("pq-registry", None)
    references = {name: _purl(name, one.version) for name, one in found.items()}
    native = [_native("python", platform.python_version(), "platform"), _native("openssl", _openssl(), "library")]
    needs = {references[name]: one.requires or [] for name, one in found.items()}
    needs[_OURS] = _requirements_of_ours()
    return _document(
        [*(_library(name, one) for name, one in sorted(found.items())), *native],
        [
            {"ref": reference, "dependsOn": sorted(_installed(requirements, references, extras=reference == _OURS))}
            for reference, requirements in sorted(needs.items())
        ],
    )


def cbom() -> Json:
    """The cryptography: every algorithm, what it is for, and what provides it."""
    openssl, blake3 = _native("openssl", _openssl(), "library"), _native_blake3()
    names = sorted(algorithm.name for algorithm in ALGORITHMS)
    provided = [_reference(name) for name in names if name not in ("BLAKE3", "SLH-DSA-SHA2-256s")]
    tls: Json = {
        "type": "cryptographic-asset", "bom-ref": "crypto/protocol/tls", "name": "TLS",
        "cryptoProperties": {"assetType": "protocol", "protocolProperties": {"type": "tls", "version": "1.3"}},
        "description": "between clients, the proxy before the service, object store and database",
    }  # fmt: skip
    return _document(
        [*(_asset(algorithm) for algorithm in ALGORITHMS), tls, openssl, blake3],
        [
            {"ref": _OURS, "dependsOn": sorted([*(_reference(name) for name in names), tls["bom-ref"]])},
            {"ref": openssl["bom-ref"], "provides": provided},
            {"ref": blake3["bom-ref"], "provides": [_reference("BLAKE3")]},
        ],
    )


def _document(components: list[Json], dependencies: list[Json]) -> Json:
    from pq_registry.format.instant import format_instant, utc_now

    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": format_instant(utc_now()),
            "lifecycles": [{"phase": "operations"}],
            "component": {
                "type": "application", "bom-ref": _OURS, "name": "pq-registry", "version": __version__, "purl": _OURS,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }  # fmt: skip


def _library(name: str, one: metadata.Distribution) -> Json:
    purl = _purl(name, one.version)
    found: Json = {"type": "library", "bom-ref": purl, "name": name, "version": one.version, "purl": purl}
    if "License-Expression" in one.metadata:
        found["licenses"] = [{"expression": one.metadata["License-Expression"]}]
    elif "License" in one.metadata and len(one.metadata["License"]) <= _LICENSE_CHARS:
        found["licenses"] = [{"license": {"name": one.metadata["License"]}}]
    return found


def _asset(algorithm: Algorithm) -> Json:
    properties: Json = {"primitive": algorithm.primitive}
    if algorithm.parameters is not None:
        properties["parameterSetIdentifier"] = algorithm.parameters
    if algorithm.curve is not None:
        properties["curve"] = algorithm.curve
    properties |= {
        "cryptoFunctions": list(algorithm.functions),
        "classicalSecurityLevel": algorithm.classical,
        "nistQuantumSecurityLevel": algorithm.quantum,
    }
    crypto: Json = {"assetType": "algorithm", "algorithmProperties": properties}
    if algorithm.oid is not None:
        crypto["oid"] = algorithm.oid
    return {
        "type": "cryptographic-asset", "bom-ref": _reference(algorithm.name), "name": algorithm.name,
        "description": algorithm.use, "cryptoProperties": crypto,
    }  # fmt: skip


def _reference(name: str) -> str:
    return f"crypto/algorithm/{name.lower()}"


def _native(name: str, version: str, kind: str) -> Json:
    purl = f"pkg:generic/{name}@{version}"
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _native_blake3() -> Json:
    one = metadata.distribution("blake3")
    return _library("blake3", one)


def _openssl() -> str:
    from cryptography.hazmat.backends.openssl.backend import backend

    return backend.openssl_version_text().split()[1]


def _requirements_of_ours() -> list[str]:
    try:
        return metadata.requires("pq-registry") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return []


def _installed(requirements: list[str], references: dict[str, str], *, extras: bool) -> set[str]:
    """What of the requirements is installed; those of extras only for this project, whose extras were chosen."""
    names = set()
    for requirement in requirements:
        match = _NAME.match(requirement)
        if match is not None and (extras or "extra ==" not in requirement):
            names.add(_normal(match[0]))
    return {references[name] for name in names if name in references}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"
