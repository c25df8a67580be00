# SPDX-License-Identifier: Apache-2.0
"""F7, rollback, for grants: who has seen a withdrawal is not talked out of it by a registry that shows an older grant.

DESIGN §2: a registry can withhold, but it cannot roll a client back below what that client has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.grants import content_key, give, read_grant, withdraw
from pq_registry.client.keptgrants import keep_grants
from pq_registry.client.seengrants import SeenGrants
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    FormatError,
    GrantEquivocation,
    GrantMismatch,
    GrantMissing,
    GrantRollback,
    GrantWithdrawn,
    PqregError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.loader.api import load
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import SealingSite, model_files, recipient, write_files


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        write_files(tmp_path / "model", model_files())
        site.push(tmp_path / "model", recipient().public)
        yield site
        site.close()


def chain(site: SealingSite) -> list[bytes]:
    return site.registry.grants[(site.release().digest.hex, recipient().public.id)]


def statement(envelope: bytes) -> GrantStatement:
    return GrantStatement.parse(Envelope.parse(envelope).payload)


def test_f7_a_node_that_saw_the_withdrawal_takes_no_older_grant(site: SealingSite) -> None:
    node = recipient()
    first = chain(site)[0]
    site.unseal(node).key.wipe()
    withdraw(site.publisher(), site.release(), node.public.id)
    with pytest.raises(GrantWithdrawn):
        site.unseal(node)
    site.registry.grants[(site.release().digest.hex, node.public.id)] = [first]
    with pytest.raises(GrantRollback) as caught:
        site.unseal(node)
    assert (caught.value.step, str(caught.value.found)) == (7, "sequence 1")
    # One from a shelf is held to the same, and what was seen survives it.
    with pytest.raises(GrantRollback):
        site.unseal(node, grant=first)
    # Somebody who saw nothing is protected by expiry only.
    fresh = replace(site, home=site.home / "another node")
    (site.home / "another node").mkdir()
    fresh.unseal(node).key.wipe()


def test_f7_what_came_from_a_shelf_is_not_remembered(site: SealingSite) -> None:
    node = recipient()
    late = replace(statement(chain(site)[0]), sequence=9, previous=Digest("00" * 32))
    site.unseal(node, grant=sign_envelope(late.encode(), publisher()).encode()).key.wipe()
    assert not (site.home / "node-state" / "grants").exists()
    site.unseal(node).key.wipe()
    assert len(list((site.home / "node-state" / "grants").iterdir())) == 1


def test_f7_two_grants_of_one_sequence_are_noticed(site: SealingSite) -> None:
    node = recipient()
    site.unseal(node).key.wipe()
    with content_key(site.publisher(), site.release()) as key:
        other = replace(statement(chain(site)[0]), wrapped=node.public.wrap(key, site.release().digest))
    site.registry.grants[(site.release().digest.hex, node.public.id)] = [
        sign_envelope(other.encode(), publisher()).encode()
    ]
    with pytest.raises(GrantEquivocation):
        site.unseal(node)


def test_f7_only_a_grant_of_this_release_and_recipient_is_remembered(site: SealingSite) -> None:
    node, other = recipient(), recipient("other")
    site.registry.grants[(site.release().digest.hex, other.public.id)] = chain(site)
    with pytest.raises(GrantMismatch):
        site.unseal(other)
    assert not (site.home / "node-state" / "grants").exists()
    site.unseal(node).key.wipe()


def test_f7_load_and_a_kept_grant_are_held_to_what_was_seen(
    site: SealingSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = recipient()
    trust = tmp_path / "trust.json"
    trust.write_bytes(site.trust.encode())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    mirror = tmp_path / "mirror"
    site.pull_sealed(mirror)
    seen = SeenGrants(tmp_path / "mirror-state")
    assert keep_grants(mirror, site.release(), site.client(), site.verifier(), seen) == 2
    words: dict[str, Any] = {"trust": trust, "recipient_key": node, "framework": "numpy"}
    assert load(mirror, expect="acme/secret", **words)
    assert not (tmp_path / "xdg").exists()  # a directory is read where nothing can be written
    first = chain(site)[0]
    assert load("acme/secret:v1", registry=site.registry.url, **words)
    withdraw(site.publisher(), site.release(), node.public.id)
    with pytest.raises(GrantWithdrawn):
        load("acme/secret:v1", registry=site.registry.url, **words)
    site.registry.grants[(site.release().digest.hex, node.public.id)] = [first]
    with pytest.raises(GrantRollback):
        load("acme/secret:v1", registry=site.registry.url, **words)
    with pytest.raises(GrantRollback):
        load(mirror, expect="acme/secret", **words)


def test_f7_a_withdrawn_grant_does_not_come_back_to_a_mirror(site: SealingSite, tmp_path: Path) -> None:
    node, mirror = recipient(), tmp_path / "mirror"
    site.pull_sealed(mirror)
    seen = SeenGrants(tmp_path / "mirror-state")
    kept = mirror / ".pqreg" / "grants" / f"{node.public.id}.json"

    def keep() -> int:
        return keep_grants(mirror, site.release(), site.client(), site.verifier(), seen)

    assert (keep(), kept.exists()) == (2, True)
    first = chain(site)[0]
    withdraw(site.publisher(), site.release(), node.public.id)
    assert (keep(), kept.exists()) == (1, False)
    site.registry.grants[(site.release().digest.hex, node.public.id)] = [first]
    assert (keep(), kept.exists()) == (1, False)


def test_f7_a_publisher_signs_no_sequence_twice(site: SealingSite) -> None:
    node, made = recipient(), site.publisher()
    release = site.release()
    place = (release.digest.hex, node.public.id)
    withdraw(made, release, node.public.id)
    genuine = list(chain(site))
    for shown in ([genuine[0]], []):
        site.registry.grants[place] = list(shown)
        for attempt in (
            lambda: withdraw(made, release, node.public.id),
            lambda: read_grant(made, release, node.public.id),
        ):
            with pytest.raises(GrantRollback):
                attempt()
        with content_key(made, release) as key, pytest.raises(GrantRollback):
            give(made, release, node.public, key, expires=made.now + timedelta(days=1))
        assert site.registry.grants[place] == shown
    site.registry.grants[place] = genuine
    with content_key(made, release) as key:
        assert give(made, release, node.public, key).statement.sequence == 3
    # Without a grant there is nothing to remember, and that is no rollback.
    assert read_grant(made, release, recipient("nobody").public.id) is None


def test_f7_a_damaged_record_of_a_grant_is_no_clean_slate(site: SealingSite) -> None:
    node = recipient()
    site.unseal(node).key.wipe()
    (record,) = (site.home / "node-state" / "grants").glob("*.json")
    assert record.stat().st_mode & 0o777 == 0o600
    for damage in (b"", b"{}", record.read_bytes().replace(b"seen-grant", b"seen-tag")):
        record.write_bytes(damage)
        with pytest.raises(FormatError, match="damaged"):
            site.unseal(node)


def test_f7_the_record_is_of_one_release_and_one_recipient_in_any_case_of_the_name(tmp_path: Path) -> None:
    from tests.sealing_samples import seal

    one, two = seal(), seal(release_id="6f" * 16)
    node, other = recipient(), recipient("other")
    seen = SeenGrants(tmp_path)
    grant = one.grant(node)
    seen.accept(replace(grant, sequence=2, previous=one.release))
    for independent in (two.grant(node), one.grant(other)):
        seen.accept(independent)
    from pq_registry.format.name import RepositoryName

    shouted = replace(grant, repository=RepositoryName.parse("ACME/Secret"))
    with pytest.raises(GrantRollback):
        seen.accept(shouted)
    with pytest.raises(PqregError):
        seen.require_none(grant.repository, grant.release, grant.recipient)
    seen.require_none(grant.repository, grant.release, "ab" * 32)


def test_f7_a_node_without_a_grant_hears_that_and_nothing_else(site: SealingSite) -> None:
    with pytest.raises(GrantMissing):
        site.unseal(recipient("stranger"))
