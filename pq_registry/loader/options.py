# SPDX-License-Identifier: Apache-2.0
"""What a caller of ``load``, ``iter_tensors`` or ``open_verified`` may say: one list for all of them.

``LoadOptions`` is for callers and their type checkers, ``Request`` for the loader: every option with its default, and
combinations that cannot be meant refused before anything is opened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, Self, TypedDict, get_args

from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.errors import UsageError
from pq_registry.loader.directsource import ReadMode
from pq_registry.loader.memory import RetainedMemory
from pq_registry.settings import Settings

FrameworkName = Literal["auto", "numpy", "torch", "dlpack"]
CheckedOn = Literal["cpu", "device"]

_KINDS: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = MappingProxyType(
    {
        "device": ("a device by its name", (str,)),
        "expect": ("text", (str, NoneType)),
        "registry": ("text", (str, NoneType)),
        "token": ("text", (str, NoneType)),
        "trust": ("a path", (str, os.PathLike, NoneType)),
        "recipient_key": ("a path, or a recipient key", (str, os.PathLike, RecipientKey, NoneType)),
        "connections": ("a number", (int, NoneType)),
        "names": ("a collection of names", (Collection, NoneType)),
        "files": ("a collection of paths", (Collection, NoneType)),
        "stats": ("a pq_registry.client.meter.Meter", (Meter, NoneType)),
    }
)
"""What these options must be, in words and as types."""


class LoadOptions(TypedDict, total=False):
    """Keyword arguments; each may be left out."""

    device: str
    """``cpu`` (the default), or any other device torch has here, by its name or as a ``torch.device``."""
    framework: FrameworkName
    """``auto`` (the default) is torch if it is installed, else numpy."""
    expect: str | None
    """What a directory must hold: ``namespace/name[@digest]``. Required for a directory."""
    registry: str | None
    """URL of the registry; this and the next four default to the settings (``PQREG_REGISTRY`` and so on)."""
    token: str | None
    """Bearer token for the registry."""
    trust: str | os.PathLike[str] | None
    """Path of the trust file."""
    recipient_key: str | os.PathLike[str] | RecipientKey | None
    """What opens a sealed release: the path of a secret key file, or a key object."""
    connections: int | None
    """Parallel connections to the registry."""
    names: Collection[str] | None
    """Read only these tensors, and only the shards that hold them."""
    files: Collection[str] | None
    """Read only these safetensors files, each a path or a folder of the release."""
    into: Mapping[str, Any] | None
    """Fill these numpy arrays or torch tensors, which exist in the CPU's memory, instead of making new ones."""
    memory: RetainedMemory | None
    """Where tensors on the CPU get their memory from: the caller keeps it for the next load."""
    io: ReadMode
    """How local files are read: through the page cache (``buffered``), past it (``direct``), or as ``auto`` decides."""
    check_on: CheckedOn
    """Who computes BLAKE3 and decrypts: the ``cpu`` (the default), or a CUDA ``device`` for what is loaded onto it."""
    rank: int | None
    """The rank of this process, 0 to ``world_size`` - 1; both default to torch.distributed where it is initialised."""
    world_size: int | None
    """How many processes the model is cut among."""
    plan: Any
    """How tensors are cut among ranks (``loader.parallel.plan``); whole by default."""
    group: Any
    """A torch.distributed process group, or ``"world"``: its processes all make this call and share the reading."""
    progress: Progress | None
    """Told of every byte that passed its check."""
    stats: Meter | None
    """Told where the time and the bytes went."""


@dataclass(frozen=True, slots=True)
class Request:
    """``LoadOptions`` with their defaults."""

    device: str = "cpu"
    framework: FrameworkName = "auto"
    expect: str | None = None
    registry: str | None = None
    token: str | None = None
    trust: str | os.PathLike[str] | None = None
    recipient_key: str | os.PathLike[str] | RecipientKey | None = None
    connections: int | None = None
    names: Collection[str] | None = None
    files: Collection[str] | None = None
    into: Mapping[str, Any] | None = None
    memory: RetainedMemory | None = None
    io: ReadMode = "auto"
    check_on: CheckedOn = "cpu"
    rank: int | None = None
    world_size: int | None = None
    plan: Any = None
    group: Any = None
    progress: Progress | None = None
    stats: Meter | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The request that ``options`` make.

        Raises:
            UsageError: for an option that does not exist, or a value that cannot be meant.
        """
        unknown = sorted(options.keys() - LoadOptions.__annotations__.keys())
        if unknown:
            raise UsageError(
                f"there is no option {unknown[0]!r}", expected=", ".join(LoadOptions.__annotations__), found=unknown[0]
            )
        given = dict(options)
        if "device" in given:
            given["device"] = _device_name(given["device"])
        request = cls(**given)
        request._require_kinds()
        for name, value, allowed in (
            ("framework", request.framework, get_args(FrameworkName)),
            ("io", request.io, get_args(ReadMode)),
            ("check_on", request.check_on, get_args(CheckedOn)),
        ):
            if value not in allowed:
                raise UsageError(f"no such {name}", expected=", ".join(allowed), found=repr(value)[:40])
        if request.into is not None:
            request.require_fillable()
        if request.memory is not None:
            request.require_retainable()
        if request.plan is None and not (request.rank is None and request.world_size is None):
            raise UsageError(
                "rank= and world_size= say among whom tensors are cut, not how",
                expected="plan= beside them, or neither",
                found="no plan=",
                hint='plan="dim0" cuts along dimension 0, plan="whole" not at all',
            )
        return request

    def _require_kinds(self) -> None:
        """Refuse what is of the wrong kind. Values are not shown: one of them is a token."""
        for name, (expected, kinds) in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise UsageError(f"{name}= is wrong", expected=expected, found=type(value).__name__)
        for name, texts in (("names", self.names), ("files", self.files)):
            if isinstance(texts, str):
                raise UsageError("names and files are collections", expected="e.g. a list", found="one text")
            for text in texts or ():
                if not isinstance(text, str):
                    raise UsageError(f"{name}= is wrong", expected="texts in it", found=type(text).__name__)
        if self.progress is not None:
            for method in ("start", "advance", "done"):
                if not callable(getattr(self.progress, method, None)):
                    raise UsageError(
                        "progress= is wrong",
                        expected="a pq_registry.client.progress.Progress",
                        found=f"{type(self.progress).__name__} without {method}()",
                    )

    def require_fillable(self) -> None:
        """Demand that nothing else is asked for that says where tensors are.

        Raises:
            UsageError: if ``into`` is no mapping, or does not go with another option.
        """
        if not isinstance(self.into, Mapping):
            raise UsageError("into= is no mapping", expected="names and tensors", found=type(self.into).__name__)
        others = {
            "device": self.device != "cpu", "framework": self.framework == "dlpack", "check_on": self.check_on != "cpu",
            "rank": self.rank is not None, "world_size": self.world_size is not None, "plan": self.plan is not None,
            "group": self.group is not None, "memory": self.memory is not None,
        }  # fmt: skip
        found = [name for name, given in others.items() if given]
        if found:
            raise UsageError(
                "into= fills whole tensors in the memory of the CPU", expected="none of these beside it",
                found=", ".join(found), hint="iter_tensors, and a copy to where each tensor belongs",
            )  # fmt: skip

    def require_retainable(self) -> None:
        """Demand that tensors are to be made in the memory of the CPU, by this process alone.

        Raises:
            UsageError: if ``memory`` is no ``RetainedMemory``, or does not go with another option.
        """
        if not isinstance(self.memory, RetainedMemory):
            raise UsageError(
                "memory= is none", expected="a pq_registry.loader.memory.RetainedMemory",
                found=type(self.memory).__name__,
            )  # fmt: skip
        if self.device != "cpu" or self.group is not None:
            raise UsageError(
                "memory= is for tensors that this process reads onto the CPU",
                expected='device="cpu" and no group=',
                found=f"device={self.device!r}"[:60] if self.group is None else "group=",
            )

    @property
    def key(self) -> RecipientKey | None:
        """The recipient key, if an object was given."""
        return self.recipient_key if isinstance(self.recipient_key, RecipientKey) else None

    @property
    def settings(self) -> Settings:
        """The settings, with those that were given here in place of the environment's."""
        key = self.recipient_key if isinstance(self.recipient_key, str | os.PathLike) else None
        return Settings(
            {
                "registry": self.registry,
                "token": self.token,
                "trust": None if self.trust is None else os.fspath(self.trust),
                "recipient_key": None if key is None else os.fspath(key),
                "connections": None if self.connections is None else str(self.connections),
            }
        )

    @property
    def watcher(self) -> Progress:
        """The progress, or one that watches nothing."""
        return self.progress or NullProgress()


def _device_name(device: Any) -> Any:
    """The name of a ``torch.device``; whatever else it is stays what it is."""
    torch = sys.modules.get("torch")
    return str(device) if torch is not None and isinstance(device, torch.device) else device
