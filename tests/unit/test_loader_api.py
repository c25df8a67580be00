# SPDX-License-Identifier: Apache-2.0
"""load and iter_tensors on directories: what they return, what they refuse, and what they leave behind."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as reference_save

import pq_registry
from pq_registry import limits
from pq_registry.errors import (
    DigestMismatch,
    FileSetMismatch,
    NameMismatch,
    NameSyntaxError,
    PqregError,
    SettingError,
    ShardMismatch,
    SignatureInvalid,
    TrustExpired,
    TrustMissing,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.loader import api, torch_bridge
from tests.releases import release_directory, write_trust
from tests.samples import NOW, YEAR
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES
Call = Callable[..., Any]


@dataclass(frozen=True)
class Sample:
    """A release directory and what it must load as."""

    path: Path
    digest: Digest
    truth: Truth


@pytest.fixture(autouse=True)
def the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pqreg")] == []
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    rng = np.random.default_rng(7)
    plain: Truth = {
        "embed": rng.standard_normal((700, 1000), np.float32),
        "ids": rng.integers(0, 1 << 60, (300_000,), np.int64),
        "scale": np.array(2.5, np.float16),
        "mask": rng.integers(0, 2, (33,)).astype(bool),
        "none": np.empty((0, 4), np.float32),
    }
    odd, truth = safetensors_bytes({"w": ("BF16", (3, SHARD // 2)), "f8": ("F8_E4M3", (9,))}, 3, header_padding=5)
    files = {
        "config.json": b"{}",
        "model-00001.safetensors": reference_save(plain, {"format": "np"}),
        "sub/model-00002.safetensors": odd,
    }
    digest = release_directory(tmp_path / "release", files)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    return Sample(tmp_path / "release", digest, {**plain, **truth})


def as_dict(call: Call) -> Call:
    return lambda *args, **kwargs: dict(call(*args, **kwargs))


CALLS = pytest.mark.parametrize("call", [pq_registry.load, as_dict(pq_registry.iter_tensors)], ids=["load", "iter"])


def numpy(call: Call, what: object, **options: object) -> dict[str, np.ndarray]:
    result: dict[str, np.ndarray] = call(what, framework="numpy", expect="acme/minilm", **options)
    return result


@CALLS
def test_every_tensor_equals_the_truth_bit_for_bit(call: Call, sample: Sample):
    found = numpy(call, sample.path)
    assert found.keys() == sample.truth.keys()
    for name, array in found.items():
        assert array.dtype == sample.truth[name].dtype and array.shape == sample.truth[name].shape, name
        assert array.tobytes() == sample.truth[name].tobytes(), name
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous, name


@CALLS
def test_tensors_live_on_after_the_files_and_each_other_are_gone(call: Call, sample: Sample):
    found = numpy(call, sample.path)
    kept = found.pop("ids")
    found.clear()
    for file in sample.path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    gc.collect()
    assert (kept == sample.truth["ids"]).all()
    kept += 1


@CALLS
def test_a_digest_can_be_demanded(call: Call, sample: Sample):
    expect = f"acme/minilm@{sample.digest}"
    assert call(str(sample.path), framework="numpy", expect=expect).keys() == sample.truth.keys()
    with pytest.raises(DigestMismatch):
        call(sample.path, expect=f"acme/minilm@{Digest('0' * 64)}")


@CALLS
def test_a_directory_without_expect_is_refused(call: Call, sample: Sample):
    for what in (sample.path, str(sample.path)):
        with pytest.raises(UsageError) as caught:
            call(what)
        assert "expect=" in (caught.value.hint or "")


@CALLS
def test_another_name_is_refused(call: Call, sample: Sample):
    with pytest.raises(NameMismatch):
        call(sample.path, expect="acme/other")


@CALLS
def test_a_tag_cannot_be_expected_of_a_directory(call: Call, sample: Sample):
    with pytest.raises(UsageError, match="which tag"):
        call(sample.path, expect="acme/minilm:v1")


@CALLS
def test_text_without_expect_is_a_reference_whatever_lies_here(
    call: Call, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "acme").mkdir()
    sample.path.rename(tmp_path / "acme" / "minilm")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="registry"):
        call("acme/minilm")
    assert numpy(call, "acme/minilm").keys() == sample.truth.keys()


@CALLS
def test_text_that_is_neither_is_refused(call: Call, sample: Sample):
    with pytest.raises(NameSyntaxError) as caught:
        call("no such thing")
    assert "expect=" in (caught.value.hint or "")


@CALLS
@pytest.mark.parametrize("path", ["model-00001.safetensors", "sub/model-00002.safetensors"])
def test_one_flipped_byte_in_any_shard_is_refused(call: Call, sample: Sample, path: str):
    file = sample.path / path
    good = file.read_bytes()
    for index in range(-(-len(good) // SHARD)):
        bad = bytearray(good)
        bad[min(index * SHARD + 77_777, len(bad) - 1)] ^= 1
        file.write_bytes(bytes(bad))
        with pytest.raises(ShardMismatch) as caught:
            numpy(call, sample.path)
        assert f"shard {index} of {path}" in caught.value.message


@CALLS
def test_a_truncated_a_grown_and_a_missing_file_are_refused(call: Call, sample: Sample):
    file = sample.path / "model-00001.safetensors"
    good = file.read_bytes()
    for bad in (good[:-1], good[: SHARD - 1], b"", good + b"\0"):
        file.write_bytes(bad)
        with pytest.raises(FileSetMismatch):
            numpy(call, sample.path)
    file.unlink()
    with pytest.raises(FileSetMismatch):
        numpy(call, sample.path)


@CALLS
def test_a_file_too_many_is_refused(call: Call, sample: Sample):
    (sample.path / "extra.safetensors").write_bytes(b"")
    with pytest.raises(FileSetMismatch, match=r"extra\.safetensors"):
        numpy(call, sample.path)


@CALLS
def test_a_missing_half_of_the_signature_is_refused(call: Call, sample: Sample):
    (sample.path / "model.pq.sig").unlink()
    with pytest.raises(SignatureInvalid):
        numpy(call, sample.path)


@CALLS
def test_without_trust_nothing_is_believed(call: Call, sample: Sample, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PQREG_TRUST")
    with pytest.raises(TrustMissing):
        numpy(call, sample.path)
    with pytest.raises(TrustMissing, match="cannot be read"):
        numpy(call, sample.path, trust=sample.path / "nope")


@CALLS
def test_an_expired_trust_file_has_its_grace_and_no_more(call: Call, sample: Sample, tmp_path: Path, monkeypatch):
    trust = write_trust(tmp_path / "grace.json", grace_days=2)
    monkeypatch.setattr(api, "utc_now", lambda: NOW + YEAR + timedelta(days=1))
    assert numpy(call, sample.path, trust=trust).keys() == sample.truth.keys()
    monkeypatch.setattr(api, "utc_now", lambda: NOW + YEAR + timedelta(days=2))
    with pytest.raises(TrustExpired):
        numpy(call, sample.path, trust=trust)


@CALLS
def test_only_what_is_needed_is_read(call: Call, sample: Sample):
    bad = bytearray((sample.path / "model-00001.safetensors").read_bytes())
    bad[-1] ^= 1
    (sample.path / "model-00001.safetensors").write_bytes(bytes(bad))
    found = numpy(call, sample.path, names=["w"])
    assert list(found) == ["w"]
    found = numpy(call, sample.path, files=["sub"])
    assert sorted(found) == ["f8", "w"]
    with pytest.raises(ShardMismatch):
        numpy(call, sample.path, names=["mask"])


@CALLS
def test_one_text_is_no_collection_of_names(call: Call, sample: Sample):
    with pytest.raises(UsageError, match="collections"):
        numpy(call, sample.path, names="w")


@CALLS
def test_frameworks_and_devices_that_cannot_be(call: Call, sample: Sample):
    with pytest.raises(UsageError, match="no such framework"):
        call(sample.path, expect="acme/minilm", framework="jax")
    with pytest.raises(UsageError, match="numpy has no devices"):
        call(sample.path, expect="acme/minilm", framework="numpy", device="cuda")


@CALLS
def test_torch_that_is_missing_is_said_so(call: Call, sample: Sample, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_bridge, "is_installed", lambda: False)
    assert isinstance(call(sample.path, expect="acme/minilm")["ids"], np.ndarray), "auto is numpy then"
    for options in ({"framework": "torch"}, {"device": "cuda"}):
        with pytest.raises(UsageError, match="torch is not installed") as caught:
            call(sample.path, expect="acme/minilm", **options)
        assert "pip install" in (caught.value.hint or "")
        # What has no devices is no way out where one was asked for.
        assert ("numpy" in (caught.value.hint or "")) == ("device" not in options)


@CALLS
def test_what_was_not_checked_is_said(call: Call, sample: Sample, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "pq_registry"):
        numpy(call, sample.path)
    assert len(caplog.messages) == 1
    assert str(sample.digest) in caplog.messages[0]
    assert "revocation" in caplog.messages[0]


@CALLS
def test_progress_counts_every_checked_byte_once(call: Call, sample: Sample):
    events: list[tuple[str, int]] = []

    class Watch:
        def start(self, label: str, total_bytes: int) -> None:
            events.append((label, total_bytes))

        def advance(self, count: int) -> None:
            events.append(("more", count))

        def done(self) -> None:
            events.append(("done", 0))

    numpy(call, sample.path, progress=Watch())
    assert events[0][0] == "load acme/minilm"
    assert events[-1] == ("done", 0)
    assert sum(count for kind, count in events if kind == "more") == events[0][1]


def test_iter_tensors_refuses_before_it_is_iterated(sample: Sample):
    with pytest.raises(NameMismatch):
        pq_registry.iter_tensors(sample.path, expect="acme/other")


def test_iter_tensors_closed_early_or_never_begun_leaves_nothing(sample: Sample):
    tensors = pq_registry.iter_tensors(sample.path, expect="acme/minilm", framework="numpy")
    next(tensors)
    tensors.close()
    del tensors
    never = pq_registry.iter_tensors(sample.path, expect="acme/minilm", framework="numpy")
    del never
    for _, _ in pq_registry.iter_tensors(sample.path, expect="acme/minilm", framework="numpy"):
        break


def test_every_error_a_hostile_directory_causes_is_of_the_tree(sample: Sample):
    """F8 in small: whatever stands in for a file, the answer is an error of ours."""
    file = sample.path / "model-00001.safetensors"
    file.unlink()
    for make in (file.mkdir, lambda: file.symlink_to("/dev/zero"), lambda: os.mkfifo(file)):
        make()
        with pytest.raises(PqregError):
            numpy(pq_registry.load, sample.path)
        file.rmdir() if file.is_dir() else file.unlink()
