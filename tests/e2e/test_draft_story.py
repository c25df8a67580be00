# SPDX-License-Identifier: Apache-2.0
"""From the Hub's unmodified client to a verified release: upload, look, sign, pull. Nobody else sees it before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.shell import Shell
from tests.hub_site import HubSite, hub_site
from tests.publishing import make_model

NAME = "acme/tuned"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("drafts") / "registry", publish=False) as site:
        yield site


@pytest.fixture(scope="module")
def alice(site: HubSite, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A publisher with a key, and a trust file that knows it."""
    root = tmp_path_factory.mktemp("alice")
    shell = Shell(root, "alice", PQREG_REGISTRY=site.url, PQREG_TOKEN=site.token_of("owner"), PQREG_TRUST="trust.json")
    shell.run("key", "generate", "alice", "--no-passphrase")
    shell.run("trust", "init", "trust.json", "--publisher", "acme=alice.pqpub")
    return shell


def test_uploaded_looked_at_signed_and_pulled(site: HubSite, alice: Shell, tmp_path: Path) -> None:
    model = make_model(alice.root / "tuned", "a tuned one", size=3_000_000)
    (model / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    home, token = tmp_path / "hf", site.token_of("publisher")
    site.hf(home, "upload", NAME, str(model), ".", token=token)

    reader = Shell(tmp_path, "bob", PQREG_REGISTRY=site.url, PQREG_TOKEN=site.token_of("reader"))
    assert reader.run("draft", "list", NAME, "--json", expect=3).problem["type"] == "/problems/not-found"
    assert site.hf(home, "download", NAME, token=site.token_of("reader"), check=False).returncode != 0

    (draft,) = alice.run("draft", "list", NAME, "--json").json
    assert (draft["name"], draft["kind"], draft["files"], draft["signed"]) == ("main", "branch", 3, False)
    shown = alice.run("draft", "show", f"{NAME}@draft")
    assert "model.safetensors" in shown.out
    assert "signed   no" in shown.out
    assert "nobody signed this" in shown.err

    (model / "config.json").write_text('{"seed": "another"}')
    sign = ("sign", f"{NAME}@draft", "--key", "alice.pqkey", "--tag", "v1")
    other = alice.run(*sign, "--against", "tuned", expect=1)
    assert "config.json has" in other.err
    make_model(model, "a tuned one", size=3_000_000)

    signed = alice.run(*sign, "--head", draft["head"], "--json")
    result = signed.json
    assert (result["minted"], result["compared"], result["draft"]["dropped"]) == (True, False, True)
    assert [file["path"] for file in result["files"]] == ["config.json", "model.safetensors", "sub/empty.txt"]
    assert result["log_index"] is not None
    gone = alice.run("draft", "show", f"{NAME}@draft", "--json", expect=3)
    assert gone.problem["type"] == "/problems/revision-not-found"

    alice.run("pull", f"{NAME}:v1", "pulled")
    for path in ("config.json", "model.safetensors", "sub/empty.txt"):
        assert (alice.root / "pulled" / path).read_bytes() == (model / path).read_bytes()
    site.hf(home, "download", NAME, "--revision", "v1", "--local-dir", "back", token=site.token_of("reader"))
    assert (home / "back" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_draft_on_top_of_what_is_signed(site: HubSite, alice: Shell, tmp_path: Path) -> None:
    """Where main is signed, a push to main changes the draft of main and nothing else."""
    name, home, token = "acme/grown", tmp_path / "hf", site.token_of("publisher")
    model = make_model(alice.root / "grown", "first", size=1000)
    first = alice.run("push", "grown", name, "--key", "alice.pqkey", "--json").json["digest"]
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("# Grown\n")
    site.hf(home, "upload", name, str(tmp_path / "card"), ".", token=token)
    assert alice.run("show", name, "--json").json["digest"] == first
    (model / "README.md").write_text("# Grown\n")
    report = alice.run("sign", f"{name}@draft", "--key", "alice.pqkey", "--against", "grown")
    assert f"signed {name}@draft as {name}:main" in report.out
    assert "about to sign" in report.out
    assert alice.run("show", name, "--json").json["digest"] != first
    alice.run("pull", name, "pulled-again")
    assert (alice.root / "pulled-again" / "README.md").read_text() == "# Grown\n"


def test_dropping(site: HubSite, alice: Shell, tmp_path: Path) -> None:
    name, home = "acme/dropped", tmp_path / "hf"
    make_model(tmp_path / "model", "dropped", size=1000)
    site.hf(home, "upload", name, str(tmp_path / "model"), ".", "--revision", "dev/x", token=site.token_of("publisher"))
    assert [item["name"] for item in alice.run("draft", "list", name, "--json").json] == ["dev/x", "main"]
    without_tag = alice.run("sign", f"{name}@draft/dev/x", "--key", "alice.pqkey", expect=2)
    assert "--tag TAG" in without_tag.err
    kept = alice.run("draft", "drop", f"{name}@draft/dev/x", "--head", "0" * 40, "--json", expect=1)
    assert kept.problem["type"] == "/problems/conflict"
    alice.run("draft", "drop", f"{name}@draft/dev/x")
    assert [item["name"] for item in alice.run("draft", "list", name, "--json").json] == ["main"]
