# SPDX-License-Identifier: Apache-2.0
"""Push against a real registry: what is published, what is sent, what moves, and what is refused before anything is."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.published import read_release
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import (
    AccessDenied,
    ConnectionFailed,
    NotAuthenticated,
    SourceChanged,
    UnsafeFileType,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest
from pq_registry.format.name import RepositoryName
from tests import samples
from tests.publishing import (
    Registry,
    capped,
    make_model,
    observed,
    publisher_at,
    push_as,
    running_registry,
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return make_model(tmp_path / "model", request.node.name)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return f"acme/{request.node.name[:90].replace('[', '-').replace(']', '').replace('_', '-').replace(' ', '-')}"


class Recorder:
    """Remembers what a watcher is told."""

    def __init__(self) -> None:
        self.stages: list[list] = []

    def start(self, label: str, total_bytes: int) -> None:
        self.stages.append([label.split(maxsplit=1)[0], total_bytes, 0])

    def advance(self, count: int) -> None:
        self.stages[-1][2] += count

    def done(self) -> None:
        self.stages[-1].append("done")


def fetched(registry: Registry, entry: FileEntry) -> bytes:
    with registry.client() as client:
        return client.blob_bytes(entry.sha256, 10**9)


def test_a_push_publishes_exactly_what_stands_in_the_directory(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    progress = Recorder()
    base = BaseRelease(RepositoryName.parse("acme/base"), Digest("5e" * 32))
    publisher = publisher_at(registry, tmp_path)
    result = push_as(publisher, model, f"{name}:v1", license="MIT", lineage=(base,), progress=progress)
    assert result.minted
    assert registry.releases(name) == [result.release]
    release = read_release(publisher.client, RepositoryName.parse(name), result.release,
                           own=samples.publisher().identity, trust=None)  # fmt: skip
    assert release.manifest == result.manifest
    assert (release.manifest.license, release.manifest.lineage) == ("MIT", (base,))
    contents = {entry.path.text: fetched(registry, entry) for entry in release.manifest.files}
    assert contents == {
        path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()
    }
    size = sum(map(len, contents.values()))
    sent = size + len(release.manifest_bytes)
    assert (result.sent.sent, result.sent.resumed, result.sent.present) == (sent, 0, 0)
    assert progress.stages == [["hash", size, size, "done"], ["send", sent, sent, "done"]]
    (statement,) = registry.tag_chain(f"{name}:v1")
    assert statement == result.tag_change.statement
    assert (statement.target, statement.sequence, statement.previous) == (result.release, 1, None)
    assert not list((tmp_path / "plans").glob("*.json")), "the plan is deleted once the release is committed"


def test_an_unchanged_directory_makes_no_release_and_no_statement(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    publisher = publisher_at(registry, tmp_path)
    first = push_as(publisher, model, f"{name}:v1", license="MIT")
    again = push_as(publisher, model, f"{name}:v1")
    assert (again.minted, again.release, again.sent.sent) == (False, first.release, 0)
    assert not again.tag_change.changed
    other_tag = push_as(publisher, model, f"{name}:v2")
    assert (other_tag.minted, other_tag.release) == (False, first.release)
    assert other_tag.tag_change.changed
    assert len(registry.releases(name)) == 1
    assert len(registry.tag_chain(f"{name}:v1")) == 1
    assert registry.tag_chain(f"{name}:v2")[0].target == first.release


def test_another_licence_or_another_signer_makes_another_release_of_the_same_files(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    first = push_as(publisher_at(registry, tmp_path), model, name, license="MIT")
    second = push_as(publisher_at(registry, tmp_path), model, name, license="Apache-2.0")
    assert second.minted
    assert second.sent.sent == len(second.manifest.encode()), "only the manifest is new"
    by_bob = push_as(publisher_at(registry, tmp_path, "bob"), model, f"{name}:bobs")
    assert by_bob.minted
    assert len({first.release, second.release, by_bob.release}) == 3
    assert len(registry.tag_chain(name)) == 2


def test_new_content_moves_the_tag_and_sends_only_what_is_new(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    publisher = publisher_at(registry, tmp_path)
    first = push_as(publisher, model, name)
    (model / "config.json").write_text('{"changed": true}')
    second = push_as(publisher, model, name)
    assert second.release != first.release
    assert second.sent.sent == 17 + len(second.manifest.encode())
    assert second.sent.present == sum(entry.size for entry in first.manifest.files if entry.path.text != "config.json")
    chain = registry.tag_chain(name)
    assert [statement.target for statement in chain] == [first.release, second.release]
    assert [statement.sequence for statement in chain] == [1, 2]
    assert registry.releases(name) == [second.release, first.release]


def test_large_files_many_files_and_equal_files(registry: Registry, name: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", name, size=2 * limits.PART_BYTES + 12345)
    (model / "copy.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    for number in range(150):
        (model / "sub" / f"{number:03}.txt").write_text(f"{name} {number}\n")
    result = push_as(publisher_at(registry, tmp_path), model, name, connections=6)
    sizes = {path: path.stat().st_size for path in model.rglob("*") if path.is_file()}
    expected = sum(sizes.values()) - sizes[model / "copy.safetensors"] + len(result.manifest.encode())
    assert result.sent.sent == expected
    for entry in result.manifest.files:
        assert fetched(registry, entry) == entry.path.under(model).read_bytes()
    assert max(registry.acknowledged_parts().values()) == 1


def test_blobs_the_caller_may_read_elsewhere_are_not_sent(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    push_as(publisher_at(registry, tmp_path), model, f"{name}-one")
    result = push_as(publisher_at(registry, tmp_path), model, f"{name}-two")
    assert result.minted
    assert result.sent.sent == len(result.manifest.encode())


def test_the_bandwidth_cap_holds(registry: Registry, model: Path, name: str, tmp_path: Path) -> None:
    rate, slept = capped(50_000)
    client = registry.client(rate=rate)
    push_as(publisher_at(registry, tmp_path, client=client), model, name)
    assert sum(slept) >= 100_000 / 50_000 - limits.RATE_BURST_SECONDS


@pytest.mark.directory_only("it counts parts that come through the registry; see test_e7_transfers")
def test_an_unfinished_push_is_taken_up_with_the_same_release_and_no_part_twice(
    registry: Registry, name: str, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", name, size=3 * limits.PART_BYTES)

    def cut(method: str, path: str) -> None:
        if path.endswith("/parts/2"):
            raise KeyboardInterrupt

    client = observed(registry.client(), before=cut)
    with pytest.raises(KeyboardInterrupt):
        push_as(publisher_at(registry, tmp_path, client=client), model, name, connections=1)
    assert registry.releases(name) == []
    (plan,) = (tmp_path / "plans").glob("*.json")
    statement = json.loads(plan.read_bytes())["statement"]
    result = push_as(publisher_at(registry, tmp_path), model, name)
    assert result.sent.resumed == 2 * limits.PART_BYTES
    assert result.release == Digest.of(base64.b64decode(statement))
    assert max(registry.acknowledged_parts().values()) == 1
    assert not plan.exists()


def test_a_plan_is_dropped_when_the_directory_is_not_the_same_any_more(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    def refuse(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/releases"):
            raise ConnectionFailed("cut")

    client = observed(registry.client(), before=refuse)
    with pytest.raises(ConnectionFailed):
        push_as(publisher_at(registry, tmp_path, client=client), model, name)
    (plan,) = (tmp_path / "plans").glob("*.json")
    before = json.loads(plan.read_bytes())
    (model / "config.json").write_text('{"changed": true}')
    with pytest.raises(ConnectionFailed):
        push_as(publisher_at(registry, tmp_path, client=client), model, name)
    after = json.loads(plan.read_bytes())
    manifests = [Manifest.parse(base64.b64decode(each["manifest"])) for each in (before, after)]
    assert manifests[0].release_id != manifests[1].release_id
    result = push_as(publisher_at(registry, tmp_path), model, name)
    assert registry.releases(name) == [result.release]


@pytest.mark.parametrize("change", ["same size", "shorter", "gone"])
def test_a_file_that_changes_between_the_passes_ends_the_push(
    registry: Registry, model: Path, name: str, tmp_path: Path, change: str
) -> None:
    weights = model / "model.safetensors"
    original = weights.read_bytes()

    def meddle(method: str, path: str) -> None:
        if path.endswith("/missing"):
            if change == "gone":
                weights.unlink()
            else:
                weights.write_bytes(original[:-1] + (b"" if change == "shorter" else bytes([original[-1] ^ 1])))

    client = observed(registry.client(), before=meddle)
    with pytest.raises(SourceChanged, match=r"'model\.safetensors' changed") as caught:
        push_as(publisher_at(registry, tmp_path, client=client), model, name)
    assert "nothing was published" in (caught.value.hint or "")
    assert registry.releases(name) == []
    if change != "same size":
        weights.write_bytes(original)
    result = push_as(publisher_at(registry, tmp_path), model, name)
    assert registry.releases(name) == [result.release]
    entry = next(entry for entry in result.manifest.files if entry.path.text == "model.safetensors")
    assert fetched(registry, entry) == weights.read_bytes()


def test_what_may_not_be_published_is_refused_before_anything_is_sent(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    asked: list[str] = []
    client = observed(registry.client(), before=lambda method, path: asked.append(path))
    publisher = publisher_at(registry, tmp_path, client=client)
    (model / "run.py").write_text("print()")
    with pytest.raises(UnsafeFileType):
        push_as(publisher, model, name)
    with pytest.raises(UsageError, match="a push decides the digest itself"):
        push_as(publisher, model, f"{name}@{Digest('00' * 32)}")
    assert asked == []
    result = push_as(publisher, model, name, allow_unsafe=True)
    assert result.unsafe == ("run.py",)


def test_a_bad_token_is_noticed_before_the_hours_of_hashing(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    progress = Recorder()
    with RegistryClient(registry.url, "pqreg_" + "x" * 43) as client, pytest.raises(NotAuthenticated):
        push_as(publisher_at(registry, tmp_path, client=client), model, name, progress=progress)
    assert progress.stages == []


def test_only_an_owner_registers_an_identity_and_a_publisher_is_told_so(
    registry: Registry, model: Path, tmp_path: Path
) -> None:
    with registry.client() as admin:
        token = admin.create_token(role="publisher", namespaces=["guarded"], expires_days=1).token
    with RegistryClient(registry.url, token) as client:
        publisher = publisher_at(registry, tmp_path, client=client)
        with pytest.raises(AccessDenied, match="may not register it") as caught:
            push_as(publisher, model, "guarded/model")
        assert "ask an owner of guarded" in (caught.value.hint or "")
        with registry.client() as admin:
            admin.register_identity(RepositoryName.parse("guarded/model").namespace, publisher.signer.identity.to_pem())
        result = push_as(publisher, model, "guarded/model")
    assert result.minted
    assert not result.registered


def test_a_publisher_whom_the_own_trust_file_does_not_know_is_warned(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    listed = samples.trust_file(samples.namespace_trust(samples.publisher("alice")))
    assert push_as(publisher_at(registry, tmp_path, "alice", trust=listed), model, name).warnings == ()
    (warning,) = push_as(publisher_at(registry, tmp_path, "bob", trust=listed), model, f"{name}:bob").warnings
    assert "does not list your identity" in warning
    assert "pqreg trust add" in warning
