# SPDX-License-Identifier: Apache-2.0
"""Importing from a Hub, which is another registry of ours: what is signed, what is said, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pq_registry.errors import EXIT_REFUSED, EXIT_USAGE
from pq_registry.format.digest import Digest
from pq_registry.format.importing import IMPORT_NAME, SIGNATURE_NAME
from pq_registry.format.instant import utc_now
from pq_registry.mirror import imports
from pqreg_cli.main import run
from pqreg_keys import keyfile
from tests import oms_signers
from tests.hub_site import HubSite, go_online, hub_site
from tests.samples import YEAR, publisher, trust_file
from tests.tensors import safetensors_bytes

TENSORS, _ = safetensors_bytes({"w": ("F32", (3000,))}, 1)
MODEL = {
    "README.md": b"# Foreign\n",
    "config.json": b'{"a": 1}',
    "model.safetensors": TENSORS,
    "sub/vocab.txt": b"word\n" * 1000,
}
Pqreg = Callable[..., tuple[int, Any, str]]


@dataclass
class Sites:
    """A Hub, the registry that imports from it, and what the importer holds."""

    hub: HubSite
    home: HubSite
    root: Path
    signer: ec.EllipticCurvePrivateKey

    def upload(self, name: str, files: dict[str, bytes], *, sign: bool = False, revision: str = "main") -> None:
        """Put a model on the Hub as anybody does."""
        folder = self.root / name.replace("/", "-")
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        if sign:
            oms_signers.sign_with_key(folder, self.signer, self.root / "work")
        api = self.hub.api()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, revision=revision)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    root = tmp_path_factory.mktemp("mirror-in")
    with pytest.MonkeyPatch.context() as patch:
        go_online(patch)
        # How files travel to the Hub is not what is tested here.
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        with hub_site(root / "hub", publish=False) as hub, hub_site(root / "home", publish=False) as home:
            now = utc_now()
            (root / "trust.json").write_bytes(trust_file(created=now, expires=now + YEAR).encode())
            (root / "alice.pqkey").write_bytes(bytes(keyfile.encode(publisher("alice").material(), None)))
            (root / "alice.pqkey").chmod(0o600)
            (root / "signer.pem").write_bytes(b"")
            made = Sites(hub, home, root, ec.generate_private_key(ec.SECP384R1()))
            (root / "signer.pem").write_bytes(oms_signers.public_pem(made.signer))
            made.upload("org/model", MODEL, sign=not oms_signers.LACKING)
            hub.publish("acme/plain:v1", {"config.json": b'{"b": 2}', "vocab.txt": b"one\n" * 500})
            yield made


@pytest.fixture
def pqreg(sites: Sites, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Pqreg:
    """Runs a command as the importer; answers status, its JSON or text, and errors."""
    go_online(monkeypatch)
    for name, value in {
        "PQREG_REGISTRY": sites.home.url,
        "PQREG_TOKEN": sites.home.token,
        "PQREG_TRUST": str(sites.root / "trust.json"),
        "PQREG_KEY": str(sites.root / "alice.pqkey"),
        "PQREG_HUB": sites.hub.url,
        "PQREG_HUB_TOKEN": sites.hub.token,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }.items():
        monkeypatch.setenv(name, value)

    def call(*words: Any) -> tuple[int, Any, str]:
        capsys.readouterr()
        status = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out.startswith("{") else out, err

    return call


def test_a_model_is_imported_and_every_command_says_so(sites: Sites, pqreg: Pqreg, tmp_path: Path) -> None:
    commit = sites.hub.api().model_info("org/model").sha
    status, made, err = pqreg("mirror", "pull", "hf://org/model", "acme/imported:v1", "--license", "MIT", "--json")
    assert status == 0, err
    assert made["import"]["commit"] == commit
    assert made["minted"]
    assert not list((tmp_path / "state/pqreg/imports").iterdir())

    status, again, _ = pqreg("mirror", "pull", "hf://org/model", "acme/imported:v1", "--license", "MIT", "--json")
    assert (status, again["minted"], again["digest"]) == (0, False, made["digest"])

    status, shown, err = pqreg("show", "acme/imported:v1", "--json")
    assert status == 0, err
    assert shown["import"]["repository"] == "org/model"
    assert {item["path"] for item in shown["files"]} >= {*MODEL, IMPORT_NAME}
    status, text, _ = pqreg("show", "acme/imported:v1")
    assert f"hf://org/model@{commit}" in text
    assert "not by the signer of this release" in text

    status, pulled, err = pqreg("pull", "acme/imported:v1", tmp_path / "out", "--json")
    assert status == 0, err
    assert pulled["import"]["commit"] == commit
    assert {name: (tmp_path / "out" / name).read_bytes() for name in MODEL} == MODEL
    status, verified, err = pqreg("verify", tmp_path / "out", "--expect", "acme/imported", "--full", "--json")
    assert (status, verified["import"]["endpoint"]) == (0, sites.hub.url), err
    status, verified, _ = pqreg("verify", "acme/imported:v1", "--json")
    assert verified["import"]["commit"] == commit


def test_the_page_says_so_in_both_languages(sites: Sites, pqreg: Pqreg) -> None:
    status, made, _ = pqreg("mirror", "pull", "hf://org/model", "acme/shown:v1", "--json")
    assert status == 0
    path = f"/models/acme/shown/releases/{made['digest'].removeprefix('sha256:')}"
    for language, words in (("en", "Imported, not made by the signer"), ("de", "Importiert, nicht vom Signierenden")):
        page = sites.home.get(path, Accept_Language=language)
        assert page.status == 200
        assert words in page.body.decode()
        assert "hf://org/model" in page.body.decode()
    # What anybody can write into a file of theirs is not believed.
    lie = {IMPORT_NAME: b'{"predicateType": "<script>alert(1)</script>"}', "config.json": b"{}"}
    digest = sites.home.publish("acme/lie:v1", lie)
    shown_page = sites.home.get(f"/models/acme/lie/releases/{digest.hex}").body.decode()
    assert "its claim does not hold" in shown_page
    assert "<script>alert" not in shown_page
    status, shown, _ = pqreg("show", "acme/lie:v1", "--json")
    assert (status, shown["import"]) == (0, None)
    assert "says nothing about this release" in pqreg("show", "acme/lie:v1")[2]


@pytest.mark.skipif(oms_signers.LACKING, reason=oms_signers.REASON)
def test_the_makers_signature_is_demanded_and_kept(sites: Sites, pqreg: Pqreg, tmp_path: Path) -> None:
    words = ("mirror", "pull", "hf://org/model", "acme/signed:v1", "--require-signature", "key", "--json")
    status, made, err = pqreg(*words, "--signer-key", sites.root / "signer.pem")
    assert status == 0, err
    assert made["import"]["signature"]["verified"]["by"] == "key"
    assert made["import"]["signature"]["kept"] == SIGNATURE_NAME
    other = tmp_path / "other.pem"
    other.write_bytes(oms_signers.public_pem(ec.generate_private_key(ec.SECP384R1())))
    status, _, err = pqreg(*words, "--signer-key", other)
    assert status == EXIT_REFUSED
    assert json.loads(err)["type"] == "/problems/signature-invalid"
    status, _, err = pqreg("mirror", "pull", "hf://org/model", "acme/x", "--require-signature", "key")
    assert (status, "--signer-key" in err) == (EXIT_USAGE, True)
    status, _, err = pqreg("mirror", "pull", "hf://org/model", "acme/x", "--signer-ca", other)
    assert (status, "--require-signature certificate" in err) == (EXIT_USAGE, True)


def test_a_release_is_imported_with_its_lineage(sites: Sites, pqreg: Pqreg) -> None:
    digest = sites.hub.releases["acme/plain:v1"]
    status, made, err = pqreg(
        "mirror", "pull", "hf://acme/plain@v1", "acme/again:v1", "--require-signature", "release", "--json"
    )
    assert status == 0, err
    assert made["lineage"] == [{"name": "acme/plain", "release": str(digest)}]
    assert made["import"]["signature"]["verified"]["release"] == str(digest)


def test_a_release_on_a_hub_is_verified_without_its_registry(
    sites: Sites, pqreg: Pqreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PQREG_REGISTRY")
    digest = sites.hub.releases["acme/plain:v1"]
    status, verified, err = pqreg(
        "verify", "hf://acme/plain@v1", "--expect", f"acme/plain@{digest}", "--full", "--json"
    )
    assert status == 0, err
    assert (verified["digest"], verified["commit"]) == (str(digest), digest.hex[:40])
    assert Path(verified["path"]).is_relative_to(tmp_path / "hub")
    status, _, err = pqreg("verify", "hf://acme/plain@v1", "--expect", "acme/other", "--json")
    assert (status, json.loads(err)["type"]) == (EXIT_REFUSED, "/problems/name-mismatch")
    [weights] = Path(verified["path"]).rglob("vocab.txt")
    target = weights.resolve()
    target.chmod(0o644)
    target.write_bytes(b"two\n" * 500)
    status, _, err = pqreg("verify", "hf://acme/plain@v1", "--json")
    assert (status, json.loads(err)["type"]) == (EXIT_REFUSED, "/problems/shard-mismatch")
    status, _, err = pqreg("verify", "hf://org/model", "--json")
    assert (status, json.loads(err)["type"]) == (EXIT_REFUSED, "/problems/signature-invalid")
    monkeypatch.delenv("PQREG_TRUST")
    assert json.loads(pqreg("verify", "hf://acme/plain@v1", "--json")[2])["type"] == "/problems/trust-missing"


def test_a_changed_import_is_not_published_as_one(sites: Sites, pqreg: Pqreg, tmp_path: Path) -> None:
    assert pqreg("mirror", "pull", "hf://org/model", "acme/changed:v1", "--quiet")[0] == 0
    assert pqreg("pull", "acme/changed:v1", tmp_path / "out", "--quiet")[0] == 0
    assert pqreg("push", tmp_path / "out", "acme/copy:v1", "--quiet")[0] == 0
    (tmp_path / "out/config.json").write_bytes(b'{"tuned": true}')
    status, _, err = pqreg("push", tmp_path / "out", "acme/tuned:v1", "--json")
    assert status == EXIT_REFUSED
    problem = json.loads(err)
    assert problem["found"] == "it is about other files"
    (tmp_path / "out" / IMPORT_NAME).unlink()
    assert pqreg("push", tmp_path / "out", "acme/tuned:v1", "--quiet")[0] == 0


def test_an_import_that_was_cut_off_goes_on(
    sites: Sites, pqreg: Pqreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(imports, "push", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert pqreg("mirror", "pull", "hf://org/model", "acme/cut:v1")[0] == 130
    [place] = (tmp_path / "state/pqreg/imports").iterdir()
    assert Digest.of((place / "model/model.safetensors").read_bytes()) == Digest.of(TENSORS)
    status, made, err = pqreg("mirror", "pull", "hf://org/model", "acme/cut:v1", "--keep", "--json")
    assert (status, made["minted"]) == (0, True), err
    assert place.exists()


def test_what_is_missing_or_malformed_is_said(sites: Sites, pqreg: Pqreg) -> None:
    assert pqreg("mirror", "pull", "hf://org/nothing", "acme/x")[0] == 3
    assert pqreg("mirror", "pull", "org/model", "acme/x")[0] == EXIT_USAGE
    assert pqreg("mirror", "pull", "hf://org/model", "acme/x@sha256:" + "0" * 64)[0] == EXIT_USAGE
    assert pqreg("mirror", "pull", "hf://org/model@gone", "acme/x")[0] == 3


def test_a_token_of_another_hub_stays_home(sites: Sites, pqreg: Pqreg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_HUB", "https://hub.example")
    status, _, err = pqreg("mirror", "pull", "hf://org/model", "acme/x", "--hub", sites.hub.url)
    assert status == 3
    assert "was not given for" in err
    assert sites.hub.token not in err
