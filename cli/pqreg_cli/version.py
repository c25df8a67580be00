# SPDX-License-Identifier: Apache-2.0
"""``pqreg version``."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from pq_registry import __version__
from pq_registry.errors import UsageError
from pqreg_cli.console import Output
from pqreg_cli.options import JsonOption


def version(
    *,
    json: JsonOption = False,
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Print a bill of materials of all that is installed here: CycloneDX JSON.")
    ] = False,
    cbom: Annotated[bool, typer.Option("--cbom", help="Print one of the cryptography: CycloneDX JSON.")] = False,
) -> None:
    """Say which versions this is made of; put it into every bug report.

    Examples:
      pqreg version --json
      pqreg version --sbom > sbom.cdx.json
      pqreg version --cbom > cbom.cdx.json
    """
    if sbom or cbom:
        if sbom and cbom:
            raise UsageError("one bill of materials at a time", expected="--sbom or --cbom")
        from pqreg_cli import bom

        Output(json=True).data(bom.sbom() if sbom else bom.cbom())
        return
    import cryptography
    from cryptography.hazmat.backends.openssl.backend import backend

    values = {
        "pq-registry": __version__,
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text(),
        "platform": platform.platform(),
    }
    output = Output(json=json)
    output.fields(values.items())
    output.data(values)
