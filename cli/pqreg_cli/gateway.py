# SPDX-License-Identifier: Apache-2.0
"""``pqreg gateway``: verified releases for programs that fetch from the Hugging Face Hub, on this machine."""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import UsageError
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    LimitRateOption,
    PassphraseFdOption,
    PassphraseFileOption,
    ProviderOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.recipients import RecipientKeyOption

if TYPE_CHECKING:
    from pq_registry.gateway.serve import Ready


def gateway(
    *,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where to listen on this machine; port 0 is any. [setting: PQREG_GATEWAY_LISTEN, 127.0.0.1:8480]",
        ),
    ] = None,
    directories: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Serve the releases in and below DIR, instead of the registry's; may be given several times. "
            "[setting: PQREG_GATEWAY_FROM]",
        ),
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(
            "--hub",
            metavar="URL",
            help="Serve what a Hub mirrors, instead of the registry. [setting: PQREG_GATEWAY_HUB]",
        ),
    ] = None,
    hub_organisation: Annotated[
        str | None,
        typer.Option(
            "--hub-organisation",
            metavar="NAME",
            help="Whose repositories there the mirrors are. [setting: PQREG_GATEWAY_HUB_ORGANISATION, as named here]",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where to keep stored bytes. [setting: PQREG_GATEWAY_CACHE, in the user's cache]",
        ),
    ] = None,
    cache_size: Annotated[
        str | None,
        typer.Option(
            "--cache-size",
            metavar="SIZE",
            help="How much, e.g. 200G; 0 is nothing. [setting: PQREG_GATEWAY_CACHE_SIZE, 20G]",
        ),
    ] = None,
    recipient_key: RecipientKeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
) -> None:
    """Serve verified releases to hf, transformers, vLLM and others: set HF_ENDPOINT to the gateway's URL.

    Nothing is sent that was not verified: a release's signatures when it is asked for, each of its shards before it
    leaves. Sealed releases that were granted to this node are opened on the way. An answer that meets a wrong shard is
    broken off. It logs to standard output and says on standard error when it is ready.

    Examples:
      pqreg gateway --listen 127.0.0.1:8480
      HF_ENDPOINT=http://127.0.0.1:8480 hf download acme/minilm --revision v1
      pqreg gateway --from /srv/models --cache-size 0
      pqreg gateway --hub https://huggingface.co --hub-organisation acme-mirror
    """
    from pq_registry.settings import Settings

    _require_gateway()
    from pq_registry.format.instant import utc_now
    from pq_registry.gateway.config import GatewayConfig
    from pq_registry.gateway.serve import serve

    if any(os.pathsep in str(directory) for directory in directories or ()):
        raise UsageError(f"a directory's path cannot hold {os.pathsep!r} here", hint="give it by another path")
    given = {
        "gateway_listen": listen,
        "gateway_from": os.pathsep.join(map(str, directories)) if directories else None,
        "gateway_hub": hub,
        "gateway_hub_organisation": hub_organisation,
        "gateway_cache": cache,
        "gateway_cache_size": cache_size,
        "recipient_key": recipient_key,
        "passphrase_file": passphrase_file,
        "passphrase_fd": passphrase_fd,
        "registry": registry,
        "token": token,
        "trust": trust,
        "provider": provider,
        "connections": connections,
        "limit_rate": limit_rate,
    }
    settings = Settings({name: None if value is None else str(value) for name, value in given.items()})

    def announce(ready: Ready) -> None:
        line = {"url": ready.url, "sources": list(ready.sources), "cache": ready.cache}
        print(json_module.dumps(line) if json else ready, file=sys.stderr, flush=True)

    serve(GatewayConfig.from_settings(settings), utc_now, announce)


def _require_gateway() -> None:
    """Refuse where the gateway's parts are not installed.

    Raises:
        UsageError: saying how to install them.
    """
    from importlib.util import find_spec

    absent = [name for name in ("httptools", "prometheus_client", "starlette", "uvicorn") if find_spec(name) is None]
    if absent:
        raise UsageError(
            "the gateway is not installed", found=f"no {', '.join(absent)}", hint="pip install 'pq-registry[gateway]'"
        )
