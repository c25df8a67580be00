# SPDX-License-Identifier: Apache-2.0
"""The plan file: exact bytes kept and found again, never rewritten, private, and worthless when unsound."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.draft import draft
from pq_registry.client.plan import Plan, PlanKey, PlanStore
from pq_registry.durable import temporary_path
from pq_registry.errors import AlreadyExists, Conflict, PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import BaseRelease
from pq_registry.format.name import RepositoryName
from tests.format_samples import ALICE, BOB, NOW, file_entry

REPOSITORY = RepositoryName.parse("acme/minilm")
KEY = PlanKey("https://models.example.org", REPOSITORY, "/data/model", ALICE)
FILES = (file_entry("a", b"one"), file_entry("b", b"two"))


def drawn(**changes: Any) -> Plan:
    options: dict[str, Any] = {"repository": REPOSITORY, "signer": ALICE, "now": NOW, "license": None, "lineage": ()}
    return draft(FILES, **(options | changes))


@pytest.fixture
def store(tmp_path: Path):
    plans = PlanStore(tmp_path)
    with plans.held(KEY):
        yield plans


def test_a_draft_binds_manifest_and_statement_and_every_one_is_another_release() -> None:
    base = BaseRelease(RepositoryName.parse("acme/base"), Digest("5e" * 32))
    one, two = drawn(license="MIT", lineage=(base,)), drawn()
    assert one.manifest.license == "MIT"
    assert one.manifest.lineage == (base,)
    assert one.manifest.files == FILES
    assert one.manifest.encode() == one.manifest_bytes
    assert one.release == Digest.of(one.statement_bytes)
    assert one.manifest.release_id != two.manifest.release_id
    assert len(one.manifest.release_id) == 32


def test_a_plan_is_found_again_byte_for_byte(store: PlanStore) -> None:
    plan = drawn()
    store.save(KEY, plan)
    assert store.load(KEY) == plan
    assert Plan.parse(plan.encode(KEY), KEY).encode(KEY) == plan.encode(KEY)


def test_it_is_private_and_so_is_its_directory_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        plans = PlanStore(tmp_path / "state")
        with plans.held(KEY):
            plans.save(KEY, drawn())
        assert plans.path(KEY).stat().st_mode & 0o777 == 0o600
        assert plans.path(KEY).parent.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_it_is_never_rewritten(store: PlanStore) -> None:
    first = drawn()
    store.save(KEY, first)
    with pytest.raises(AlreadyExists):
        store.save(KEY, drawn())
    assert store.load(KEY) == first


def test_deleting_is_final_and_may_be_repeated(store: PlanStore) -> None:
    store.save(KEY, drawn())
    store.delete(KEY)
    store.delete(KEY)
    assert store.load(KEY) is None


def test_each_of_the_four_makes_another_plan() -> None:
    keys = [
        KEY,
        replace(KEY, registry="https://other.example.org"),
        replace(KEY, repository=RepositoryName.parse("acme/other")),
        replace(KEY, directory="/data/other"),
        replace(KEY, signer=BOB),
        replace(KEY, directory=os.fsdecode(b"/data/\xff")),
    ]
    assert len({key.file_name for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b"plan:v1", b"plan:v2"),
        lambda data: data.replace(b"/data/model", b"/data/other"),
        lambda data: json.dumps(json.loads(data) | {"manifest": "AAAA"}, sort_keys=True).encode(),
        lambda data: data.replace(b'"statement":"', b'"statement":"AAAA'),
    ],
    ids=["empty", "cut off", "longer", "another version", "another directory", "another manifest", "other bytes"],
)
def test_an_unsound_plan_is_deleted(store: PlanStore, spoil) -> None:
    store.save(KEY, drawn())
    path = store.path(KEY)
    path.write_bytes(spoil(path.read_bytes()))
    assert store.load(KEY) is None
    assert not path.exists()


@pytest.mark.parametrize("changes", [{"signer": BOB}, {"repository": RepositoryName.parse("acme/elsewhere")}])
def test_a_plan_for_another_release_is_refused(changes: dict) -> None:
    plan = drawn(**changes)
    with pytest.raises(PqregError, match="another repository's or another signer's"):
        Plan.parse(plan.encode(KEY), KEY)


def test_a_plan_behind_a_link_is_not_read(store: PlanStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(drawn().encode(KEY))
    store.path(KEY).symlink_to(elsewhere)
    with pytest.raises(PqregError, match="cannot read"):
        store.load(KEY)


def test_one_push_at_a_time(store: PlanStore) -> None:
    with pytest.raises(Conflict, match="another push"), store.held(KEY):
        pass
    with store.held(replace(KEY, directory="/data/other")):
        pass


def test_what_a_killed_save_left_is_swept_and_other_plans_are_left_alone(tmp_path: Path) -> None:
    plans = PlanStore(tmp_path)
    other = replace(KEY, signer=BOB)
    with plans.held(KEY), plans.held(other):
        mine, theirs = temporary_path(plans.path(KEY)), temporary_path(plans.path(other))
        mine.write_bytes(b"half")
        theirs.write_bytes(b"half")
    with plans.held(KEY):
        assert not mine.exists()
        assert theirs.exists()
