# SPDX-License-Identifier: Apache-2.0
"""Drafts: what a commit does to the files, who sees it, what stays of a history, and that gc and fsck know of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from pq_registry import limits
from pq_registry.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    EntryNotFound,
    FormatError,
    NotFound,
    PqregError,
    QuotaExceeded,
    RevisionNotFound,
)
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName
from pq_registry.service.hub.changes import Changes, apply_changes
from pq_registry.service.hub.drafts import Drafts
from pq_registry.service.hub.model import Branch, Commit, Pointer
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.catalogue.hubtables import DraftCommitRow
from pq_registry.storage.catalogue.tables import AuditEventRow, RepositoryBlobRow
from tests import stack
from tests.drafting import (
    DEV,
    MAIN,
    OTHER,
    PUBLISHER,
    READER,
    STRANGER,
    TAG,
    A,
    B,
    begun,
    commit,
    history,
    paths,
    problems,
    put,
)
from tests.faults.publishing import FILES, documents, publish, upload
from tests.logsetup import log_setup
from tests.samples import REPOSITORY


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry.open(stack.store_config(tmp_path / "registry"), utc_now, log=log_setup())
    yield registry
    registry.close()


@pytest.fixture
def drafts(registry: Registry) -> Drafts:
    return begun(registry)


# -- commits -------------------------------------------------------------------------------------------------------


def test_a_commit_applies_its_changes_to_its_parent(registry: Registry, drafts: Drafts) -> None:
    first = commit(drafts, put(("model.bin", A), ("sub/one.txt", B), ("sub/two.txt", B), ("subtle.txt", B)))
    changes = Changes(
        put={"model.bin": (Digest.of(B), None)},
        deleted_files=["subtle.txt"],
        deleted_folders=["sub/"],
        copied={"old.bin": "model.bin"},
    )
    second = commit(drafts, changes, parent=first)
    draft, files = drafts.contents(PUBLISHER, REPOSITORY, MAIN)
    assert [(file.path.text, file.sha256, file.size) for file in files] == [
        ("model.bin", Digest.of(B), len(B)),
        ("old.bin", Digest.of(A), len(A)),
    ]
    assert (draft.head, draft.files, draft.size, draft.release) == (second, 2, len(A) + len(B), None)
    assert problems(registry) == []


class Looked(str):  # noqa: SLOT000 - counts on the class
    """A path that counts how often it is looked at."""

    times = 0

    def startswith(self, *given: Any) -> bool:
        Looked.times += 1
        return super().startswith(*given)

    def __iter__(self) -> Iterator[str]:
        Looked.times += 1
        return super().__iter__()


def test_many_folders_are_deleted_from_many_files_in_one_pass() -> None:
    files: dict[str, tuple[Digest, int]] = {Looked(f"d{number}/sub/f"): (Digest.of(A), 1) for number in range(300)}
    folders = [f"d{number}" for number in range(0, 300, 2)] + ["d1/sub", "d3/sub/", ".git/hooks"]
    left = apply_changes(files, Changes(deleted_folders=folders), {})
    assert set(left) == {f"d{number}/sub/f" for number in range(5, 300, 2)}
    assert Looked.times <= 2 * len(files)
    for folder in ("d300", "d1/su", "sub", "", "/", "."):
        with pytest.raises(EntryNotFound):
            apply_changes(files, Changes(deleted_folders=[folder]), {})


def test_what_no_release_could_have_is_not_kept(drafts: Drafts) -> None:
    commit(drafts, put((".gitattributes", A), ("sub/.gitattributes", A), (".github/x", A), ("config.json", B)))
    assert paths(drafts) == ["config.json", "sub/.gitattributes"]
    head = drafts.head(PUBLISHER, REPOSITORY, MAIN)
    assert commit(drafts, Changes(deleted_files=[".gitattributes", "pqreg.json", "model.sig"])) == head


def test_the_evidence_of_a_mirrored_release_is_kept(drafts: Drafts) -> None:
    commit(drafts, put(("model.sig", A), ("model.pq.sig", A), ("model.tlog-proof", A), ("pqreg.json", B)))
    assert paths(drafts) == ["model.pq.sig", "model.sig", "model.tlog-proof", "pqreg.json"]


def test_a_commit_that_changes_nothing_is_answered_with_what_is_there(registry: Registry, drafts: Drafts) -> None:
    head = commit(drafts, put(("a", A)))
    assert commit(drafts, put(("a", A))) == head
    assert history(registry) == {"initial commit", "t"}


def test_who_names_an_old_parent_is_refused(drafts: Drafts) -> None:
    first = commit(drafts, put(("a", A)))
    second = commit(drafts, put(("a", B)), parent=first)
    with pytest.raises(Conflict, match="not at the commit") as raised:
        commit(drafts, put(("b", A)), parent=first)
    assert (raised.value.expected, raised.value.found) == (str(first), str(second))
    assert paths(drafts) == ["a"]


def test_two_at_the_same_time_follow_one_another(drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the moment one has read the draft and the moment it writes, another commits."""
    write, others = drafts._write, [("first", A), ("second", B)]

    def beaten(*arguments: object, **named: object) -> Commit | None:
        if others:
            other = others.pop()
            commit(drafts, put(other))
        return write(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(drafts, "_write", beaten)
    commit(drafts, put(("mine", A)))
    assert paths(drafts) == ["first", "mine", "second"]


def test_what_cannot_be_is_refused_whole(registry: Registry, drafts: Drafts) -> None:
    cases: list[tuple[Changes, type[PqregError]]] = [
        (put(("../a", A)), FormatError),
        (put(("a", A), ("A", A)), FormatError),
        (put(("a", A), ("a/b", A)), FormatError),
        (put(("CON", A)), FormatError),
        (Changes(put={"a": (Digest.of(A), 5)}), FormatError),
        (put(("a", b"not there")), Conflict),
        (Changes(deleted_files=["a"]), EntryNotFound),
        (Changes(deleted_folders=["a"]), EntryNotFound),
        (Changes(copied={"b": "a"}), EntryNotFound),
    ]
    for changes, error in cases:
        with pytest.raises(error):
            commit(drafts, changes)
    assert paths(drafts) == []
    assert problems(registry) == []


def test_words_that_cannot_be_shown_are_refused(drafts: Drafts) -> None:
    for title in ("a\0b", "a\x1b[31m", "t" * (limits.DRAFT_TITLE_CHARS + 1), "\ud800", "two\nlines"):
        with pytest.raises(FormatError, match="title of the commit"):
            commit(drafts, put(("a", A)), title=title)


def test_others_bytes_are_not_there_for_a_commit(registry: Registry, drafts: Drafts) -> None:
    """A blob of a namespace the caller may not read cannot be had by naming its digest."""
    theirs = RepositoryName.parse("else/model")
    assert drafts.create(STRANGER, theirs, exist_ok=False)
    with pytest.raises(Conflict, match="has not been uploaded"):
        drafts.commit(STRANGER, theirs, MAIN, put(("a", A)), title="t", message="", parent=None)


# -- signed and unsigned -------------------------------------------------------------------------------------------


def test_a_draft_of_a_signed_tag_begins_with_its_release(registry: Registry) -> None:
    publish(registry)
    upload(registry, A)
    release = documents()[0].payload_digest
    drafts = registry.drafts
    signed = Commit.of_release(release)
    assert commit(drafts, put(*FILES.items()), TAG, parent=signed) == signed
    assert drafts.listing(PUBLISHER, REPOSITORY) == ()
    commit(drafts, put(("new.bin", A)), TAG, parent=signed)
    assert paths(drafts, TAG) == ["new.bin", *FILES]
    assert registry.resolving.release(REPOSITORY, release).digest == release
    with pytest.raises(AlreadyExists):
        drafts.tag(PUBLISHER, REPOSITORY, TAG, signed)
    with pytest.raises(AccessDenied, match="logged for good"):
        drafts.delete_repository(PUBLISHER, REPOSITORY)
    drafts.branch(PUBLISHER, REPOSITORY, DEV, signed)
    draft, files = drafts.contents(PUBLISHER, REPOSITORY, DEV)
    assert (draft.release, draft.files, files) == (release, 1, ())
    assert problems(registry) == []


def test_a_sealed_release_has_no_drafts(registry: Registry) -> None:
    publish(registry)
    upload(registry, A)
    with registry.catalogue.writing() as session:
        session.connection().exec_driver_sql(f"UPDATE releases SET sealed = {'true' if stack.SHARED else '1'}")
    with pytest.raises(Conflict, match="sealed"):
        commit(registry.drafts, put(("a", A)), TAG)


# -- names ---------------------------------------------------------------------------------------------------------


def test_branches_and_tags(registry: Registry, drafts: Drafts) -> None:
    first = commit(drafts, put(("a", A)))
    drafts.branch(PUBLISHER, REPOSITORY, DEV, first)
    drafts.tag(PUBLISHER, REPOSITORY, Branch("v1"), first)
    second = commit(drafts, put(("b", B)), DEV)
    assert [(draft.name, draft.kind, draft.head) for draft in drafts.listing(PUBLISHER, REPOSITORY)] == [
        ("dev/x", Pointer.BRANCH, second),
        ("main", Pointer.BRANCH, first),
        ("v1", Pointer.TAG, first),
    ]
    with pytest.raises(Conflict, match="tags do not move"):
        commit(drafts, put(("b", B)), Branch("v1"))
    with pytest.raises(AlreadyExists):
        drafts.tag(PUBLISHER, REPOSITORY, DEV, first)
    with pytest.raises(RevisionNotFound):
        drafts.tag(PUBLISHER, REPOSITORY, Branch("v2"), Commit("0" * 40))
    with pytest.raises(Conflict, match="is a branch"):
        drafts.delete_name(PUBLISHER, REPOSITORY, DEV, kind=Pointer.TAG)
    with pytest.raises(AccessDenied, match="stays"):
        drafts.delete_name(PUBLISHER, REPOSITORY, MAIN, kind=Pointer.BRANCH)
    drafts.delete_name(PUBLISHER, REPOSITORY, DEV, kind=Pointer.BRANCH)
    with pytest.raises(RevisionNotFound):
        drafts.delete_name(PUBLISHER, REPOSITORY, DEV, kind=Pointer.BRANCH)
    with pytest.raises(RevisionNotFound):  # nothing leads to it any more
        drafts.branch(PUBLISHER, REPOSITORY, DEV, second)
    assert problems(registry) == []


def test_a_draft_is_dropped_only_if_it_is_what_was_looked_at(registry: Registry, drafts: Drafts) -> None:
    first = commit(drafts, put(("a", A)))
    commit(drafts, put(("b", B)))
    with pytest.raises(Conflict, match="has moved"):
        drafts.drop(PUBLISHER, REPOSITORY, MAIN, head=first)
    drafts.drop(PUBLISHER, REPOSITORY, MAIN, head=drafts.head(PUBLISHER, REPOSITORY, MAIN))
    assert history(registry) == set()
    with pytest.raises(NotFound):
        drafts.listing(PUBLISHER, REPOSITORY)


def test_squashing_leaves_the_files_and_no_history(registry: Registry, drafts: Drafts) -> None:
    commit(drafts, put(("a", A)), title="one")
    commit(drafts, put(("b", B)), title="two")
    drafts.squash(PUBLISHER, REPOSITORY, MAIN, title="squashed", message="")
    assert paths(drafts) == ["a", "b"]
    assert history(registry) == {"squashed"}


def test_history_is_bounded_and_heads_stay(registry: Registry, drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    first = commit(drafts, put(("0", A)), title="0")
    drafts.branch(PUBLISHER, REPOSITORY, DEV, first)
    monkeypatch.setattr(limits, "DRAFT_COMMITS", 3)
    with registry.catalogue.writing() as session:  # commits of one second have no order
        for number, row in enumerate(session.scalars(select(DraftCommitRow).order_by(DraftCommitRow.parent)).all()):
            row.created -= timedelta(minutes=10 - number)
    for number in range(1, 5):
        commit(drafts, put((str(number), A)), title=str(number))
    assert len(history(registry)) <= 3
    assert {"0", "4"} <= history(registry)
    assert paths(drafts) == ["0", "1", "2", "3", "4"]
    monkeypatch.setattr(limits, "DRAFT_LISTINGS_BYTES", 100)
    with pytest.raises(QuotaExceeded, match="too many files"):
        commit(drafts, put(("5", A)))
    monkeypatch.setattr(limits, "DRAFT_NAMES", 2)
    with pytest.raises(QuotaExceeded, match="too many drafts"):
        drafts.tag(PUBLISHER, REPOSITORY, Branch("v1"), first)


# -- who -----------------------------------------------------------------------------------------------------------


def test_for_those_who_may_not_read_drafts_there_are_none(registry: Registry, drafts: Drafts) -> None:
    commit(drafts, put(("a", A)))
    for someone in (READER, STRANGER):
        with pytest.raises(NotFound):
            drafts.listing(someone, REPOSITORY)
    publish(registry)
    assert drafts.listing(READER, REPOSITORY) == ()
    assert drafts.head(READER, REPOSITORY, MAIN) is None
    with pytest.raises(RevisionNotFound):
        drafts.contents(READER, REPOSITORY, MAIN)
    drafts.policy = DraftPolicy.READERS
    assert [draft.name for draft in drafts.listing(READER, REPOSITORY)] == ["main"]
    assert not drafts.readable(STRANGER, REPOSITORY.namespace)


def test_a_reader_changes_nothing(drafts: Drafts) -> None:
    drafts.policy = DraftPolicy.READERS
    head = commit(drafts, put(("a", A)))
    for call in (
        lambda: drafts.create(READER, OTHER, exist_ok=True),
        lambda: drafts.commit(READER, REPOSITORY, MAIN, put(("b", B)), title="t", message="", parent=None),
        lambda: drafts.branch(READER, REPOSITORY, DEV, head),
        lambda: drafts.tag(READER, REPOSITORY, DEV, head),
        lambda: drafts.squash(READER, REPOSITORY, MAIN, title="t", message=""),
        lambda: drafts.drop(READER, REPOSITORY, MAIN, head=None),
        lambda: drafts.delete_name(READER, REPOSITORY, DEV, kind=Pointer.TAG),
        lambda: drafts.delete_repository(READER, REPOSITORY),
    ):
        with pytest.raises(AccessDenied):
            call()
    assert drafts.head(PUBLISHER, REPOSITORY, MAIN) == head


def test_where_drafts_are_off_none_is_written_and_those_there_can_go(drafts: Drafts) -> None:
    commit(drafts, put(("a", A)))
    drafts.policy = DraftPolicy.OFF
    for call in (
        lambda: commit(drafts, put(("b", B))),
        lambda: drafts.create(PUBLISHER, OTHER, exist_ok=True),
        lambda: drafts.squash(PUBLISHER, REPOSITORY, MAIN, title="t", message=""),
    ):
        with pytest.raises(AccessDenied, match="takes no drafts"):
            call()
    assert paths(drafts) == ["a"]
    drafts.drop(PUBLISHER, REPOSITORY, MAIN, head=None)


# -- repositories --------------------------------------------------------------------------------------------------


def test_a_repository_comes_and_goes(registry: Registry, drafts: Drafts) -> None:
    assert drafts.create(PUBLISHER, REPOSITORY, exist_ok=True) is False
    with pytest.raises(AlreadyExists):
        drafts.create(PUBLISHER, REPOSITORY, exist_ok=False)
    with pytest.raises(Conflict, match="another spelling"):
        drafts.create(PUBLISHER, RepositoryName.parse("acme/MiniLM"), exist_ok=True)
    with pytest.raises(NotFound):
        drafts.commit(PUBLISHER, OTHER, MAIN, put(("a", A)), title="t", message="", parent=None)
    commit(drafts, put(("a", A)))
    registry.uploads.open(
        host_caller(), REPOSITORY, digest=Digest.of(b"more"), size=4, slice_size=limits.SHARD_BYTES
    )  # fmt: skip
    drafts.delete_repository(PUBLISHER, REPOSITORY)
    with pytest.raises(NotFound):
        drafts.listing(PUBLISHER, REPOSITORY)
    assert drafts.create(PUBLISHER, REPOSITORY, exist_ok=False)
    drafts.create(PUBLISHER, OTHER, exist_ok=False)
    drafts.delete_repository(PUBLISHER, OTHER)
    with registry.catalogue.reading() as session:
        assert session.scalars(select(RepositoryBlobRow)).all() == []
        actions = list(session.scalars(select(AuditEventRow.action).order_by(AuditEventRow.id)))
    kept = [action for action in actions if action.startswith(("draft", "repository"))]
    created, removed = "repository-created", "repository-removed"
    assert kept == [created, "draft-committed", removed, created, created, removed]


def test_looking_at_drafts_reads_no_listings(registry: Registry, drafts: Drafts) -> None:
    """They may be megabytes each, and many."""
    commit(drafts, put(("a", A)))
    drafts.tag(PUBLISHER, REPOSITORY, TAG, commit(drafts, put(("b", B))))
    statements: list[str] = []
    engine = registry.catalogue._engine

    def see(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", see)
    try:
        assert len(drafts.listing(PUBLISHER, REPOSITORY)) == 2
    finally:
        event.remove(engine, "before_cursor_execute", see)
    assert any("draft_commits" in statement for statement in statements)
    assert not [statement for statement in statements if "listing" in statement]
