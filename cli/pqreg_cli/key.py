# SPDX-License-Identifier: Apache-2.0
"""``pqreg key``: make, show and export signing identities and recipients. Custody itself is ``pqreg_keys``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient
from pq_registry.crypto.suites import profile_of
from pq_registry.durable import write_file
from pq_registry.errors import UsageError
from pq_registry.settings import Settings
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, PassphraseFileOption
from pqreg_keys import custody
from pqreg_keys.passphrase import Passphrase, PassphraseSource, configured

app = new_app(help="Make, show and export signing identities and recipients.")

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
    recipient: Annotated[
        bool, typer.Option("--recipient", help="Make a recipient: a key that unseals and signs nothing, for a node.")
    ] = False,
    profile: Annotated[
        Level,
        typer.Option(
            "--profile",
            help="5: ECDSA P-384 and ML-DSA-87, recipients MLKEM1024-P384. "
            "3: ECDSA P-256 and ML-DSA-65, recipients MLKEM768-X25519.",
        ),
    ] = Level.FIVE,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Do not seal the secret key file; for machines.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a signing identity, or a recipient.

    Two files: NAME.pqkey, which signs and stays with you, and NAME.pqpub, which others trust. The first is readable
    by you alone (mode 0600) and sealed with a passphrase, which is asked for on the terminal, or taken from
    --passphrase-file or PQREG_PASSPHRASE. Nothing is ever overwritten.

    With --recipient, NAME.pqkey opens sealed releases that were granted to NAME.pqpub, and signs nothing. An identity
    is a recipient of its own as well.

    Examples:
      pqreg key generate alice --dir keys
      pqreg key generate node1 --recipient --dir keys --no-passphrase
      pqreg key generate ci --dir keys --no-passphrase
      pqreg key generate alice --profile 3 --passphrase-file alice.passphrase
    """
    output = Output(json=json)
    # Before anybody types a passphrase twice for a name that is taken.
    custody.pair_paths(directory, name)
    passphrase = _new_passphrase(passphrase_file, unsealed=no_passphrase)
    chosen = profile_of(int(profile.value))
    secret = custody.generate_recipient(chosen) if recipient else custody.generate(chosen)
    public = secret.public if isinstance(secret, SecretRecipient) else secret.identity
    secret_path, public_path = custody.store_pair(directory, name, secret, passphrase)
    exposure = "can unseal what is granted to it" if recipient else "can sign"
    sealed = f"not sealed: whoever reads it {exposure}" if passphrase is None else "sealed with the passphrase"
    output.fields([*_fields(public)[:2], ("secret", f"{secret_path} ({sealed})"), ("public", public_path)])
    output.note(
        f"back up {secret_path}; give {public_path} to "
        + ("those who are to grant releases to it" if recipient else "those who are to trust your releases")
    )
    output.data(
        {
            **_described(public),
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
    """Show the id and profile of an identity or a recipient.

    A secret key file must be unlocked for it. Compare the id over another channel before you trust a .pqpub file that
    somebody sent.

    Examples:
      pqreg key show alice.pqpub
      pqreg key show keys/alice.pqkey --json
    """
    output = Output(json=json)
    public = custody.shown(file, _known_passphrase(passphrase_file))
    output.fields(_fields(public))
    output.data(_described(public))


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pqkey file.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to this new file, not to standard output.")
    ] = None,
    recipient: Annotated[
        bool, typer.Option("--recipient", help="Write the recipient: of an identity, the one it is as well.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Write the public part of a secret key file.

    That is what NAME.pqpub holds. With --recipient it is the public file to which sealed releases are granted.

    Examples:
      pqreg key export keys/alice.pqkey --out alice.pqpub
      pqreg key export keys/alice.pqkey > alice.pqpub
      pqreg key export keys/alice.pqkey --recipient --out alice-recipient.pqpub
    """
    output = Output(json=json)
    secret = custody.opened(file, _known_passphrase(passphrase_file))
    if isinstance(secret, SecretRecipient):
        public: PublicIdentity | PublicRecipient = secret.public
    else:
        public = secret.recipient.public if recipient else secret.identity
    content = public.to_file() if isinstance(public, PublicRecipient) else public.to_pem()
    if out is None:
        output.line(content.decode("ascii").removesuffix("\n"))
    else:
        write_file(out, content, replace=False)
        output.fields([_fields(public)[0], ("public", out)])
    output.data(
        {**_described(public), "public": content.decode("ascii"), "public_file": None if out is None else str(out)}
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


def _fields(public: PublicIdentity | PublicRecipient) -> list[tuple[str, object]]:
    if isinstance(public, PublicRecipient):
        return [
            ("recipient", public.id),
            ("profile", f"level {public.kem.level}: {public.kem.algorithm}"),
        ]
    ec, pq = public.half_ids
    profile = public.profile
    return [
        ("identity", public.id),
        ("profile", profile.description),
        ("EC half", f"{profile.ec.algorithm}, sha256 {ec}"),
        ("PQ half", f"{profile.pq.algorithm}, sha256 {pq}"),
    ]


def _described(public: PublicIdentity | PublicRecipient) -> dict[str, object]:
    if isinstance(public, PublicRecipient):
        return {
            "kind": "recipient",
            "id": public.id,
            "profile": public.kem.level,
            "kem": {"id": public.kem.value, "algorithm": public.kem.algorithm},
        }
    ec, pq = public.half_ids
    return {
        "kind": "identity",
        "id": public.id,
        "profile": public.profile.level,
        "halves": {
            "ec": {"algorithm": public.profile.ec.algorithm, "sha256": ec},
            "pq": {"algorithm": public.profile.pq.algorithm, "sha256": pq},
        },
    }
