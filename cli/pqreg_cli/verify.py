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
from pqreg_cli.options import JsonOption, QuietOption, RegistryOption, TokenOption, TrustOption
from pqreg_cli.releaseview import release_json, show_summary
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.format.name import Reference


def verify(
    what: Annotated[
        str, typer.Argument(metavar="PATH|REF", help="A directory, or a release in the registry by its reference.")
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
    oms_key: Annotated[
        Path | None,
        typer.Option(
            "--oms-key",
            metavar="FILE",
            help="For a directory another OpenSSF Model Signing tool signed: the EC public key (PEM) to verify with.",
        ),
    ] = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify a directory, or a release in the registry.

    A directory is verified completely and needs no network: signatures, file set, every byte. A release in the
    registry is verified without its weights: tag, signatures, manifest, and that the registry has every file in its
    signed size. What exists as a path is a path, everything else a reference.

    With --oms-key a directory that other OMS tools signed is verified by that one key; that is a classical signature,
    and says nothing about names.

    Examples:
      pqreg verify ./minilm
      pqreg verify ./minilm --expect acme/minilm --json
      pqreg verify acme/minilm:v1
      pqreg verify ./theirs --oms-key publisher.pem
    """
    output = Output(json=json, quiet=quiet)
    session = Session(output, registry=registry, token=token, trust=trust)
    path = Path(what)
    if oms_key is not None:
        if expect is not None or full:
            raise UsageError("--oms-key goes with neither --expect nor --full", hint="their statement has no full name")
        _verify_foreign(session, path, oms_key)
    elif path.exists():
        _verify_directory(session, path, _expected(expect), full=full)
    else:
        _verify_remote(session, _reference(what), _expected(expect), full=full)


def _verify_directory(session: Session, path: Path, expected: Reference | None, *, full: bool) -> None:
    from pq_registry.client.verify import verify_directory

    output = session.output
    begun = time.monotonic()
    with session.progress() as progress:
        verified = verify_directory(
            path, session.verifier(online=False), expected=expected, progress=progress, full=full
        )
    seconds = time.monotonic() - begun
    output.line(f"verified: {path} is {verified.release.name}, every byte as signed", "good")
    show_summary(output, verified)
    if expected is None:
        output.note("no --expect: this says what the directory is, not that it is what you wanted")
    output.data(
        {
            **release_json(verified),
            "verified": True,
            "content_verified": True,
            "full": full,
            "path": str(path),
            "seconds": round(seconds, 3),
        }
    )


def _verify_remote(session: Session, reference: Reference, expected: Reference | None, *, full: bool) -> None:
    from pq_registry.client.resolve import resolve
    from pq_registry.client.verify import verify_remote

    if full:
        raise UsageError(f"--full is for directories, and {reference} is none", hint=f"pqreg pull {reference} DIR")
    output = session.output
    with session.client() as client:
        found = resolve(reference, client, session.verifier(online=True), session.seen_tags())
        verify_remote(found, client, expected=expected, connections=session.connections)
    output.line(f"verified: {reference} in the registry, without its content", "good")
    show_summary(output, found.verified, found.tag)
    output.note("the content was not fetched; pull and load verify every byte of it")
    output.data({**release_json(found.verified, found.tag), "verified": True, "content_verified": False})


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
