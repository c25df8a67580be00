# SPDX-License-Identifier: Apache-2.0
"""``pqreg verify``: a directory with all its content, or a release in the registry without fetching its weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import NameSyntaxError, UsageError
from pqreg_cli.console import Output, count_text
from pqreg_cli.hubs import HubOption, open_hub
from pqreg_cli.importview import claim_fields, claim_json, directory_claim, remote_claim, warn_of_claim
from pqreg_cli.opening import unseal_directory, unseal_remote
from pqreg_cli.options import (
    JsonOption,
    PassphraseFdOption,
    PassphraseFileOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.recipients import RecipientKeyOption
from pqreg_cli.releaseview import release_json, show_summary
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.format.name import Reference

_HUB = "hf://"


def verify(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PATH|REF|HUB_MODEL",
            help="A directory, a release in the registry by its reference, or hf://org/model[@revision].",
        ),
    ],
    *,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="NAME[@DIGEST]", help="The release it must be: ns/name or ns/name@sha256:..."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="For a directory: also SHA-256 of every file and tensor tables, as pull does."),
    ] = False,
    unseal: Annotated[
        bool, typer.Option("--unseal", help="For a sealed release: also open it and check everything in it.")
    ] = False,
    recipient_key: RecipientKeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    oms_key: Annotated[
        Path | None,
        typer.Option(
            "--oms-key",
            metavar="FILE",
            help="For a directory another OpenSSF Model Signing tool signed: the EC public key (PEM) to verify with.",
        ),
    ] = None,
    hub: HubOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify a directory, a release in the registry, or one on a Hugging Face Hub.

    A directory is verified completely and needs no network: signatures, file set, every byte. A release in the
    registry is verified without its weights: tag, signatures, manifest, and that the registry has every file in its
    signed size. What exists as a path is a path, everything else a reference.

    A sealed release is verified as it is stored, by anybody; with --unseal it is also opened with your recipient key,
    in memory, and every byte compared with what the publisher says of the plaintext. A directory that was unsealed is
    verified without a key.

    A model on a Hub that carries the evidence of a release (hf://org/model@revision) is fetched at a pinned commit into
    the Hugging Face cache and verified there as a directory; no registry is asked.

    With --oms-key a directory that other OMS tools signed is verified by that one key; that is a classical signature,
    and says nothing about names.

    Examples:
      pqreg verify ./minilm
      pqreg verify ./minilm --expect acme/minilm --json
      pqreg verify acme/minilm:v1
      pqreg verify hf://acme/minilm@v1 --expect acme/minilm
      pqreg verify ./mirror --unseal --recipient-key node1.pqkey
      pqreg verify ./theirs --oms-key publisher.pem
    """
    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, recipient_key=recipient_key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd, hub=hub,
    )  # fmt: skip
    path = Path(what)
    if oms_key is not None:
        if expect is not None or full or unseal:
            raise UsageError(
                "--oms-key goes with none of --expect, --full and --unseal", hint="their statement has no full name"
            )
        _verify_foreign(session, path, oms_key)
    elif what.startswith(_HUB):
        path, commit = _fetch_from_hub(session, what)
        _verify_directory(
            session, path, _expected(expect), full=full, unseal=unseal, hub={"hub": what, "commit": commit}
        )
    elif path.exists():
        _verify_directory(session, path, _expected(expect), full=full, unseal=unseal)
    else:
        _verify_remote(session, _reference(what), _expected(expect), full=full, unseal=unseal)


def _fetch_from_hub(session: Session, text: str) -> tuple[Path, str]:
    from pq_registry.mirror.hub import HubReference
    from pq_registry.mirror.hubrelease import fetch_release

    reference = HubReference.parse(text)
    session.verifier(online=False)  # without a trust file there is no point in fetching anything
    hub = open_hub(session)
    with session.progress() as progress:
        commit, path = fetch_release(
            hub, reference, session.settings.hf_cache_dir, connections=session.connections, progress=progress
        )
    session.output.note(f"{reference} is commit {commit}, in {path}")
    return path, commit


def _verify_directory(
    session: Session,
    path: Path,
    expected: Reference | None,
    *,
    full: bool,
    unseal: bool,
    hub: dict[str, object] | None = None,
) -> None:
    from pq_registry.client.verify import verify_contents

    output = session.output
    begun = time.monotonic()
    verifier = session.verifier(online=False)
    with session.progress() as progress:
        contents = verify_contents(
            path, verifier, expected=expected, progress=progress, full=full, state_dir=session.settings.state_dir
        )
        verified, inner = contents.verified, contents.inner
        if unseal:
            inner = unseal_directory(session, path, contents, verifier, progress)
    claim = directory_claim(path, contents.files)
    seconds = time.monotonic() - begun
    opened = ", sealed and opened" if unseal and contents.sealed else ", unsealed" if inner is not None else ""
    output.line(f"verified: {path} is {verified.release.name}, every byte as signed{opened}", "good")
    show_summary(output, verified, inner=inner, more=claim_fields(claim))
    warn_of_claim(output, claim)
    if expected is None:
        output.note("no --expect: this says what the directory is, not that it is what you wanted")
    output.data(
        {
            **release_json(verified, inner=inner),
            "import": claim_json(claim),
            "unsealed": inner is not None,
            "verified": True,
            "content_verified": True,
            "full": full,
            "path": str(path),
            "seconds": round(seconds, 3),
            **(hub or {}),
        }
    )


def _verify_remote(
    session: Session, reference: Reference, expected: Reference | None, *, full: bool, unseal: bool
) -> None:
    from pq_registry.client.resolve import resolve
    from pq_registry.client.verify import verify_remote

    if full:
        raise UsageError(f"--full is for directories, and {reference} is none", hint=f"pqreg pull {reference} DIR")
    output = session.output
    with session.client() as client:
        verifier = session.verifier(online=True)
        found = resolve(reference, client, verifier, session.seen_tags())
        verify_remote(found, client, expected=expected, connections=session.connections)
        claim, inner = remote_claim(client, found.verified.release.manifest.files), None
        if unseal:
            with session.progress() as progress:
                inner = unseal_remote(session, client, found.verified, verifier, progress)
    how = "without its content" if inner is None else "sealed and opened, every byte"
    output.line(f"verified: {reference} in the registry, {how}", "good")
    show_summary(output, found.verified, found.tag, inner=inner, more=claim_fields(claim))
    warn_of_claim(output, claim)
    if inner is None:
        output.note("the content was not fetched; pull and load verify every byte of it")
    checked = {"verified": True, "content_verified": inner is not None}
    output.data({**release_json(found.verified, found.tag, inner=inner), "import": claim_json(claim), **checked})


def _verify_foreign(session: Session, path: Path, key: Path) -> None:
    from pq_registry.client.foreign import verify_oms

    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", hint="--oms-key verifies a directory with a model.sig in it")
    public = read_small(key, "public key", limits.IDENTITY_FILE_BYTES)
    output = session.output
    with session.progress() as progress:
        statement = verify_oms(path, public, progress=progress)
    output.line(f"verified: {path}, by the key in {key}", "good")
    output.fields([("model", statement.model_name), ("content", count_text(len(statement.resources), "file"))])
    output.note("one classical signature: no post-quantum half, no repository name, no trust file")
    output.data(
        {
            "verified": True,
            "content_verified": True,
            "path": str(path),
            "model_name": statement.model_name,
            "files": len(statement.resources),
        }
    )


def _reference(text: str) -> Reference:
    from pq_registry.format.name import Reference

    try:
        return Reference.parse(text)
    except NameSyntaxError as error:
        raise UsageError(
            f"{text} is neither a directory nor a reference",
            expected="a path that exists, or namespace/name[:tag][@sha256:...]",
            found=f"no such path, and {error.message}",
        ) from None


def _expected(text: str | None) -> Reference | None:
    from pq_registry.format.name import Reference

    if text is None:
        return None
    if ":" in text.partition("@")[0]:
        raise UsageError(
            "--expect takes no tag", expected="namespace/name or namespace/name@sha256:...", found=text,
            hint="a tag can move, so a directory does not prove by which tag it was pulled",
        )  # fmt: skip
    return Reference.parse(text)
