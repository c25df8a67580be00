# SPDX-License-Identifier: Apache-2.0
"""A registry with something to look at: namespaces, models, tags that moved, a sealed release with grants, revocations,
a log with two witnesses of which one lags and sometimes is away; and half a year of history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.cosignature import split_cosignature
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.note import NoteKeyType, SignatureLine
from pq_registry.format.release import statement_of
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.service.witnessing import WitnessView
from pq_registry.storage.catalogue.tables import StatementRow
from pqreg_keys.custody import SecretIdentity, generate_recipient
from tests.logsamples import compose_policy, log_signers, witness_signers
from tests.logsetup import log_setup
from tests.samples import FILES, REPOSITORY, YEAR, manifest, publisher
from tests.sealing_samples import SECRET, seal
from tests.sealing_service import publish_sealed, put_grant
from tests.server_harness import ENVELOPE, Api, RunningRegistry, running

HOSTILE = "<script>alert('licence')</script><img src=x onerror=alert(1)>"
"""What a publisher may write as a licence: anything without control characters."""


class LaggingWitnesses:
    """Two witnesses: the first signs at once, the second some seconds late, and now and then not at all."""

    def __init__(self) -> None:
        self.asked = 0
        self.present = True

    def cosign(
        self, note: bytes, checkpoint: Checkpoint, consistency: Callable[[int], tuple[bytes, ...]]
    ) -> Sequence[SignatureLine]:
        """Sign without looking."""
        self.asked += 1
        time = _signed_at(note)
        lines = [signer.sign(checkpoint, time) for signer in witness_signers(1)]
        if self.present and self.asked % 5:
            lines += [signer.sign(checkpoint, time + self.asked * 3 % 11) for signer in witness_signers(2)]
        return lines

    def view(self) -> tuple[WitnessView, ...]:
        """Nothing is counted."""
        return ()

    def close(self) -> None:
        """Nothing to end."""


def _signed_at(note: bytes) -> int:
    key = log_signers()[1].key
    _, parsed = parse_checkpoint_note(note)
    (line,) = parsed.lines_of(key)
    assert key.type is NoteKeyType.MLDSA44_COSIGNATURE
    return split_cosignature(line.signature)[0]


@dataclass(frozen=True)
class Site:
    """A registry with content, and where things are in it."""

    registry: RunningRegistry
    releases: list[Digest]
    sealed: Digest
    hostile: Digest


@contextmanager
def site(data: Path, **changes: Any) -> Iterator[Site]:
    """Serve a registry with content."""
    policy = compose_policy(witnesses=2, quorum=1)
    with running(data, log=log_setup(policy=policy, witnesses=LaggingWitnesses()), **changes) as registry:
        yield populate(registry)


def populate(registry: RunningRegistry) -> Site:
    """Publish what there is to look at."""
    releases = [registry.publish({**FILES, "weights.bin": bytes([number]) * 3000}) for number in range(4)]
    first = registry.put_tag(releases[0])
    registry.put_tag(releases[1], sequence=2, previous=Digest.parse(first.json["digest"]))
    bob = publisher("bob", 3)
    for name in ("acme/teuken-7b-instruct", "lab/eurollm-9b", "lab/salamandra-2b-base"):
        registry.publish(FILES, RepositoryName.parse(name), bob)
    hostile = publish_licensed(registry, HOSTILE)
    for state, reason in (("mirrored", None), ("refused", HOSTILE)):
        told = {"target": f"hub.example.org/acme/{state}", "release": str(releases[1]), "tag": "v1", "state": state}
        told |= {"reason": reason} if reason else {"commit": "c0" * 20}
        assert registry.post("/v1/repos/acme/minilm/mirrors", told).status == 201
    sealed = _seal(registry)
    _revoke(registry, releases[0])
    _spread(registry)
    return Site(registry, releases, sealed, hostile)


def paths(shown: Site) -> dict[str, str]:
    """Every kind of page, by a name for it."""
    model = "/models/acme/minilm"
    return {
        "overview": "/",
        "models": "/models",
        "models of a namespace": "/models?namespace=lab",
        "model": model,
        "sealed model": "/models/acme/secret",
        "release": f"{model}/releases/{shown.releases[3].hex}",
        "revoked release": f"{model}/releases/{shown.releases[0].hex}",
        "hostile release": f"{model}/releases/{shown.hostile.hex}",
        "sealed release": f"/models/acme/secret/releases/{shown.sealed.hex}",
        "tag": f"{model}/tags/v1",
        "namespace": "/namespaces/acme",
        "namespace without status": "/namespaces/lab",
        "log": "/audit/log",
        "search": "/audit/log?q=acme&kind=tag",
        "leaf": "/audit/log/3",
        "leaf of a status": "/audit/log/13",
        "checkpoint": "/audit/checkpoint",
        "sign-in": "/session",
    }


def publish_licensed(api: Api, license_: str, signer: SecretIdentity | None = None) -> Digest:
    """A release with a licence."""
    signer = signer or publisher()
    made = replace(manifest(FILES, signer=signer), license=license_)
    data = made.encode()
    for content in {*FILES.values(), data}:
        api.upload(content, REPOSITORY)
    answer = api.post_release(sign_envelope(statement_of(made, data).encode(), signer))
    assert answer.status == 201, answer
    return Digest.parse(answer.json["digest"])


def _seal(registry: RunningRegistry) -> Digest:
    sealed = seal()
    digest = publish_sealed(registry, sealed)
    for number in range(2):
        recipient = generate_recipient(Profile.LEVEL_5)
        statement = sealed.grant(recipient, issued=utc_now() - timedelta(days=number), expires=utc_now() + YEAR)
        answer = put_grant(registry, statement, digest, recipient.public.id, SECRET)
        assert answer.status == 201, answer
    return digest


def _revoke(registry: RunningRegistry, release: Digest) -> None:
    now = utc_now()
    statement = StatusStatement(
        namespace=Namespace("acme"), signer=publisher().identity.id, sequence=1, previous=None,
        revoked=(Revocation(RevocationKind.RELEASE, str(release), now),), issued=now, expires=now + YEAR,
    )  # fmt: skip
    body = sign_envelope(statement.encode(), publisher()).encode()
    answer = registry.request("PUT", "/v1/namespaces/acme/status", body, ENVELOPE)
    assert answer.status == 201, answer


def _spread(registry: RunningRegistry) -> None:
    """Pretend that the statements were recorded over half a year."""
    with registry.registry.catalogue.writing() as session:
        for number, row in enumerate(session.scalars(select(StatementRow).order_by(StatementRow.recorded))):
            row.recorded -= timedelta(days=(number * number * 5) % 120)
