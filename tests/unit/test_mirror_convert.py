# SPDX-License-Identifier: Apache-2.0
"""Weight files of torch that become safetensors: equal tensor by tensor, or refused, and nothing was run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")

from pq_registry import __version__, limits  # noqa: E402
from pq_registry.errors import FormatError, PqregError, UnsafeFileType  # noqa: E402
from pq_registry.format.digest import Digest  # noqa: E402
from pq_registry.format.importing import IMPORT_NAME, ImportStatement  # noqa: E402
from pq_registry.loader.torch_bridge import TORCH  # noqa: E402
from pq_registry.mirror import convertchild, converter  # noqa: E402
from pq_registry.mirror.converter import Conversion, convert  # noqa: E402
from tests.fake_hub import FakeHub, fake_hub  # noqa: E402
from tests.hub_site import go_online  # noqa: E402
from tests.import_site import bring, files_in  # noqa: E402

pytestmark = pytest.mark.torch


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def bits(tensor: Any) -> Any:
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def made_of(path: Path, conversion: Conversion) -> dict[str, Any]:
    """The tensors of a converted file, taken by its table."""
    data = path.read_bytes()
    assert len(data) == conversion.size
    assert Digest.of(data) == conversion.sha256
    found = {}
    for entry in conversion.table.tensors:
        begin = conversion.table.header_size + entry.begin
        raw = torch.frombuffer(
            bytearray(data[begin : begin + entry.end - entry.begin]) or bytearray(8), dtype=torch.uint8
        )
        dtype = getattr(torch, TORCH[entry.dtype])
        found[entry.name] = raw[: entry.end - entry.begin].view(dtype).reshape(entry.shape)
    return found


def assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(bits(found[name]), bits(tensor)), name


def test_every_kind_of_tensor_comes_out_as_torch_reads_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(limits, "CONVERT_PIECE_BYTES", 1000)
    tied = torch.randn(30, 50)
    wanted = OrderedDict(
        first=tied, second=tied, turned=torch.randn(100, 70).t(), cut=torch.arange(1000)[10:20], one=torch.tensor(3.5),
        strided=torch.randn(9, 8, 70).transpose(0, 2)[::3], empty=torch.zeros(0, 4),
        none=torch.zeros(0, dtype=torch.int8),
        trained=torch.nn.Parameter(torch.randn(3)), conjugate=torch.randn(3, dtype=torch.complex64).conj(),
        truth=torch.tensor([True, False, True]),
    )  # fmt: skip
    for name in (
        "bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "uint8",
        "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "complex64",
    ):  # fmt: skip
        wanted[name] = torch.randn(5, 3).abs().to(getattr(torch, name))
    source = saved(tmp_path / "m.bin", wanted)
    done = convert(source, tmp_path / "into/m.safetensors")
    assert_equal(made_of(tmp_path / "into/m.safetensors", done), torch.load(source, weights_only=True))
    assert done.torch == torch.__version__
    assert dict(done.table.metadata) == {"format": "pt"}
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["m.safetensors"]


class Hostile:
    """What os.system is asked for by whoever reads this pickle without restrictions."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch '{self.canary}'",)


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path) -> None:
    canary = tmp_path / "canary"
    source = saved(tmp_path / "m.bin", {"w": torch.ones(2), "x": Hostile(canary)})
    with pytest.raises(UnsafeFileType, match=r"m\.bin is not converted") as caught:
        convert(source, tmp_path / "m.safetensors")
    assert "posix.system" in (caught.value.found or "")
    assert "weights_only" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"m.bin"}
    # The trap is one: whoever reads it as pickles are read is caught.
    torch.load(source, weights_only=False)
    assert canary.exists()


REFUSED = {
    "a list": [torch.ones(1)],
    "a tensor": torch.ones(1),
    "an empty mapping": {},
    "a checkpoint": {"state_dict": {"w": torch.ones(1)}, "epoch": 3},
    "a number": {"w": torch.ones(1), "epoch": 3},
    "a name that is a number": {1: torch.ones(1)},
    "a sparse tensor": {"w": torch.eye(3).to_sparse()},
    "a tensor without content": {"w": torch.ones(3, device="meta")},
    "a dtype nobody knows": {"w": torch.ones(3, dtype=torch.complex128)},
    "a tensor that repeats itself": {"w": torch.ones(1).expand(10**9)},
    "windows over one another": {"w": torch.randn(100).as_strided((90, 10), (1, 1))},
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_is_no_flat_mapping_of_dense_tensors_is_refused(tmp_path, value) -> None:
    """As the process does it, but here: importing torch for each would take minutes."""
    with saved(tmp_path / "m.bin", value).open("rb") as file, pytest.raises(convertchild._Refused) as caught:
        for name, tensor in convertchild._read(torch, file.fileno()).items():
            convertchild._describe(torch, name, tensor, converter._DTYPES)
    assert caught.value.answer["found"]


def test_a_checkpoint_of_more_than_weights_is_refused(tmp_path) -> None:
    source = saved(tmp_path / "m.bin", {"state_dict": {"w": torch.ones(1)}, "epoch": 3})
    with pytest.raises(UnsafeFileType, match="'state_dict' in it is no tensor") as caught:
        convert(source, tmp_path / "m.safetensors")
    assert caught.value.hint == "leave it out: --exclude 'm.bin'"
    assert {path.name for path in tmp_path.iterdir()} == {"m.bin"}


def rewritten(source: Path, target: Path, method: int, change=lambda name, data: data) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_bombs_and_damaged_files_are_refused(tmp_path) -> None:
    source = saved(tmp_path / "m.bin", {"w": torch.zeros(1_000_000)})
    bomb = rewritten(source, tmp_path / "bomb.bin", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    old = saved(tmp_path / "old.bin", {"w": torch.zeros(10)}, _use_new_zipfile_serialization=False)
    (tmp_path / "cut.bin").write_bytes(source.read_bytes()[:-1000])
    short = rewritten(
        source, tmp_path / "short.bin", zipfile.ZIP_STORED, lambda name, data: data[:8] if "/data/" in name else data
    )
    for path in (bomb, old, tmp_path / "cut.bin", short):
        with pytest.raises((FormatError, UnsafeFileType), match=rf"{path.name} is not converted"):
            convert(path, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


# -- the process -----------------------------------------------------------------------------------------------------


def test_the_process_can_do_little(tmp_path) -> None:
    """What is still possible once it has given up what it can, said by a process that did."""
    code = (
        "import runpy, json, os, socket, sys\n"
        f"child = runpy.run_path({convertchild.__file__!r})\n"
        "network = child['_give_up'](os.getppid())\n"
        "said = {'network': network}\n"
        "try:\n"
        f"    os.write(os.open({str(tmp_path / 'written')!r}, os.O_WRONLY | os.O_CREAT), b'x')\n"
        "except OSError:\n"
        "    said['write'] = False\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "said['privileges'] = [status[name].strip() for name in ('CapEff', 'CapPrm', 'NoNewPrivs')]\n"
        "said['interfaces'] = [name for _, name in socket.if_nameindex()]\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    said = json.loads(done.stdout)
    assert said["write"] is False
    assert said["privileges"] == ["0" * 16, "0" * 16, "1"]
    assert said["network"] or said["interfaces"] == ["lo"]
    assert not (tmp_path / "written").exists() or not (tmp_path / "written").read_bytes()


def pretend(monkeypatch, tmp_path: Path, code: str) -> None:
    """Let another program be the one that reads the file."""
    script = tmp_path / "pretender.py"
    script.write_text(f"import sys, os, json, signal, time\n{code}\n")
    monkeypatch.setattr(convertchild, "__file__", str(script))


def plan(**fields: Any) -> str:
    said = {"tensors": [["w", "U8", [4]]], "torch": "2.10.0", "network": False, **fields}
    return f"print({json.dumps(said)!r}, flush=True)"


LIES = {
    "nothing": "",
    "no JSON": "print('hello')",
    "too few bytes": f"{plan()}\nos.write(1, b'123')",
    "too many bytes": f"{plan()}\nos.write(1, b'12345')",
    "killed": f"{plan()}\nos.write(1, b'12')\nos.kill(os.getpid(), signal.SIGSEGV)",
    "an unknown dtype": plan(tensors=[["w", "X9", [4]]]),
    "a size nobody has": plan(tensors=[["w", "U8", [2**50, 2**50]]]),
    "more than there can be": plan(tensors=[["w", "U8", [10_000_000]]]),
    "a negative size": plan(tensors=[["w", "U8", [-4]]]),
    "a name with a line end": plan(tensors=[["w\n", "U8", [4]]]),
    "the header's own name": plan(tensors=[["__metadata__", "U8", [4]]]),
    "two of one name": plan(tensors=[["w", "U8", [2]], ["w", "U8", [2]]]),
    "misaligned": plan(tensors=[["a", "U8", [1]], ["b", "F32", [1]]]),
    "no tensors": plan(tensors=[]),
    "another shape": plan(tensors=[["w", "U8"]]),
    "another field": plan(more=1),
    "no version": plan(torch=7),
}


@pytest.mark.parametrize("code", LIES.values(), ids=LIES)
def test_what_the_process_says_is_not_believed(tmp_path, monkeypatch, code) -> None:
    source = saved(tmp_path / "m.bin", {"w": torch.ones(4)})
    pretend(monkeypatch, tmp_path, code)
    with pytest.raises((UnsafeFileType, FormatError)):
        convert(source, tmp_path / "into/m.safetensors")
    assert not list((tmp_path / "into").iterdir())


def test_one_that_falls_silent_is_ended(tmp_path, monkeypatch) -> None:
    source = saved(tmp_path / "m.bin", {"w": torch.ones(4)})
    pretend(monkeypatch, tmp_path, f"{plan()}\nos.write(1, b'12')\nsignal.pause()")
    monkeypatch.setattr(limits, "CONVERT_SILENCE_SECONDS", 0.5)
    with pytest.raises(UnsafeFileType, match="did not finish"):
        convert(source, tmp_path / "into/m.safetensors")
    assert not list((tmp_path / "into").iterdir())


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch) -> None:
    source = saved(tmp_path / "m.bin", {"w": torch.ones(4)})
    pretend(monkeypatch, tmp_path, f"{plan()}\nos.write(1, b'12')\nsignal.pause()")

    def interrupt(_count: int) -> None:
        children.extend(converter_children())
        raise KeyboardInterrupt

    children: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "into/m.safetensors", advance=interrupt)
    assert not list((tmp_path / "into").iterdir())
    assert children
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def converter_children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in text.split() if b"pretender.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


# -- an import -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running():
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def hub(running: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    go_online(monkeypatch)
    running.reset()
    return running


def sharded(tmp_path: Path) -> dict[str, bytes]:
    """A model in two files and an index, as transformers used to write them."""
    parts = {"1": {"a": torch.randn(4, 4), "b": torch.ones(3).bfloat16()}, "2": {"c": torch.arange(5)}}
    files = {"config.json": b"{}"}
    mapped: dict[str, str] = {}
    for part, tensors in parts.items():
        name = f"pytorch_model-0000{part}-of-00002.bin"
        files[name] = saved(tmp_path / name, tensors).read_bytes()
        mapped |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": 110}, "weight_map": mapped}
    files["pytorch_model.bin.index.json"] = json.dumps(index).encode()
    return files


def test_a_model_in_several_files_is_imported_converted(hub, tmp_path) -> None:
    model = sharded(tmp_path)
    hub.add(model)
    with pytest.raises(UnsafeFileType) as caught:
        bring(hub, tmp_path / "place")
    assert "--convert" in (caught.value.hint or "")
    staged = bring(hub, tmp_path / "place", convert=True)
    found = files_in(staged.directory)
    statement = ImportStatement.parse(found.pop(IMPORT_NAME))
    assert statement == staged.statement
    assert {file.path.text: made.path.text for file, made in statement.converted} == {
        "pytorch_model-00001-of-00002.bin": "model-00001-of-00002.safetensors",
        "pytorch_model-00002-of-00002.bin": "model-00002-of-00002.safetensors",
        "pytorch_model.bin.index.json": "model.safetensors.index.json",
    }
    for file, made in statement.converted:
        assert file.found == Digest.of(model[file.path.text])
        assert (made.size, made.sha256) == (len(found[made.path.text]), Digest.of(found[made.path.text]))
        assert made.tool == __version__
        assert made.torch == (None if made.path.text.endswith(".json") else torch.__version__)
    assert [file.path.text for file in statement.imported] == ["config.json"]
    assert found.keys() == {"config.json", *(made.path.text for _, made in statement.converted)}
    assert json.loads(found["model.safetensors.index.json"]) == {
        "metadata": {"total_size": 64 + 6 + 40},
        "weight_map": {
            "a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors",
        },
    }  # fmt: skip
    # Again: nothing is fetched that was set aside, and the same is said.
    hub.asked.clear()
    again = bring(hub, tmp_path / "place", convert=True)
    assert again.statement.encode() == staged.statement.encode()
    assert files_in(again.directory).keys() == {*found, IMPORT_NAME}
    assert not [line for line in hub.asked if line.startswith("GET /org/model/resolve")]
    # And without them: nothing of the conversion is left.
    plain = bring(hub, tmp_path / "place", exclude=("*.bin", "*.index.json"))
    assert files_in(plain.directory).keys() == {"config.json", IMPORT_NAME}


def test_one_hostile_file_among_others_ends_the_import(hub, tmp_path) -> None:
    canary = tmp_path / "canary"
    model = {
        "config.json": b"{}",
        "a.pt": saved(tmp_path / "a.pt", {"w": Hostile(canary)}).read_bytes(),
        "b.pt": saved(tmp_path / "b.pt", {"w": torch.ones(2)}).read_bytes(),
    }
    hub.add(model)
    with pytest.raises(UnsafeFileType, match=r"a\.pt"):
        bring(hub, tmp_path / "place", convert=True)
    assert not canary.exists()
    assert IMPORT_NAME not in files_in(tmp_path / "place")
    assert not list((tmp_path / "place").glob("*.safetensors"))


def test_what_is_left_of_the_signal_is_said(tmp_path, monkeypatch) -> None:
    source = saved(tmp_path / "m.bin", {"w": torch.ones(4)})
    pretend(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGXCPU)")
    with pytest.raises(PqregError) as caught:
        convert(source, tmp_path / "m.safetensors")
    assert signal.SIGXCPU.name in (caught.value.found or "")
