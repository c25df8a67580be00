# SPDX-License-Identifier: Apache-2.0
"""Models of Hugging Face's transformers, from a verified release.

::

    from transformers import AutoModelForCausalLM, AutoTokenizer
    from pq_registry.loader.integrations.transformers import from_pretrained

    tokenizer = from_pretrained(AutoTokenizer, "acme/teuken-7b:v1")
    model = from_pretrained(AutoModelForCausalLM, "acme/teuken-7b:v1", dtype="bfloat16")

Weights come from ``load``: every tensor was verified in the memory the model's parameters are made of. Everything else
(configuration, tokenizer, templates) is verified and written to a private directory that is gone when this returns.
Which safetensors files belong to the model is what transformers takes: ``model.safetensors``, or the files that
``model.safetensors.index.json`` names.

Nothing that is not in the release is read, and no code comes with it: a configuration that names code in another
repository is refused, and one that names code in the release unless ``trust_remote_code=True`` says so, which then
runs the release's own, verified code.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pq_registry import limits
from pq_registry.errors import FormatError, PqregError, UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.api import load_opened, open_verified
from pq_registry.loader.integrations.materialise import materialise, private_directory
from pq_registry.loader.opened import Opened
from pq_registry.loader.options import LoadOptions, Request

_DECIDED: Final = frozenset({"framework", "names", "files", "into", "rank", "world_size", "plan", "group"})
"""Options of ``load`` that are decided here."""
_READING: Final = frozenset({"progress", "stats", "device", "check_on", "memory"})
"""Options of ``load`` about how weights are read, which the other files have nothing to do with."""
_HUB: Final = frozenset(
    {
        "adapter_kwargs", "cache_dir", "code_revision", "force_download", "gguf_file", "local_files_only", "proxies",
        "revision", "state_dict", "use_safetensors",
    }
)  # fmt: skip
"""Arguments of ``from_pretrained`` that say where files come from; here it is the release that does."""
_WEIGHTS: Final = frozenset(
    {".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pkl", ".pt", ".pth", ".safetensors"}
)
"""Files that are not written to the private directory."""
_IMPLEMENTATIONS: Final = frozenset(
    {"attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"}
)
"""Keys of a configuration that can name a kernel to be fetched from a hub and run, as ``owner/name``."""


def from_pretrained(auto_class: Any, release: Any, *model_args: Any, **kwargs: Any) -> Any:
    """What ``auto_class.from_pretrained`` gives, of a verified release.

    Args:
        auto_class: a class of transformers: ``AutoModel...``, a model's, or that of a tokenizer, processor or
            configuration.
        release: as for ``pq_registry.load``.
        *model_args: for the model's constructor.
        **kwargs: those of ``pq_registry.load`` (``loader.options.LoadOptions``) that say how the release is found and
            read; ``subfolder``, ``variant``, ``trust_remote_code``; all others are for transformers.

    Raises:
        PqregError: if the release is not what was signed.
        UsageError: for an argument that means nothing here, code that is not trusted, or whatever transformers objects
            to; its own error is the cause.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UsageError(
            "transformers is not installed", expected="transformers", hint='pip install "pq-registry[transformers]"'
        )
    _refuse(kwargs, _DECIDED | _HUB)
    ours = {name: kwargs.pop(name) for name in LoadOptions.__annotations__ if name in kwargs}
    trusted = kwargs.pop("trust_remote_code", None) is True
    request = Request.of({**ours, "framework": "torch"})
    finding = {name: value for name, value in ours.items() if name not in _READING}
    with open_verified(release, framework="torch", **finding) as opened:
        files = [file for file in opened.files() if _is_small(file, trusted=trusted)]
        room = sum(file.size for file in files)
        sealed = opened.release.unsealed is not None
        with private_directory(request.settings, room=room, secret=sealed) as directory:
            materialise(opened.release, directory, include=lambda file: file in files)
            model = _Making(auto_class, opened, directory, kwargs, trusted=trusted)
            return model.model(request, model_args) if _makes_models(auto_class) else model.other()


class _Making:
    """One call of ``from_pretrained``: what it was given, and where the verified files are."""

    def __init__(
        self, auto_class: Any, opened: Opened, directory: Path, kwargs: dict[str, Any], *, trusted: bool
    ) -> None:
        self._class = auto_class
        self._opened = opened
        self._subfolder = str(kwargs.pop("subfolder", "") or "").strip("/")
        self._variant = kwargs.pop("variant", None)
        self._folder = directory / self._subfolder
        self._kwargs = kwargs
        self._local = {"local_files_only": True, "trust_remote_code": trusted}
        if self._subfolder and not any(file.path.text.startswith(f"{self._subfolder}/") for file in opened.files()):
            raise UsageError(f"the release has no folder {self._subfolder!r}"[:200], expected="one of its folders")
        for file in opened.files():
            if file.path.suffix == ".json" and "config" in file.path.parts[-1]:
                _check_config(opened, file, given=kwargs, trusted=trusted)

    def other(self) -> Any:
        """A tokenizer, processor or configuration."""
        with _objections(self._opened):
            return self._named(self._class.from_pretrained(self._folder, **self._local, **self._kwargs))

    def model(self, request: Request, model_args: tuple[Any, ...]) -> Any:
        """A model whose parameters are verified tensors."""
        weights = _weights(self._opened, self._subfolder, self._variant)
        with _objections(self._opened):
            config, rest = self._config()
            model_class, config = self._resolved(config, rest)
            self._add_generation(model_class, rest)
        if request.device != "cpu":
            rest.setdefault("device_map", request.device)
        tensors = load_opened(self._opened.release, replace(request, files=weights))
        with _objections(self._opened):
            made = model_class.from_pretrained(None, *model_args, config=config, state_dict=tensors, **rest)
        # With output_loading_info a pair.
        self._named(made[0] if isinstance(made, tuple) else made)
        return made

    def _config(self) -> tuple[Any, dict[str, Any]]:
        """The configuration, and the arguments it did not take; those about dtypes are the model's."""
        from transformers import AutoConfig

        rest = dict(self._kwargs)
        config = rest.pop("config", None)
        if config is not None and not isinstance(config, str | Path):
            return config, rest
        if config is not None:
            raise UsageError("config= is a path", expected="a configuration object, or the release's own")
        kept = {name: rest.pop(name) for name in ("dtype", "torch_dtype", "quantization_config") if name in rest}
        config_class = getattr(self._class, "config_class", None) or AutoConfig
        config, rest = config_class.from_pretrained(self._folder, return_unused_kwargs=True, **self._local, **rest)
        rest.pop("trust_remote_code", None)
        return config, {**rest, **kept}

    def _resolved(self, config: Any, rest: Mapping[str, Any]) -> tuple[Any, Any]:
        """The model's class and its configuration; an Auto class decides by the configuration, on no device."""
        if not hasattr(self._class, "from_config"):
            return self._class, config
        import torch

        chosen = {name: rest[name] for name in _IMPLEMENTATIONS if name in rest}
        with torch.device("meta"):
            skeleton = self._class.from_config(config, trust_remote_code=self._local["trust_remote_code"], **chosen)
        if type(skeleton.config) is not type(config):  # the text model of a composite one
            quantization = getattr(config, "quantization_config", None)
            config = config.get_text_config()
            if quantization is not None:
                config.quantization_config = quantization
        return type(skeleton), config

    def _add_generation(self, model_class: Any, rest: dict[str, Any]) -> None:
        """How the model generates text, from its own file or the configuration, as transformers does."""
        from transformers import GenerationConfig

        if not model_class.can_generate() or rest.get("generation_config") is not None:
            return
        if (self._folder / "generation_config.json").exists():
            rest["generation_config"] = GenerationConfig.from_pretrained(self._folder, local_files_only=True)
        else:
            rest["generation_config"] = GenerationConfig.from_pretrained(
                self._folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
            )

    def _named(self, made: Any) -> Any:
        """``made``, called after the release rather than the private directory."""
        name = f"{self._opened.name}@{self._opened.digest}"
        named: list[Any] = [made, getattr(made, "config", None)]
        for one in named:
            if hasattr(one, "name_or_path"):
                one.name_or_path = name
        return made


def _makes_models(auto_class: Any) -> bool:
    from transformers import PreTrainedModel

    return hasattr(auto_class, "from_config") or (
        isinstance(auto_class, type) and issubclass(auto_class, PreTrainedModel)
    )


def _is_small(file: FileEntry, *, trusted: bool) -> bool:
    return (
        file.path.suffix not in _WEIGHTS
        and file.size <= limits.READ_FILE_BYTES
        and (trusted or file.path.suffix != ".py")
    )


def _refuse(kwargs: Mapping[str, Any], names: Collection[str]) -> None:
    found = sorted(name for name in kwargs if name in names)
    if found:
        raise UsageError(
            f"{found[0]} means nothing here", expected="a reference, which says everything about where files come from",
            found=", ".join(found),
        )  # fmt: skip


def _weights(opened: Opened, subfolder: str, variant: str | None) -> list[str]:
    """The safetensors files of the model, as transformers would choose them."""
    before = f"{subfolder}/" if subfolder else ""
    middle = f".{variant}" if variant else ""
    paths = {file.path.text for file in opened.files()}
    single, index = f"{before}model{middle}.safetensors", f"{before}model.safetensors.index{middle}.json"
    if single in paths:
        return [single]
    if index not in paths:
        raise UsageError("the release has no model for transformers", expected=f"{single} or {index}")
    try:
        chosen = {before + name for name in json.loads(opened.read_file(index))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FormatError(
            f"{index} is malformed", expected="an object with a weight_map of tensors and files"
        ) from None
    if not chosen <= paths:
        raise FormatError(
            f"{index} names files that are not in the release", found=", ".join(sorted(chosen - paths))[:200]
        )
    return sorted(chosen)


def _check_config(opened: Opened, file: FileEntry, *, given: Mapping[str, Any], trusted: bool) -> None:
    """Refuse a configuration that names code transformers would fetch from elsewhere."""
    if file.size > limits.MANIFEST_BYTES:
        raise UsageError(
            f"{file.path} is too large for a configuration", expected=f"at most {limits.MANIFEST_BYTES} bytes",
            found=f"{file.size} bytes",
        )  # fmt: skip
    try:
        waiting: list[Any] = [json.loads(opened.read_file(file.path.text))]
    except (ValueError, RecursionError):
        return  # whoever reads it says so
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        if not isinstance(value, dict):
            continue
        waiting += value.values()
        for key, named in value.items():
            kernels = [text for text in _texts(named) if key in _IMPLEMENTATIONS - given.keys() and _is_fetched(text)]
            modules = [text for text in _texts(named) if key == "auto_map" and trusted and "--" in text]
            if kernels or modules:
                raise UsageError(
                    f"{file.path} names code that is not in the release", expected="none",
                    found=(kernels + modules)[0][:120],
                    hint=f'{key}="sdpa", or another that comes with transformers' if kernels else
                    "without trust_remote_code, a class of transformers is used if there is one",
                )  # fmt: skip


def _is_fetched(implementation: str) -> bool:
    """Whether transformers would get it from a hub: what says so, and flash attention for want of another package."""
    by_default = "flash_attention" in implementation and importlib.util.find_spec("kernels") is not None
    return "/" in implementation or by_default


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


@contextmanager
def _objections(opened: Opened) -> Iterator[None]:
    """What transformers objects to, as an error of ours with its own as the cause."""
    try:
        yield
    except PqregError:
        raise
    except Exception as error:
        raise UsageError(
            f"transformers refuses {opened.name}", found=f"{type(error).__name__}: {error}"[:500]
        ) from error
