# SPDX-License-Identifier: Apache-2.0
"""A model of pickles, imported with --convert: what is published, and what every command and the page say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")

from pq_registry.errors import EXIT_REFUSED  # noqa: E402
from pq_registry.format.digest import Digest  # noqa: E402
from pq_registry.format.instant import utc_now  # noqa: E402
from pqreg_cli.main import run  # noqa: E402
from pqreg_keys import keyfile  # noqa: E402
from tests.fake_hub import fake_hub  # noqa: E402
from tests.hub_site import go_online, hub_site  # noqa: E402
from tests.samples import YEAR, publisher, trust_file  # noqa: E402

pytestmark = pytest.mark.torch


def test_pickles_are_imported_as_safetensors(tmp_path: Path, monkeypatch, capsys) -> None:
    go_online(monkeypatch)
    torch.save({"w": torch.arange(6.0).reshape(2, 3)}, tmp_path / "weights")
    original = (tmp_path / "weights").read_bytes()
    now = utc_now()
    (tmp_path / "trust.json").write_bytes(trust_file(created=now, expires=now + YEAR).encode())
    (tmp_path / "alice.pqkey").write_bytes(bytes(keyfile.encode(publisher("alice").material(), None)))
    (tmp_path / "alice.pqkey").chmod(0o600)

    def pqreg(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    with fake_hub() as hub, hub_site(tmp_path / "home", publish=False) as home:
        for name, value in {
            "PQREG_REGISTRY": home.url,
            "PQREG_TOKEN": home.token,
            "PQREG_TRUST": str(tmp_path / "trust.json"),
            "PQREG_KEY": str(tmp_path / "alice.pqkey"),
            "PQREG_HUB": hub.url,
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }.items():
            monkeypatch.setenv(name, value)
        hub.add({"config.json": b"{}", "pytorch_model.bin": original})
        status, _, err = pqreg("mirror", "pull", "hf://org/model", "acme/old:v1")
        assert status == EXIT_REFUSED
        assert "--convert" in err

        status, out, err = pqreg("mirror", "pull", "hf://org/model", "acme/old:v1", "--convert", "--json")
        assert status == 0, err
        made = json.loads(out)
        assert made["import"]["converted"] == [
            {"path": "pytorch_model.bin", "into": "model.safetensors", "torch": torch.__version__}
        ]
        assert not list((tmp_path / "state/pqreg/imports").iterdir())

        status, out, err = pqreg("show", "acme/old:v1")
        assert status == 0, err
        assert "pytorch_model.bin to model.safetensors" in " ".join(out.split())
        page = f"/models/acme/old/releases/{made['digest'].removeprefix('sha256:')}"
        for language, words in (("en", "Converted by the importer"), ("de", "Vom Importeur umgewandelt")):
            assert words in home.get(page, Accept_Language=language).body.decode()

        status, _, err = pqreg("pull", "acme/old:v1", tmp_path / "out", "--json")
        assert status == 0, err
    statement = json.loads((tmp_path / "out/pqreg.import.json").read_bytes())
    (converted,) = statement["predicate"]["converted"]
    assert converted["sha256"] == Digest.of(original).hex
    data = (tmp_path / "out/model.safetensors").read_bytes()
    assert converted["into"] == {"path": "model.safetensors", "sha256": Digest.of(data).hex, "size": len(data)}
    assert torch.equal(torch.frombuffer(bytearray(data[-24:]), dtype=torch.float32), torch.arange(6.0))
