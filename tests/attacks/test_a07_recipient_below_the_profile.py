# SPDX-License-Identifier: Apache-2.0
"""A7, downgrade: one grant to a key of the lower profile, and that profile protects the release from then on.

DESIGN §3: the trust file sets ``min_profile`` per namespace. It holds for what is signed and for whom it is sealed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.enrolment import certify
from pq_registry.client.grants import content_key, give
from pq_registry.client.reseal import reseal
from pq_registry.crypto.suites import Profile
from pq_registry.errors import PolicyError
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import REFERENCE, SealingSite, model_files, recipient, sealed_trust, write_files

LOW = recipient("low", Profile.LEVEL_3)
HIGH = recipient("high")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    write_files(tmp_path / "model", model_files())
    trust = sealed_trust(enrolment=publisher("enrolment"))
    demanding = replace(trust, namespaces={"acme": replace(trust.namespaces["acme"], min_profile=5)})
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path, demanding)
        yield site
        site.close()


def test_a7_nothing_is_sent_for_a_recipient_below_the_profile(site: SealingSite) -> None:
    with pytest.raises(PolicyError, match="lower profile") as caught:
        site.push(site.home / "model", HIGH.public, LOW.public)
    assert caught.value.expected == "profile 5 or higher"
    assert not site.registry.parts
    assert not site.registry.grants
    assert not list((site.home / "state").rglob("*.json"))


def test_a7_no_grant_afterwards_either(site: SealingSite) -> None:
    site.push(site.home / "model", HIGH.public)
    made, release = site.publisher(), site.release()
    with content_key(made, release) as key:
        with pytest.raises(PolicyError, match="lower profile"):
            give(made, release, LOW.public, key)
        # Without a trust file nobody demands anything.
        assert give(site.publisher(trust=None), release, LOW.public, key).changed


def test_a7_a_grant_from_before_is_not_carried_into_a_new_release(site: SealingSite) -> None:
    enrol = site.publisher(signer=publisher("enrolment"))
    for name, key in (("low", LOW), ("high", HIGH)):
        certify(enrol, key.public, namespace=REFERENCE.repository.namespace, node=name, lifetime=timedelta(days=9))
    site.push(site.home / "model", HIGH.public, LOW.public, who=site.publisher(trust=None))
    result = reseal(REFERENCE, publisher=site.publisher())
    granted = [change.statement.recipient for change in result.sealed.grants]
    assert HIGH.public.id in granted
    assert LOW.public.id not in granted
    assert [(one.recipient, "lower profile" in one.why) for one in result.left_out] == [(LOW.public.id, True)]
