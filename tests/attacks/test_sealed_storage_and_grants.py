# SPDX-License-Identifier: Apache-2.0
"""Attacks on sealed releases by a registry, a mirror and a stranger: each has an error of its own and no plaintext.

A3, A7 and A12 for grants, certificates and key files are in files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.enrolment import certify
from pq_registry.client.grants import content_key, give, withdraw
from pq_registry.client.progress import NullProgress
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import DirectorySource
from pq_registry.client.unsealing import unseal
from pq_registry.client.verify import check_content, verify_contents
from pq_registry.client.vouched import certified, look_up
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.crypto.sealing import new_content_key
from pq_registry.crypto.secret import SecretBytes
from pq_registry.errors import (
    CommitmentMismatch,
    FileSetMismatch,
    GrantExpired,
    GrantInvalid,
    GrantMismatch,
    GrantMissing,
    GrantWithdrawn,
    PqregError,
    RecipientUncertified,
    ShardMismatch,
    SignatureInvalid,
    StatementMismatch,
    UntrustedSigner,
)
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.sealing import SLICE_BYTES
from pqreg_cli.demo.windows import WINDOW, Windows
from tests.samples import publisher
from tests.sealed_registry import sealed_registry
from tests.sealing_site import (
    REFERENCE,
    SealingSite,
    contents_of,
    model_files,
    recipient,
    sealed_trust,
    write_files,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path, sealed_trust(enrolment=publisher("enrolment")))
        yield site
        site.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", model_files())


def test_the_operator_and_a_mirror_hold_no_window_of_plaintext(site: SealingSite, model: Path) -> None:
    site.push(model, recipient().public)
    mirror = site.home / "mirror"
    site.pull_sealed(mirror)
    windows = Windows(model_files().values())
    assert windows.found(site.registry.stored()) is None
    stored = [path for path in mirror.rglob("*") if path.is_file()]
    assert len(stored) > len(model_files())
    assert not [path for path in stored if windows.found_in(path)]
    for name in model_files():
        assert name.encode() not in site.registry.stored()


def test_the_search_for_windows_finds_one_at_any_offset(tmp_path: Path) -> None:
    content = model_files()["sub/vocab.txt"]
    windows = Windows([content])
    for offset in (0, 1, 24, 25, 333, len(content) - WINDOW):
        piece = content[offset : offset + WINDOW]
        assert windows.found(b"x" * 77 + piece + b"y" * 9) == piece
        assert windows.found(b"x" * 77 + piece[1:] + b"\0" * 40) is None
    assert Windows([bytes(100)]).found(bytes(1000)) is None
    path = tmp_path / "large"
    path.write_bytes(bytes(16 * 1024 * 1024 - 10) + content[100:132])
    assert windows.found_in(path) == content[100:132]


@pytest.fixture
def mirrored(site: SealingSite, model: Path) -> Path:
    site.push(model, recipient().public)
    mirror = site.home / "mirror"
    site.pull_sealed(mirror)
    return mirror


def largest(mirror: Path) -> Path:
    return max((mirror / "sealed").iterdir(), key=lambda path: path.stat().st_size)


def swap_within(mirror: Path) -> None:
    path = largest(mirror)
    data = path.read_bytes()
    path.write_bytes(data[SLICE_BYTES : 2 * SLICE_BYTES] + data[:SLICE_BYTES] + data[2 * SLICE_BYTES :])


def replay(mirror: Path) -> None:
    path = largest(mirror)
    data = path.read_bytes()
    path.write_bytes(data[:SLICE_BYTES] + data[:SLICE_BYTES] + data[2 * SLICE_BYTES :])


def swap_files(mirror: Path) -> None:
    big = largest(mirror)
    other = next(
        path for path in (mirror / "sealed").iterdir() if SLICE_BYTES <= path.stat().st_size < big.stat().st_size
    )
    data = big.read_bytes()
    big.write_bytes(other.read_bytes()[:SLICE_BYTES] + data[SLICE_BYTES:])


def flip(mirror: Path) -> None:
    path = largest(mirror)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(mirror: Path) -> None:
    path = largest(mirror)
    path.write_bytes(path.read_bytes()[:-1])


def drop_shard(mirror: Path) -> None:
    path = largest(mirror)
    path.write_bytes(path.read_bytes()[SLICE_BYTES:])


@pytest.mark.parametrize(
    ("attack", "error", "words"),
    [
        (swap_within, ShardMismatch, "shard 1 of sealed/"),
        (replay, ShardMismatch, "shard 0 of sealed/"),
        (swap_files, ShardMismatch, "stands in its place"),
        (flip, ShardMismatch, "is not what was signed"),
        (truncate, FileSetMismatch, ""),
        (drop_shard, FileSetMismatch, ""),
    ],
)
def test_altered_storage_is_refused_before_anything_is_decrypted(
    site: SealingSite, mirrored: Path, attack: Callable[[Path], None], error: type[PqregError], words: str
) -> None:
    attack(mirrored)
    grant = site.client().grant_envelope(REFERENCE.repository, site.release().digest, recipient().public.id)
    assert grant is not None
    with pytest.raises(error):
        verify_contents(mirrored, site.verifier())
    views: list[memoryview] = []
    if error is ShardMismatch:
        resolved = site.resolve().verified
        key = recipient()
        with (
            DirectorySource(mirrored) as source,
            unseal(
                resolved, grant, key=key, source=source, verifier=site.verifier(), seen=SeenGrants(site.home)
            ) as unsealed,
        ):
            with pytest.raises(ShardMismatch, match=words):
                check_content(
                    unsealed.source(source), unsealed.inner.files, progress=NullProgress(), workers=2, full=False
                )
            entry = max(unsealed.inner.files, key=lambda one: one.size)
            views = [memoryview(bytearray(entry.size))]
            with pytest.raises(ShardMismatch):
                unsealed.source(source).read_into(entry, 0, views[0])
        # Nothing after the shard that is wrong was decrypted into the caller's memory.
        assert not any(views[0][-1000:])


def served(site: SealingSite, release: str, key: str, envelope: bytes) -> None:
    site.registry.grants[(release, key)] = [envelope]


def test_a_grant_of_another_release_or_for_another_recipient_opens_nothing(site: SealingSite, model: Path) -> None:
    one, two = recipient("one"), recipient("two")
    first = site.push(model, one.public, two.public).pushed.release
    (model / "config.json").write_text("{}")
    second = site.push(model, two.public).pushed.release
    grants = site.registry.grants
    served(site, second.hex, one.public.id, grants[(first.hex, one.public.id)][0])
    with pytest.raises(GrantMismatch, match="another release"):
        site.unseal(one)
    served(site, second.hex, one.public.id, grants[(second.hex, two.public.id)][0])
    with pytest.raises(GrantMismatch, match="another recipient"):
        site.unseal(one)
    with pytest.raises(GrantMissing):
        site.unseal(recipient("three"))


def test_every_grant_that_does_not_open_is_refused_in_the_same_words(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model, node.public)
    release = site.release()
    made = site.publisher()
    with content_key(made, release) as key:
        right = node.public.wrap(key, release.digest)
    said = set()
    broken = [
        bytes([right[0] ^ 1]) + right[1:],  # the KEM's ciphertext
        right[:1600] + bytes([right[1600] ^ 1]) + right[1601:],  # the curve's point
        right[:-1] + bytes([right[-1] ^ 1]),  # the tag
        right[:-20] + bytes([right[-20] ^ 1]) + right[-19:],
        recipient("other").public.wrap(SecretBytes(32), release.digest),
        node.public.wrap(SecretBytes(32), site.push(model).pushed.manifest.files[0].sha256),  # of another release
    ]
    for wrapped in broken:
        grant = resigned(site, release.digest.hex, node.public.id, wrapped=wrapped)
        with pytest.raises(GrantInvalid) as caught:
            site.unseal(node, grant=grant)
        said.add((str(caught.value), caught.value.hint))
    assert len(said) == 1
    assert "BLAKE" not in str(said)


def resigned(site: SealingSite, release: str, node: str, **changes: object) -> bytes:
    """A grant the publisher's own key signed, with something else in it."""
    from dataclasses import replace

    from pq_registry.crypto.signing import sign_envelope

    chain = site.registry.grants[(release, node)]
    statement = GrantStatement.parse(Envelope.parse(chain[0]).payload)
    return sign_envelope(replace(statement, **changes).encode(), publisher()).encode()  # type: ignore[arg-type]


def test_two_keys_for_one_ciphertext_are_told_apart_by_the_commitment(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model, node.public)
    release = site.release()
    with new_content_key() as other:
        grant = resigned(site, release.digest.hex, node.public.id, wrapped=node.public.wrap(other, release.digest))
    with pytest.raises(CommitmentMismatch):
        site.unseal(node, grant=grant)


def test_a_registry_can_neither_forge_nor_alter_a_grant(site: SealingSite, model: Path) -> None:
    from dataclasses import replace

    from pq_registry.crypto.signing import sign_envelope

    node = recipient()
    site.push(model, node.public)
    release = site.release().digest.hex
    genuine = Envelope.parse(site.registry.grants[(release, node.public.id)][0])
    for half in ({"ec_signature": bytes(70)}, {"pq_signature": bytes(4627)}):
        with pytest.raises((SignatureInvalid, UntrustedSigner)):
            site.unseal(node, grant=replace(genuine, **half).encode())
    rogue = publisher("rogue")
    statement = replace(GrantStatement.parse(genuine.payload), signer=rogue.identity.id)
    with pytest.raises(UntrustedSigner):
        site.unseal(node, grant=sign_envelope(statement.encode(), rogue).encode())
    # An enrolment identity is believed for keys and for nothing else.
    enrol = publisher("enrolment")
    statement = replace(statement, signer=enrol.identity.id)
    with pytest.raises(UntrustedSigner):
        site.unseal(node, grant=sign_envelope(statement.encode(), enrol).encode())
    # A release statement, a tag or a key statement is no grant.
    for other in (site.registry.statements[release], site.registry.tags["v1"]):
        with pytest.raises(StatementMismatch):
            site.unseal(node, grant=other)


def test_withdrawn_and_expired_grants_open_nothing_and_a_new_one_does(site: SealingSite, model: Path) -> None:
    node = recipient()
    site.push(model)
    release = site.release()
    made = site.publisher()
    with content_key(made, release) as key:
        assert give(made, release, node.public, key, expires=made.now + timedelta(days=1)).changed
        assert not give(made, release, node.public, key, expires=made.now + timedelta(days=1)).changed
        site.unseal(node).key.wipe()
        with pytest.raises(GrantExpired):
            late = site.verifier(now=made.now + timedelta(days=2))
            envelope = site.client().grant_envelope(release.name, release.digest, node.public.id)
            assert envelope is not None
            verified = site.resolve().verified
            with DirectorySource(site.home) as source:
                unseal(verified, envelope, key=node, source=source, verifier=late, seen=SeenGrants(site.home))
        assert withdraw(made, release, node.public.id).statement.sequence == 2
        assert not withdraw(made, release, node.public.id).changed
        with pytest.raises(GrantWithdrawn):
            site.unseal(node)
        assert give(made, release, node.public, key).statement.sequence == 3
    site.pull(node, site.home / "out")
    assert contents_of(site.home / "out") == model_files()


def test_a_registry_cannot_put_its_own_key_in_a_nodes_place(site: SealingSite, model: Path) -> None:
    site.push(model)
    made, enrol = site.publisher(), site.publisher(signer=publisher("enrolment"))
    namespace = REFERENCE.repository.namespace
    node, rogue = recipient("edge"), recipient("rogue key")
    with pytest.raises(RecipientUncertified):
        certified(made, namespace, node.public.id)
    certify(enrol, node.public, namespace=namespace, node="edge-7", lifetime=timedelta(days=30))
    assert look_up(made, namespace, "edge-7") == PublicRecipient(node.public.kem, node.public.public_key)
    assert certified(made, namespace, node.public.id).node == "edge-7"
    # Signed by a publisher, by nobody the trust file knows, or genuine but for another key: none of it counts.
    for signer in (publisher(), publisher("rogue")):
        certify(site.publisher(signer=signer), rogue.public, namespace=namespace, node="edge-7", lifetime=None)
        with pytest.raises(RecipientUncertified):
            certified(made, namespace, rogue.public.id)
    site.registry.keys[rogue.public.id] = site.registry.keys[node.public.id]
    with pytest.raises(RecipientUncertified):
        certified(made, namespace, rogue.public.id)
    # Lapsed is uncertified.
    later = site.publisher(now=made.now + timedelta(days=31))
    with pytest.raises(RecipientUncertified, match="lapsed"):
        certified(later, namespace, node.public.id)
    with pytest.raises(RecipientUncertified):
        certified(site.publisher(trust=None), namespace, node.public.id)


def test_a_wrong_key_file_is_the_key_of_nobody(site: SealingSite, model: Path) -> None:
    node, stranger = recipient(), recipient("stranger")
    site.push(model, node.public)
    envelope = site.client().grant_envelope(REFERENCE.repository, site.release().digest, node.public.id)
    with pytest.raises(GrantMismatch):
        site.unseal(stranger, grant=envelope)
