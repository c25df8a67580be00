# SPDX-License-Identifier: Apache-2.0
"""fsck's part about drafts: what the catalogue says of commits that nobody signed.

* A draft commit is named by its description, its listing parses, its facts are the listing's, and every file is a
  recorded blob of that size that the repository refers to.
* What a draft points to is a draft commit or a release of its repository.

A draft commit that no name leads to wastes space; an ancestor that was forgotten is no damage.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, undefer

from pq_registry.errors import PqregError
from pq_registry.format.draft import commit_id, parse_listing
from pq_registry.storage.catalogue.hubtables import DraftCommitRow, DraftRow
from pq_registry.storage.catalogue.tables import BlobRow, ReleaseRow, RepositoryBlobRow, RepositoryRow
from pq_registry.storage.chains import Finding

_BATCH = 500


def check_drafts(session: Session) -> Iterator[Finding]:
    """What is wrong about drafts."""
    having = or_(
        RepositoryRow.id.in_(select(DraftRow.repository_id)), RepositoryRow.id.in_(select(DraftCommitRow.repository_id))
    )
    for repository in session.scalars(select(RepositoryRow).where(having).order_by(RepositoryRow.id)).all():
        yield from _names(session, repository)
    commits = (
        select(DraftCommitRow, RepositoryRow.name)
        .join(RepositoryRow, RepositoryRow.id == DraftCommitRow.repository_id)
        .order_by(DraftCommitRow.repository_id, DraftCommitRow.id)
        .options(undefer(DraftCommitRow.listing))
        .execution_options(yield_per=4)
    )
    for row, name in session.execute(commits):
        subject = f"draft commit {name}@{row.id}"
        try:
            yield from _commit(session, subject, row)
        except PqregError as error:
            yield Finding(subject, str(error))


def _names(session: Session, repository: RepositoryRow) -> Iterator[Finding]:
    mine = DraftCommitRow.repository_id == repository.id
    parents = dict(session.execute(select(DraftCommitRow.id, DraftCommitRow.parent).where(mine)).all())
    reached: set[str] = set()
    for draft in session.scalars(select(DraftRow).where(DraftRow.repository_id == repository.id)).all():
        release = select(ReleaseRow.id).where(
            ReleaseRow.repository_id == repository.id, ReleaseRow.digest.startswith(draft.head, autoescape=True)
        )
        if draft.head not in parents and session.scalars(release.limit(1)).first() is None:
            yield Finding(f"draft {repository.name}@{draft.name}", f"there is no commit {draft.head} it could point to")
        commit: str | None = draft.head
        while commit in parents and commit not in reached:
            reached.add(commit)
            commit = parents[commit]
    for lost in sorted(parents.keys() - reached):
        yield Finding(f"draft commit {repository.name}@{lost}", "no draft leads to it", note=True)


def _commit(session: Session, subject: str, row: DraftCommitRow) -> Iterator[Finding]:
    named = commit_id(
        listing=row.listing, parent=row.parent, title=row.title, message=row.message, author=row.token_id,
        created=row.created,
    )  # fmt: skip
    if named != row.id:
        yield Finding(subject, f"its description is that of {named}")
    files = parse_listing(row.listing)
    if (len(files), sum(file.size for file in files)) != (row.files, row.size):
        yield Finding(subject, "its recorded number and size of files are not those of its listing")
    sizes: dict[str, int] = {}
    digests = sorted({file.sha256.hex for file in files})
    for start in range(0, len(digests), _BATCH):
        query = (
            select(BlobRow.digest, BlobRow.size)
            .join(RepositoryBlobRow, RepositoryBlobRow.digest == BlobRow.digest)
            .where(
                RepositoryBlobRow.repository_id == row.repository_id,
                BlobRow.digest.in_(digests[start : start + _BATCH]),
            )
        )
        sizes.update(session.execute(query).all())
    for file in files:
        if file.sha256.hex not in sizes:
            yield Finding(subject, f"the repository does not refer to the blob of {file.path}")
        elif sizes[file.sha256.hex] != file.size:
            yield Finding(subject, f"the blob of {file.path} is recorded with another size")
