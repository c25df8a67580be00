# SPDX-License-Identifier: Apache-2.0
"""Which Hub the configured Hub token belongs to: it is sent there and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pq_registry.client.origin import parse_registry
from pq_registry.errors import SettingError
from pq_registry.settings import SETTINGS, Settings, Source

HUB = "hub"
GATEWAY_HUB = "gateway_hub"


@dataclass(frozen=True, slots=True)
class HubCredential:
    """The token for a Hub, or why the one that is configured does not go there."""

    token: str | None
    withheld: str | None = None


def hub_credential(settings: Settings, setting: str = HUB) -> HubCredential:
    """The token for the Hub that ``setting`` names: only one that was given for it.

    A token of the config file is for the Hubs of that file, or for the default one. A token of the environment is for
    those of the environment, or for whichever Hub is in effect where none is set there. What a gateway fetches from
    (``gateway_hub``) may be either of the two that a source names; ``hub`` is itself alone.

    Raises:
        SettingError: if the Hub's URL is wrong.
    """
    token, source = settings.get("hub_token"), settings.source("hub_token")
    origin = parse_registry(settings.require(setting))[0]
    if token is None or source is None:
        return HubCredential(None)
    belongs = [url for name in dict.fromkeys((HUB, setting)) if (url := settings.value_from(source, name))]
    if source is Source.ENVIRONMENT and not belongs:
        return HubCredential(token)
    if origin in _origins(belongs or [next(one.default or "" for one in SETTINGS if one.name == HUB)]):
        return HubCredential(token)
    return HubCredential(None, f"the Hub token of the {source.value} was not given for {origin} and is not sent there")


def _origins(urls: list[str]) -> Iterator[object]:
    for url in urls:
        try:
            yield parse_registry(url)[0]
        except SettingError:
            continue  # the one it belongs to has a malformed URL, so it is not this one
