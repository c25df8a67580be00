# SPDX-License-Identifier: Apache-2.0
"""``pqreg pull``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.console import Output, size_text
from pqreg_cli.importview import claim_fields, claim_json, directory_claim, warn_of_claim
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    LimitRateOption,
    PassphraseFdOption,
    PassphraseFileOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.recipients import RecipientKeyOption
from pqreg_cli.recipients import recipient_key as recipient_key_of
from pqreg_cli.releaseview import release_json, show_summary
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.pull import PullResult
    from pq_registry.client.resolve import Resolved
    from pq_registry.client.transport import RegistryClient
    from pq_registry.client.trust import Verifier
    from pq_registry.format.inner import Inner


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
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Leave a sealed release sealed: its ciphertext, evidence and grants.")
    ] = False,
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
    quiet: QuietOption = False,
) -> None:
    """Fetch a release and verify every byte of it before it gets its name.

    Interrupted, it continues where it stopped when it is run again. Into a directory that holds an older release of
    the same repository it fetches only what differs.

    A sealed release is unsealed on the way, with a recipient key it was granted to. With --sealed it is fetched and
    verified as it is, which needs no key; such a directory is a mirror, and loads where a recipient key is.

    Examples:
      pqreg pull acme/minilm:v1 ./minilm
      pqreg pull acme/minilm@sha256:0123... ./minilm --limit-rate 20M
      pqreg pull acme/minilm:v1 --hf-cache
      pqreg pull acme/secret:v1 ./secret --recipient-key node1.pqkey
      pqreg pull acme/secret:v1 ./mirror --sealed
    """
    from pq_registry.client.hfcache import HubCache
    from pq_registry.client.keptgrants import keep_grants
    from pq_registry.client.pull import pull as pull_release
    from pq_registry.client.resolve import resolve
    from pq_registry.client.source import RemoteSource
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider,
        connections=connections, limit_rate=limit_rate, recipient_key=recipient_key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd,
    )  # fmt: skip
    wanted = Reference.parse(reference)
    if out is None and not hf_cache:
        raise UsageError("where to?", expected="a directory OUT, or --hf-cache", hint=f"pqreg pull {reference} ./model")
    begun = time.monotonic()
    with session.client() as client:
        verifier = session.verifier(online=True)
        found = resolve(wanted, client, verifier, session.seen_tags())
        is_sealed = found.verified.release.manifest.sealing is not None
        inner = None
        if is_sealed and not sealed:
            result, inner = _pull_unsealed(session, client, verifier, found, None if hf_cache else out)
        else:
            destination = HubCache(out or session.settings.hf_cache_dir, found) if hf_cache else out
            assert destination is not None
            with RemoteSource(client) as source, session.progress() as progress:
                result = pull_release(found, source, destination, progress=progress, connections=session.connections)
        grants = None
        if is_sealed and sealed:
            grants = keep_grants(result.path, found.verified.release, client, verifier, session.seen_grants())
    seconds = time.monotonic() - begun
    how = ", unsealed" if inner is not None else ", still sealed" if is_sealed else ""
    output.line(f"verified: {found.verified.release.name}, every byte, in {result.path}{how}", "good")
    claim = directory_claim(result.path, (inner or found.verified.release.manifest).files)
    show_summary(
        output, found.verified, found.tag, transfer=_amount(result, seconds), inner=inner, more=claim_fields(claim)
    )
    warn_of_claim(output, claim)
    if grants is not None:
        output.note(f"{grants} grants are kept beside it, for nodes without a network")
    output.data(
        {
            **release_json(found.verified, found.tag, inner=inner),
            "import": claim_json(claim),
            "unsealed": inner is not None,
            "path": str(result.path),
            "fetched": result.fetched,
            "present": result.present,
            "seconds": round(seconds, 3),
        }
    )


def _pull_unsealed(
    session: Session, client: RegistryClient, verifier: Verifier, found: Resolved, out: Path | None
) -> tuple[PullResult, Inner]:
    """Pull a sealed release and unseal it on the way."""
    from pq_registry.client.proofs import fetch_receipt
    from pq_registry.client.pull import pull as pull_release
    from pq_registry.client.source import RemoteSource
    from pq_registry.client.unsealing import fetch_grant, no_key, unseal
    from pq_registry.client.unsealplace import UnsealedDirectory

    release = found.verified.release
    if out is None:
        raise UsageError(
            f"{release.name} is sealed, and the Hugging Face cache is no place for plaintext that others may share",
            expected="a directory OUT, or --sealed", hint=f"pqreg pull {release.name} ./model",
        )  # fmt: skip
    key = recipient_key_of(session)
    if key is None:
        raise no_key(release)
    grant = fetch_grant(client, release, key.public.id)
    receipt = fetch_receipt(client, verifier, grant)
    attempts = limits.ATTEMPTS
    seen = session.seen_grants()
    with (
        RemoteSource(client) as source,
        unseal(
            found.verified,
            grant,
            key=key,
            source=source,
            verifier=verifier,
            receipt=receipt,
            seen=seen,
            attempts=attempts,
        ) as unsealed,
        session.progress() as progress,
    ):
        result = pull_release(
            found, unsealed.source(source, attempts=attempts), UnsealedDirectory(out, unsealed), progress=progress,
            connections=session.connections, files=unsealed.inner.files,
        )  # fmt: skip
    return result, unsealed.inner


def _amount(result: PullResult, seconds: float) -> str:
    text = f"{size_text(result.fetched)} fetched in {seconds:.1f} s"
    return f"{text}; {size_text(result.present)} were there already" if result.present else text
