# SPDX-License-Identifier: Apache-2.0
"""F3: a Hub that lists and sends what it should not, to whoever mirrors there. Every answer is an error of ours."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound, PqregError, ResponseInvalid, UsageError
from pq_registry.mirror.hub import Hub
from pq_registry.mirror.target import Change, HubTarget, There
from tests.fake_hub import fake_hub
from tests.hub_site import go_online

pytest.importorskip("huggingface_hub")
COMMIT = "c0" * 20


def target(tmp_path: Path, **answers: Any) -> HubTarget:
    hub = Hub("https://hub.example.org", "hf_secret", sleep=lambda _seconds: None)
    hub.api = SimpleNamespace(**answers)
    return HubTarget(hub, "acme/minilm", tmp_path)


def listing(*items: Any) -> Any:
    return lambda *_arguments, **_named: iter(items)


def file(**fields: Any) -> Any:
    return SimpleNamespace(**{"path": "a", "size": 1, "blob_id": "0" * 40, "lfs": None, **fields})


@pytest.mark.parametrize(
    "item",
    [
        file(lfs=SimpleNamespace(sha256="../../etc/passwd")),
        file(lfs=SimpleNamespace(sha256=None)),
        file(lfs=SimpleNamespace(sha256="A" * 64)),
        file(size="many"),
        file(size=None),
    ],
)
def test_a_listing_that_is_none(tmp_path: Path, item: Any) -> None:
    with pytest.raises((ResponseInvalid, FormatError, UsageError)):
        target(tmp_path, list_repo_tree=listing(item)).files(COMMIT)


def test_a_listing_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIRROR_TREE_FILES", 5)

    def endless(*_arguments: Any, **_named: Any) -> Any:
        number = 0
        while True:
            number += 1
            yield file(path=str(number))

    with pytest.raises(ResponseInvalid):
        target(tmp_path, list_repo_tree=endless).files(COMMIT)


def test_a_history_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_online(monkeypatch)
    with fake_hub() as hub:
        hub.add({"config.json": b"{}"}, "org/model")
        endless = HubTarget(Hub(hub.url, sleep=lambda _seconds: None), "org/model", tmp_path)
        said = endless.messages("main")
        assert said == ["a title\n\na message"] * limits.MIRROR_HISTORY_COMMITS
        assert len(hub.asked) <= limits.MIRROR_HISTORY_COMMITS


def test_more_than_was_listed_is_not_taken_when_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_online(monkeypatch)
    with fake_hub() as hub:
        commit = hub.add({"model.sig": bytes(2 * limits.HUB_EXCESS_BYTES + 100)}, "org/model")
        hostile = HubTarget(Hub(hub.url, sleep=lambda _seconds: None), "org/model", tmp_path)
        with pytest.raises(ResponseInvalid, match=r"sends more of model\.sig"):
            hostile.read(commit, There("model.sig", 5, "0" * 40, None))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_larger_or_smaller_than_was_listed(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    for data in (b"longer than listed", b""):
        sent.write_bytes(data)
        hostile = target(tmp_path, hf_hub_download=lambda *_arguments, **_named: str(sent))
        with pytest.raises(ResponseInvalid):
            hostile.read(COMMIT, There("model.sig", 5, "0" * 40, None))
    with pytest.raises(ResponseInvalid):
        hostile.read(COMMIT, There("model.sig", limits.MIRROR_SMALL_BYTES + 1, "0" * 40, None))
    assert list(tmp_path.iterdir()) == [sent], "nothing is left of what was read again"


def test_a_foreign_path_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    """What a Hub lists and nobody wants is only ever named back to it, to be deleted."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint="http://127.0.0.1:9", token=False)
    out = target(tmp_path, create_commit=api.create_commit)
    change = Change(puts={}, deletes=["../../outside"])
    with pytest.raises(PqregError) as caught:
        out.commit("main", COMMIT, change, title="x", message="y")
    assert "hf_secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError("hf_secret?"), KeyError("url"), RecursionError(), TypeError("None")])
def test_whatever_the_library_trips_over_is_an_error_of_ours(tmp_path: Path, error: Exception) -> None:
    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise error

    with pytest.raises(PqregError) as caught:
        target(tmp_path, list_repo_refs=fail).references()
    assert not isinstance(caught.value, NotFound)
    assert caught.value.__cause__ is None
