# SPDX-License-Identifier: Apache-2.0
"""``pqreg witness``: cosign the checkpoints of other people's logs, so that no log can show two histories."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import FormatError, UsageError
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption
from pqreg_cli.serve import require_server

if TYPE_CHECKING:
    from pq_registry.log.watchedlog import WatchedLog

app = new_app(help="Cosign the checkpoints of transparency logs (C2SP tlog-witness).")

StateOption = Annotated[
    Path, typer.Option("--state", metavar="DIR", help="Where the witness keeps its keys and what it has signed.")
]


@app.command("keygen")
def keygen(
    *,
    state: StateOption,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The witness's name, e.g. witness.example.org/kritis-1.")
    ],
    json: JsonOption = False,
) -> None:
    """Make a witness's two keys: Ed25519 and ML-DSA-44. Prints the public ones, for the policies of logs and clients.

    The secret keys are in DIR/witness.key, readable by you alone; the public ones also in DIR/witness.vkey. Nothing is
    ever overwritten.

    Examples:
      pqreg witness keygen --state /var/lib/pqreg-witness --name witness.example.org/kritis-1
    """
    from pq_registry.durable import make_directory, write_file
    from pq_registry.format.note import check_key_name
    from pqreg_keys.notekeyfile import WITNESS_TYPES, generate_note_keys

    output = Output(json=json)
    try:
        check_key_name(name)
    except FormatError as error:
        raise UsageError("not a name for a witness", expected=error.expected, found=error.found) from None
    make_directory(state, 0o700)
    path = state / "witness.key"
    vkeys = [str(signer.key) for signer in generate_note_keys(path, name, WITNESS_TYPES)]
    write_file(state / "witness.vkey", "".join(f"{vkey}\n" for vkey in vkeys).encode(), mode=0o644)
    output.data({"name": name, "key": str(path), "vkeys": vkeys})
    for vkey in vkeys:
        output.line(vkey)
    output.note(f"the secret keys are in {path}; keep no second copy that could sign at the same time")


@app.command("serve")
def serve(
    *,
    state: StateOption,
    logs: Annotated[
        list[Path],
        typer.Option(
            "--log",
            metavar="FILE",
            help="Verifier keys of a log to watch, as `pqreg log vkey` prints them; or a directory of such files, "
            "*.vkey. May be given several times.",
        ),
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 is any.")
    ] = "127.0.0.1:8471",
    hosts: Annotated[
        str | None,
        typer.Option(
            "--hosts", metavar="NAMES", help="Host names to answer to, by commas; on loopback only loopback's."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The secret keys, if not DIR/witness.key.")
    ] = None,
) -> None:
    """Run a witness. It cosigns a checkpoint once it was shown that the tree only grew, and remembers it first.

    Logs send checkpoints to http://HOST:PORT/add-checkpoint; monitors read the newest cosigned one of a log at
    /<hex sha256 of its origin>/checkpoint. It logs to standard output and says on standard error when it is ready.

    Examples:
      pqreg witness serve --state /var/lib/pqreg-witness --listen 0.0.0.0:8471 --log acme.vkey
      pqreg witness serve --state ./witness --listen 127.0.0.1:0 --log ./logs
    """
    require_server()
    from pq_registry.format.instant import utc_now
    from pq_registry.log.witness import Witness
    from pq_registry.server.listening import parse_hosts, parse_listen
    from pq_registry.server.witness import WitnessConfig, serve_witness
    from pq_registry.storage.witnessstate import WitnessState
    from pqreg_keys.notekeyfile import load_note_keys

    host, port = parse_listen(listen)
    config = WitnessConfig(host=host, port=port, hosts=parse_hosts(hosts, host))
    signers = load_note_keys(key or state / "witness.key")
    watched = [_watched(file) for path in logs for file in _files(path)]

    with WitnessState(state) as kept:

        def opened() -> Witness:
            return Witness(signers, watched, kept, clock=utc_now, monotonic=time.monotonic)

        serve_witness(config, kept, opened, lambda line: print(line, file=sys.stderr, flush=True))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.vkey"))
    if not found:
        raise UsageError(f"{path} holds no log to watch", expected="files *.vkey", hint="pqreg log vkey > NAME.vkey")
    return found


def _watched(path: Path) -> WatchedLog:
    from pq_registry import limits
    from pq_registry.durable import reported
    from pq_registry.log.watchedlog import WatchedLog

    with reported("read", path):
        try:
            with path.open("rb") as file:
                content = file.read(limits.NOTE_KEY_FILE_BYTES + 1)
        except FileNotFoundError:
            raise UsageError(f"there is no {path}", hint="make it with: pqreg log vkey > NAME.vkey") from None
    try:
        if len(content) > limits.NOTE_KEY_FILE_BYTES:
            raise FormatError("too large for a list of verifier keys")
        return WatchedLog.parse(content.decode("utf-8"))
    except (FormatError, UnicodeDecodeError) as error:
        found = error.message if isinstance(error, FormatError) else "bytes that are not UTF-8"
        raise UsageError(
            f"{path} does not hold the verifier keys of a log", found=found, hint="make it with: pqreg log vkey"
        ) from None
