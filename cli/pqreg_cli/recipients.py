# SPDX-License-Identifier: Apache-2.0
"""Recipients on the command line: the options that name them, and their files."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.client.grants import GrantChange
    from pq_registry.crypto.recipient import PublicRecipient, RecipientKey

RecipientKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--recipient-key",
        metavar="FILE",
        help="The secret key file that opens sealed releases. [setting: PQREG_RECIPIENT_KEY]",
    ),
]
ToOption = Annotated[
    list[Path] | None,
    typer.Option("--to", metavar="FILE", help="A recipient's .pqpub file; may be given several times."),
]
ExpiresOption = Annotated[
    int | None,
    typer.Option("--expires-days", metavar="N", min=1, max=36500, help="How long it is good for; else for ever."),
]


def recipient_key(session: Session) -> RecipientKey | None:
    """The configured recipient key, unlocked; None if none is configured.

    Raises:
        KeyCustodyError: if the file is exposed, or the passphrase is wrong.
    """
    path = session.settings.get("recipient_key")
    if path is None:
        return None
    from pqreg_keys.source import FileKeySource

    return FileKeySource.from_settings(session.settings).open_recipient(Path(path))


def read_recipient(path: Path) -> PublicRecipient:
    """The recipient in a public file.

    Raises:
        UsageError: if it cannot be read.
        FormatError: if it is something else, with what to do.
    """
    from pq_registry.crypto.recipient import PublicRecipient

    return PublicRecipient.from_file(read_small(path, "recipient file", limits.IDENTITY_FILE_BYTES))


def expiry(now: datetime, days: int | None) -> datetime | None:
    """When something that is signed now expires."""
    return None if days is None else now + timedelta(days=days)


def grant_json(change: GrantChange) -> dict[str, object]:
    """A grant's last statement."""
    from pq_registry.format.instant import format_instant
    from pqreg_cli.logview import leaf_index

    statement = change.statement
    return {
        "name": str(statement.repository),
        "digest": str(statement.release),
        "recipient": statement.recipient,
        "sequence": statement.sequence,
        "issued": format_instant(statement.issued),
        "expires": None if statement.expires is None else format_instant(statement.expires),
        "withdrawn": statement.withdrawn,
        "signer": statement.signer,
        "changed": change.changed,
        "log_index": leaf_index(change.logged),
    }


def check_fingerprint(recipient: PublicRecipient, fingerprint: str) -> None:
    """Compare the id somebody read out over another channel.

    Raises:
        UsageError: if it is another one.
    """
    if fingerprint.strip().lower() != recipient.id:
        raise UsageError(
            "the fingerprint is not that of this recipient key",
            expected=fingerprint,
            found=recipient.id,
            hint="this is not the key its owner told you about; do not grant anything to it",
        )
