# SPDX-License-Identifier: Apache-2.0
"""An importer: what ``stage`` makes of a model on a Hub, without a registry."""

from __future__ import annotations

from pathlib import Path

from pq_registry.client.progress import NullProgress
from pq_registry.client.trust import Verifier
from pq_registry.errors import TrustMissing
from pq_registry.format.path import ReleasePath
from pq_registry.mirror.hub import Hub, HubReference
from pq_registry.mirror.hubfiles import HubEntry
from pq_registry.mirror.selection import ImportOptions
from pq_registry.mirror.staging import Staged, stage
from tests.fake_hub import FakeHub
from tests.samples import NOW, trust_file


def no_trust() -> Verifier:
    raise TrustMissing("no trust file")


def trusting() -> Verifier:
    return Verifier(trust_file().encode(), NOW, online=False)


def bring(
    hub: FakeHub, place: Path, name: str = "hf://org/model", *, verifier=no_trust, token=None, **options
) -> Staged:
    return stage(
        Hub(hub.url, token, sleep=lambda _seconds: None), HubReference.parse(name), place, verifier=verifier, now=NOW,
        options=ImportOptions(**options), progress=NullProgress(),
    )  # fmt: skip


def files_in(place: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".cache/huggingface/")}


def hub_entry(name: str, size: int = 1) -> HubEntry:
    """A file as a Hub lists it."""
    return HubEntry(ReleasePath(name), size, git_sha1="0" * 40)
