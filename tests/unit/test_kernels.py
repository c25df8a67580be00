# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels without a GPU: what they compute, on Triton's interpreter; what they become, compiled for sm_90.

Nothing here runs on a GPU: that is ``tests/benchmarks/gpu.py``. Left out, and listed as such, where torch or triton is
not installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")
triton = pytest.importorskip("triton", reason="needs triton (make test-torch)")

from pq_registry import limits  # noqa: E402
from pq_registry.errors import UsageError  # noqa: E402
from pq_registry.loader import kernels  # noqa: E402
from pq_registry.loader.kernels.launch import Rows  # noqa: E402

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[2]


def interpreted(case: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernel_interpreter", case],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(("case", "compared"), [("blake3_short", 7), ("blake3_chunks", 2), ("blake3_odd", 1)])
def test_digests_are_those_of_blake3(case: str, compared: int) -> None:
    assert interpreted(case) == ["right"] * compared


@pytest.mark.slow
@pytest.mark.parametrize("case", ["aes_long", "aes_odd", "counters", "substitution"])
def test_keystream_is_that_of_gcm(case: str) -> None:
    assert interpreted(case) == ["right"]


def compiled(tmp_path: Path, kernel: object, arguments: dict[str, str], warps: int, **constants: int) -> dict[str, str]:
    """The kernel for an H100 as SASS, and what it uses."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aligned = [number for number, name in enumerate(arguments) if name not in ("size", "last", "count")]
    source = ASTSource(
        kernel,
        {**arguments, **dict.fromkeys(constants, "constexpr")},
        constants,
        {(number,): [["tt.divisibility", 16]] for number in aligned},
    )
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = {}
    for what in ("-res-usage", "-sass"):
        said[what] = subprocess.run([tool, what, path], capture_output=True, text=True, check=True).stdout
    return said


def instructions(sass: str) -> list[str]:
    return re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", sass, re.MULTILINE)


SHARDS = {"stride": "i32", "size": "i32", "last": "i32", "count": "i32"}


@pytest.mark.slow
def test_blake3_compiles_for_sm_90_without_spilling(tmp_path: Path) -> None:
    from pq_registry.loader.kernels.blake3_triton import chunk_kernel, tree_kernel

    chunk = compiled(tmp_path, chunk_kernel, {"data": "*u8", "nodes": "*u32", **SHARDS}, 1, LANES=32)
    assert "STACK:0" in chunk["-res-usage"]
    assert int(re.search(r"REG:(\d+)", chunk["-res-usage"])[1]) <= 80  # type: ignore[index]
    found = instructions(chunk["-sass"])
    assert found.count("LDG.E.128") == 4, "a block is read 16 bytes at a time"
    assert not any(name.startswith(("LDL", "STL", "CALL")) for name in found)
    # 7 rounds of 8 G: 32 rotations and at least 32 exclusive ors each, and not much around them.
    assert sum(name.startswith("SHF.L.W") for name in found) == 7 * 8 * 4
    assert len(found) < 1200
    arguments = {"nodes": "*u32", "spare": "*u32", "out": "*u32", **SHARDS}
    del arguments["stride"]
    assert "STACK:0" in compiled(tmp_path, tree_kernel, arguments, 8, LANES=256)["-res-usage"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_aes_compiles_for_sm_90_without_tables_or_branches_on_data(tmp_path: Path) -> None:
    from pq_registry.loader.kernels.aes_triton import ctr_kernel, schedule_kernel

    arguments = {"data": "*u8", "out": "*u8", "keys": "*u32", "stride": "i32", "out_stride": "i32", **SHARDS}
    ctr = compiled(tmp_path, ctr_kernel, arguments, 1, LANES=32)
    found = instructions(ctr["-sass"])
    # One loop of twelve rounds and one way out; loads are the masks, whose place is fixed, and the data's.
    assert sum(name.startswith(("BRA", "BRX", "CALL")) for name in found) <= 3
    assert not any(name.startswith(("LDS", "LDC.U8", "TEX")) for name in found)
    loop = loop_of(ctr["-sass"])
    assert len(loop) < 2400
    # What a lane keeps of 128 planes and the circuit's wires just fits 255 registers; the loop may spill a few.
    assert sum(name.startswith(("LDL", "STL")) for name in loop) <= 16
    schedule = compiled(tmp_path, schedule_kernel, {"material": "*u32", "keys": "*u32"}, 1)
    assert "STACK:0" in schedule["-res-usage"]
    assert not any(name.startswith(("BRX", "CALL", "LDS", "LDL")) for name in instructions(schedule["-sass"]))


def loop_of(sass: str) -> list[str]:
    """The instructions between the target of the first jump backwards and the jump."""
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+((?:@!?U?P\w+\s+)?([A-Z0-9_.]+).*)", sass, re.MULTILINE)
    for place, text, name in lines:
        jump = re.search(r"BRA (?:`\()?0x([0-9a-f]+)", text)
        if name.startswith("BRA") and jump and int(jump[1], 16) < int(place, 16):
            return [name for at, _, name in lines if int(jump[1], 16) <= int(at, 16) <= int(place, 16)]
    raise AssertionError("no loop")


def test_a_loop_is_found() -> None:
    sass = "        /*0010*/  NOP ;\n        /*0020*/  IADD3 R1 ;\n        /*0030*/  @P0 BRA 0x20 ;\n"
    assert loop_of(sass) == ["IADD3", "BRA"]


BYTES = torch.zeros(100, dtype=torch.uint8)
DIGESTS = torch.zeros((1, 32), dtype=torch.uint8)


def test_tensors_on_the_cpu_are_refused_unless_interpreted() -> None:
    with pytest.raises(UsageError, match="CUDA"):
        kernels.shard_digests(BYTES, stride=100, size=100, last=100, count=1, out=DIGESTS)
    with pytest.raises(UsageError, match="CUDA"):
        kernels.prepare("cpu")


@pytest.mark.parametrize(
    "out",
    [
        DIGESTS[:, :31],
        DIGESTS.view(torch.int8),
        torch.zeros((2, 32), dtype=torch.uint8),
        DIGESTS.to("meta"),
        DIGESTS[0],
    ],
)
def test_digests_go_only_where_they_fit(out: object) -> None:
    with pytest.raises(UsageError, match="no room"):
        kernels.shard_digests(BYTES, stride=100, size=100, last=100, count=1, out=out)


KEYS = torch.zeros((1, 44), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("out", "keys", "said"),
    [
        (BYTES, KEYS[:, :43], "not a key"),
        (BYTES, KEYS.float(), "not a key"),
        (BYTES, KEYS.repeat(2, 1), "not a key"),
        (BYTES, KEYS.to("meta"), "not a key"),
        (BYTES.to("meta"), KEYS, "elsewhere"),
        (BYTES[:99], KEYS, "too short"),
    ],
)
def test_keys_and_plaintext_that_do_not_fit_are_refused(out: object, keys: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        kernels.ctr_xor(BYTES, out, stride=100, out_stride=100, size=100, last=100, count=1, keys=keys)


def test_a_shard_whose_counter_would_not_fit_is_refused() -> None:
    long = torch.empty(limits.LOADER_CIPHER_BYTES + 1, dtype=torch.uint8, device="meta")
    size = len(long)
    with pytest.raises(UsageError, match="too long"):
        kernels.ctr_xor(long, long, stride=size, out_stride=size, size=size, last=size, count=1, keys=KEYS)


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (BYTES, (100, 100, 101, 1)),
        (BYTES, (100, 0, 0, 1)),
        (BYTES, (100, 100, 100, 0)),
        (BYTES, (50, 51, 49, 2)),
        (BYTES, (60, 50, 41, 2)),
        (BYTES.view(10, 10), (100, 100, 100, 1)),
        (BYTES[::2], (50, 50, 50, 1)),
        (torch.zeros(100, dtype=torch.int8), (100, 100, 100, 1)),
    ],
)
def test_what_is_not_those_shards_is_refused(data: object, numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError):
        Rows(data, *numbers).check("it")


def test_shards_that_end_between_words_are_copied_with_zeros_behind_them_and_back_without() -> None:
    raw = torch.arange(1, 101, dtype=torch.uint8)
    rows = Rows(raw[3:], 30, 21, 10, 3)
    rows.check("it")
    assert not rows.aligned
    copy = rows.copied()
    assert copy.aligned is False, "the last shard still ends where it ends"
    assert copy.stride == 32
    table = copy.data.view(3, 32)
    assert table[0, :21].tolist() == list(range(4, 25))
    assert table[2, :10].tolist() == list(range(64, 74))
    assert not table[:, 21:].any() and not table[2, 10:].any()
    target = torch.full((100,), 7, dtype=torch.uint8)
    Rows(target, 25, 21, 10, 3).take(copy)
    assert target[25:46].tolist() == list(range(34, 55))
    assert target[21:25].tolist() == [7] * 4
    assert target[60:].tolist() == [7] * 40


@pytest.mark.parametrize(("begin", "numbers", "aligned"), [
    (0, (64, 64, 4, 1), True),
    (4, (20, 16, 8, 2), True),
    (1, (64, 64, 4, 1), False),
    (0, (64, 64, 3, 1), False),
    (0, (22, 16, 8, 2), False),
    (0, (20, 18, 8, 2), False),
])  # fmt: skip
def test_what_counts_as_aligned(begin: int, numbers: tuple[int, int, int, int], aligned: bool) -> None:
    assert Rows(BYTES[begin:], *numbers).aligned is aligned
