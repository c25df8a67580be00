# SPDX-License-Identifier: Apache-2.0
"""``pqreg log``: the registry's transparency log as its readers see it."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import FormatError, NotFound, ResponseInvalid
from pqreg_cli.console import Output, is_terminal, printable
from pqreg_cli.lazy import new_app
from pqreg_cli.logpolicy import keygen, policy
from pqreg_cli.options import JsonOption, QuietOption, RegistryOption, TokenOption
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.format.note import Note

app = new_app(help="Look at the registry's transparency log.")
app.command("keygen")(keygen)
app.command("policy")(policy)
_UNVERIFIED = "nothing here was verified; pqreg audit and pqreg verify do that"


@app.command("vkey")
def vkey(
    *,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Print the SHA-256 of the text, to compare over another channel.")
    ] = False,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Print the log's verifier keys: one line for Ed25519, one for ML-DSA-44.

    Whoever trusts a log trusts these keys. Compare the fingerprint with the operator over another channel before you
    put them into a trust file (pqreg trust log add).

    Examples:
      pqreg log vkey
      pqreg log vkey --fingerprint
    """
    from pq_registry.format.note import VerifierKey

    output = Output(json=json)
    with Session(output, registry=registry, token=token).client() as client:
        text = client.log_file("vkey")
    try:
        keys = [VerifierKey.parse(line) for line in text.decode("utf-8").splitlines()]
    except (UnicodeDecodeError, FormatError) as error:
        raise ResponseInvalid("the registry's log keys are malformed", found=str(error)[:200]) from None
    digest = hashlib.sha256(text).hexdigest()
    output.data({"vkeys": [str(key) for key in keys], "origin": keys[0].name if keys else None, "sha256": digest})
    for line in [digest] if fingerprint else map(str, keys):
        output.line(line)


@app.command("checkpoint")
def checkpoint(
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the newest checkpoint with all its signatures, byte for byte.

    Examples:
      pqreg log checkpoint
      pqreg log checkpoint --json
    """
    from pq_registry.format.checkpoint import parse_checkpoint_note

    output = Output(json=json, quiet=quiet)
    with Session(output, registry=registry, token=token).client() as client:
        data = client.log_file("checkpoint")
    try:
        found, note = parse_checkpoint_note(data)
    except FormatError as error:
        raise ResponseInvalid("the registry's checkpoint is malformed", found=str(error)[:200]) from None
    output.data(
        {"origin": found.origin, "size": found.size, "root": found.root.hex(), "signatures": _signatures(note),
         "note": data.decode("utf-8")}
    )  # fmt: skip
    if not json:
        _raw(data)
        output.note(_UNVERIFIED)


@app.command("proof")
def proof(
    digest: Annotated[
        str, typer.Argument(metavar="DIGEST", help="Of a statement's payload: sha256:..., e.g. a release.")
    ],
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the receipt of a statement: a C2SP tlog-proof, byte for byte.

    Examples:
      pqreg log proof sha256:0123... > release.tlog-proof
    """
    from pq_registry.format.digest import Digest
    from pq_registry.format.tlogproof import TlogProof

    output = Output(json=json, quiet=quiet)
    wanted = Digest.parse(digest)
    with Session(output, registry=registry, token=token).client() as client:
        _, data = client.statement(wanted)
    if data is None:
        raise NotFound(
            f"{wanted} has no receipt yet", hint="it is recorded; the log takes it as soon as it can. Ask again later"
        )
    try:
        parsed = TlogProof.parse(data)
    except FormatError as error:
        raise ResponseInvalid("the registry's receipt is malformed", found=str(error)[:200]) from None
    output.data({"statement": str(wanted), "log_index": parsed.index, "receipt": data.decode("utf-8")})
    if not json:
        _raw(data)
        output.note(_UNVERIFIED)


def _raw(data: bytes) -> None:
    """The exact bytes, for a file or a pipe; a terminal is shown nothing that it would obey."""
    if is_terminal(sys.stdout):
        sys.stdout.write(printable(data.decode("utf-8")))
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _signatures(note: Note) -> list[dict[str, str]]:
    return [{"name": line.name, "key_id": line.key_id.hex()} for line in note.signatures]
