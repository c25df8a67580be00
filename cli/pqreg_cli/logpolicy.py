# SPDX-License-Identifier: Apache-2.0
"""``pqreg log keygen`` and ``pqreg log policy``: what an operator arranges with witnesses before a log begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import AlreadyExists, FormatError, UsageError
from pqreg_cli.console import Output
from pqreg_cli.options import JsonOption, RegistryOption, TokenOption
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.format.note import VerifierKey

WitnessOption = Annotated[
    list[str],
    typer.Option(
        "--witness",
        metavar="NAME=URL,FILE[,FILE]",
        help="A witness, where it takes checkpoints, and its verifier keys (.vkey).",
    ),
]


def keygen(
    *,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data directory of the registry to be.")],
    origin: Annotated[
        str, typer.Option("--origin", metavar="NAME", help="The log's name for good, e.g. models.example.org/log-2027.")
    ],
    json: JsonOption = False,
) -> None:
    """Make the keys of a registry's log before its first start, so that witnesses can be arranged first.

    Without this the first start of `pqreg serve` makes them. The secret keys are in DIR/log.key, readable by you alone;
    the public ones, which are printed, also in DIR/log.vkey. Nothing is ever overwritten. A log keeps its keys, so back
    them up.

    Examples:
      pqreg log keygen --data /var/lib/pqreg --origin models.example.org/log-2027
    """
    from pq_registry.durable import make_directory, write_file
    from pq_registry.format.note import check_key_name
    from pqreg_keys.notekeyfile import LOG_TYPES, generate_note_keys

    output = Output(json=json)
    try:
        check_key_name(origin)
    except FormatError as error:
        raise UsageError("not a name for a log", expected=error.expected, found=error.found) from None
    if (data / "log").exists():
        raise AlreadyExists(f"there is a log in {data} already", hint="it keeps its keys; other keys are another log")
    make_directory(data, 0o700)
    path = data / "log.key"
    vkeys = [str(signer.key) for signer in generate_note_keys(path, origin, LOG_TYPES)]
    write_file(data / "log.vkey", "".join(f"{vkey}\n" for vkey in vkeys).encode(), mode=0o644)
    output.data({"origin": origin, "key": str(path), "vkeys": vkeys})
    for vkey in vkeys:
        output.line(vkey)
    output.note(f"the secret keys are in {path}; back them up, and keep no second copy that could sign")


def policy(
    *,
    witness: WitnessOption,
    quorum: Annotated[
        int | None, typer.Option("--quorum", metavar="N", help="How many of them must cosign.  [default: all]")
    ] = None,
    vkey: Annotated[
        Path | None, typer.Option("--vkey", metavar="FILE", help="The log's verifier keys; else the registry is asked.")
    ] = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Print a policy for the registry's own log: a C2SP tlog-policy with witnesses and their URLs.

    Write it to a file, name that with PQREG_LOG_WITNESSES, and start the service: it then asks these witnesses to
    cosign every checkpoint. Readers decide in their trust files whose cosignatures they want (pqreg trust log add).

    Examples:
      pqreg log policy --vkey data/log.vkey --witness bsi=https://witness.example.org,bsi.vkey > log.policy
      PQREG_LOG_WITNESSES=log.policy pqreg serve --data data
    """
    from pq_registry.client import trustlogs

    output = Output(json=json)
    keys: dict[str, tuple[VerifierKey, ...]] = {}
    urls: dict[str, str] = {}
    for value in witness:
        name, _, rest = value.partition("=")
        url, comma, files = rest.partition(",")
        if not name or not comma or not url.startswith(("http://", "https://")):
            raise UsageError("--witness is wrong", expected="NAME=URL,FILE or NAME=URL,FILE,FILE", found=value)
        if name in keys:
            raise UsageError("a witness is named twice", expected="a name of its own for each --witness", found=name)
        keys[name] = tuple(key for path in files.split(",") for key in trustlogs.verifier_keys(_read(Path(path))))
        urls[name] = url
    if vkey is not None:
        text = _read(vkey)
    else:
        with Session(output, registry=registry, token=token).client() as client:
            text = client.log_file("vkey")
    made = trustlogs.log_policy(text, keys, quorum, witness_urls=urls)
    output.data({"origin": made.origin, "policy": made.text})
    output.line(made.text.removesuffix("\n"))


def _read(path: Path) -> bytes:
    return read_small(path, "file of verifier keys", limits.TLOG_POLICY_BYTES)
