# SPDX-License-Identifier: Apache-2.0
"""Signing a draft: what is signed was read here, what is not as it should be is not signed, a rerun goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pq_registry import limits
from pq_registry.client import drafthash
from pq_registry.client.draftroutes import DraftReference, parse_commit
from pq_registry.client.push import PushOptions
from pq_registry.client.signdraft import Review, SignOptions, SignResult, sign_draft
from pq_registry.client.tagging import Publisher
from pq_registry.client.transport import RegistryClient
from pq_registry.crypto.shards import ShardHasher
from pq_registry.errors import (
    Conflict,
    ConnectionFailed,
    FileDigestMismatch,
    FileSetMismatch,
    FormatError,
    NameSyntaxError,
    NotFound,
    PolicyError,
    PqregError,
    UnsafeFileType,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.executables import refusal_by_name
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.service.hub.changes import Changes
from pq_registry.service.hub.model import Branch, Commit
from pq_registry.service.tokens import host_caller
from tests.samples import publisher
from tests.stored import change_blob

if TYPE_CHECKING:
    from tests.server_harness import RunningRegistry

V1 = Tag("v1")
HEADER = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"\1\2\3\4"
MODEL = {"config.json": b"{}\n", "model.safetensors": WEIGHTS, "sub/empty.txt": b""}


@dataclass
class Site:
    """A registry with one draft, and who signs it."""

    registry: RunningRegistry
    name: RepositoryName
    client: RegistryClient
    state: Path

    @property
    def reference(self) -> DraftReference:
        return DraftReference(self.name, "main")

    def commit(self, files: Mapping[str, bytes], branch: str = "main", *, deleted: tuple[str, ...] = ()) -> Commit:
        """Put a commit on the draft."""
        for content in files.values():
            self.registry.upload(content, self.name)
        put = {path: (Digest.of(content), len(content)) for path, content in files.items()}
        changes = Changes(put=put, deleted_files=deleted)
        return self.registry.registry.drafts.commit(
            host_caller(), self.name, Branch(branch), changes, title="t", message="", parent=None
        )

    def sign(self, tag: Tag = V1, **options: Any) -> SignResult:
        who = Publisher(client=self.client, signer=publisher(), state_dir=self.state, now=utc_now())
        return sign_draft(self.reference, tag, publisher=who, options=SignOptions(**options))

    def releases(self) -> list[Digest]:
        try:
            return [item.digest for item in self.client.repository(self.name).releases]
        except NotFound:
            return []

    def is_draft(self) -> bool:
        drafts = self.registry.registry.drafts
        try:
            return drafts.head(host_caller(), self.name, Branch("main")) is not None
        except NotFound:
            return False


@pytest.fixture
def site(shared_registry: RunningRegistry, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    name = RepositoryName.parse(f"acme/{request.node.name[:60].replace('[', '.').rstrip('].')}")
    shared_registry.registry.drafts.create(host_caller(), name, exist_ok=False)
    with RegistryClient(shared_registry.url, shared_registry.admin_token, sleep=lambda _: None) as client:
        site = Site(shared_registry, name, client, tmp_path / "state")
        site.commit(MODEL)
        yield site


def written(directory: Path, files: Mapping[str, bytes] = MODEL) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def test_a_draft_becomes_a_release(site: Site) -> None:
    seen: list[Review] = []
    result = site.sign(review=seen.append)
    assert [(entry.path.text, entry.sha256) for entry in result.manifest.files] == [
        (path, Digest.of(content)) for path, content in sorted(MODEL.items())
    ]
    assert result.manifest.files[1].tensors is not None
    assert (seen[0].files, seen[0].compared) == (result.manifest.files, False)
    assert site.releases() == [result.release]
    assert result.tag_change.statement.target == result.release
    assert (result.minted, result.dropped, site.is_draft()) == (True, True, False)


def test_what_a_window_and_a_shard_are_is_not_seen_in_a_release(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more windows than are in flight at a time, the last one short."""
    monkeypatch.setattr(drafthash, "_WINDOW", limits.SHARD_BYTES)
    content = b"".join(letter * limits.SHARD_BYTES for letter in (b"a", b"b", b"c", b"d", b"e", b"f")) + b"end"
    site.commit({"large.txt": content})
    (large,) = [entry for entry in site.sign(push=PushOptions(connections=2)).manifest.files if entry.size > 100]
    hasher = ShardHasher()
    hasher.update(content)
    assert (large.size, large.sha256, large.shards) == tuple(hasher.result())


def test_against_a_directory_nothing_is_fetched(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pq_registry.client.signdraft.hash_draft", None)
    directory = written(tmp_path / "model")
    (directory / ".gitattributes").write_text("*.bin filter=lfs\n")
    result = site.sign(against=directory)
    assert (result.compared, result.minted) == (True, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.json": b"[]\n"}, "config.json has other bytes"),
        ({"config.json": b"{ }\n"}, "config.json has 4 bytes, not 3"),
        ({"more.txt": b"x"}, "more.txt is only in the directory"),
    ],
)
def test_a_draft_that_is_not_the_directory_is_not_signed(
    site: Site, tmp_path: Path, change: dict[str, bytes], words: str
) -> None:
    with pytest.raises(FileSetMismatch, match="nothing was signed") as raised:
        site.sign(against=written(tmp_path / "model", MODEL | change))
    assert words in str(raised.value.found)
    site.commit({"also.txt": b"x"})
    with pytest.raises(FileSetMismatch) as raised:
        site.sign(against=written(tmp_path / "model"))
    assert "also.txt is only in the draft" in str(raised.value.found)
    assert site.releases() == []
    assert site.is_draft()


def test_a_draft_that_moves_is_not_signed(site: Site) -> None:
    def move(_review: Review) -> None:
        site.commit({"config.json": b"[]"})

    with pytest.raises(Conflict, match="nothing was signed"):
        site.sign(review=move)
    assert (site.releases(), site.is_draft()) == ([], True)
    with pytest.raises(Conflict, match="not at the commit that was meant"):
        site.sign(head=parse_commit("0" * 40))


def test_bytes_that_are_not_what_is_listed_are_not_signed(site: Site) -> None:
    content = b"not the same as any other test's: " + str(site.name).encode()
    site.commit({"notes.txt": content})
    change_blob(site.registry.data, Digest.of(content), lambda data: data.swapcase())
    with pytest.raises(FileDigestMismatch, match=r"other bytes than its draft lists: notes\.txt"):
        site.sign()
    assert site.releases() == []


def test_files_that_can_execute_code(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.commit({"run.py": b"print()\n", "script": b"#!/bin/sh\n"})
    assert refusal_by_name(site.client.draft(site.name, "main").files[2].path) is not None
    with monkeypatch.context() as patched:
        patched.setattr("pq_registry.client.signdraft.hash_draft", None)  # refused by name, before a byte is read
        with pytest.raises(UnsafeFileType) as raised:
            site.sign()
    assert "run.py" in str(raised.value.found)
    site.commit({}, deleted=("run.py",))
    with pytest.raises(UnsafeFileType) as raised:
        site.sign()
    assert "script" in str(raised.value.found)
    assert site.releases() == []
    assert site.sign(push=PushOptions(allow_unsafe=True)).unsafe == ("script",)


def test_what_is_no_model_is_not_signed(site: Site) -> None:
    bad = len(HEADER).to_bytes(8, "little") + HEADER + b"\1\2\3"
    cases: list[tuple[Mapping[str, bytes], type[PqregError]]] = [
        ({"model.sig": b"{}"}, PolicyError),
        ({"pqreg.json": b"{}"}, PolicyError),
        ({"bad.safetensors": bad}, FormatError),
        ({"pqreg.import.json": b"{}"}, PolicyError),
    ]
    for files, error in cases:
        site.commit(files)
        with pytest.raises(error):
            site.sign()
        site.commit({}, deleted=tuple(files))
    site.commit({}, deleted=tuple(MODEL))
    with pytest.raises(UsageError, match="nothing to sign"):
        site.sign()
    assert site.releases() == []


def test_what_is_signed_already_is_not_signed_again(site: Site) -> None:
    first = site.sign()
    drafts, caller = site.registry.registry.drafts, host_caller()
    drafts.branch(caller, site.name, Branch("main"), Commit.of_release(first.release))
    with pytest.raises(UsageError, match="points to a release"):
        site.sign()
    drafts.drop(caller, site.name, Branch("main"), head=None)
    site.commit(MODEL)
    again = site.sign(Tag("v2"))
    assert (again.minted, again.release, again.dropped) == (False, first.release, True)


def test_an_interrupted_sign_goes_on_with_its_plan(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    def cut_off(_self: object, _name: object, envelope: bytes) -> None:
        sent.append(envelope)
        raise ConnectionFailed("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(RegistryClient, "post_release", cut_off)
        with pytest.raises(ConnectionFailed):
            site.sign()
    assert site.is_draft()
    assert site.sign().release == Envelope.parse(sent[0]).payload_digest
    assert list((site.state / "plans").glob("*.json")) == []


def test_an_interruption_after_the_commit_mints_nothing_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: object) -> None:
        raise ConnectionFailed("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(RegistryClient, "put_tag", cut_off)
        with pytest.raises(ConnectionFailed):
            site.sign()
    result = site.sign()
    assert (result.minted, site.releases(), result.dropped) == (False, [result.release], True)


def test_a_draft_that_goes_on_while_it_is_signed_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = RegistryClient.drop_draft

    def late(self: RegistryClient, *arguments: Any, **named: Any) -> None:
        site.commit({"config.json": b"[1]"})
        drop(self, *arguments, **named)

    monkeypatch.setattr(RegistryClient, "drop_draft", late)
    result = site.sign()
    assert (result.dropped, site.is_draft()) == (False, True)


def test_a_draft_that_somebody_else_dropped_is_gone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = RegistryClient.drop_draft

    def late(self: RegistryClient, *arguments: Any, **named: Any) -> None:
        drop(self, *arguments, **named)
        drop(self, *arguments, **named)

    monkeypatch.setattr(RegistryClient, "drop_draft", late)
    assert site.sign().dropped


def test_a_reader_cannot_sign(site: Site) -> None:
    with RegistryClient(site.registry.url, site.registry.make_token("reader", "acme")) as client:
        reader = replace(site, client=client)
        with pytest.raises(NotFound):
            reader.sign()


@pytest.mark.parametrize("text", ["acme/x", "acme/x@", "acme/x@main", "acme/x@draft/", "acme/x@draft/a//b", "x@draft"])
def test_what_names_no_draft(text: str) -> None:
    with pytest.raises(NameSyntaxError):
        DraftReference.parse(text)


def test_names_of_drafts() -> None:
    assert str(DraftReference.parse("acme/x@draft")) == "acme/x@draft"
    assert DraftReference.parse("acme/x@draft/dev/y").branch == "dev/y"
    assert DraftReference.parse("acme/x@draft/main") == DraftReference.parse("acme/x@draft")
