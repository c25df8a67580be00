# SPDX-License-Identifier: Apache-2.0
"""Sealing anew: a key that nobody has, granted to those who keep their access, for as long as they had it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.enrolment import certify
from pq_registry.client.grants import withdraw
from pq_registry.client.reseal import LeftOut, ResealResult, reseal
from pq_registry.client.transport import RegistryClient
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import AccessDenied, CommitmentMismatch, GrantMissing, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.name import Reference
from pq_registry.format.status import RevocationKind
from tests.revocations import revocation, status_statement
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import REFERENCE, SealingSite, contents_of, model_files, recipient, sealed_trust, write_files

ACME = REFERENCE.repository.namespace


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path, sealed_trust(enrolment=publisher("enrolment")))
        yield site
        site.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", model_files())


def certified(site: SealingSite, *names: str) -> None:
    enrol = site.publisher(signer=publisher("enrolment"))
    for name in names:
        certify(enrol, recipient(name).public, namespace=ACME, node=name, lifetime=timedelta(days=30))


def sealed_anew(site: SealingSite, *to: PublicRecipient, **words: Any) -> ResealResult:
    fields = {"reference": REFERENCE, "publisher": site.publisher(), **words}
    return reseal(fields.pop("reference"), recipients=to, **fields)


def granted(site: SealingSite, release: Digest) -> dict[str, GrantStatement]:
    """Who is granted a release, as the registry has it."""
    found = {}
    for (one, node), chain in site.registry.grants.items():
        statement = GrantStatement.parse(Envelope.parse(chain[-1]).payload)
        if one == release.hex and not statement.withdrawn:
            found[node] = statement
    return found


def plans(site: SealingSite) -> list[Path]:
    return list((site.home / "state" / "plans").glob("*.json"))


def refuse(site: SealingSite, what: str, after: int) -> None:
    """From the request number ``after`` of those that contain ``what``, the registry refuses."""
    count = 0

    def rule(handler: Any) -> bool:
        nonlocal count
        count += 1
        if count <= after:
            return False
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.problem(403, "access-denied")
        return True

    site.registry.rules = {what: rule, "/v1/": site.registry.rules["/v1/"]}


def accept(site: SealingSite) -> None:
    site.registry.rules = {"/v1/": site.registry.rules["/v1/"]}


@pytest.mark.parametrize("from_directory", [False, True], ids=["from the release", "from a directory"])
def test_the_same_files_under_a_key_that_nobody_has(site: SealingSite, model: Path, from_directory: bool) -> None:
    certified(site, "stays")
    stays, out = recipient("stays"), recipient("out")
    old = site.push(model, stays.public, out.public, license="LicenseRef-Acme").pushed
    withdraw(site.publisher(), site.release(), out.public.id)
    result = sealed_anew(site, directory=model if from_directory else None)
    new = result.sealed.pushed
    assert (result.before, result.left_out) == (old.release, ())
    assert new.release != old.release
    assert new.manifest.release_id != old.manifest.release_id
    assert old.manifest.sealing is not None
    assert new.manifest.sealing is not None
    assert new.manifest.sealing.commitment != old.manifest.sealing.commitment
    assert set(granted(site, new.release)) == {publisher().recipient.public.id, stays.public.id}
    site.pull(stays, site.home / "new")
    assert contents_of(site.home / "new") == model_files()
    with site.unseal(stays) as unsealed:
        assert unsealed.inner.license == "LicenseRef-Acme"
    with pytest.raises(GrantMissing):
        site.unseal(out)
    assert not plans(site)
    # The old key opens nothing of the new release, even in a grant that the publisher's own key signed.
    old_key = stays.unwrap(granted(site, old.release)[stays.public.id].wrapped or b"", old.release)
    grant = granted(site, new.release)[stays.public.id]
    moved = replace(grant, wrapped=stays.public.wrap(SecretBytes(old_key), new.release), sequence=2,
                    previous=Digest.of(grant.encode()))  # fmt: skip
    with pytest.raises(CommitmentMismatch):
        site.unseal(stays, grant=sign_envelope(moved.encode(), publisher()).encode())


def test_a_grant_that_ends_ends_at_the_same_time(site: SealingSite, model: Path) -> None:
    certified(site, "edge")
    node, named = recipient("edge"), recipient("named")
    end = site.now + timedelta(days=7)
    site.push(model, node.public, named.public, expires=end)
    grants = granted(site, sealed_anew(site, named.public).sealed.pushed.release)
    assert grants[node.public.id].expires == end
    assert grants[named.public.id].expires is None  # named again, and nothing was said
    assert grants[publisher().recipient.public.id].expires is None


def test_expired_and_withdrawn_grants_are_not_renewed(site: SealingSite, model: Path) -> None:
    certified(site, "late", "gone")
    site.push(model, recipient("late").public, recipient("gone").public, expires=site.now + timedelta(days=1))
    withdraw(site.publisher(), site.release(), recipient("gone").public.id)
    result = sealed_anew(site, publisher=site.publisher(now=site.now + timedelta(days=2)))
    assert set(granted(site, result.sealed.pushed.release)) == {publisher().recipient.public.id}
    assert result.left_out == ()


def test_who_is_not_certified_is_left_out_and_said_unless_named(site: SealingSite, model: Path) -> None:
    one, two = recipient("one"), recipient("two")
    site.push(model, one.public, two.public)
    result = sealed_anew(site, two.public)
    assert result.left_out == (LeftOut(one.public.id, "its key is not certified"),)
    assert set(granted(site, result.sealed.pushed.release)) == {publisher().recipient.public.id, two.public.id}


def test_a_grant_of_somebody_who_is_not_trusted_any_more_is_left_out(site: SealingSite, model: Path) -> None:
    certified(site, "edge")
    node = recipient("edge")
    site.push(model, node.public)
    chain = site.registry.grants[(site.release().digest.hex, node.public.id)]
    former = publisher("former")
    statement = replace(GrantStatement.parse(Envelope.parse(chain[0]).payload), signer=former.identity.id)
    chain[0] = sign_envelope(statement.encode(), former).encode()
    first = Reference(REFERENCE.repository, REFERENCE.tag, site.release().digest)
    for trust in (site.trust, None):
        made = site.publisher(trust=trust, state_dir=site.home / f"without {trust is None}")
        result = sealed_anew(site, reference=first, publisher=made)
        assert [one.recipient for one in result.left_out] == [node.public.id]
        assert "signed by nobody known" in result.left_out[0].why
        assert node.public.id not in granted(site, result.sealed.pushed.release)


def test_the_plan_of_a_push_is_never_taken_up(site: SealingSite, model: Path) -> None:
    """Killed after its grants and before it deleted its plan, a push leaves a key that others have."""
    out = recipient("out")
    kept: dict[Path, bytes] = {}

    def look(_handler: object) -> bool:
        kept.update({path: path.read_bytes() for path in plans(site)})
        return False

    site.registry.rules = {"PUT": look, **site.registry.rules}
    old = site.push(model, out.public).pushed.release
    accept(site)
    for path, data in kept.items():
        path.write_bytes(data)
    assert len(kept) == 1
    withdraw(site.publisher(), site.release(), out.public.id)
    result = sealed_anew(site, directory=model)
    assert result.sealed.pushed.minted
    assert result.sealed.pushed.release != old
    assert out.public.id not in granted(site, result.sealed.pushed.release)
    assert plans(site) == list(kept)


@pytest.mark.parametrize("from_directory", [False, True], ids=["from the release", "from a directory"])
def test_cut_off_it_goes_on_with_the_same_release(site: SealingSite, model: Path, from_directory: bool) -> None:
    node = recipient("named")
    site.push(model)
    directory = model if from_directory else None
    refuse(site, "PUT /v1/repos/acme/secret/grants", 1)
    with pytest.raises(AccessDenied):
        sealed_anew(site, node.public, directory=directory)
    accept(site)
    made = site.registry.releases[-1]
    parts = len(site.registry.parts)
    result = sealed_anew(site, node.public, directory=directory)
    assert result.sealed.pushed.release.hex == made
    assert len(site.registry.parts) == parts
    assert not plans(site)
    assert node.public.id in granted(site, result.sealed.pushed.release)


def test_cut_off_and_run_again_for_others_it_draws_a_new_key(site: SealingSite, model: Path) -> None:
    """A grant was given under the key of the plan to somebody who meanwhile lost their access."""
    certified(site, "a", "b")
    nodes = [recipient("a"), recipient("b")]
    site.push(model, *(node.public for node in nodes))
    old = site.release()
    refuse(site, "PUT /v1/repos/acme/secret/grants", 2)
    with pytest.raises(AccessDenied):
        sealed_anew(site)
    accept(site)
    half_done = Digest(site.registry.releases[-1])
    lost = next(node for node in nodes if node.public.id in granted(site, half_done))
    other = next(node for node in nodes if node is not lost)
    withdraw(site.publisher(), old, lost.public.id)
    result = sealed_anew(site)
    assert result.before == old.digest
    assert result.sealed.pushed.release not in (old.digest, half_done)
    assert set(granted(site, result.sealed.pushed.release)) == {publisher().recipient.public.id, other.public.id}


def test_what_cannot_be_sealed_anew(site: SealingSite, model: Path) -> None:
    release = site.push(model).pushed.release
    with pytest.raises(UsageError, match="which tag"):
        sealed_anew(site, reference=Reference(REFERENCE.repository, None, release))
    own = publisher().recipient.public.id
    del site.registry.grants[(release.hex, own)]
    there = Reference(REFERENCE.repository, REFERENCE.tag, release)
    with pytest.raises(GrantMissing):
        sealed_anew(site, reference=there, publisher=site.publisher(state_dir=site.home / "another machine"))


def test_what_is_revoked_is_not_carried_on_and_a_revoked_release_is_sealed_anew(
    site: SealingSite, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified(site, "a", "b", "c")
    release = site.push(model, *(recipient(name).public for name in "abc")).pushed.release
    grant = granted(site, release)[recipient("a").public.id]
    status = status_statement(
        revocation(str(Digest.of(grant.encode())), RevocationKind.GRANT),
        revocation(recipient("b").public.id, RevocationKind.RECIPIENT),
        revocation(str(release), RevocationKind.RELEASE),
    )
    envelope = sign_envelope(status.encode(), publisher()).encode()
    monkeypatch.setattr(RegistryClient, "status_envelope", lambda _client, _namespace: envelope)
    entry = replace(site.trust.namespaces["acme"], revokers=(publisher().identity.id,))
    site.trust = replace(site.trust, namespaces={"acme": entry})
    result = sealed_anew(site)
    assert set(granted(site, result.sealed.pushed.release)) == {
        publisher().recipient.public.id,
        recipient("c").public.id,
    }
    assert {one.recipient for one in result.left_out} == {recipient("a").public.id, recipient("b").public.id}
    assert all("revoked" in one.why for one in result.left_out)
