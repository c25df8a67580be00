# SPDX-License-Identifier: Apache-2.0
"""``pqreg key``: make, show and export signing identities. Custody itself is ``pqreg_keys``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.suites import profile_of
from pq_registry.durable import write_file
from pq_registry.errors import UsageError
from pq_registry.settings import Settings
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, PassphraseFileOption
from pqreg_keys import custody
from pqreg_keys.passphrase import Passphrase, PassphraseSource, configured

app = new_app(help="Make, show and export signing identities.")

_KEY_QUESTION = "Passphrase of the secret key file"


class Level(enum.StrEnum):
    """The profiles, as the command line names them."""

    FIVE = "5"
    THREE = "3"


@app.command("generate")
def generate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the two files, e.g. alice.")],
    *,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to put them; made, for you alone, if missing.")
    ] = Path(),
    profile: Annotated[
        Level, typer.Option("--profile", help="5: ECDSA P-384 and ML-DSA-87. 3: ECDSA P-256 and ML-DSA-65.")
    ] = Level.FIVE,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Do not seal the secret key file; for machines.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a signing identity.

    Two files: NAME.pqkey, which signs and stays with you, and NAME.pqpub, which others trust. The first is readable
    by you alone (mode 0600) and sealed with a passphrase, which is asked for on the terminal, or taken from
    --passphrase-file or PQREG_PASSPHRASE. Nothing is ever overwritten.

    Examples:
      pqreg key generate alice --dir keys
      pqreg key generate ci --dir keys --no-passphrase
      pqreg key generate alice --profile 3 --passphrase-file alice.passphrase
    """
    output = Output(json=json)
    # Before anybody types a passphrase twice for a name that is taken.
    custody.pair_paths(directory, name)
    passphrase = _new_passphrase(passphrase_file, unsealed=no_passphrase)
    secret = custody.generate(profile_of(int(profile.value)))
    secret_path, public_path = custody.store_pair(directory, name, secret, passphrase)
    sealed = "not sealed: whoever reads it can sign" if passphrase is None else "sealed with the passphrase"
    output.fields(
        [
            ("identity", secret.identity.id),
            ("profile", secret.identity.profile.description),
            ("secret", f"{secret_path} ({sealed})"),
            ("public", public_path),
        ]
    )
    output.note(f"back up {secret_path}; give {public_path} to those who are to trust your releases")
    output.data(
        {
            **_described(secret.identity),
            "secret_file": str(secret_path),
            "public_file": str(public_path),
            "sealed": passphrase is not None,
        }
    )


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pqpub or a .pqkey file.")],
    *,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show an identity's id, profile and halves.

    A secret key file must be unlocked for it. Compare the id over another channel before you trust a .pqpub file that
    somebody sent.

    Examples:
      pqreg key show alice.pqpub
      pqreg key show keys/alice.pqkey --json
    """
    output = Output(json=json)
    identity = custody.public_of(file, _known_passphrase(passphrase_file))
    ec, pq = identity.half_ids
    output.fields(
        [
            ("identity", identity.id),
            ("profile", f"level {identity.profile.level}"),
            ("EC half", f"{identity.profile.ec.algorithm}, sha256 {ec}"),
            ("PQ half", f"{identity.profile.pq.algorithm}, sha256 {pq}"),
        ]
    )
    output.data(_described(identity))


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pqkey file.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to this new file, not to standard output.")
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Write the public part of a secret key file.

    That is what NAME.pqpub holds.

    Examples:
      pqreg key export keys/alice.pqkey --out alice.pqpub
      pqreg key export keys/alice.pqkey > alice.pqpub
    """
    output = Output(json=json)
    identity = custody.load(file, _known_passphrase(passphrase_file)).identity
    public = identity.to_pem()
    if out is None:
        output.line(public.decode("ascii").removesuffix("\n"))
    else:
        write_file(out, public, replace=False)
        output.fields([("identity", identity.id), ("public", out)])
    output.data(
        {**_described(identity), "public": public.decode("ascii"), "public_file": None if out is None else str(out)}
    )


def _new_passphrase(path: Path | None, *, unsealed: bool) -> Passphrase | None:
    if unsealed:
        if path is not None:
            raise UsageError("--no-passphrase and --passphrase-file contradict each other", hint="give one of them")
        return None
    source = configured(_settings(path), question="New passphrase", twice=True)
    if source is None:
        raise UsageError(
            "there is no passphrase for the secret key file, and no terminal to ask on",
            hint="give --passphrase-file, set PQREG_PASSPHRASE, or, for a machine's key, give --no-passphrase",
        )
    return source()


def _known_passphrase(path: Path | None) -> PassphraseSource | None:
    return configured(_settings(path), question=_KEY_QUESTION)


def _settings(passphrase_file: Path | None) -> Settings:
    return Settings({"passphrase_file": None if passphrase_file is None else str(passphrase_file)})


def _described(identity: PublicIdentity) -> dict[str, object]:
    ec, pq = identity.half_ids
    return {
        "id": identity.id,
        "profile": identity.profile.level,
        "halves": {
            "ec": {"algorithm": identity.profile.ec.algorithm, "sha256": ec},
            "pq": {"algorithm": identity.profile.pq.algorithm, "sha256": pq},
        },
    }
