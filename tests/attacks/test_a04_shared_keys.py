# SPDX-License-Identifier: Apache-2.0
"""A4, one key counted twice (GHSA-pwqf-9h7j-7mv8): no key has two ids, and no half is part of two identities.

No threshold of signers exists yet; the rule that keeps one from being met by a single key is this one.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import FormatError
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile
from pqreg_keys import custody

ALICE, BOB = custody.generate().identity, custody.generate().identity


def entry(identity: PublicIdentity, *, identity_id: str | None = None, pem: bytes | None = None) -> TrustedIdentity:
    return TrustedIdentity(identity_id or identity.id, (pem or identity.to_pem()).decode())


def load(*namespaces: list[TrustedIdentity]) -> TrustStore:
    """Through the written form, as a client does."""
    entries = {
        f"ns{number}": NamespaceTrust(Namespace(f"ns{number}"), tuple(items), tuple(item.id for item in items), 3)
        for number, items in enumerate(namespaces)
    }
    trust = TrustFile(
        version=1,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        expires=datetime(2027, 1, 1, tzinfo=UTC),
        namespaces=entries,
    )
    return TrustStore.from_trust_file(TrustFile.parse(trust.encode()))


def test_a4_honest_identities_load_also_in_two_namespaces() -> None:
    store = load([entry(ALICE), entry(BOB)], [entry(ALICE)])
    assert len(store.identities(Namespace("ns0"))) == 2


def test_a4_one_key_under_two_ids_is_refused() -> None:
    invented = "0" * 64
    with pytest.raises(FormatError):
        load([entry(ALICE), entry(ALICE, identity_id=invented)])
    with pytest.raises(FormatError):
        load([entry(ALICE)], [entry(ALICE, identity_id=invented)])


def test_a4_one_id_twice_is_refused() -> None:
    with pytest.raises(FormatError):
        load([entry(ALICE), entry(ALICE)])


@pytest.mark.parametrize("half", ["ec", "pq"])
@pytest.mark.parametrize("apart", [False, True])
def test_a4_a_half_shared_by_two_identities_is_refused(half: str, apart: bool) -> None:
    mixed = PublicIdentity.from_spki(
        ALICE.ec_spki if half == "ec" else BOB.ec_spki, ALICE.pq_spki if half == "pq" else BOB.pq_spki
    )
    assert mixed.id not in (ALICE.id, BOB.id)
    load([entry(mixed)])  # alone it is an identity like any other
    with pytest.raises(FormatError, match="share a signing half"):
        load(*([[entry(ALICE)], [entry(mixed)]] if apart else [[entry(ALICE), entry(mixed)]]))


PEM = ALICE.to_pem()
OTHER_WORDS = {
    "a line more": PEM + b"\n",
    "other line endings": PEM.replace(b"\n", b"\r\n"),
    "a space before": b" " + PEM,
    "halves swapped": ALICE.pq_pem + ALICE.ec_pem,
    "a comment": b"# alice\n" + PEM,
}


@pytest.mark.parametrize("name", list(OTHER_WORDS))
def test_a4_the_same_key_in_other_words_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        load([entry(ALICE, pem=OTHER_WORDS[name])])
