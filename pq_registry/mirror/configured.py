# SPDX-License-Identifier: Apache-2.0
"""The Hub that the settings describe, and the token that goes with it."""

from __future__ import annotations

from pq_registry.client.hubtoken import hub_credential
from pq_registry.mirror.hub import Hub
from pq_registry.settings import Settings


def configured_hub(settings: Settings) -> tuple[Hub, str | None]:
    """The Hub in effect, and a warning if its token was withheld.

    Raises:
        UsageError: if ``huggingface_hub`` is not installed.
        SettingError: if the URL or the token is malformed, or the token would travel unencrypted.
    """
    credential = hub_credential(settings)
    return Hub(settings.require("hub"), credential.token), credential.withheld
