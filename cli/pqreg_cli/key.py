# SPDX-License-Identifier: Apache-2.0
"""``pqreg key``: make, show, export and keep secret keys. Custody itself is ``pqreg_keys``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient
from pq_registry.crypto.slhdsa import SlhPublic, SlhSecret
from pq_registry.crypto.suites import Profile, profile_of
from pq_registry.durable import write_file
from pq_registry.errors import UsageError
from pq_registry.settings import Settings
from pqreg_cli import keycare
from pqreg_cli.certify import certify
from pqreg_cli.console import Output
from pqreg_cli.keycare import key_settings, known_passphrase, new_passphrase
from pqreg_cli.keyrevoke import revoke
from pqreg_cli.keyview import described, fields
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, PassphraseFdOption, PassphraseFileOption
from pqreg_keys import custody
from pqreg_keys.custody import AnySecret, SecretIdentity
from pqreg_keys.pkcs11 import TokenAccess

app = new_app(help="Make, show, export, keep and revoke signing identities and recipients.")


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
    slh: Annotated[
        bool, typer.Option("--slh", help="Make an SLH-DSA key, for an additional signature on trust files.")
    ] = False,
    pkcs11: Annotated[
        str | None,
        typer.Option(
            "--pkcs11", metavar="URI", help="The EC half is this key of a PKCS#11 token: pkcs11:token=...;object=..."
        ),
    ] = None,
    pkcs11_create: Annotated[bool, typer.Option("--pkcs11-create", help="Make that key in the token first.")] = False,
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
    passphrase_fd: PassphraseFdOption = None,
    json: JsonOption = False,
) -> None:
    """Make a signing identity, or a recipient.

    Two files: NAME.pqkey, which signs and stays with you, and NAME.pqpub, which others trust. The first is readable
    by you alone (mode 0600) and sealed with a passphrase, which is asked for on the terminal, or taken from
    --passphrase-file, --passphrase-fd or PQREG_PASSPHRASE. Nothing is ever overwritten.

    With --recipient, NAME.pqkey opens sealed releases that were granted to NAME.pqpub, and signs nothing. An identity
    is a recipient of its own as well. With --slh it signs trust files beside an identity (SLH-DSA-SHA2-
    256s, or -192s with --profile 3); it needs liboqs. With --pkcs11 the EC half stays in a token, and NAME.pqkey holds
    the rest.

    Examples:
      pqreg key generate alice --dir keys
      pqreg key generate node1 --recipient --dir keys --no-passphrase
      pqreg key generate ci --dir keys --no-passphrase
      pqreg key generate alice --profile 3 --passphrase-file alice.passphrase
      pqreg key generate root-slh --slh --dir keys
      pqreg key generate alice --pkcs11 'pkcs11:token=signing;object=alice' --pkcs11-create
    """
    output = Output(json=json)
    if sum((recipient, slh, pkcs11 is not None)) > 1 or (pkcs11_create and pkcs11 is None):
        raise UsageError("these options contradict each other",
                         expected="one of --recipient, --slh and --pkcs11; --pkcs11-create with the last")  # fmt: skip
    settings = key_settings(passphrase_file, passphrase_fd)
    # Before anybody types a passphrase twice for a name that is taken.
    custody.pair_paths(directory, name)
    passphrase = new_passphrase(settings, unsealed=no_passphrase)
    secret = _made(profile_of(int(profile.value)), recipient, slh, pkcs11, pkcs11_create, settings)
    public = secret.identity if isinstance(secret, SecretIdentity) else secret.public
    secret_path, public_path = custody.store_pair(directory, name, secret, passphrase)
    exposure = "can unseal what is granted to it" if recipient else "can sign"
    sealed = f"not sealed: whoever reads it {exposure}" if passphrase is None else "sealed with the passphrase"
    output.fields([*fields(public)[:2], ("secret", f"{secret_path} ({sealed})"), ("public", public_path)])
    output.note(
        f"back up {secret_path} (pqreg key backup); give {public_path} to "
        + ("those who are to grant releases to it" if recipient else "those who are to trust what it signs")
    )
    output.data(
        {
            **described(public),
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
    passphrase_fd: PassphraseFdOption = None,
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
    public = custody.shown(file, known_passphrase(key_settings(passphrase_file, passphrase_fd)))
    output.fields(fields(public))
    output.data(described(public))


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
    passphrase_fd: PassphraseFdOption = None,
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
    secret = custody.opened(file, known_passphrase(key_settings(passphrase_file, passphrase_fd)))
    public: PublicIdentity | PublicRecipient | SlhPublic
    if not isinstance(secret, SecretIdentity):
        if recipient and not isinstance(secret, SecretRecipient):
            raise UsageError(f"{file} holds no recipient", expected="a recipient, or a signing identity")
        public = secret.public
    else:
        public = secret.recipient.public if recipient else secret.identity
    content = public.to_file() if isinstance(public, PublicRecipient) else public.to_pem()
    if out is None:
        output.line(content.decode("ascii").removesuffix("\n"))
    else:
        write_file(out, content, replace=False)
        output.fields([fields(public)[0], ("public", out)])
    output.data(
        {**described(public), "public": content.decode("ascii"), "public_file": None if out is None else str(out)}
    )


def _made(
    profile: Profile, recipient: bool, slh: bool, pkcs11: str | None, create: bool, settings: Settings
) -> AnySecret:
    if recipient:
        return custody.generate_recipient(profile)
    if slh:
        return SlhSecret.generate(profile)
    if pkcs11 is None:
        return custody.generate(profile)
    settings.require("pkcs11_module")
    access = TokenAccess.from_settings(settings)
    assert access is not None  # require() has refused
    return custody.generate_on_token(profile, pkcs11, access, create=create)


for command in (keycare.passphrase, keycare.backup, keycare.restore, certify, revoke):
    app.command()(command)
