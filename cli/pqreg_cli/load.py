# SPDX-License-Identifier: Apache-2.0
"""``pqreg load``: what ``pq_registry.load`` does, and where its time goes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pq_registry.errors import NameSyntaxError, PqregError, UsageError
from pqreg_cli.console import Output, size_text
from pqreg_cli.keywords import as_options
from pqreg_cli.loadmeasure import device_peak, library_warnings, one_pass, peak_memory, room_for
from pqreg_cli.loadreport import Report, report_json
from pqreg_cli.loadview import show
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
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.loader.opening import OpenRelease
    from pq_registry.loader.options import Request
    from pq_registry.loader.selection import Unit

Framework = Literal["auto", "numpy", "torch", "dlpack"]
Reading = Literal["auto", "buffered", "direct"]
CheckedOn = Literal["cpu", "device"]


def load(
    what: Annotated[
        str, typer.Argument(metavar="REF|DIR", help="A release in the registry; with --expect a directory that is one.")
    ],
    *,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="NAME[@DIGEST]", help="For a directory: the release it must be."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="Where the tensors go: cpu, cuda, cuda:1, ...")
    ] = "cpu",
    framework: Annotated[
        Framework, typer.Option("--framework", help="What they are; auto is torch if it is installed, else numpy.")
    ] = "auto",
    io: Annotated[
        Reading, typer.Option("--io", help="Read local files through the page cache, past it, or as is faster.")
    ] = "auto",
    check_on: Annotated[
        CheckedOn, typer.Option("--check-on", help="Who checks and decrypts: the processor, or the --device.")
    ] = "cpu",
    names: Annotated[
        list[str] | None,
        typer.Option("--names", metavar="GLOB", help="Only tensors of such names; may be given several times."),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--files", metavar="PATH", help="Only this file or folder; may be given several times."),
    ] = None,
    iterate: Annotated[
        bool, typer.Option("--iterate", help="Drop each tensor once it is there: bounded memory, as iter_tensors.")
    ] = False,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", min=1, max=1000, help="Load N times in this process.")
    ] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --repeat: use the memory of the load before again, as memory= does.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Show where the time went, and what limited it.")] = False,
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
    """Load the tensors of a release into memory, verified, and say how fast that was.

    It is what pq_registry.load does in a program: signatures first, then every shard before a byte of it is used.
    Nothing is written to disk, and the tensors are dropped at the end. Use it to see whether a node can load a model,
    and what limits it there: with --stats, where the time of the threads went.

    A sealed release needs a recipient key it was granted to.

    Examples:
      pqreg load acme/minilm:v1 --stats
      pqreg load ./minilm --expect acme/minilm --stats --repeat 3
      pqreg load acme/teuken-7b:v1 --device cuda:0 --check-on device --stats
      pqreg load acme/secret:v1 --recipient-key node1.pqkey --names 'model.layers.0.*'
    """
    from pq_registry.loader.options import Request

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, connections=connections,
        limit_rate=limit_rate, recipient_key=recipient_key, passphrase_file=passphrase_file,
        passphrase_fd=passphrase_fd,
    )  # fmt: skip
    try:
        request = Request.of(
            {"expect": expect, "device": device, "framework": framework, "io": io, "check_on": check_on, "files": files}
        )
        with library_warnings(output):
            report = _load(session, what, request, names, iterate=iterate, repeat=repeat, keep=keep)
    except PqregError as error:
        raise as_options(error) from None
    show(output, report, stats=stats)
    output.data(report_json(report))


def _load(
    session: Session,
    what: str,
    request: Request,
    globs: Sequence[str] | None,
    *,
    iterate: bool,
    repeat: int,
    keep: bool,
) -> Report:
    from pq_registry.loader.api import framework_of, open_for

    framework = framework_of(request)  # imports torch: before the clock runs
    if keep and (repeat == 1 or not framework.on_cpu):
        raise UsageError(
            "--keep is for several loads into the same memory", expected="--repeat, on the CPU",
            found="one load" if repeat == 1 else f"--device {request.device}",
        )  # fmt: skip
    require_kind(what, request.expect)
    if request.expect is None:
        session.warn_if_readable()
    begun = time.perf_counter()
    opened = open_for(what, request, settings=session.settings)
    verifying = time.perf_counter() - begun
    with ExitStack() as stack:
        if opened.unsealed is not None:
            stack.callback(opened.unsealed.key.wipe)
        request, units = _chosen(opened, request, globs)
        if framework.on_cpu and not iterate:
            _require_room(sum(unit.end - unit.start for unit in units))
        if keep:
            request = replace(request, memory=stack.enter_context(room_for(units)))
        before = peak_memory()
        passes = []
        for _ in range(repeat):
            with session.progress() as progress:
                passes.append(one_pass(opened, request, units, progress, iterate=iterate))
    return Report(
        opened, request, units, passes, type(framework).__name__.lower(), framework.on_cpu, verifying, before,
        peak_memory(), device_peak(request.device),
    )  # fmt: skip


def require_kind(what: str, expect: str | None) -> None:
    """A directory only with --expect: what is loaded must not depend on what lies in the current directory.

    Raises:
        UsageError: if ``what`` is not of the kind that ``expect`` says.
    """
    from pq_registry.format.name import Reference

    if expect is not None:
        if not os.path.isdir(what):
            raise UsageError(
                f"there is no directory {what}", expected="with --expect, a directory that holds a release",
                hint="leave out --expect to load from the registry; a reference may carry its digest: NAME@sha256:...",
            )  # fmt: skip
        return
    try:
        Reference.parse(what)
    except NameSyntaxError as error:
        if os.path.isdir(what):
            raise UsageError(
                f"{what} is a directory, and could be anything", expected="--expect NAME or --expect NAME@DIGEST",
                hint=f"pqreg verify {what} says what it is",
            ) from None  # fmt: skip
        raise UsageError(
            f"{what} is neither a directory nor a reference",
            expected="namespace/name[:tag][@sha256:...], or a directory together with --expect",
            found=f"no such directory, and {error.message}",
        ) from None


def _chosen(opened: OpenRelease, request: Request, globs: Sequence[str] | None) -> tuple[Request, tuple[Unit, ...]]:
    """The request with the names that the patterns stand for, and the tensors it asks for."""
    from pq_registry.loader.selection import select

    units = select(opened, files=request.files)
    if globs is None:
        return request, units
    for glob in globs:
        if not any(fnmatchcase(unit.entry.name, glob) for unit in units):
            raise UsageError(
                f"no tensor has a name like {glob!r}", expected="a name, or a pattern with * and ?",
                found=", ".join([unit.entry.name for unit in units[:5]]) + (", ..." if len(units) > 5 else ""),
                hint="quote patterns, so that the shell leaves them alone",
            )  # fmt: skip
    units = tuple(unit for unit in units if any(fnmatchcase(unit.entry.name, glob) for glob in globs))
    return replace(request, names=frozenset(unit.entry.name for unit in units)), units


def _require_room(count: int) -> None:
    """Refuse what would only be ended by the system, after minutes of swapping."""
    from pq_registry.client import machine

    available = machine.free_memory()
    if available is not None and count > available:
        raise UsageError(
            "the tensors do not fit into memory", expected=f"{size_text(count)} of memory",
            found=f"{size_text(available)} available",
            hint="--iterate takes one tensor after another; --names or --files takes a part",
        )  # fmt: skip
