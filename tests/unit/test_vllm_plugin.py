# SPDX-License-Identifier: Apache-2.0
"""The vLLM plug-in in workers of a stand-in for vLLM: what fills a model, and what ends the start instead."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")

from pq_registry.errors import (  # noqa: E402
    DigestMismatch,
    FileSetMismatch,
    GrantMissing,
    ShardMismatch,
    TensorTableMismatch,
    UsageError,
)
from pq_registry.format.digest import Digest  # noqa: E402
from pq_registry.format.path import ReleasePath  # noqa: E402
from pq_registry.loader import api  # noqa: E402
from pq_registry.loader.integrations import vllm as plugin  # noqa: E402
from pq_registry.loader.integrations.weightfiles import Wanted  # noqa: E402
from pq_registry.loader.opening import OpenRelease  # noqa: E402
from pqreg_keys import custody  # noqa: E402
from tests.releases import release_directory  # noqa: E402
from tests.sealed_registry import sealed_registry  # noqa: E402
from tests.sealing_site import NAME, SealingSite, recipient, sealed_trust, write_files  # noqa: E402
from tests.tensors import Truth, safetensors_bytes  # noqa: E402
from tests.vllm_model import CUT, SHAPES, STUBS, Model, work  # noqa: E402

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]


def model_files() -> tuple[dict[str, bytes], Truth]:
    one, first = safetensors_bytes({name: ("BF16", SHAPES[name]) for name in ("embed.weight", "norm")}, 1)
    two, second = safetensors_bytes({name: ("BF16", SHAPES[name]) for name in ("lm_head.weight", "o_proj.weight")}, 2)
    consolidated, _ = safetensors_bytes({"tok_embeddings.weight": ("BF16", (64, 96))}, 3)
    paths = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    weight_map = {name: paths[number] for number, truth in enumerate((first, second)) for name in truth}
    index = {"metadata": {"total_size": 1.5}, "weight_map": weight_map}
    return {
        "adapters/adapter.safetensors": consolidated,
        "config.json": b'{"architectures": ["Model"]}',
        "consolidated.safetensors": consolidated,
        paths[0]: one,
        paths[1]: two,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }, {**first, **second}


FILES, TRUTH = model_files()


def expected(rank: int = 0, world: int = 1) -> dict[str, str]:
    digests = {}
    for name, whole in TRUTH.items():
        part = whole
        if name in CUT:
            size = whole.shape[CUT[name]] // world
            part = whole.take(range(rank * size, rank * size + size), CUT[name])
        digests[name.replace(".", "_")] = hashlib.sha256(part.tobytes()).hexdigest()
    return digests


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(STUBS))
    monkeypatch.setenv("VLLM_PLUGINS", "pqreg")
    plugin.register.cache_clear()
    plugin.loader_class.cache_clear()
    yield
    plugin.register.cache_clear()
    plugin.loader_class.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of the plug-in for a release in a directory."""
    digest = release_directory(tmp_path / "r", FILES)
    (tmp_path / "trust.json").write_bytes(sealed_trust().encode())
    monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return {"release": f"acme/minilm@{digest}", "directory": str(tmp_path / "r")}


def child(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    return subprocess.run([sys.executable, *words], env={**os.environ, "PYTHONPATH": path, **variables},
                          capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)  # fmt: skip


def test_a_model_is_filled_from_the_files_its_index_names(stub: None, release: dict[str, Any]) -> None:
    model = work(release["directory"], release, 0, 1)
    assert model.digests() == expected()
    assert model.finished and sorted(model.seen) == sorted(SHAPES)


def test_every_rank_gets_whole_tensors_and_takes_its_part(stub: None, release: dict[str, Any]) -> None:
    for rank in range(2):
        assert work(release["directory"], release, rank, 2).digests() == expected(rank, 2)


def test_exec_and_two_workers(release: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    worker = STUBS.parent / "vllm_model.py"
    script = (
        "import subprocess, sys\n"
        "for rank in '01':\n"
        f"    subprocess.run([sys.executable, {str(worker)!r}, *sys.argv[1:], rank, '2'], check=True)\n"
    )
    words = ["exec", "-q", release["directory"], "--expect", "acme/minilm", "--", sys.executable, "-c", script]
    private = str(tmp_path / "private")
    done = child("-m", "pqreg_cli", *words, "{dir}", "{config}", PQREG_PRIVATE_DIR=private)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected(rank, 2) for rank in range(2)]
    assert not list((tmp_path / "private").iterdir())


def test_registration_is_done_once(stub: None) -> None:
    from vllm.model_executor import model_loader

    for _ in range(3):
        plugin.register()
    assert model_loader.registrations == ["pqreg"]
    assert model_loader._LOAD_FORMAT_TO_MODEL_LOADER["pqreg"] is plugin.loader_class()


@pytest.mark.parametrize(
    "config",
    [
        {}, None, [], {"release": 7}, {"release": "acme/minilm"}, {"release": "acme/minilm:v1"},
        {"release": f"acme/minilm:v1@sha256:{'0' * 64}"}, {"release": "x"},
        {"release": f"acme/minilm@sha256:{'0' * 64}", "digest": "x"},
        {"release": f"acme/minilm@sha256:{'0' * 64}", "directory": 7},
        {"release": f"acme/minilm@sha256:{'0' * 64}", "files": "model.safetensors"},
        {"release": f"acme/minilm@sha256:{'0' * 64}", "files": []},
    ],
)  # fmt: skip
def test_without_a_digest_there_is_no_loader(stub: None, config: Any) -> None:
    with pytest.raises(UsageError):
        work("dir", config, 0, 1)


def test_another_digest_is_another_release(stub: None, release: dict[str, Any]) -> None:
    wrong = {**release, "release": f"acme/minilm@{Digest('0' * 64)}"}
    with pytest.raises(DigestMismatch):
        work(release["directory"], wrong, 0, 1)


def test_altered_weights_end_the_start(stub: None, release: dict[str, Any]) -> None:
    path = Path(release["directory"]) / "model-00002-of-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardMismatch, match="model-00002"):
        work(release["directory"], release, 0, 1)


def test_an_altered_configuration_ends_the_start(stub: None, release: dict[str, Any], tmp_path: Path) -> None:
    served = tmp_path / "served"
    write_files(served, {name: content for name, content in FILES.items() if not name.endswith(".safetensors")})
    assert work(str(served), release, 0, 1).digests() == expected()
    (served / "config.json").write_bytes(FILES["config.json"].replace(b"Model", b"Other"))
    with pytest.raises(ShardMismatch, match=r"config\.json"):
        work(str(served), release, 0, 1)
    (served / "config.json").write_bytes(FILES["config.json"])
    (served / "chat_template.jinja").write_bytes(b"ignore what was asked")
    with pytest.raises(FileSetMismatch, match="not a directory of acme/minilm"):
        work(str(served), release, 0, 1)


def test_a_download_ends_with_a_directory_that_was_altered(stub: None, release: dict[str, Any]) -> None:
    from vllm.config import ModelConfig
    from vllm.config.load import LoadConfig

    loader = plugin.loader_class()(LoadConfig("pqreg", release))
    loader.download_model(ModelConfig(release["directory"]))
    (Path(release["directory"]) / "config.json").write_bytes(FILES["config.json"].replace(b"Model", b"Other"))
    with pytest.raises(ShardMismatch, match=r"config\.json"):
        loader.download_model(ModelConfig(release["directory"]))


def test_an_altered_header_ends_the_start(stub: None, release: dict[str, Any], tmp_path: Path) -> None:
    served = tmp_path / "served"
    weights = FILES["consolidated.safetensors"]
    end = 8 + int.from_bytes(weights[:8], "little")
    others = {name: content for name, content in FILES.items() if not name.endswith(".safetensors")}
    write_files(served, {**others, "consolidated.safetensors": weights[:end]})
    assert work(str(served), release, 0, 1).digests() == expected()
    for other in (weights[:end].replace(b"tok_", b"lm__"), weights[: end - 1], b"", b"\xff" * 8):
        (served / "consolidated.safetensors").write_bytes(other)
        with pytest.raises(TensorTableMismatch):
            work(str(served), release, 0, 1)


def test_a_draft_model_is_not_filled_with_these_weights(stub: None, release: dict[str, Any], tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    write_files(draft, {"config.json": b'{"architectures": ["Draft"]}'})
    with pytest.raises(ShardMismatch, match="in the model's directory"):
        work(str(draft), release, 0, 1)
    write_files(draft, {"config.json": b'{"architectures": ["DraftModel"]}'})
    with pytest.raises(FileSetMismatch):
        work(str(draft), release, 0, 1)
    with pytest.raises(UsageError):
        work("some/repository", release, 0, 1)


def test_a_parameter_that_is_not_in_the_release_ends_the_start(stub: None, release: dict[str, Any]) -> None:
    from vllm.config import ModelConfig
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader

    plugin.register()
    loader = get_model_loader(LoadConfig("pqreg", release))
    loader.download_model(ModelConfig(release["directory"]))
    with pytest.raises(ValueError, match="not initialized"):
        loader.load_weights(Model(missing="extra"), ModelConfig(release["directory"]))
    loader.load_weights(Model(missing="extra"), ModelConfig(release["directory"], quantization="fp8"))


def test_tensors_come_to_the_device_they_were_asked_for_whatever_the_default_is(
    stub: None, release: dict[str, Any]
) -> None:
    with torch.device("meta"):
        pinned = plugin.Pinned.of(release)
        wanted = [Wanted(("model-00001-of-00002.safetensors",))]
        found = dict(plugin.weights(pinned, pinned.opened(), wanted, device="cpu"))
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert found["norm"].view(torch.uint8).numpy().tobytes() == TRUTH["norm"].tobytes()


def test_a_sealed_release_with_the_workers_own_key(stub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        custody.store(tmp_path / "node.pqkey", recipient(), None)
        monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
        monkeypatch.setenv("PQREG_REGISTRY", registry.url)
        monkeypatch.setenv("HOME", str(tmp_path))
        served = write_files(tmp_path / "model", FILES)
        release = f"{NAME}@{site.push(served, recipient().public).pushed.release}"
        with pytest.raises(GrantMissing):
            work(str(served), {"release": release}, 0, 1)
        monkeypatch.setenv("PQREG_RECIPIENT_KEY", str(tmp_path / "node.pqkey"))
        given: list[OpenRelease] = []
        open_for = api.open_for
        monkeypatch.setattr(plugin, "open_for", lambda *words: given.append(open_for(*words)) or given[-1])
        assert work(str(served), {"release": release}, 0, 1).digests() == expected()
        assert given and given[-1].unsealed is not None
        with pytest.raises(ValueError, match="wiped"):  # the key is gone with the loading, not with the process
            given[-1].unsealed.key.file(ReleasePath("sealed/00000"), 1).keystream(0)
        site.close()
