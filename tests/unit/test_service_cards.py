# SPDX-License-Identifier: Apache-2.0
"""Model cards: what is read of them, what models are found by, and that the catalogue follows releases and tags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select, update

from pq_registry import limits
from pq_registry.errors import FormatError, PqregError, StorageError, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.service.access import Caller, Rights, Role, anonymous
from pq_registry.service.cards import Base, Card, matching, read_header, split_card
from pq_registry.service.cards.reading import headline
from pq_registry.service.cards.words import forms
from pq_registry.service.tokens import host_caller
from pq_registry.storage.catalogue.hubtables import CardRow, CardWordRow
from pq_registry.storage.catalogue.tables import BlobRow, ReleaseRow
from tests.card_site import ADAPTER, TEUKEN, CardSite, card_site, publish_card
from tests.samples import REPOSITORY
from tests.server_harness import RunningRegistry


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CardSite]:
    with card_site(tmp_path_factory.mktemp("cards") / "registry") as made:
        yield made


def header(text: str) -> str:
    return f"---\n{text}\n---\nbody"


def found(registry: RunningRegistry, text: str = "", *filters: str, caller: Caller | None = None) -> list[str]:
    items, _ = registry.registry.resolving.repositories(
        caller or host_caller(), namespace=None, after=None, limit=50, conditions=matching(text, filters)
    )
    return [item.name for item in items]


# -- headers ---------------------------------------------------------------------------------------------------------


def test_a_header_is_text_as_written() -> None:
    made = read_header(header('language: no\nlicense: mit\nversion: 1.10\ndate: 2026-01-02\nyes: on\nx: "a: b"'))
    assert made == {
        "language": "no", "license": "mit", "version": "1.10", "date": "2026-01-02", "yes": "on", "x": "a: b",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "no header", "---\nnever: closed", "text\n---\na: b\n---", "--- \n---\nbody"])
def test_a_card_without_header_has_none(text: str) -> None:
    assert read_header(text) == {}


def test_header_and_body_are_told_apart() -> None:
    assert split_card("\ufeff\n---\r\na: b\r\n---\r\n# T\n---\n") == ("a: b\r\n", "# T\n---\n")
    assert split_card("# T\n---\nx\n---\n")[0] == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "alias"),
        ("a: !!python/object/apply:os.system [id]", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: 1\na: 2", "twice"),
        ("? [a]\n: b", "no text"),
        ("- a", "no mapping"),
        ("a: [", "cannot be read"),
        ("a: \x00", "cannot be read"),
        ("a: b: c", "cannot be read"),
        ("a: " + "[" * (limits.CARD_HEADER_DEPTH + 1) + "]" * (limits.CARD_HEADER_DEPTH + 1), "too deep"),
        ("a: [" + "x," * limits.CARD_HEADER_EVENTS + "]", "too many"),
        ("a: " + "x" * limits.CARD_HEADER_BYTES, "too long"),
    ],
)
def test_a_header_that_is_a_trap_is_refused(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read_header(header(text))


def test_bytes_that_are_no_card_are_refused() -> None:
    for data in (b"---\na: \xff\n---", b"x" * (limits.CARD_BYTES + 1)):
        with pytest.raises(FormatError):
            read_header(data)


# -- values ----------------------------------------------------------------------------------------------------------


def test_a_card_says_what_its_header_says() -> None:
    card = Card.of_header(read_header(TEUKEN))
    assert (card.license, card.library, card.pipeline) == ("apache-2.0", "transformers", "text-generation")
    assert card.languages == ("de", "en", "fr")
    assert dict(card.ai_act)["provider"] == "OpenGPT-X Konsortium: Fraunhofer"
    assert {"license:apache-2.0", "de", "dataset:occiglot/tokenizer-wiki-bench"} <= set(card.hub_tags)
    assert {"eu_ai_act", "eu_ai_act:general_purpose", "language:de"} <= set(card.facets)
    assert "eu_ai_act:systemic_risk" not in card.facets
    assert Card.parse(card.encode()) == card
    json.dumps(card.metadata)


@pytest.mark.parametrize(
    "text",
    [
        "license: [mit, apache-2.0]",
        "license: {a: b}",
        f"license: {'x' * 65}",
        "tags: {a: b}",
        "tags: [[a]]",
        "license: null",
        "base_model: '../etc'",
        "base_model: 'a/b/c'",
        f"tags: [{'x' * (limits.CARD_VALUE_CHARS + 1)}]",
        "eu_ai_act: [x]",
        "eu_ai_act: {unknown: x}",
    ],
)
def test_what_has_the_wrong_shape_is_left_out(text: str) -> None:
    assert Card.of_header(read_header(header(text))) == Card(present=True)


def test_characters_that_hide_or_turn_others_are_dropped() -> None:
    card = Card.of_header({"tags": ["lo\u202egol", "a\u200bb", "tab\there", "\U000e0041x", "a\u200cb", "no\x00"]})
    assert card.tags == ("logol", "ab", "tab here", "x", "a\u200cb", "no")


def test_bases_that_are_signed_stand_first_and_keep_what_the_card_says_of_them() -> None:
    card = Card.of_header(read_header(header("base_model: [Acme/Teuken, x/y]\nbase_model_relation: merge")))
    signed = Base(name="acme/teuken", relation="finetune", release="00")
    assert card.with_bases([signed]).bases == (
        Base(name="acme/teuken", relation="merge", release="00"),
        Base(name="x/y", relation="merge"),
    )


def test_title_and_summary_are_plain_text() -> None:
    body = "[![badge](x)](y)\n<div>\n\n# A *fine* [model](https://x)\n\nIt **is** `small`,\nsnake_case too.\n\nMore."
    assert headline(body) == ("A fine model", "It is small, snake_case too.")
    assert headline("") == ("", "")


def test_german_words_are_found_however_they_are_typed() -> None:
    assert forms("Größe") == {"grosse", "groesse"}
    assert forms("STRASSE") == forms("Straße") == {"strasse"}
    assert forms("café") == {"cafe"}
    assert forms("\u0308") == set()


# -- searching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "filters", "expected"),
    [
        ("teuken", (), ["acme/teuken", "acme/teuken-legal"]),
        ("TEUK", (), ["acme/teuken", "acme/teuken-legal"]),
        ("acme/teuken-leg", (), ["acme/teuken-legal"]),
        ("größe", (), ["acme/teuken"]),
        ("groesse grosse", (), ["acme/teuken"]),
        ("europaeisches", (), ["acme/teuken"]),
        ("contracts", (), ["acme/teuken-legal"]),
        ("contracts teuken nothing", (), []),
        ("fraunhofer", (), ["acme/teuken"]),
        ("", ("license:MIT",), ["acme/teuken-legal"]),
        ("", ("de",), ["acme/hostile", "acme/teuken", "acme/teuken-legal"]),
        ("", ("language:de", "peft"), ["acme/teuken-legal"]),
        ("", ("base_model:acme/teuken",), ["acme/merged", "acme/teuken-legal", "lab/hidden"]),
        ("", ("base_model:adapter:acme/teuken",), ["acme/teuken-legal"]),
        ("", ("eu_ai_act:general_purpose",), ["acme/teuken"]),
        ("", ("licence",), []),
        ("%", (), []),
        ("_", (), []),
        ("secret", (), ["acme/secret"]),
        ("bare", (), ["acme/bare"]),
        ("=license", (), []),
        ("\x00", (), []),
        ("\ud800", (), []),
        ("", ("language:\x00de\ud800",), ["acme/hostile", "acme/teuken", "acme/teuken-legal"]),
    ],
)
def test_models_are_found(site: CardSite, text: str, filters: tuple[str, ...], expected: list[str]) -> None:
    assert found(site.registry, text, *filters) == expected


def test_nobody_finds_what_they_may_not_read(site: CardSite) -> None:
    rights = Rights(role=Role.READER, namespaces=frozenset({"acme"}))
    reader = Caller(token_id="0" * 16, rights=rights, expires=None, public_read=False, request_id="test")
    assert found(site.registry, "hidden", caller=reader) == []
    assert "lab/hidden" not in found(site.registry, "", "base_model:acme/teuken", caller=reader)
    assert found(site.registry, "", caller=anonymous(public_read=False, request_id="test")) == []


def test_a_search_has_bounds() -> None:
    with pytest.raises(UsageError):
        matching(" ".join(f"w{number}" for number in range(limits.SEARCH_WORDS + 1)))
    with pytest.raises(UsageError):
        matching(filters=[str(number) for number in range(limits.SEARCH_FACETS + 1)])
    assert len(matching("one " * 1000)) == 1


def test_a_sealed_release_has_an_empty_card(site: CardSite) -> None:
    release = site.releases["acme/secret"]
    cards = site.registry.registry.cards
    assert cards.of([release]) == {release: Card()}
    assert cards.card(release, cards.manifest(RepositoryName.parse("acme/secret"), release)) is None


# -- keeping up ------------------------------------------------------------------------------------------------------


def words(registry: RunningRegistry) -> set[str]:
    with registry.registry.catalogue.reading() as session:
        return set(session.scalars(select(CardWordRow.word)))


def test_the_card_of_main_is_shown_else_the_newest(registry: RunningRegistry) -> None:
    first = publish_card(registry, str(REPOSITORY), {"README.md": b"# Alpha"})
    assert found(registry, "alpha") == [str(REPOSITORY)]
    second = publish_card(registry, str(REPOSITORY), {"README.md": b"# Beta"})
    assert (found(registry, "alpha"), found(registry, "beta")) == ([], [str(REPOSITORY)])
    assert registry.put_tag(first, tag=Tag("main")).status == 201
    assert (found(registry, "alpha"), found(registry, "beta")) == ([str(REPOSITORY)], [])
    assert registry.put_tag(first).status == 201
    shown = registry.registry.cards.shown([str(REPOSITORY)])
    assert shown[str(REPOSITORY)].release == first != second
    with registry.registry.catalogue.reading() as session:
        assert len(session.scalars(select(CardRow).where(CardRow.shown)).all()) == 1


def test_releases_from_before_there_were_cards_are_caught_up_with(registry: RunningRegistry) -> None:
    publish_card(registry, "acme/a", {"README.md": TEUKEN.encode()})
    publish_card(registry, "acme/b", {"README.md": ADAPTER.encode()})
    before, cards = words(registry), registry.registry.cards
    assert cards.catch_up() == 0, "nothing was behind"
    with registry.registry.catalogue.writing() as session:
        session.execute(delete(CardWordRow))
        session.execute(delete(CardRow))
    assert cards.catch_up() == 2
    assert words(registry) == before
    assert cards.catch_up() == 0


def test_what_a_crash_left_between_card_and_words_is_caught_up_with(registry: RunningRegistry) -> None:
    publish_card(registry, "acme/a", {"README.md": TEUKEN.encode()})
    with registry.registry.catalogue.writing() as session:
        session.execute(update(CardRow).values(shown=False))
        session.execute(delete(CardWordRow))
    assert registry.registry.cards.follow(RepositoryName.parse("acme/a"))
    assert found(registry, "teuken") == ["acme/a"]


def test_a_card_that_cannot_be_read_keeps_nobody_from_publishing(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = registry.registry.cards

    def fail(*_: object) -> bytes:
        raise StorageError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(cards.reader, "_read", fail)
        digest = publish_card(registry, "acme/a", {"README.md": b"# Alpha"})
        assert found(registry, "alpha") == []
        with pytest.raises(StorageError, match="fire"):
            cards.catch_up()
    assert cards.catch_up() == 1
    assert found(registry, "alpha") == ["acme/a"]
    assert cards.of([digest])[digest].title == "Alpha"


def test_one_damaged_card_does_not_keep_the_others_from_being_read(registry: RunningRegistry) -> None:
    bad = publish_card(registry, "acme/a", {"README.md": b"# Alpha"})
    publish_card(registry, "acme/b", {"README.md": b"# Beta"})
    with registry.registry.catalogue.writing() as session:
        session.execute(delete(CardWordRow))
        session.execute(delete(CardRow))
        manifest = select(ReleaseRow.manifest_digest).where(ReleaseRow.digest == bad.hex).scalar_subquery()
        session.execute(update(BlobRow).where(BlobRow.digest == manifest).values(copy="nowhere", size=1))
    with pytest.raises(PqregError):
        registry.registry.cards.catch_up()
    assert found(registry, "beta") == ["acme/b"]


def test_a_card_with_a_bad_header_says_so(registry: RunningRegistry) -> None:
    digest = publish_card(registry, "acme/a", {"README.md": b"---\na: *x\n---\n# Alpha"})
    card = registry.registry.cards.of([digest])[digest]
    assert card.present and card.problem is not None and "alias" in card.problem
    cards = registry.registry.cards
    manifest = cards.manifest(RepositoryName.parse("acme/a"), digest)
    assert (cards.card(digest, manifest), cards.body(manifest)) == (card, "# Alpha")


def test_words_have_a_bound(registry: RunningRegistry) -> None:
    text = " ".join(f"word{number}" for number in range(5000))
    publish_card(registry, "acme/a", {"README.md": f"# Alpha\n\n{text} {'y' * 10_000}".encode()})
    assert len(words(registry)) <= limits.CARD_WORDS
    assert found(registry, "alpha") == ["acme/a"]


def test_two_who_keep_up_at_once_leave_one_card(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds that the first has done it, between what it read and what it writes."""
    name = RepositoryName.parse("acme/a")
    cards = registry.registry.cards
    monkeypatch.setattr(cards, "follow", lambda _: True)
    publish_card(registry, "acme/a", {"README.md": b"# Alpha"})
    monkeypatch.undo()
    original, done = cards.reader.card, SimpleNamespace(nested=False)

    def meanwhile(manifest: object) -> Card:
        if not done.nested:
            done.nested = True
            assert cards.follow(name)
        return original(manifest)  # type: ignore[arg-type]

    monkeypatch.setattr(cards.reader, "card", meanwhile)
    assert cards.follow(name)
    assert found(registry, "alpha") == ["acme/a"]


def test_a_release_without_card_has_an_empty_one(site: CardSite) -> None:
    made = site.registry.registry.cards.of([site.releases["acme/bare"], Digest("0" * 64)])
    assert made == {site.releases["acme/bare"]: Card()}
