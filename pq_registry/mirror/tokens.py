# SPDX-License-Identifier: Apache-2.0
"""The Hub of a mirror, with the token that its entry in mirrors.yaml leads to: a variable's, or a file's first line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.mirror.config import Mirror
from pq_registry.mirror.hub import Hub
from pq_registry.settings import secret_variable


def hub_of(
    mirror: Mirror, *, sleep: Callable[[float], None] = time.sleep, environment: Mapping[str, str] | None = None
) -> Hub:
    """The Hub that a mirror is on.

    Raises:
        SettingError: if its token is not where mirrors.yaml says, or is malformed.
        UsageError: if ``huggingface_hub`` is not installed.
    """
    return Hub(mirror.hub, _token(mirror, environment), sleep=sleep)


def _token(mirror: Mirror, environment: Mapping[str, str] | None) -> str | None:
    if mirror.token_variable is not None:
        token = secret_variable(mirror.token_variable, environment)
        if token is None:
            raise SettingError(
                f"mirror {mirror.name} has no token", expected=f"one in the variable {mirror.token_variable}"
            )
        return token
    if mirror.token_file is None:
        return None
    try:
        with mirror.token_file.open("rb") as file:
            data = file.read(limits.KIB)
    except OSError as error:
        raise SettingError(f"cannot read the token of mirror {mirror.name}", found=error.strerror) from None
    token = data.partition(b"\n")[0].decode("ascii", "replace").strip()
    if not token:
        raise SettingError(
            f"mirror {mirror.name} has no token", expected=f"one in the first line of {mirror.token_file}"
        )
    return token
