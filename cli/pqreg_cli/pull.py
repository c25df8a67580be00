# SPDX-License-Identifier: Apache-2.0
"""``pqreg pull``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import UsageError
from pqreg_cli.console import Output, size_text
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    LimitRateOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.releaseview import release_json, show_summary
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.pull import PullResult


def pull(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="namespace/name[:tag][@sha256:...]; without a tag, main.")
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The directory to fill; with --hf-cache the cache, if not the usual one."),
    ] = None,
    *,
    hf_cache: Annotated[
        bool,
        typer.Option("--hf-cache", help="Fill the Hugging Face cache, so that from_pretrained finds it offline."),
    ] = False,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch a release and verify every byte of it before it gets its name.

    Interrupted, it continues where it stopped when it is run again. Into a directory that holds an older release of
    the same repository it fetches only what differs.

    Examples:
      pqreg pull acme/minilm:v1 ./minilm
      pqreg pull acme/minilm@sha256:0123... ./minilm --limit-rate 20M
      pqreg pull acme/minilm:v1 --hf-cache
    """
    from pq_registry.client.hfcache import HubCache
    from pq_registry.client.pull import pull as pull_release
    from pq_registry.client.resolve import resolve
    from pq_registry.client.source import RemoteSource
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, connections=connections, limit_rate=limit_rate
    )
    wanted = Reference.parse(reference)
    if out is None and not hf_cache:
        raise UsageError("where to?", expected="a directory OUT, or --hf-cache", hint=f"pqreg pull {reference} ./model")
    begun = time.monotonic()
    with session.client() as client:
        found = resolve(wanted, client, session.verifier(online=True), session.seen_tags())
        destination = HubCache(out or session.settings.hf_cache_dir, found) if hf_cache else out
        assert destination is not None
        with RemoteSource(client) as source, session.progress() as progress:
            result = pull_release(found, source, destination, progress=progress, connections=session.connections)
    seconds = time.monotonic() - begun
    output.line(f"verified: {found.verified.release.name}, every byte, in {result.path}", "good")
    show_summary(output, found.verified, found.tag, transfer=_amount(result, seconds))
    output.data(
        {
            **release_json(found.verified, found.tag),
            "path": str(result.path),
            "fetched": result.fetched,
            "present": result.present,
            "seconds": round(seconds, 3),
        }
    )


def _amount(result: PullResult, seconds: float) -> str:
    text = f"{size_text(result.fetched)} fetched in {seconds:.1f} s"
    return f"{text}; {size_text(result.present)} were there already" if result.present else text
