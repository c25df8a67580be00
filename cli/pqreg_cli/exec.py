# SPDX-License-Identifier: Apache-2.0
"""``pqreg exec``: a release is verified and laid out for a program that reads models from a directory, which is run.

The program never sees a file that was not verified. What it is given goes away with it: the private directory is
removed when it has ended, and by a guard if this process is killed (``loader.integrations.private``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pq_registry.errors import UsageError
from pq_registry.settings import Settings, command_environment
from pqreg_cli.console import Output
from pqreg_cli.execlayout import Layout
from pqreg_cli.execwords import check_places, filled, for_vllm, plugin_config, uses
from pqreg_cli.loadmeasure import library_warnings
from pqreg_cli.options import (
    ConnectionsOption,
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

_DEFAULTS = {
    # Any other plug-in could take the place of ours under the same name.
    "VLLM_PLUGINS": "pqreg",
    # What was verified is all there is: nothing is fetched from the Hub beside it.
    "HF_HUB_OFFLINE": "1",
}


def exec_(
    what: Annotated[
        str, typer.Argument(metavar="REF|DIR", help="A release in the registry; with --expect a directory that is one.")
    ],
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="The program and its arguments; {dir} is the directory."),
    ],
    *,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="NAME[@DIGEST]", help="For a directory: the release it must be."),
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Write every file, weights too, for programs without our plug-in.")
    ] = False,
    memfd: Annotated[
        str | None,
        typer.Option("--memfd", metavar="PATH", help="Put this file of the release in sealed memory; {file} is where."),
    ] = None,
    private_dir: Annotated[
        Path | None,
        typer.Option(
            "--private-dir", metavar="DIR", help="Where the directory is made. [setting: PQREG_PRIVATE_DIR, in memory]"
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
    quiet: QuietOption = False,
) -> NoReturn:
    """Verify a release and run a program on it.

    The files of the release are verified and written to a private directory, which is in memory where there is room,
    and the program is run with {dir} in its arguments replaced by that directory. Signals are passed on to it, its exit
    status is ours, and the directory is removed when it ends.

    Of safetensors files only the header is written, made from the signed tensor table: the weights are for our plug-in,
    which verifies them again in every process that loads them. A command "vllm serve" is told to use it. Files above
    256 MiB are left out. With --with-weights everything is written, for programs that read weights themselves.

    Examples:
      pqreg exec acme/teuken-7b:v1 -- vllm serve {dir} --tensor-parallel-size 2
      pqreg exec ./teuken --expect acme/teuken-7b -- vllm serve {dir}
      pqreg exec acme/minilm:v1 --with-weights -- python -m sglang.launch_server --model-path {dir}
      pqreg exec acme/tiny-gguf:v1 --memfd model.gguf -- llama-server --model {file}
    """
    output = Output(quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, connections=connections,
        limit_rate=limit_rate, recipient_key=recipient_key, passphrase_file=passphrase_file,
        passphrase_fd=passphrase_fd, private_dir=private_dir,
    )  # fmt: skip
    check_places(command, memfd=memfd is not None, with_weights=with_weights)
    _require_program(command[0])
    from pqreg_cli.execchild import end_as, run

    with library_warnings(output), _release(session, what, expect) as opened:
        name, digest = opened.verified.release.name, opened.verified.release.digest
        places = {
            "release": f"{name}@{digest}",
            "config": plugin_config(f"{name}@{digest}", None if expect is None else os.path.abspath(what)),
        }
        layout = Layout(session, opened, directory=uses(command, "dir"), with_weights=with_weights, memfd=memfd)
        if opened.unsealed is not None and passphrase_fd is not None and not layout.complete:
            output.warning("what loads the weights cannot read the passphrase from a descriptor; use --passphrase-file")
        words, given = list(command), dict[str, str]()
        if not layout.complete:  # what loads the rest of the release must find it
            words, given = for_vllm(command, name=str(name)), _variables(session.settings)
        with layout.made() as (directory, descriptor):
            if directory is not None:
                places["dir"] = os.fspath(directory)
            if descriptor is not None:
                places["file"] = f"/proc/self/fd/{descriptor}"
            if opened.unsealed is not None:
                opened.unsealed.key.wipe()
            sys.stdout.flush()
            status = run(
                filled(words, places),
                environment=command_environment(given, defaults=_DEFAULTS, dropped=_dropped(session.settings)),
                keep=() if descriptor is None else (descriptor,),
            )
    # Not as click's result: the status is the command's, and means what it means there.
    sys.exit(end_as(status))


@contextlib.contextmanager
def _release(session: Session, what: str, expect: str | None) -> Iterator[OpenRelease]:
    from pq_registry.loader.api import open_for
    from pq_registry.loader.options import Request
    from pqreg_cli.load import require_kind

    require_kind(what, expect)
    if expect is None:
        session.warn_if_readable()
    opened = open_for(what, Request(expect=expect), settings=session.settings)
    try:
        yield opened
    finally:
        if opened.unsealed is not None:
            opened.unsealed.key.wipe()


def _variables(settings: Settings) -> dict[str, str]:
    """What was given to us, for programs that load by our plug-in; paths as they are from any directory."""
    given = settings.given_variables()
    for name in ("PQREG_TRUST", "PQREG_RECIPIENT_KEY", "PQREG_PASSPHRASE_FILE", "PQREG_PRIVATE_DIR"):
        if name in given:
            given[name] = os.path.abspath(given[name])
    given.pop("PQREG_PASSPHRASE_FD", None)
    return given


def _dropped(settings: Settings) -> Sequence[str]:
    """Variables the command does not get: a descriptor that was read, and a token that is not for the registry."""
    from pq_registry.client.configured import credential

    dropped = ["PQREG_PASSPHRASE_FD"]
    if settings.get("registry") is not None and credential(settings).withheld is not None:
        # With --registry in the environment it would pass for the token of that registry.
        dropped.append("PQREG_TOKEN")
    return dropped


def _require_program(name: str) -> None:
    """Refuse a program that does not exist before anything is fetched for it."""
    if shutil.which(name) is None:
        raise UsageError(
            f"there is no program {name!r}",
            expected="a program in PATH, or its path",
            hint="check the command after --",
        )
