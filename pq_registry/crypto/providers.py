# SPDX-License-Identifier: Apache-2.0
"""The providers, by the name that the setting ``provider`` and ``--provider`` take; loaded when asked for."""

from __future__ import annotations

from typing import Final

from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.errors import SettingError

PROVIDERS: Final = ("openssl", "liboqs")


def provider_named(name: str) -> Provider:
    """The provider called ``name``.

    Raises:
        SettingError: if there is no such provider.
        ProviderUnavailable: if it is not installed.
        SelfTestFailed: if it does not give the known answers.
    """
    if name == "openssl":
        return OPENSSL
    if name == "liboqs":
        from pq_registry.crypto.liboqs import LibOqsProvider, installed

        return LibOqsProvider(installed())
    raise SettingError("setting provider is wrong", expected=" or ".join(PROVIDERS), found=repr(name)[:80])
