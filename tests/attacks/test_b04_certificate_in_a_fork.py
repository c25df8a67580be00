# SPDX-License-Identifier: Apache-2.0
"""B4, equivocation: a recipient's certificate that the log shows to nobody but the publisher it is meant for.

Whoever has an enrolment key and the log could otherwise be granted a content key without leaving a trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.enrolment import certify
from pq_registry.client.vouched import certified
from pq_registry.errors import LogEquivocation, LogStale, RecipientUncertified
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from tests.logsamples import MemoryLog
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import REFERENCE, SealingSite, recipient, sealed_trust

ACME = REFERENCE.repository.namespace
NODE = recipient("seven").public


class Site:
    """A registry with a log that no witness watches, and a publisher who knows its beginning."""

    def __init__(self, site: SealingSite) -> None:
        self.site = site
        certify(
            site.publisher(signer=publisher("enrolment")), NODE, namespace=ACME, node="edge-7",
            lifetime=timedelta(days=30),
        )  # fmt: skip
        self.envelope = Envelope.parse(site.registry.keys[NODE.id])
        site.registry.statements[self.envelope.payload_digest.hex] = self.envelope.encode()
        self.log = MemoryLog(time=int(site.now.timestamp()))
        self.log.append_raw(b"one", b"two")
        self.log.publish()
        site.trust = replace(site.trust, log=self.log.policies())
        self.show(self.log)

    def show(self, log: MemoryLog) -> None:
        self.site.registry.log_files = dict(log.files)

    def hand_out(self, log: MemoryLog) -> None:
        """The certificate's receipt, from this log."""
        signer = publisher("enrolment").identity.id
        receipt = log.log(self.envelope, kind=Kind.KEY, name="acme", identity=signer)
        self.site.registry.receipts[self.envelope.payload_digest.hex] = receipt

    def look(self) -> str:
        return certified(self.site.publisher(), ACME, NODE.id).node


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with sealed_registry() as registry:
        made = SealingSite(registry, tmp_path, sealed_trust(enrolment=publisher("enrolment")))
        yield Site(made)
        made.close()


def test_b4_a_certificate_in_the_log_everybody_sees_counts(site: Site) -> None:
    with pytest.raises(RecipientUncertified):
        site.look()  # no receipt yet
    site.hand_out(site.log)
    site.show(site.log)
    assert site.look() == "edge-7"
    kept = Checkpoints(site.site.home / "state").get(site.log.origin)
    assert kept is not None
    assert kept[0].size == 3


def test_b4_a_certificate_in_a_tree_of_its_own_does_not(site: Site) -> None:
    site.hand_out(site.log.fork(2))
    site.log.append_raw(b"what everybody else sees", b"and more")
    site.log.publish()
    site.show(site.log)
    with pytest.raises(LogEquivocation):
        site.look()
    assert len(list((site.site.home / "state/evidence").glob("*.note"))) == 2


def test_b4_nor_does_one_in_a_log_that_is_frozen(site: Site) -> None:
    site.log.time -= 2 * 24 * 3600
    site.hand_out(site.log)
    site.show(site.log)
    with pytest.raises(LogStale):
        site.look()
