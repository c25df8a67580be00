# SPDX-License-Identifier: Apache-2.0
"""The Hub's own client, unmodified, reads a registry in this process; as a process: tests/e2e/test_hub_download.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hub_site import FILES, HubSite, go_online, hub_site


def test_the_client_reads_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="the client of the Hub is not installed: pip install '.[hf]'")
    go_online(monkeypatch)
    with hub_site(tmp_path / "registry") as site:
        read(site, tmp_path / "cache")


def read(site: HubSite, cache: Path) -> None:
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    commit = site.releases["acme/minilm:main"].hex[:40]
    api = site.api()
    info = api.model_info("acme/minilm", files_metadata=True)
    assert info.sha == commit
    assert [file.path for file in api.list_repo_tree("acme/minilm", recursive=True) if hasattr(file, "lfs")] == [
        sibling.rfilename for sibling in info.siblings or ()
    ]
    assert len(api.get_paths_info("acme/minilm", ["config.json", "1_Pooling"], expand=True)) == 2
    assert [ref.name for ref in api.list_repo_refs("acme/minilm", include_pull_requests=True).branches] == ["main"]
    assert [each.commit_id for each in api.list_repo_commits("acme/minilm")] == [commit]
    assert [model.id for model in api.list_models(search="minilm", author="acme", full=True)] == ["acme/minilm"]
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    api.auth_check("acme/minilm", write=True)
    assert not api.repo_exists("acme/absent")
    assert not api.file_exists("acme/minilm", "nope")
    for error, name, revision in (
        (RepositoryNotFoundError, "acme/absent", None),
        (RevisionNotFoundError, "acme/minilm", "x"),
    ):
        with pytest.raises(error):
            api.model_info(name, revision=revision)
    with pytest.raises(RepositoryNotFoundError):
        site.api(False).model_info("acme/minilm")
    there = Path(api.snapshot_download("acme/minilm", cache_dir=cache))
    assert {path: (there / path).read_bytes() for path in FILES} == FILES
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("acme/minilm", "nope.json", cache_dir=cache)
    absent = cache / "models--acme--minilm" / ".no_exist" / commit / "nope.json"
    assert os.path.lexists(absent), "the client may remember what is not there"
