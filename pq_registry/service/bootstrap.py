# SPDX-License-Identifier: Apache-2.0
"""The first token. There are no default credentials: a registry without tokens makes one, or refuses to start.

A catalogue without any token is new. Then ``DIR/admin.token`` is written (0600, durable, a fresh random token) and its
token registered as admin. If the file is there already (a crash came between the two, or the operator provides the
token) its token is registered instead, provided that the file is a regular file that only its owner can read and that
the token is of the form this project makes. Anything else is refused, and the service does not start.

Of several instances that start at once on one catalogue, one makes the token; the others' files go again.

Once a token exists the file is not needed any more and may be removed; while it is there, others may not read it.
"""

from __future__ import annotations

import os
import stat

from pq_registry import durable
from pq_registry.errors import SettingError
from pq_registry.service.tokens import Tokens, host_caller, is_strong, new_token
from pq_registry.storage.datadir import DataDirectory

_MOST_BYTES = 200


def ensure_admin(directory: DataDirectory, tokens: Tokens) -> str | None:
    """Make sure that there is a token; answers the text of the admin token if it was made just now.

    Raises:
        SettingError: if the token file is exposed, or weak while it is needed.
        StorageError: if file or catalogue cannot be read or written.
    """
    path = directory.admin_token
    text = _read(directory)
    if tokens.exist():
        return None
    made = text is None
    if text is None:
        text = new_token()
        durable.write_file(path, text.encode("ascii") + b"\n", mode=0o600, replace=False)
    elif not is_strong(text):
        raise SettingError(
            f"the token in {path} is empty or weak",
            expected="a token made by pqreg",
            hint="remove the file; the next start makes a strong one",
        )
    if tokens.adopt_admin(host_caller(), text) is not None:
        return text if made else None  # whoever provided it knows it, and the service's output may go to many
    if made:  # another instance on the same catalogue was first: this file's token opens nothing
        with durable.reported("remove", path):
            path.unlink(missing_ok=True)
    return None


def _read(directory: DataDirectory) -> str | None:
    path = directory.admin_token
    with durable.reported("read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            mode = os.fstat(descriptor).st_mode
            data = os.read(descriptor, _MOST_BYTES) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
    if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
        raise SettingError(
            f"{path} can be read by others",
            expected="a regular file of mode 0600",
            found=stat.filemode(mode),
            hint="revoke the token in it, remove the file and start again",
        )
    return data.decode("ascii", errors="replace").removesuffix("\n")
