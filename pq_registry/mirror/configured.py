# SPDX-License-Identifier: Apache-2.0
"""The Hub that the settings describe, and the token that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry.client.origin import parse_registry
from pq_registry.errors import SettingError
from pq_registry.mirror.hub import Hub
from pq_registry.settings import SETTINGS, Settings, Source


@dataclass(frozen=True, slots=True)
class HubCredential:
    """The token for the Hub in effect, or why the one that is configured does not go there."""

    token: str | None
    withheld: str | None = None


def hub_credential(settings: Settings) -> HubCredential:
    """The token for the Hub in effect: only one that was given for it.

    A token of the config file is for the Hub of that file, or for the default one. A token of the environment is for
    ``PQREG_HUB``, or for whichever Hub is in effect where that is not set.

    Raises:
        SettingError: if the Hub's URL is wrong.
    """
    token, source = settings.get("hub_token"), settings.source("hub_token")
    origin = parse_registry(settings.require("hub"))[0]
    if token is None or source is None:
        return HubCredential(None)
    belongs = settings.value_from(source, "hub")
    if source is Source.ENVIRONMENT and not belongs:
        return HubCredential(token)
    default = next(setting.default for setting in SETTINGS if setting.name == "hub")
    try:
        if parse_registry(belongs or default or "")[0] == origin:
            return HubCredential(token)
    except SettingError:
        pass  # the one it belongs to has a malformed URL, so it is not this one
    return HubCredential(None, f"the Hub token of the {source.value} was not given for {origin} and is not sent there")


def configured_hub(settings: Settings) -> tuple[Hub, str | None]:
    """The Hub in effect, and a warning if its token was withheld.

    Raises:
        UsageError: if ``huggingface_hub`` is not installed.
        SettingError: if the URL or the token is malformed, or the token would travel unencrypted.
    """
    credential = hub_credential(settings)
    return Hub(settings.require("hub"), credential.token), credential.withheld
