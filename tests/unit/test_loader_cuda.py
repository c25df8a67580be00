# SPDX-License-Identifier: Apache-2.0
"""The CUDA device, against a torch whose streams only keep a record. What a driver does is not seen here."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")

from blake3 import blake3  # noqa: E402
from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: E402
from cryptography.hazmat.primitives.ciphers.algorithms import AES  # noqa: E402
from cryptography.hazmat.primitives.ciphers.modes import CTR  # noqa: E402

from pq_registry import limits  # noqa: E402
from pq_registry.errors import DeviceFailed, ShardMismatch, UsageError  # noqa: E402
from pq_registry.loader.device import cudakernels, numa  # noqa: E402
from pq_registry.loader.device.accelerator import Shards, Transfer  # noqa: E402
from pq_registry.loader.device.cuda import Cuda  # noqa: E402
from pq_registry.loader.memory import anonymous  # noqa: E402
from pq_registry.loader.options import CheckedOn  # noqa: E402
from pq_registry.loader.torch_bridge import Torch  # noqa: E402
from tests import cudasim  # noqa: E402
from tests.deviceload import Loading, sample  # noqa: E402

pytestmark = pytest.mark.torch

SHARD = limits.SHARD_BYTES


class Kernels:
    """``loader.kernels`` on the CPU."""

    def __init__(self, fake: cudasim.Torch) -> None:
        self.fake = fake
        self.streams: set[str] = set()
        self.prepared: list[tuple[str, bool]] = []

    def prepare(self, device: Any, *, sealed: bool) -> None:
        self.prepared.append((str(device), sealed))

    def shard_digests(self, data: Any, *, stride: int, size: int, last: int, count: int, out: Any) -> None:
        self.streams.add(self.fake.cuda.current_stream().name)
        assert out.shape == (count, 32) and out.is_contiguous()
        for number in range(count):
            begin = number * stride
            length = last if number == count - 1 else size
            found = blake3(data[begin : begin + length].numpy().tobytes()).digest()
            out[number] = torch.frombuffer(bytearray(found), dtype=torch.uint8)

    def ctr_xor(
        self, data: Any, out: Any, *, stride: int, out_stride: int, size: int, last: int, count: int, keys: Any
    ) -> None:
        self.streams.add(self.fake.cuda.current_stream().name)
        assert keys.shape == (count, 44) and keys.dtype == torch.uint8
        for number in range(count):
            length = last if number == count - 1 else size
            key = bytes(keys[number].numpy())
            cipher = Cipher(AES(key[:32]), CTR(key[32:] + (2).to_bytes(4, "big"))).decryptor()
            clear = cipher.update(data[number * stride : number * stride + length].numpy().tobytes())
            out[number * out_stride : number * out_stride + length] = torch.frombuffer(
                bytearray(clear), dtype=torch.uint8
            )


@pytest.fixture
def fake() -> Iterator[cudasim.Torch]:
    made = cudasim.Torch()
    yield made
    gc.collect()
    assert made.cuda.registered == {}, "page-locked memory is left"


@pytest.fixture
def kernels(fake: cudasim.Torch, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    made = Kernels(fake)
    monkeypatch.setattr(cudakernels, "_kernels", lambda: made)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace())
    return made


def raw(tensor: Any) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("check", ["cpu", "device"])
@pytest.mark.parametrize("whole", [True, False])
def test_every_tensor_bit_for_bit(
    fake: cudasim.Torch, kernels: Kernels, check: CheckedOn, whole: bool, sealed: bool
) -> None:
    files, truth = sample()
    loading = Loading(files, Cuda(fake, torch.device("cuda")), sealed=sealed)
    found = dict(loading.tensors(check, whole=whole, form=Torch("cpu")))
    assert {name: raw(tensor) for name, tensor in found.items()} == {k: v.tobytes() for k, v in truth.items()}
    assert found["b4"].dtype == torch.bfloat16 and tuple(found["b4"].shape) == (SHARD // 2, 3)
    assert kernels.streams == ({"work"} if check == "device" else set())
    assert kernels.prepared == ([("cuda:0", sealed)] if check == "device" else []), "once, before anything is read"


def test_copies_are_made_on_their_stream_and_the_others_wait(
    fake: cudasim.Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[tuple[str, bool]] = []
    copy = torch.Tensor.copy_

    def spy(self: Any, source: Any, non_blocking: bool = False) -> Any:
        copied.append((fake.cuda.current_stream().name, non_blocking))
        return copy(self, source, non_blocking)

    monkeypatch.setattr(torch.Tensor, "copy_", spy)
    accelerator = Cuda(fake, torch.device("cuda", 3))
    assert accelerator.name == "cuda:3"
    copies, work = fake.cuda.streams
    memory = accelerator.allocate(100)
    assert fake.cuda.caller.told == ["allocated"], "it belongs to the stream on which the tensors are freed"
    assert copies.told == ["wait for caller"] and work.told == ["wait for caller"], "kernels that still read the block"
    host = accelerator.pin(100)
    host.view[:] = bytes(range(100))
    ticket = accelerator.bring([Transfer(host.view[10:20], memory[50:60])])
    moved = accelerator.move([Transfer(memory[50:60], memory[:10])])
    assert copied == [("copies", True), ("work", True)]
    assert bytes(memory[:10].numpy()) == bytes(range(10, 20))
    accelerator.make_visible([ticket, moved])
    assert fake.cuda.caller.told == ["allocated", "wait for copies", "wait for work"]
    other = cudasim.Stream(fake.cuda, "other")
    with fake.cuda.stream(other):
        accelerator.make_visible([ticket])
    assert other.told == ["wait for copies"] and fake.cuda.caller.told[-1] == "wait for copies"
    fake.cuda.pending = False
    with fake.cuda.stream(other):
        accelerator.make_visible([ticket])
    assert other.told == ["wait for copies"], "what is done needs no waiting"
    accelerator.settle()
    assert copies.told[-1] == work.told[-1] == "synchronised"
    host.close()


def test_kernels_wait_for_the_copy_and_keys_are_overwritten(
    fake: cudasim.Torch, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    decrypt = kernels.ctr_xor

    def watch(data: Any, out: Any, **how: Any) -> None:
        made.append(how["keys"])
        assert how["keys"].any()
        decrypt(data, out, **how)

    # On a device it is a copy; here ``to`` would answer the very memory that is overwritten as the host's.
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self.clone())
    kernels.ctr_xor = watch  # type: ignore[method-assign]
    files, _ = sample()
    loading = Loading(files, Cuda(fake, torch.device("cuda")), sealed=True)
    dict(loading.tensors("device", whole=True, form=Torch("cpu")))
    assert made and not any(keys.any() for keys in made)
    assert "wait for copies" in fake.cuda.streams[1].told


def test_a_flipped_bit_is_refused(fake: cudasim.Torch, kernels: Kernels) -> None:
    files, _ = sample()
    loading = Loading(files, Cuda(fake, torch.device("cuda")))
    bad = bytearray(files["b.safetensors"])
    bad[SHARD + 5] ^= 1
    loading.source.files["b.safetensors"] = bytes(bad)
    with pytest.raises(ShardMismatch, match=r"shard 1 of b\.safetensors"):
        dict(loading.tensors("device", whole=True, form=Torch("cpu")))


def test_digests_of_an_earlier_load_are_not_taken_for_those_of_a_kernel_that_did_nothing(
    fake: cudasim.Torch, kernels: Kernels
) -> None:
    files, _ = sample()
    right = files["a.safetensors"][:SHARD]
    empty = fake.empty
    stale = torch.frombuffer(bytearray(blake3(right).digest()), dtype=torch.uint8)

    def used_before(shape: Any, **how: Any) -> Any:
        made = empty(shape, **how)
        if isinstance(shape, tuple):
            made[:] = stale
        return made

    fake.empty = used_before  # type: ignore[method-assign]
    kernels.shard_digests = lambda *_, **__: None  # type: ignore[method-assign]
    accelerator = Cuda(fake, torch.device("cuda"))
    ready = accelerator.kernels(sealed=False)
    shards = Shards(SHARD, SHARD, SHARD, 1)
    digests = ready.digest(accelerator.allocate(SHARD), shards, after=accelerator.bring([])).result()
    assert digests == bytes(32)


def test_too_little_memory_says_how_much_there_is() -> None:
    fake = cudasim.Torch(memory=100)
    with pytest.raises(DeviceFailed, match="cuda:0 has too little free memory") as caught:
        Cuda(fake, torch.device("cuda")).allocate(101)
    assert caught.value.found == f"1000 of {80 << 30} bytes free"
    assert "iter_tensors" in (caught.value.hint or "")


def test_whatever_the_driver_says_is_an_error_of_the_tree(fake: cudasim.Torch) -> None:
    accelerator = Cuda(fake, torch.device("cuda"))
    ticket = accelerator.bring([])
    fake.cuda.failure = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"
    for call in (ticket.wait, ticket.done, accelerator.settle, lambda: accelerator.make_visible([ticket])):
        with pytest.raises(DeviceFailed, match="cuda:0 failed") as caught:
            call()
        assert caught.value.found == "CUDA error: an illegal memory access was encountered"


def test_memory_that_cannot_be_locked_is_used_as_it_is_and_said_once(
    fake: cudasim.Torch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.cuda.refuse_to_register = True
    accelerator = Cuda(fake, torch.device("cuda"))
    with caplog.at_level(logging.WARNING):
        one, two = accelerator.pin(4096), accelerator.pin(4096)
    assert len(caplog.messages) == 1 and "page-locked" in caplog.messages[0]
    one.view[:3] = b"abc"
    one.close()
    two.close()


def test_kernels_need_triton(fake: cudasim.Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs triton"):
        Cuda(fake, torch.device("cuda")).kernels(sealed=False)


@pytest.mark.parametrize("call", ["prepare", "shard_digests", "ctr_xor"])
def test_what_the_compiler_says_is_an_error_of_the_tree_and_leaves_nothing(
    fake: cudasim.Torch, kernels: Kernels, call: str
) -> None:
    class CompilationError(Exception):
        """Triton's errors are no RuntimeErrors."""

    def fail(*_: Any, **__: Any) -> None:
        raise CompilationError("no C compiler\nat all")

    setattr(kernels, call, fail)
    loading = Loading(sample()[0], Cuda(fake, torch.device("cuda")), sealed=True)
    with pytest.raises(DeviceFailed, match="cuda:0 cannot compute here") as caught:
        list(loading.tensors("device", whole=True, form=Torch("cpu")))
    assert caught.value.found == "CompilationError: no C compiler"
    assert loading.source.closed == 1


def test_the_node_of_a_device_and_memory_on_it(tmp_path: Path) -> None:
    where = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0)
    place = tmp_path / "0000:1b:00.0" / "numa_node"
    assert numa.node_of(where, devices=tmp_path) is None
    place.parent.mkdir()
    for text, node in (("1\n", 1), ("-1\n", None), ("rubbish", None), ("5000", None)):
        place.write_text(text)
        assert numa.node_of(where, devices=tmp_path) == node
    assert numa.node_of(SimpleNamespace(), devices=tmp_path) is None, "an older torch"
    mapping = anonymous(SHARD)
    assert numa.prefer(mapping, 0) in (True, False)
    mapping[:3] = b"abc"
