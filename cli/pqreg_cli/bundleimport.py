# SPDX-License-Identifier: Apache-2.0
"""``pqreg bundle import``."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import PqregError, TransportError, UsageError
from pqreg_cli.console import Output, count_text, size_text
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.releaseview import release_json, show_summary
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.bundle.bring import Brought, Source
    from pq_registry.client.bundle.volume import Stream
    from pq_registry.format.name import Reference

STREAM = "-"


def import_bundle(
    volumes: Annotated[
        list[str],
        typer.Argument(metavar="VOLUME...", help="Volumes in any order, directories of them, or - for standard input."),
    ],
    *,
    output_directory: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The directory to fill with the release.")
    ] = None,
    to_registry: Annotated[
        bool, typer.Option("--to-registry", help="Publish it in the configured registry of this site.")
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="REF", help="What it must be: ns/name[:tag] or ns/name@sha256:..."),
    ] = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify a bundle by your own trust file and take the release out of it.

    Nothing stands under its final name before all of it is verified. Volumes may come in several runs: what was
    verified is kept in DIR, and the volumes that are missing are named. A tag in a bundle does not move back what this
    user has seen of it.

    With --to-registry the release, its tags, grants and status go to the registry of this site; the bundle must have
    been exported with --with-history unless that registry knows what came before. It needs an owner's token the first
    time, to register the publisher's identity.

    Examples:
      pqreg bundle import minilm.tar --output ./minilm --expect acme/minilm:v1
      pqreg bundle import /media/usb1 --output ./llm
      pqreg bundle import minilm.tar --to-registry
    """
    output = Output(json=json, quiet=quiet)
    for text in volumes:
        if text != STREAM and not Path(text).exists():
            raise UsageError(f"there is no {text}", expected="volumes of a bundle, directories of them, or -")
    if output_directory is None and not to_registry:
        raise UsageError("where to?", expected="--output DIR, --to-registry, or both")
    session = Session(output, registry=registry, token=token, trust=trust, provider=provider, connections=connections)
    begun = time.monotonic()
    brought = _bring(session, volumes, output_directory, _expected(expect))
    verified = brought.accepted.verified
    delivered = _deliver(session, brought, keep=output_directory is not None) if to_registry else None
    seconds = time.monotonic() - begun
    where = session.settings.get("registry") if delivered is not None else brought.path
    output.line(f"verified: {verified.release.name}, every byte, now in {where}", "good")
    read = f"{size_text(brought.read)} from {count_text(brought.volumes, 'volume')} in {seconds:.1f} s"
    show_summary(output, verified, transfer=read)
    for name, statement in brought.accepted.tags.items():
        output.fields([("tag", f"{name}, sequence {statement.sequence}, good until {statement.expires:%Y-%m-%d}")])
    if expect is None:
        output.note("no --expect: this says what the bundle holds, not that it is what you wanted")
    if not brought.accepted.tags:
        output.note("the bundle holds no tag: nothing says whether this is the publisher's present release")
    output.data(
        {
            **release_json(verified),
            "bundle": str(brought.bundle),
            "tags": {str(name): statement.sequence for name, statement in brought.accepted.tags.items()},
            "grants": len(brought.accepted.grants),
            "path": None if output_directory is None else str(brought.path),
            "registry": delivered,
            "read": brought.read,
            "present": brought.present,
            "seconds": round(seconds, 3),
        }
    )


def _bring(session: Session, volumes: list[str], out: Path | None, expected: Reference | None) -> Brought:
    from pq_registry.client.bundle.bring import bring
    from pq_registry.client.destination import Destination, PlainDirectory
    from pq_registry.format.digest import Digest

    def destination(bundle: Digest) -> Destination:
        return PlainDirectory(out or session.settings.state_dir / "bundles" / bundle.hex)

    with session.progress() as progress:
        return bring(
            _sources(volumes), destination, session.verifier(online=False), expected=expected,
            state_dir=session.settings.state_dir, progress=progress,
        )  # fmt: skip


def _deliver(session: Session, brought: Brought, *, keep: bool) -> str:
    """Publish what was brought in the configured registry, and remove the copy nobody asked for."""
    from pq_registry.client.replicate.fromdisk import deliver_bundle

    with session.client() as client, session.progress() as progress:
        try:
            deliver_bundle(
                client, brought.accepted, brought.path, trust=session.verifier(online=False).trust,
                connections=session.connections, progress=progress,
            )  # fmt: skip
        except TransportError:
            raise  # the same command goes on from the copy
        except PqregError:
            _forget(brought.path, keep=keep)
            raise
        _forget(brought.path, keep=keep)
        return client.url


def _forget(path: Path, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(path, ignore_errors=True)


def _sources(volumes: list[str]) -> Iterator[Source]:
    from pq_registry.client.bundle.bring import Source

    for text in volumes:
        path = Path(text)
        if text == STREAM:
            yield Source("standard input", _standard_input)
        elif path.is_dir():
            found = sorted(path.glob("*.tar"))
            if not found:
                raise UsageError(f"{path} holds no volumes", expected="files that end in .tar")
            yield from (Source(str(one), partial(_opened, one)) for one in found)
        else:
            yield Source(text, partial(_opened, path))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Stream]:
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot open the volume {path}", found=error.strerror) from None
    with file:
        yield file


def _standard_input() -> contextlib.AbstractContextManager[Stream]:
    return os.fdopen(0, "rb", buffering=0, closefd=False)


def _expected(text: str | None) -> Reference | None:
    from pq_registry.format.name import Reference, RepositoryName

    if text is None:
        return None
    if ":" not in text and "@" not in text:
        return Reference(RepositoryName.parse(text), None)
    return Reference.parse(text)
