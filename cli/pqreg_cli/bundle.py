# SPDX-License-Identifier: Apache-2.0
"""``pqreg bundle``: releases for sites without a network, on one medium or many."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import StorageError, UsageError
from pq_registry.settings import parse_rate
from pqreg_cli.bundleimport import STREAM, import_bundle
from pqreg_cli.console import Output, count_text, is_terminal, size_text
from pqreg_cli.lazy import new_app
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    LimitRateOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.releaseview import release_json, show_summary
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.bundle.export import VolumeWriter

app = new_app()
app.command("import")(import_bundle)


@app.command("export")
def export_(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="namespace/name[:tag][@sha256:...]; without a tag, main.")
    ],
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="A file; a directory, for volumes in it; or - for standard output."),
    ],
    *,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="A further tag that goes along; repeatable.")
    ] = None,
    with_grants: Annotated[
        bool, typer.Option("--with-grants", help="Let the grants of a sealed release go along.")
    ] = False,
    with_history: Annotated[
        bool,
        typer.Option(
            "--with-history", help="Let older statements of tags, grants and status go along, for a registry."
        ),
    ] = False,
    volume_size: Annotated[
        str | None,
        typer.Option("--volume-size", metavar="SIZE", help="Cut it into volumes of at most this size, e.g. 4G."),
    ] = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Pack a release and everything that proves it, for a site without a network.

    The bundle holds the files, signature, manifest and receipt, the statement of the tag, the status of the namespace,
    and the log's newest checkpoint. It holds no trust file: whoever imports it believes their own. A sealed release is
    packed as it is stored.

    Examples:
      pqreg bundle export acme/minilm:v1 minilm.tar
      pqreg bundle export acme/llm:v1 /media/usb/ --volume-size 4G
      pqreg bundle export acme/minilm:v1 - | ssh diode 'cat > minilm.tar'
    """
    from pq_registry.client.bundle.collect import Collection
    from pq_registry.client.bundle.export import VolumeWriter
    from pq_registry.client.bundle.layout import check_layout, lay_out
    from pq_registry.client.resolve import resolve
    from pq_registry.client.source import RemoteSource
    from pq_registry.format.instant import utc_now
    from pq_registry.format.name import Reference, Tag

    output = Output(json=json, quiet=quiet)
    if out == STREAM and (json or volume_size is not None):
        raise UsageError("standard output takes one volume and nothing else", hint="leave --json and --volume-size out")
    if out == STREAM and is_terminal(sys.stdout):
        raise UsageError("a bundle is not for a terminal", expected="standard output to a file or another command")
    size = None if volume_size is None else parse_rate(volume_size)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider,
        connections=connections, limit_rate=limit_rate,
    )  # fmt: skip
    wanted = Reference.parse(reference)
    begun = time.monotonic()
    with session.client() as client:
        verifier = session.verifier(online=True)
        found = resolve(wanted, client, verifier, session.seen_tags())
        release = found.verified.release
        tags = [*([wanted.tag] if wanted.tag is not None and wanted.digest is None else []), *map(Tag, tag or ())]
        collection = Collection(found, client, verifier, session.seen_tags())
        collection.add_tags(tags, whole=with_history)
        if with_grants:
            collection.add_grants(session.seen_grants(), whole=with_history)
        if with_history:
            collection.add_status_history()
        bundle = lay_out(
            release.name, release.digest, release.manifest.files, collection.documents,
            created=utc_now(), volume_size=size,
        )  # fmt: skip
        files = check_layout(bundle, release.manifest.files)
        with RemoteSource(client) as source, session.progress() as progress:
            writer = VolumeWriter(
                bundle, collection.documents, files, source, connections=session.connections, progress=progress
            )
            progress.start(f"export {release.name}", sum(entry.size for entry in files.values()))
            written = _write(
                writer, out, f"{release.name.name}-{tags[0] if tags else release.digest.hex}", len(bundle.volumes), size
            )
    if out == STREAM:
        output.note(f"{release.name}@{release.digest} is in the bundle {writer.id}")
        return
    total = sum(count for _, count in written)
    seconds = time.monotonic() - begun
    output.line(f"exported: {release.name}, {count_text(len(written), 'volume')}, {size_text(total)}", "good")
    show_summary(output, found.verified, found.tag, transfer=f"{size_text(total)} written in {seconds:.1f} s")
    output.fields([("bundle", writer.id), *(("volume", path) for path, _ in written)])
    if not tags:
        output.note("no tag goes along, so nothing will say there that this is the present release; --tag adds one")
    output.data(
        {
            **release_json(found.verified, found.tag),
            "bundle": str(writer.id),
            "volumes": [{"path": str(path), "size": count} for path, count in written],
            "seconds": round(seconds, 3),
        }
    )


def _write(writer: VolumeWriter, out: str, stem: str, count: int, volume_size: int | None) -> list[tuple[Path, int]]:
    from pq_registry.client.bundle.export import stream_writer, volume_file

    if out == STREAM:
        try:
            return [(Path(out), writer.write(1, stream_writer(1)))]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError("cannot write to standard output", found=error.strerror) from None
    path = Path(out)
    is_directory = volume_size is not None or out.endswith("/") or path.is_dir()
    written = []
    for number in range(1, count + 1):
        name = path / (f"{stem}.tar" if count == 1 else f"{stem}-{number:04d}-of-{count:04d}.tar")
        name = name if is_directory else path
        with volume_file(name) as write:
            written.append((name, writer.write(number, write)))
    return written
