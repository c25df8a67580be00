# SPDX-License-Identifier: Apache-2.0
"""The page of a model with drafts: what nobody signed is called that, and is there only for those who may read it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.hub.changes import Changes
from pq_registry.service.hub.model import Branch, Commit
from pq_registry.service.tokens import host_caller
from tests.samples import REPOSITORY

if TYPE_CHECKING:
    from tests.server_harness import Api, RunningRegistry

HOSTILE = "<script>alert(1)</script>\u202e"


def pushed(registry: RunningRegistry, name: RepositoryName, branch: str, title: str) -> Commit:
    drafts, content = registry.registry.drafts, b"words"
    drafts.create(host_caller(), name, exist_ok=True)
    registry.upload(content, name)
    changes = Changes(put={"README.md": (Digest.of(content), None)})
    return drafts.commit(host_caller(), name, Branch(branch), changes, title=title, message="", parent=None)


def page(api: Api, name: RepositoryName, language: str = "en") -> str:
    answer = api.get(f"/models/{name}?lang={language}", {"Accept": "text/html"})
    assert answer.status == 200, answer
    return html.unescape(answer.body.decode())


def test_a_model_that_has_only_drafts(shared_registry: RunningRegistry) -> None:
    name = RepositoryName.parse("acme/only-drafts")
    head = pushed(shared_registry, name, "dev/x", HOSTILE)
    publisher, reader = shared_registry.as_role("publisher"), shared_registry.as_role("reader")
    shown = page(publisher, name)
    for words in (
        "Not signed",
        "nothing of this model is signed",
        str(head),
        f"pqreg sign {name}@draft --key",
        f"pqreg draft drop {name}@draft",
    ):
        assert words in shown, words
    raw = publisher.get(f"/models/{name}").body.decode()
    assert "<script>alert" not in raw
    assert "<bdi>&lt;script&gt;" in raw
    assert "Niemand hat diese Dateien signiert" in page(publisher, name, "de")
    assert reader.get(f"/models/{name}").status == 404
    assert shared_registry.with_token(None).get(f"/models/{name}").status == 401


def test_a_model_with_a_release_and_a_draft(shared_registry: RunningRegistry) -> None:
    release = shared_registry.publish()
    assert "Drafts" not in page(shared_registry, REPOSITORY)
    drafts = shared_registry.registry.drafts
    drafts.branch(host_caller(), REPOSITORY, Branch("frozen"), Commit.of_release(release))
    shown = page(shared_registry, REPOSITORY)
    assert "A signed release" in shown
    assert "pqreg sign" not in shown
    pushed(shared_registry, REPOSITORY, "main", "more words")
    shown = page(shared_registry, REPOSITORY)
    assert f"pqreg sign {REPOSITORY}@draft --key" in shown
    assert "more words" in shown
    assert "Drafts" not in page(shared_registry.as_role("reader"), REPOSITORY)
