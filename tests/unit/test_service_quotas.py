# SPDX-License-Identifier: Apache-2.0
"""Quotas: what counts, what is refused and when, and what a read-only registry still does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.service.quotas import Quota, Quotas, read_quotas
from pq_registry.settings import Settings
from tests.samples import REPOSITORY
from tests.server_harness import Answer, RunningRegistry, running

OTHER = RepositoryName.parse("acme/other")


def set_quota(registry: RunningRegistry, **quota: int) -> None:
    registry.registry.quotas.quotas = Quotas(Quota(**quota))


def usage(registry: RunningRegistry, namespace: str = "acme") -> dict[str, int | None]:
    registry.registry.quotas._sums.clear()  # as after limits.QUOTA_SECONDS
    answer = registry.get(f"/v1/namespaces/{namespace}/usage")
    assert answer.status == 200, answer
    found: dict[str, int | None] = answer.json
    return found


def refused(answer: Answer) -> bool:
    assert answer.status in (200, 201, 403), answer
    return answer.status == 403 and answer.code == "quota-exceeded"


def test_what_is_held_is_each_blob_once_and_what_was_announced(registry: RunningRegistry) -> None:
    assert usage(registry) == {"bytes": 0, "repositories": 0, "quota_bytes": None, "quota_repositories": None}
    registry.upload(b"a" * 1000)
    registry.upload(b"a" * 1000, OTHER)
    assert registry.open_upload(b"b" * 500).status == 201
    assert usage(registry)["bytes"] == 1500
    assert usage(registry)["repositories"] == 2
    assert usage(registry, "ACME")["bytes"] == 1500
    assert usage(registry, "nobody")["bytes"] == 0


def test_an_upload_that_does_not_fit_is_refused_before_it_begins(registry: RunningRegistry) -> None:
    set_quota(registry, bytes=2000)
    registry.upload(b"a" * 1500)
    answer = registry.open_upload(b"b" * 501)
    assert refused(answer)
    assert answer.json["expected"] == "at most 2000 bytes"
    assert not refused(registry.open_upload(b"b" * 500)), "what fits exactly fits"
    assert not refused(registry.open_upload(b"b" * 500)), "an upload that goes on takes no room again"
    assert not refused(registry.open_upload(b"a" * 1500, OTHER)), "nor do bytes the namespace holds already"
    assert not refused(registry.open_upload(b"", OTHER))
    assert refused(registry.open_upload(b"c", OTHER))
    assert not refused(registry.open_upload(b"c", RepositoryName.parse("beta/model"))), "another namespace has its own"


def test_a_digest_that_is_held_is_no_ticket_for_other_bytes(registry: RunningRegistry) -> None:
    """Whoever announces it with another size is about to fill the disk with what is never going to be that blob."""
    set_quota(registry, bytes=2000)
    held = b"a" * 1500
    registry.upload(held)
    assert refused(registry.open_upload(held, size=1_000_000))
    assert refused(registry.open_upload(held, OTHER, size=1_000_000))
    assert not refused(registry.open_upload(held, OTHER))


def test_room_that_was_made_can_be_used(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    set_quota(registry, bytes=1000)
    upload = registry.open_upload(b"a" * 1000).json["id"]
    assert refused(registry.open_upload(b"b"))
    assert registry.request("DELETE", f"/v1/repos/{REPOSITORY}/uploads/{upload}").status == 204
    monkeypatch.setattr(limits, "QUOTA_PAUSE_SECONDS", 0.0)
    assert not refused(registry.open_upload(b"b"))


def test_many_at_once_get_no_more_than_one_after_another(registry: RunningRegistry) -> None:
    set_quota(registry, bytes=1000)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: registry.open_upload(bytes([number]) * 100), range(40)))
    assert sum(not refused(answer) for answer in answers) == 10
    assert usage(registry)["bytes"] == 1000


def test_a_repository_too_many(registry: RunningRegistry) -> None:
    set_quota(registry, repositories=1)
    registry.publish()
    assert refused(registry.open_upload(b"a", OTHER))
    assert not refused(registry.open_upload(b"a")), "the one that is there goes on"
    assert refused(registry.post_release(b"{}", OTHER)), "whatever brings it into being"
    assert usage(registry)["quota_repositories"] == 1


def test_a_namespace_of_its_own_quota(registry: RunningRegistry) -> None:
    own = Quotas(Quota(bytes=10), {Namespace("big").key: Quota(bytes=10_000)})
    registry.registry.quotas.quotas = own
    assert refused(registry.open_upload(b"a" * 11))
    assert not refused(registry.open_upload(b"a" * 11, RepositoryName.parse("Big/model")))


def test_a_quota_made_smaller_removes_nothing(registry: RunningRegistry) -> None:
    digest = registry.publish()
    set_quota(registry, bytes=1)
    assert registry.get(f"/v1/repos/{REPOSITORY}/releases/{digest.hex}").status == 200
    assert registry.put_tag(digest).status == 201


@pytest.mark.parametrize(
    "text",
    [
        'acme = "5G"', '[acme]\nbytes = "5 G"', "[acme]\nbytes = 1.5", "[acme]\nsize = 1", "[acme]\nrepositories = -1",
        "[acme]\nrepositories = true", '["not a name"]\nbytes = "1G"', "[acme]\n[ACME]", "[",
    ],
)  # fmt: skip
def test_a_file_of_quotas_that_is_wrong(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quotas.toml"
    path.write_text(text)
    with pytest.raises(SettingError):
        read_quotas(Settings({"quotas": str(path)}, environment={}, config_file=tmp_path / "none"))


def test_a_read_only_registry(tmp_path: Path) -> None:
    with running(tmp_path / "data") as registry:
        digest = registry.publish()
        envelope = registry.put_tag(digest)
        assert envelope.status == 201
    with running(tmp_path / "data", read_only=True) as registry:
        assert registry.get(f"/v1/repos/{REPOSITORY}/releases/{digest.hex}").status == 200
        assert registry.get("/readyz").status == 200
        for answer in (
            registry.open_upload(b"a"), registry.post_release(b"{}"), registry.put_tag(digest),
            registry.request("DELETE", f"/v1/repos/{REPOSITORY}/uploads/{'0' * 32}"),
            registry.post("/v1/namespaces/acme/identities", {"public": ""}),
        ):  # fmt: skip
            assert (answer.status, answer.code) == (403, "read-only")
        assert registry.with_token(None).open_upload(b"a").status == 401, "strangers learn nothing of it"
        made = registry.post("/v1/tokens", {"role": "reader", "namespaces": ["acme"], "expires_days": 1})
        assert made.status == 201, "in an incident tokens are revoked and made"
        assert registry.request("DELETE", f"/v1/tokens/{made.json['id']}").status == 204
        assert registry.post(f"/v1/repos/{REPOSITORY}/missing", {"digests": []}).status == 200
