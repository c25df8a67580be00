# SPDX-License-Identifier: Apache-2.0
"""Options of load and iter_tensors: what cannot be meant is refused before anything is opened, and by its name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pq_registry import iter_tensors, load, open_verified
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.errors import UsageError
from pq_registry.loader import api
from pq_registry.loader.options import Request

WRONG: dict[str, list[Any]] = {
    "device": [None, 0, b"cpu"],
    "framework": [None, [], "jax"],
    "expect": [5, b"acme/x", Path("acme/x")],
    "registry": [5, b"https://x"],
    "token": [5, b"secret"],
    "trust": [5, b"trust.json", True],
    "recipient_key": [5, b"key", object()],
    "connections": ["8", 2.5, True],
    "names": [5, "w", b"w", [3], {None}, (name for name in "w")],
    "files": [5, "a.safetensors", [3], [b"a"], [Path("a.safetensors")], (name for name in "a")],
    "into": [5, [1]],
    "memory": [5, 1 << 30],
    "io": [None, "fast"],
    "check_on": [None, "gpu"],
    "progress": [5, print, SimpleNamespace(start=print, advance=print)],
    "stats": [5, {}, NullProgress()],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_the_wrong_kind_is_refused_by_the_name_of_its_option(name: str, monkeypatch: pytest.MonkeyPatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was opened")

    monkeypatch.setattr(api, "open_release", never)
    for call in (load, iter_tensors, open_verified):
        for value in WRONG[name]:
            with pytest.raises(UsageError, match=name) as caught:
                call("acme/x:v1", **{name: value})
            assert "secret" not in str(caught.value)


def test_what_may_be_left_out_may_be_none_too():
    optional = {name: None for name in WRONG if name not in ("device", "framework", "io", "check_on")}
    assert Request.of(optional) == Request()


def test_a_device_of_torch_is_as_good_as_its_name(monkeypatch: pytest.MonkeyPatch):
    class Device:
        def __str__(self) -> str:
            return "cuda:1"

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(device=Device))
    assert Request.of({"device": Device(), "stats": Meter()}).device == "cuda:1"
