# SPDX-License-Identifier: Apache-2.0
"""A sealed push that is cut off anywhere: a key and nonce never meet two plaintexts, and a rerun goes on.

Every use of a shard's key is recorded where it happens, in ``FileSealer.seal_into``, together with what was sealed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.client.plan import PlanKey
from pq_registry.client.sealedplan import SealedPlan
from pq_registry.crypto.sealing import FileSealer
from pq_registry.errors import AccessDenied, PqregError, SourceChanged
from pq_registry.format.digest import Digest
from tests.sealed_registry import sealed_registry
from tests.sealing_site import SHARD, SealingSite, contents_of, model_files, recipient, write_files

Uses = dict[bytes, set[Digest]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        yield site
        site.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", model_files())


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uses]:
    """Plaintexts by the key and nonce they were sealed with; judged at the end of every test."""
    found: Uses = defaultdict(set)
    lock = threading.Lock()
    original = FileSealer.seal_into

    def seal_into(self: FileSealer, index: int, plaintext: memoryview, out: memoryview) -> None:
        with self._derived(index) as okm, lock:
            found[bytes(okm)].add(Digest.of(bytes(plaintext)))
        original(self, index, plaintext, out)

    monkeypatch.setattr(FileSealer, "seal_into", seal_into)
    yield found
    assert found
    assert all(len(plaintexts) == 1 for plaintexts in found.values())


def plans(site: SealingSite) -> list[Path]:
    return list((site.home / "state" / "plans").glob("*.json"))


def cut_off(site: SealingSite, what: str, after: int) -> None:
    """From the request number ``after`` of those that contain ``what``, the registry refuses."""
    count = 0
    lock = threading.Lock()

    def rule(handler: object) -> bool:
        nonlocal count
        with lock:
            count += 1
            if count <= after:
                return False
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))  # type: ignore[attr-defined]
        handler.problem(403, "access-denied")  # type: ignore[attr-defined]
        return True

    site.registry.rules = {what: rule, **{key: one for key, one in site.registry.rules.items() if key == "/v1/"}}


def restore(site: SealingSite) -> None:
    site.registry.rules = {"/v1/": site.registry.rules["/v1/"]}


@pytest.mark.parametrize(
    ("what", "after"),
    [("/parts/", 0), ("/parts/", 3), ("/complete", 1), ("POST /v1/repos/acme/secret/releases", 0), ("/grants/", 1),
     ("PUT /v1/repos/acme/secret/grants", 0), ("PUT /v1/repos/acme/secret/grants", 1), ("/tags/", 0)],
)  # fmt: skip
def test_a_rerun_goes_on_with_the_very_same_release(
    site: SealingSite, model: Path, uses: Uses, what: str, after: int
) -> None:
    node = recipient()
    cut_off(site, what, after)
    with pytest.raises(AccessDenied):
        site.push(model, node.public)
    parts = {(name, number): data for name, number, data in site.registry.parts}
    planned = [SealedPlan.parse(path.read_bytes(), _key(site, model)) for path in plans(site)]
    assert len(planned) == (0 if what == "/tags/" else 1)
    restore(site)
    sent = len(site.registry.parts)
    result = site.push(model, node.public)
    assert not planned or result.pushed.release == planned[0].plan.release
    assert len({name for name, _ in parts}) <= len(model_files()) + 1
    for name, number, data in site.registry.parts[sent:]:
        assert (name, number) not in parts or parts[name, number] == data
    assert not plans(site)
    assert len(site.registry.releases) == 1
    site.pull(node, site.home / "out")
    assert contents_of(site.home / "out") == model_files()


def _key(site: SealingSite, model: Path) -> PlanKey:
    from tests.samples import publisher
    from tests.sealing_site import REFERENCE

    return PlanKey(site.registry.url, REFERENCE.repository, str(model.resolve()), publisher().identity.id, sealed=True)


def test_a_file_changed_between_a_killed_push_and_its_rerun_never_meets_the_old_key(
    site: SealingSite, model: Path, uses: Uses
) -> None:
    cut_off(site, "/parts/", 4)
    with pytest.raises(AccessDenied):
        site.push(model)
    keys_before = set(uses)
    old = plans(site)[0].read_bytes()
    target = model / "model.safetensors"
    weights = bytearray(target.read_bytes())
    weights[-1] ^= 1
    target.write_bytes(weights)  # the same size
    restore(site)
    result = site.push(model)
    assert not plans(site)
    keys_after = set(uses) - keys_before
    # Everything was sealed under new keys, the unchanged files as well; nothing of the old plan was published.
    assert len(keys_after) == sum(entry.shard_count for entry in result.pushed.manifest.files)
    assert result.pushed.release != SealedPlan.parse(old, _key(site, model)).plan.release
    late = set(uses)
    site.push(model)
    assert set(uses) == late


def test_a_file_changed_between_the_passes_never_meets_the_key(site: SealingSite, model: Path, uses: Uses) -> None:
    target = model / "model.safetensors"

    def swap(_handler: object) -> bool:
        weights = bytearray(model_files()["model.safetensors"])
        weights[SHARD + 7] ^= 1
        target.write_bytes(weights)
        return False

    # Pass 1 has ended when the registry is asked what it misses.
    site.registry.rules = {"/missing": swap, **site.registry.rules}
    with pytest.raises(SourceChanged):
        site.push(model)
    assert not site.registry.releases
    assert len(plans(site)) == 1
    restore(site)
    result = site.push(model)  # of the file as it is now: the plan is given up
    assert result.pushed.minted
    node = recipient()
    site.push(model, node.public)
    site.pull(node, site.home / "out")
    assert (site.home / "out" / "model.safetensors").read_bytes() == target.read_bytes()


def test_a_damaged_plan_is_worth_nothing_and_its_key_is_not_used(site: SealingSite, model: Path, uses: Uses) -> None:
    for damage in (
        lambda data: data[:-1],
        lambda data: data.replace(b'"content_key":"', b'"content_key":"AAAA', 1)[: len(data)],
        lambda data: data.replace(b"urn:pq-registry:plan:v1", b"urn:pq-registry:plan:v2"),
    ):
        cut_off(site, "/parts/", 1)
        with pytest.raises(PqregError):
            site.push(model)
        path = plans(site)[0]
        path.write_bytes(damage(path.read_bytes()))
        before = set(uses)
        restore(site)
        cut_off(site, "/parts/", 0)
        with pytest.raises(PqregError):
            site.push(model)
        assert len(set(uses) - before) == len(before)
        for one in plans(site):
            one.unlink()
        uses.clear()
        restore(site)
    site.push(model)
