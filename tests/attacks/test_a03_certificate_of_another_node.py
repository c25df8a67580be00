# SPDX-License-Identifier: Apache-2.0
"""A3, trust by a name: a registry lists a genuinely certified key under the name of another node.

``pqreg grant add --to edge-7`` looks a node up in the registry's listing. The listing is not signed; the certificate
is, and it says whose key it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.answers import CertificateItem
from pq_registry.client.enrolment import certify
from pq_registry.client.tagging import Publisher
from pq_registry.client.vouched import look_up
from pq_registry.errors import RecipientUncertified, UsageError
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import REFERENCE, SealingSite, recipient, sealed_trust

ACME = REFERENCE.repository.namespace


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path, sealed_trust(enrolment=publisher("enrolment")))
        yield site
        site.close()


def certified(site: SealingSite, node: str, key: str, days: int = 30) -> None:
    enrol = site.publisher(signer=publisher("enrolment"))
    certify(enrol, recipient(key).public, namespace=ACME, node=node, lifetime=timedelta(days=days))


def listing(made: Publisher, *items: tuple[str, str]) -> Publisher:
    """A registry that lists keys under names of its choice."""
    made_up = tuple(
        CertificateItem(recipient=recipient(key).public.id, node=node, not_after=None,
                        signer=publisher("enrolment").identity.id)
        for node, key in items
    )  # fmt: skip
    client: Any = made.client
    client.certificates = lambda _namespace: made_up
    return made


def test_a3_the_certificate_says_which_node_holds_a_key_and_not_the_listing(site: SealingSite) -> None:
    certified(site, "edge-7", "seven")
    certified(site, "edge-9", "nine")
    assert look_up(site.publisher(), ACME, "edge-7") == recipient("seven").public
    steered = listing(site.publisher(), ("edge-7", "nine"), ("edge-9", "seven"))
    with pytest.raises(RecipientUncertified) as caught:
        look_up(steered, ACME, "edge-7")
    assert "edge-9" in str(caught.value.found)
    # Both listed under the name: the one that says so itself.
    both = listing(site.publisher(), ("edge-7", "nine"), ("edge-7", "seven"))
    assert look_up(both, ACME, "edge-7") == recipient("seven").public
    # By its id a key is the same whatever it is listed as.
    assert look_up(steered, ACME, recipient("nine").public.id) == recipient("nine").public
    with pytest.raises(UsageError, match="neither a file nor one recipient"):
        look_up(site.publisher(), ACME, "EDGE-7")


def test_a3_a_node_with_two_keys_is_asked_about_and_a_lapsed_one_does_not_count(site: SealingSite) -> None:
    certified(site, "edge-7", "old", days=3)
    certified(site, "edge-7", "new")
    with pytest.raises(UsageError) as caught:
        look_up(site.publisher(), ACME, "edge-7")
    assert "2 certified" in str(caught.value.found)
    later = site.publisher(now=site.now + timedelta(days=4))
    assert look_up(later, ACME, "edge-7") == recipient("new").public
    with pytest.raises(RecipientUncertified, match="nobody vouches"):
        look_up(site.publisher(now=site.now + timedelta(days=40)), ACME, "edge-7")
