# SPDX-License-Identifier: Apache-2.0
"""Grants outlive the identity that signed them: handed to the next one, and signed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.grants import content_key, give
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.trust import Verifier
from pq_registry.errors import GrantMissing, IdentityLapsed
from tests.samples import publisher, trusted
from tests.sealed_registry import sealed_registry
from tests.sealing_site import REFERENCE, SealingSite, model_files, recipient, sealed_trust, write_files

OLD, NEW = publisher("2026"), publisher("2027")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path, sealed_trust(OLD, NEW))
        entry = site.trust.namespaces["acme"]
        windows = (trusted(OLD, not_after=site.now + timedelta(days=30)), trusted(NEW))
        site.trust = replace(site.trust, namespaces={"acme": replace(entry, identities=windows)})
        yield site
        site.close()


def test_after_a_rotation_grants_are_signed_again(site: SealingSite) -> None:
    node = recipient()
    old = site.publisher(signer=OLD)
    release = site.push(write_files(site.home / "model", model_files()), node.public, who=old).pushed.release
    verified = site.resolve().verified.release
    assert verified.digest == release
    with pytest.raises(GrantMissing):
        content_key(site.publisher(signer=NEW), verified)
    with content_key(old, verified) as key:
        give(old, verified, NEW.recipient.public, key)
    new = site.publisher(signer=NEW)
    with content_key(new, verified) as key:
        assert not give(new, verified, node.public, key).changed
        change = give(new, verified, node.public, key, renew=True)
    assert (change.changed, change.statement.sequence, change.statement.signer) == (True, 2, NEW.identity.id)
    first, second = site.registry.grants[(release.hex, node.public.id)]
    late = Verifier(site.trust.encode(), site.now + timedelta(days=31), online=True)
    with pytest.raises(IdentityLapsed):
        late.grant(first)
    seen = SeenGrants(site.home / "late")
    seen.accept(late.grant(second))
    site.unseal(node).key.wipe()
    assert REFERENCE.repository == verified.name
