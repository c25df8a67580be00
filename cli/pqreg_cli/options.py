# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, declared once: their names and words are part of the command line's contract.

All of them default to None, which means: ask ``pq_registry.settings``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RegistryOption = Annotated[
    str | None, typer.Option("--registry", metavar="URL", help="The registry service. [setting: PQREG_REGISTRY]")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Access token. Others on this machine can read the command line: prefer the setting. "
        "[setting: PQREG_TOKEN]",
    ),
]
TrustOption = Annotated[
    Path | None, typer.Option("--trust", metavar="FILE", help="The trust file. [setting: PQREG_TRUST]")
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The secret key file that signs. [setting: PQREG_KEY]")
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="A file whose first line is the key's passphrase. [setting: PQREG_PASSPHRASE_FILE]",
    ),
]
PassphraseFdOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase-fd",
        metavar="N",
        help="An open file descriptor whose first line is the key's passphrase. [setting: PQREG_PASSPHRASE_FD]",
    ),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="Who verifies ML-DSA signatures: openssl or liboqs. [setting: PQREG_PROVIDER, openssl]",
    ),
]
ConnectionsOption = Annotated[
    str | None,
    typer.Option("--connections", metavar="N", help="Parallel connections. [setting: PQREG_CONNECTIONS, 4]"),
]
LimitRateOption = Annotated[
    str | None,
    typer.Option(
        "--limit-rate", metavar="RATE", help="Bytes per second to use at most, e.g. 50M. [setting: PQREG_LIMIT_RATE]"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
