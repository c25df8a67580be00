# SPDX-License-Identifier: Apache-2.0
"""Keeping the catalogue's cards: one for each release, and for each repository the words of the one that is shown.

Shown is the card of the release that the tag ``main`` points to, else of the newest one. A sealed release has no card:
what it would say is ciphertext here.

Nothing waits for this and nothing rests on it: it runs after a release or a tag was recorded, and where it failed or a
crash came first, ``catch_up`` does the same later. Both may run twice, at once, and in several instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, PqregError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import DEFAULT_TAG, RepositoryName
from pq_registry.service.cards.card import Card
from pq_registry.service.cards.header import split_card
from pq_registry.service.cards.reading import CARD_NAME, CardReader, find_file
from pq_registry.service.cards.words import index_of
from pq_registry.service.resolve import Resolving
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import CardRow, CardWordRow
from pq_registry.storage.catalogue.tables import ReleaseRow, RepositoryRow, TagRow

_BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCard:
    """The card a repository is found by, and whose it is."""

    repository: str
    release: Digest
    card: Card


class Cards:
    """Reads cards, keeps what they say, and answers it."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore) -> None:
        self._catalogue = catalogue
        self._resolving = Resolving(catalogue, blobs)
        self.reader = CardReader(catalogue, blobs)

    def follow(self, name: RepositoryName) -> bool:
        """Bring one repository up to date, after something was recorded in it; False if that has to be done later."""
        try:
            self._work(RepositoryRow.key == name.key)
        except PqregError:
            return False  # what was recorded is recorded; catch_up tries again, and says what is wrong
        return True

    def catch_up(self) -> int:
        """Bring every repository up to date; answers how many were not.

        Raises:
            StorageError: if catalogue or blob store fail, after all others were brought up to date.
        """
        return self._work(RepositoryRow.id.is_not(None))

    def of(self, releases: Iterable[Digest]) -> dict[Digest, Card]:
        """The cards of releases, as far as they have been read; those the caller may read, which is the caller's."""
        found: dict[Digest, Card] = {}
        wanted = sorted({release.hex for release in releases})
        with self._catalogue.reading() as session:
            for start in range(0, len(wanted), _BATCH):
                query = select(CardRow.release_digest, CardRow.data)
                batch = wanted[start : start + _BATCH]
                for release, data in session.execute(query.where(CardRow.release_digest.in_(batch))):
                    found[Digest(release)] = Card.parse(data)
        return found

    def shown(self, names: Iterable[str]) -> dict[str, ShownCard]:
        """The cards by which these repositories are found, by the repositories' names."""
        keys = sorted({name.lower() for name in names})
        with self._catalogue.reading() as session:
            return {item.repository: item for item in shown_cards(session, RepositoryRow.key.in_(keys))}

    def card(self, release: Digest, manifest: Manifest) -> Card | None:
        """The card of a release for a page; None for a release that has none, or is sealed."""
        if manifest.sealing is not None or find_file(manifest, CARD_NAME) is None:
            return None
        kept = self.of([release]).get(release)
        if kept is not None:
            return kept
        try:
            return self.reader.card(manifest)
        except StorageError as error:
            return Card(present=True, problem=error.message)

    def body(self, manifest: Manifest) -> str:
        """What follows the header of a card; empty if that cannot be read as a card, for which the card has the reason.

        Raises:
            StorageError: if its bytes cannot be read.
        """
        try:
            return split_card(self.reader.text(manifest) or "")[1]
        except FormatError:
            return ""

    def manifest(self, name: RepositoryName, release: Digest) -> Manifest:
        """The manifest of a release of this repository.

        Raises:
            NotFound: if the repository has no such release.
            StorageError: if its bytes cannot be read.
        """
        return self.reader.manifest(self._resolving.release(name, release).manifest)

    def _work(self, which: ColumnElement[bool]) -> int:
        failure: PqregError | None = None
        done = after = 0
        while True:
            with self._catalogue.reading() as session:
                rows = session.execute(_without_card(which, after)).all()
            for release, digest, repository, manifest in rows:
                after = release
                try:
                    self._take_in(digest, repository, Digest(manifest))
                except PqregError as error:
                    failure = error
            if len(rows) < limits.CARDS_PAGE:
                break
        after = 0
        while True:
            with self._catalogue.reading() as session:
                repositories = list(session.scalars(_behind(which, after)))
            for repository in repositories:
                after = repository
                done += self._show(repository)
            if len(repositories) < limits.CARDS_PAGE:
                break
        if failure is not None:
            raise failure
        return done

    def _take_in(self, digest: str, repository: int, manifest: Digest) -> None:
        card = self.reader.card(self.reader.manifest(manifest))
        with self._catalogue.writing() as session:
            if session.get(CardRow, digest) is None:
                session.add(_row(digest, repository, card))

    def _show(self, repository: int) -> bool:
        """Let a repository be found by the card of its present release."""
        with self._catalogue.reading() as session:
            found = session.execute(_present(repository)).one_or_none()
        if found is None:
            return False
        name, release, data = found
        # Outside the transaction below, which nobody else can write beside.
        words = self._words(RepositoryName.parse(name), Digest(release), Card.parse(data))
        with self._catalogue.writing() as session:
            again = session.execute(_present(repository)).one_or_none()
            if again is None or again[1] != release:
                return False  # it has moved on; whoever moved it comes here too
            session.execute(update(CardRow).where(CardRow.repository_id == repository).values(shown=False))
            session.execute(update(CardRow).where(CardRow.release_digest == release).values(shown=True))
            session.execute(delete(CardWordRow).where(CardWordRow.repository_id == repository))
            session.execute(insert(CardWordRow), [{"word": word, "repository_id": repository} for word in words])
        return True

    def _words(self, name: RepositoryName, release: Digest, card: Card) -> Sequence[str]:
        body = ""
        if card.present and card.problem is None:
            try:
                body = self.body(self.manifest(name, release))
            except PqregError:
                body = ""  # damaged since; it is found by what was read then
        return sorted(index_of(str(name), card, body))


def shown_cards(session: Session, *conditions: ColumnElement[bool], limit: int | None = None) -> list[ShownCard]:
    """The shown cards of repositories that fulfil ``conditions``, in the order of their names."""
    query = (
        select(RepositoryRow.name, CardRow.release_digest, CardRow.data)
        .join(CardRow, CardRow.repository_id == RepositoryRow.id)
        .where(CardRow.shown, *conditions)
        .order_by(RepositoryRow.key)
        .limit(limit)
    )
    return [
        ShownCard(repository=name, release=Digest(release), card=Card.parse(data))
        for name, release, data in session.execute(query)
    ]


def _without_card(which: ColumnElement[bool], after: int) -> Select[int, str, int, str]:
    return (
        select(ReleaseRow.id, ReleaseRow.digest, ReleaseRow.repository_id, ReleaseRow.manifest_digest)
        .join(RepositoryRow, RepositoryRow.id == ReleaseRow.repository_id)
        .outerjoin(CardRow, CardRow.release_digest == ReleaseRow.digest)
        .where(CardRow.release_digest.is_(None), ReleaseRow.id > after, which)
        .order_by(ReleaseRow.id)
        .limit(limits.CARDS_PAGE)
    )


def _present_release() -> ColumnElement[str]:
    main = select(TagRow.target).where(TagRow.repository_id == RepositoryRow.id, TagRow.tag == DEFAULT_TAG)
    newest = select(ReleaseRow.digest).where(ReleaseRow.repository_id == RepositoryRow.id)
    newest = newest.order_by(ReleaseRow.id.desc()).limit(1)
    return func.coalesce(
        main.correlate(RepositoryRow).scalar_subquery(), newest.correlate(RepositoryRow).scalar_subquery()
    )


def _behind(which: ColumnElement[bool], after: int) -> Select[int]:
    present = _present_release()
    shown = select(CardRow.shown).where(CardRow.release_digest == present).correlate(RepositoryRow).scalar_subquery()
    # Without a card of its present release (null) there is nothing to show yet.
    return (
        select(RepositoryRow.id)
        .where(which, RepositoryRow.id > after, shown.is_(False))
        .order_by(RepositoryRow.id)
        .limit(limits.CARDS_PAGE)
    )


def _present(repository: int) -> Select[str, str, str]:
    return (
        select(RepositoryRow.name, CardRow.release_digest, CardRow.data)
        .join(CardRow, CardRow.repository_id == RepositoryRow.id)
        .where(RepositoryRow.id == repository, CardRow.release_digest == _present_release())
    )


def _row(digest: str, repository: int, card: Card) -> CardRow:
    return CardRow(
        release_digest=digest,
        repository_id=repository,
        license=card.license,
        library=card.library,
        pipeline=card.pipeline,
        languages=_listed(card.languages),
        tags=_listed(card.tags),
        base_models=_listed(base.name for base in card.bases),
        data=card.encode(),
    )


def _listed(values: Iterable[str]) -> str:
    return f" {' '.join(value.replace(' ', '-') for value in values)} "
