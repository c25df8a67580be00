# SPDX-License-Identifier: Apache-2.0
"""Host memory near a device, on machines whose memory has several nodes. A preference, and never an error.

Copies from a distant node cross the link between processors, which other traffic needs too. There is no binding in the
standard library, so the system call is made through the C library; where it is refused (containers often do) or
unknown, memory comes from wherever the kernel takes it.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

_MBIND: Final = {"x86_64": 237, "aarch64": 235}
_PREFERRED: Final = 1  # MPOL_PREFERRED
_NODES: Final = 1024
DEVICES: Final = Path("/sys/bus/pci/devices")


def node_of(properties: Any, *, devices: Path = DEVICES) -> int | None:
    """The node of a device with these properties of torch, None if there is only one or it is not known."""
    try:
        address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
        node = int((devices / address / "numa_node").read_text("ascii"))
    except (AttributeError, OSError, ValueError, TypeError):
        return None
    return node if 0 <= node < _NODES else None


def prefer(mapping: mmap.mmap, node: int) -> bool:
    """Ask that the pages of ``mapping``, none of them touched yet, come from ``node``; whether the system agreed."""
    number = _MBIND.get(platform.machine())
    if number is None or not sys.platform.startswith("linux"):
        return False
    mask = (ctypes.c_ulong * (_NODES // (8 * ctypes.sizeof(ctypes.c_ulong))))()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask[node // bits] |= 1 << (node % bits)
    address = np.frombuffer(mapping, np.uint8).ctypes.data
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    return not call(
        ctypes.c_long(number), ctypes.c_void_p(address), ctypes.c_ulong(len(mapping)), ctypes.c_ulong(_PREFERRED),
        ctypes.byref(mask), ctypes.c_ulong(_NODES + 1), ctypes.c_ulong(0),
    )  # fmt: skip
