# SPDX-License-Identifier: Apache-2.0
"""The vLLM plug-in: ``--load-format pqreg``, weights of a release that every worker verifies for itself.

vLLM finds ``register`` by the entry point group ``vllm.general_plugins`` and calls it in each of its processes. What to
load is said in ``--model-loader-extra-config`` (``Pinned``)::

    {"release": "acme/teuken-7b@sha256:...", "directory": "/srv/teuken"}

The digest is required: a worker is another process, started later, and must not take whatever a tag points to by
then. Registry, trust file and recipient key come from the settings (``PQREG_REGISTRY`` and so on). In every process
that loads weights, in this order:

1. The release is opened and verified (DESIGN §5, steps 0 to 7), and has the digest that was given.
2. The directory that vLLM was given as its model, from which it has read configuration and tokenizer, holds files of
   this release and no others (``integrations.modeldir``). So another model, such as a draft model, is not filled with
   these weights, and a configuration that was altered is not served.
3. Every shard is checked before a tensor of it is given to vLLM (step 8). Tensors own their memory. They are whole:
   the model's own weight loaders take the part that belongs to this rank.
4. Where vLLM's own loader would insist on it, every parameter of the model was in the release.

Nothing falls back to another loader: what cannot be verified ends the start of the engine.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from pq_registry.errors import DigestMismatch, UsageError
from pq_registry.format.name import Reference
from pq_registry.loader.api import iter_opened, open_for
from pq_registry.loader.integrations.modeldir import check_model_directory
from pq_registry.loader.integrations.weightfiles import Wanted, wanted_files
from pq_registry.loader.options import Request

if TYPE_CHECKING:
    from torch import nn
    from vllm.config import ModelConfig
    from vllm.config.load import LoadConfig

    from pq_registry.loader.opening import OpenRelease

_LOG = logging.getLogger(__name__)
FORMAT: Final = "pqreg"
_EXAMPLE: Final = '{"release": "namespace/name@sha256:..."}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What ``--model-loader-extra-config`` says.

    Attributes:
        release: ``namespace/name@sha256:...``.
        directory: a directory that holds the release; by default it is read from the registry.
        files: safetensors files to read instead of those in the directory's root that its index names.
        device: where tensors are put on their way into the model; by default the accelerator the model is on.
        io: how local files are read, as ``LoadOptions.io``.
        check_on: who checks and decrypts, as ``LoadOptions.check_on``.
    """

    release: str
    directory: str | None = None
    files: tuple[str, ...] | None = None
    device: str | None = None
    io: str = "auto"
    check_on: str = "cpu"

    @classmethod
    def of(cls, config: object) -> Self:
        """Read the JSON object.

        Raises:
            UsageError: if the release is not pinned by its digest, or something else is not as it must be.
        """
        if not isinstance(config, Mapping) or not isinstance(config.get("release"), str):
            raise UsageError(
                "vLLM was not told which release to load", expected=f"--model-loader-extra-config '{_EXAMPLE}'",
                hint="pqreg exec REF -- vllm serve {dir} fills it in",
            )  # fmt: skip
        unknown = sorted(config.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(
                f"the plug-in's configuration has no {unknown[0]!r}",
                expected=", ".join(field.name for field in fields(cls)), found=unknown[0],
            )  # fmt: skip
        values = dict(config)
        for name in ("directory", "device", "io", "check_on"):
            if values.get(name) is not None and not isinstance(values[name], str):
                raise UsageError(f"{name} is wrong", expected="text", found=repr(values[name])[:80])
        if values.get("files") is not None:
            values["files"] = _texts(values["files"])
        return cls(**values)

    def __post_init__(self) -> None:
        """Refuse a reference without a digest. Raises UsageError or NameSyntaxError."""
        reference = Reference.parse(self.release)
        if reference.digest is None or reference.tag is not None:
            raise UsageError(
                "the release is not pinned", expected=_EXAMPLE, found=self.release,
                hint="a tag may point to something else by the time a worker starts; pqreg show REF tells the digest",
            )  # fmt: skip

    def opened(self) -> OpenRelease:
        """The release, verified.

        Raises:
            PqregError: why it is not believed.
        """
        reference = Reference.parse(self.release)
        expect = None if self.directory is None else f"{reference.repository}@{reference.digest}"
        what: str | Path = self.release if self.directory is None else Path(self.directory)
        opened = open_for(what, Request.of({"expect": expect, "io": self.io}))
        found = opened.verified.release.digest
        if found != reference.digest:  # it was asked for; that it was answered is checked here once more
            raise DigestMismatch(f"{reference.repository} is another release", expected=reference.digest, found=found)
        level = logging.WARNING if opened.verified.unchecked else logging.INFO
        _LOG.log(level, "%s: %s", self.release, "; ".join(opened.verified.notes))
        return opened

    def request(self, files: Iterable[str], *, device: str) -> Request:
        """How the weights are read. Raises UsageError."""
        return Request.of(
            {
                "framework": "torch",
                "device": self.device or device,
                "files": tuple(files),
                "io": self.io,
                "check_on": self.check_on,
            }
        )


def weights(
    pinned: Pinned, opened: OpenRelease, wanted: Iterable[Wanted], *, device: str
) -> Generator[tuple[str, Any], None, None]:
    """Names and tensors for ``model.load_weights``, in file order.

    Raises:
        PqregError: as ``pq_registry.iter_tensors``; every tensor handed out before was verified.
    """
    for part in wanted:
        with closing(iter_opened(opened, pinned.request(part.files, device=device))) as tensors:
            for name, tensor in tensors:
                yield part.prefix + name, tensor


@functools.cache
def register() -> None:
    """Make the load format known to vLLM in this process; once, however often it is called."""
    from vllm.model_executor.model_loader import register_model_loader

    register_model_loader(FORMAT)(loader_class())


@functools.cache
def loader_class() -> type[Any]:
    """The loader, a class of vLLM's."""
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    class VerifiedModelLoader(BaseModelLoader):  # type: ignore[misc]
        """Fills models with the weights of one verified release."""

        def __init__(self, load_config: LoadConfig) -> None:
            super().__init__(load_config)
            self._pinned = Pinned.of(load_config.model_loader_extra_config)

        def download_model(self, model_config: ModelConfig) -> None:
            """Verify what can be verified without reading weights; they are read where they are needed."""
            with _opened(self._pinned) as opened:
                check_model_directory(Path(model_config.model), opened)

        def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
            """Fill ``model``, which is built."""
            with _opened(self._pinned) as opened:
                check_model_directory(Path(model_config.model), opened)
                wanted = wanted_files(opened, model, model_config.model, chosen=self._pinned.files)
                device = self.load_config.device or _device_of(model)
                with closing(weights(self._pinned, opened, wanted, device=device)) as tensors:
                    loaded = cast("Any", model).load_weights(tensors)
            if model_config.quantization is None and loaded is not None:
                # It asks nothing of the loader it is a method of.
                DefaultModelLoader.track_weights_loading(cast("DefaultModelLoader", self), model, loaded)

    return VerifiedModelLoader


def _device_of(model: nn.Module) -> str:
    """The accelerator that the model was built on, else the CPU; parts of a model may be kept back on the CPU."""
    devices = (parameter.device for parameter in model.parameters())
    return next((str(device) for device in devices if device.type not in ("cpu", "meta")), "cpu")


@contextmanager
def _opened(pinned: Pinned) -> Iterator[OpenRelease]:
    """The release; at the end the key of a sealed one is overwritten."""
    opened = pinned.opened()
    try:
        yield opened
    finally:
        if opened.unsealed is not None:
            opened.unsealed.key.wipe()


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value) or not value:
        raise UsageError("files is wrong", expected="a list of paths in the release", found=repr(value)[:80])
    return tuple(os.fspath(item) for item in value)
