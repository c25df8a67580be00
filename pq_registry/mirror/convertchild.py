# SPDX-License-Identifier: Apache-2.0
"""The process that lets torch read a file of somebody else's: it can read that file, and say what it holds.

Run by ``mirror.converter`` as a script of its own, with nothing of this project in it::

    python -I -B convertchild.py ORDER

``ORDER`` is JSON: ``source`` (the number of an open descriptor), ``dtypes`` (torch's names to those of safetensors) and
the bounds. Before torch is imported the process gives up what it can: new privileges, capabilities, core dumps, the
writing of files, and the network if the kernel allows a network of its own. Before the file is read its memory and
processor time are bounded.

On standard output it writes one line of JSON, then the tensors' bytes in the order of that line and nothing else::

    {"tensors": [[name, dtype, shape], …], "torch": version, "network": false}
    {"refused": why, "found": what}

The line is a claim like the file it is about: whoever started this process checks it before believing it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

_CLONE_NEWUSER, _CLONE_NEWIPC, _CLONE_NEWNET = 0x10000000, 0x08000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION = 0x20080522
_SHOWN_CHARS = 300


class _Refused(Exception):
    """Why the file is not converted."""

    def __init__(self, why: str, found: object = "") -> None:
        super().__init__(why)
        self.answer = {"refused": why, "found": _shown(found)}


def main(order: dict[str, Any]) -> None:
    """Do what ``order`` says, and write the answer to standard output."""
    # What libraries print must not stand in the answer.
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    network = _give_up(order["parent"])
    try:
        torch = _import_torch()
        _bound(order)
        named = _read(torch, order["source"])
        plan = [(name, *_describe(torch, name, tensor, order["dtypes"])) for name, tensor in named.items()]
    except _Refused as refused:
        _write(answer, json.dumps(refused.answer).encode() + b"\n")
        return
    # The largest elements first, so that each stands where a multiple of its size is; empty ones before all others.
    plan.sort(key=lambda one: (one[3] != 0, -one[4] if one[3] else 0, one[0]))
    line = {
        "tensors": [[name, dtype, shape] for name, dtype, shape, _, _ in plan],
        "torch": str(torch.__version__), "network": network,
    }  # fmt: skip
    _write(answer, json.dumps(line).encode() + b"\n")
    for name, *_ in plan:
        for piece in _pieces(_plain(named[name]), order["piece"]):
            _write(answer, memoryview(piece.reshape(-1).view(torch.uint8).numpy()))


def _give_up(parent: int) -> bool:
    """Give up what is not needed; whether a network is still there."""
    c = ctypes.CDLL(None, use_errno=True)
    c.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    own = c.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0 or c.unshare(_CLONE_NEWNET) == 0
    header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION, 0))
    c.capset(header, ctypes.create_string_buffer(24))
    # After the capabilities are gone: the kernel forgets it when privileges change.
    c.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(limit, (most, most))
    return not own


def _import_torch() -> Any:
    try:
        import torch
    except Exception as error:  # noqa: BLE001  a broken installation fails in many ways
        raise _Refused("torch cannot be imported by the converter", error) from None
    torch.set_num_threads(1)
    return torch


def _bound(order: dict[str, Any]) -> None:
    """Bound memory, counted from what torch itself has taken, and processor time."""
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    memory = taken + os.fstat(order["source"]).st_size + order["memory"]
    for limit, wanted in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, order["cpu"])):
        _, hard = resource.getrlimit(limit)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (most, most))


def _read(torch: Any, source: int) -> dict[str, Any]:
    try:
        read = torch.load(f"/proc/self/fd/{source}", map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise _Refused("reading it takes more memory than a file of its size may", "out of memory") from None
    except Exception as error:  # noqa: BLE001  whatever it is, the file is not converted
        raise _Refused("torch does not read it as weights", _reason(error)) from None
    if not isinstance(read, dict):
        raise _Refused("it does not hold a mapping of names to tensors", f"a {type(read).__name__}")
    for name, tensor in read.items():
        if type(name) is not str:
            raise _Refused("a name in it is no text", f"a {type(name).__name__}")
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise _Refused(f"{name[:200]!r} in it is no tensor", f"a {type(tensor).__name__}")
    if not read:
        raise _Refused("it holds no tensors", "an empty mapping")
    return dict(read)


def _reason(error: Exception) -> str:
    # Torch's own words advise reading it without restrictions, which is what nobody should do.
    text = str(error)
    if (called := re.search(r"GLOBAL ([\w.]+)", text)) is not None:
        return f"it names {called[1]}, which is no part of weights"
    return "something that is no part of weights" if "weights_only" in text else f"{type(error).__name__}: {text}"


def _describe(torch: Any, name: str, tensor: Any, dtypes: dict[str, str]) -> tuple[str, list[int], int, int]:
    """How a tensor is called and shaped, the number and the size of its elements."""
    where = repr(name[:200])
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        raise _Refused(f"{where} is no dense tensor", f"{tensor.layout}, {tensor.device}, {tensor.dtype}")
    dtype = dtypes.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise _Refused(f"{where} has a dtype that safetensors does not know", tensor.dtype)
    # A view that repeats what it shows could be as large as anybody likes.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise _Refused(f"{where} has more elements than are stored", list(tensor.shape))
    return dtype, list(tensor.shape), tensor.numel(), tensor.element_size()


def _plain(tensor: Any) -> Any:
    return tensor.detach().resolve_conj().resolve_neg()


def _pieces(tensor: Any, most: int) -> Iterator[Any]:
    """A tensor in contiguous parts, in the order of its elements; what is copied is ``most`` bytes or little more."""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return
    if tensor.is_contiguous():
        flat, step = tensor.reshape(-1), max(most // tensor.element_size(), 1)
        for at in range(0, flat.numel(), step):
            yield flat[at : at + step]
    elif size <= most:
        yield tensor.contiguous()
    else:
        rows = tensor.shape[0]
        step = max(most * rows // size, 1)
        for at in range(0, rows, step):
            part = tensor.narrow(0, at, min(step, rows - at))
            yield from _pieces(part[0] if part.shape[0] == 1 else part, most)


def _write(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _shown(found: object) -> str:
    text = next(iter(str(found).splitlines()), "")
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:_SHOWN_CHARS]


def _run() -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        main(json.loads(sys.argv[1]))
    # Not by way of the interpreter's end, where libraries still do this and that.
    os._exit(0)


if __name__ == "__main__":
    _run()
