# SPDX-License-Identifier: Apache-2.0
"""``pqreg version``."""

from __future__ import annotations

import platform

from pq_registry import __version__
from pqreg_cli.console import Output
from pqreg_cli.options import JsonOption


def version(*, json: JsonOption = False) -> None:
    """Say which versions this is made of; put it into every bug report.

    Example:
      pqreg version --json
    """
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
