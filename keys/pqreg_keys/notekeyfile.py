# SPDX-License-Identifier: Apache-2.0
"""Files of note keys: what a log or a witness signs checkpoints with.

A file holds one secret key per line, ``PRIVATE+KEY+<name>+<hex8>+<base64(type || seed)>`` as in C2SP's tools, each line
ended by a newline, all of one name and each of another type. A log has Ed25519 (0x01) and ML-DSA-44 (0x06), both named
by its origin; a witness Ed25519 (0x04) and ML-DSA-44 (0x06).

The rules of every secret key file hold (``custody``): mode 0600 whatever the umask is, durable, never over anything
that exists; read only if nobody else can read or write it. There is no passphrase: a log and a witness start
unattended. Such a key signs checkpoints only; stolen, it can hide or backdate statements and cannot sign a release.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pq_registry import limits
from pq_registry.crypto.notesigning import NoteSigner
from pq_registry.crypto.secret import SecretBytes
from pq_registry.durable import write_file
from pq_registry.errors import FormatError
from pq_registry.format.note import NoteKeyType
from pqreg_keys.secretfile import check_exposure, open_private

LOG_TYPES = (NoteKeyType.ED25519, NoteKeyType.MLDSA44_COSIGNATURE)
WITNESS_TYPES = (NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE)


def generate_note_keys(path: Path, name: str, types: Iterable[NoteKeyType]) -> list[NoteSigner]:
    """Make a key of each of ``types`` and write them to the new file ``path``, mode 0600.

    Raises:
        FormatError: if ``name`` cannot be a key's.
        AlreadyExists: if something stands at ``path``; it is left as it is.
        StorageError: if the file cannot be written; nothing is left behind.
    """
    signers = [NoteSigner.generate(name, type_) for type_ in types]
    _check(path, signers)
    with SecretBytes("".join(f"{signer.to_text()}\n" for signer in signers).encode("utf-8")) as content:
        write_file(path, content, mode=0o600, exact_mode=True, replace=False)
    return signers


def load_note_keys(path: Path) -> list[NoteSigner]:
    """Read a file of note keys.

    Raises:
        KeyFileExposed: if others than the user who runs this own, may read or may write the file.
        FormatError: if it is no file of note keys.
        UsageError: if there is none.
        StorageError: if it cannot be read.
    """
    content, state = open_private(
        path,
        limit=limits.NOTE_KEY_FILE_BYTES,
        what="file of note keys",
        hint="check the path, or make one for a witness: pqreg witness keygen --state DIR --name NAME",
    )
    with content:
        check_exposure(path, state)
        signers = _parse(content)
    if signers is None:
        raise FormatError(f"{path} is not a file of note keys", expected="lines PRIVATE+KEY+<name>+<id>+<base64>")
    _check(path, signers)
    return signers


def _check(path: Path, signers: list[NoteSigner]) -> None:
    names, types = {signer.key.name for signer in signers}, {signer.key.type for signer in signers}
    if len(names) != 1 or len(types) != len(signers):
        raise FormatError(
            f"the keys in {path} do not belong together", expected="one name, each type once", found=sorted(names)
        )


def _parse(content: SecretBytes) -> list[NoteSigner] | None:
    # Answers None and raises nothing: the frame that raises has no line of the file among its locals.
    if not 0 < len(content) <= limits.NOTE_KEY_FILE_BYTES or not content.endswith(b"\n"):
        return None
    try:
        return [NoteSigner.from_text(line) for line in content.decode("utf-8").removesuffix("\n").split("\n")]
    except (UnicodeDecodeError, FormatError):
        return None
