# SPDX-License-Identifier: Apache-2.0
"""``pqreg key passphrase|backup|restore``: a secret key file after it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pq_registry.errors import KeyCustodyError, UsageError
from pq_registry.settings import Settings
from pqreg_cli.console import Output
from pqreg_cli.keyview import described, fields
from pqreg_cli.options import JsonOption, PassphraseFdOption, PassphraseFileOption
from pqreg_keys import keycare as care
from pqreg_keys import secretfile
from pqreg_keys.custody import SecretIdentity
from pqreg_keys.passphrase import Passphrase, PassphraseSource, configured, from_file, from_terminal, has_terminal

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .pqkey file.")]
NewPassphraseFile = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", metavar="FILE", help="A file whose first line is the new passphrase."),
]
BackupPassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--backup-passphrase-file", metavar="FILE", help="A file whose first line is the backup's passphrase."
    ),
]


def passphrase(
    file: KeyFile,
    *,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    new_passphrase_file: NewPassphraseFile = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Do not seal the file any more; for machines.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Change the passphrase of a secret key file.

    The keys stay the same, and so do the public file and everything signed. The file is replaced in one step. Copies
    made before, backups and what a disk keeps of the old file still open with the old passphrase: if that became known
    to others, a new identity is the remedy.

    Examples:
      pqreg key passphrase keys/alice.pqkey
      pqreg key passphrase keys/ci.pqkey --new-passphrase-file new.passphrase
    """
    output = Output(json=json)
    old = known_passphrase(key_settings(passphrase_file, passphrase_fd))
    new: Passphrase | None = None
    if no_passphrase and new_passphrase_file is not None:
        raise UsageError("--no-passphrase and --new-passphrase-file contradict each other", hint="give one of them")
    if not no_passphrase:
        new = _asked(new_passphrase_file, "New passphrase", "--new-passphrase-file", twice=True)()
    was_sealed = care.change_passphrase(file, old, new)
    now = "not sealed: whoever reads it can use it" if new is None else "sealed with the new passphrase"
    output.line(f"{file} is now {now}", "good")
    if not was_sealed and new is not None:
        output.note("it was not sealed before: whoever could read the disk or a backup may have the key")
    output.data({"secret_file": str(file), "sealed": new is not None, "was_sealed": was_sealed})


def backup(
    file: KeyFile,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new file that gets the backup.")],
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    backup_passphrase_file: BackupPassphraseFile = None,
    json: JsonOption = False,
) -> None:
    """Write an encrypted backup of a secret key file: text, under a passphrase of its own.

    Print it or store it away from the machine, and its passphrase somewhere else. Nothing is ever overwritten. Of a key
    whose EC half is in a PKCS#11 token, the backup holds the rest; back up the token by its own means.

    Examples:
      pqreg key backup keys/alice.pqkey --out alice.pqbackup
    """
    output = Output(json=json)
    known = known_passphrase(key_settings(passphrase_file, passphrase_fd))
    new = _asked(backup_passphrase_file, "Passphrase of the backup", "--backup-passphrase-file", twice=True)()
    care.write_backup(out, care.backup(file, known, new))
    output.line(f"wrote {out}", "good")
    output.note("try it now: pqreg key restore, into another directory")
    output.data({"backup": str(out), "secret_file": str(file)})


def restore(
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="A backup that pqreg key backup wrote.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the two files, e.g. alice.")],
    *,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to put them; made, for you alone, if missing.")
    ] = Path(),
    backup_passphrase_file: BackupPassphraseFile = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Do not seal the secret key file; for machines.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    json: JsonOption = False,
) -> None:
    """Restore NAME.pqkey and NAME.pqpub from a backup. Nothing is ever overwritten.

    The backup's passphrase opens it; the new file is sealed with a passphrase of its own.

    Examples:
      pqreg key restore alice.pqbackup alice --dir keys
    """
    output = Output(json=json)
    secretfile.pair_paths(directory, name)
    text = care.read_backup(file)
    known = _asked(backup_passphrase_file, "Passphrase of the backup", "--backup-passphrase-file", twice=False)
    new = new_passphrase(key_settings(passphrase_file, passphrase_fd), unsealed=no_passphrase)
    secret_path, public_path, secret = care.restore(text, known, directory, name, new)
    public = secret.identity if isinstance(secret, SecretIdentity) else secret.public
    output.fields([*fields(public)[:2], ("secret", secret_path), ("public", public_path)])
    output.data(
        {
            **described(public),
            "secret_file": str(secret_path),
            "public_file": str(public_path),
            "sealed": new is not None,
        }
    )


def key_settings(passphrase_file: Path | None, passphrase_fd: str | None) -> Settings:
    """The settings, with what was given on the command line.

    Raises:
        UsageError: if both are given.
    """
    if passphrase_file is not None and passphrase_fd is not None:
        raise UsageError("--passphrase-file and --passphrase-fd contradict each other", hint="give one of them")
    return Settings(
        {
            "passphrase_file": None if passphrase_file is None else str(passphrase_file),
            "passphrase_fd": passphrase_fd,
        }
    )


def new_passphrase(settings: Settings, *, unsealed: bool) -> Passphrase | None:
    """The passphrase of a new secret key file; None if it is to be ``unsealed``.

    Raises:
        UsageError: if there is none and nobody to ask, or there is one although there should not.
    """
    if unsealed:
        if settings.given("passphrase_file") or settings.given("passphrase_fd"):
            raise UsageError("--no-passphrase and a passphrase contradict each other", hint="give one of them")
        return None
    source = configured(settings, question="New passphrase", twice=True)
    if source is None:
        raise UsageError(
            "there is no passphrase for the secret key file, and no terminal to ask on",
            hint="give --passphrase-file, set PQREG_PASSPHRASE, or, for a machine's key, give --no-passphrase",
        )
    return source()


def known_passphrase(settings: Settings) -> PassphraseSource | None:
    """Where the passphrase of a secret key file comes from that exists."""
    return configured(settings, question="Passphrase of the secret key file")


def _asked(path: Path | None, question: str, option: str, *, twice: bool) -> PassphraseSource:
    if path is not None:
        return from_file(path)
    if not has_terminal():
        raise KeyCustodyError(f"there is no {question[0].lower()}{question[1:]}, and no terminal to ask on",
                              hint=f"give {option}")  # fmt: skip
    return from_terminal(question, twice=twice)
