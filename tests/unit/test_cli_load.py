# SPDX-License-Identifier: Apache-2.0
"""``pqreg load`` on directories: what it prints, what it measures, what it calls the limit, and what it refuses."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from pq_registry import limits
from pq_registry.client import machine
from pq_registry.client.meter import STAGES
from pq_registry.client.source import DirectorySource
from pq_registry.errors import ShardMismatch
from pq_registry.format.manifest import FileEntry
from pq_registry.loader import api, options
from pq_registry.loader.directsource import DirectSource, ReadMode
from pq_registry.loader.options import Request
from pqreg_cli import load as command
from pqreg_cli.console import Output
from pqreg_cli.keywords import as_options
from pqreg_cli.loadmeasure import library_warnings
from pqreg_cli.loadreport import Limit
from pqreg_cli.main import run
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.tensors import safetensors_bytes

ROOT = Path(__file__).resolve().parents[2]
SHARD = limits.SHARD_BYTES
ONE, _ = safetensors_bytes({"größe.weight": ("BF16", (3, SHARD // 2)), "bias": ("F32", (7,))}, 1)
TWO, _ = safetensors_bytes({"layers.0.w": ("BF16", (77,)), "layers.1.w": ("BF16", (78,)), "none": ("U8", (0, 4))}, 2)
TENSOR_BYTES = 3 * SHARD + 28 + 154 + 156


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trust file and a release in the current directory, judged at the time it was made."""
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    monkeypatch.chdir(tmp_path)
    release_directory(tmp_path / "out", {"one.safetensors": ONE, "sub/two.safetensors": TWO, "config.json": b"{}"})


class Ended:
    """What a command printed, and its status."""

    def __init__(self, status: int, printed: Any) -> None:
        self.status, self.out, self.err = status, printed.out, printed.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def pqreg(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def call(*words: str, expect: int = 0) -> Ended:
        capsys.readouterr()
        ended = Ended(run(["load", *words]), capsys.readouterr())
        assert ended.status == expect, ended.err
        return ended

    yield call
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pqreg")] == []


OUT = ("out", "--expect", "acme/minilm", "--framework", "numpy")


def test_it_says_what_was_loaded_and_how_fast(pqreg: Any) -> None:
    done = pqreg(*OUT)
    assert done.out.startswith("loaded: acme/minilm, 5 tensors, 6.3 MB, every shard as signed\n")
    assert re.search(
        r"^tensors +numpy on cpu; BF16: 3 tensors, 6\.3 MB; F32: 1 tensor, 28 bytes; U8: 1", done.out, re.MULTILINE
    )
    assert re.search(r"^loaded +in \d+\.\d\d s, \d+\.\d\d GB/s$", done.out, re.MULTILINE)
    assert "STAGE" not in done.out
    assert "load acme/minilm: 6.3 MB in" in done.err
    assert "note: transparency log: not checked" in done.err
    assert pqreg(*OUT, "--quiet").err == ""


def test_stats_are_a_table_whose_shares_add_up(pqreg: Any) -> None:
    text = pqreg(*OUT, "--stats").out
    head, *table = text[text.index("STAGE") :].split("\n\n")[0].splitlines()
    assert head.split() == ["STAGE", "SECONDS", "SHARE", "BYTES", "ONE", "THREAD"]
    assert [line.split()[0] for line in table] in (["read", "hash", "other"], ["read", "hash"])
    assert sum(int(re.findall(r"(\d+)%", line)[0]) for line in table) in (99, 100, 101)
    for name in ("threads", "processor", "memory", "limited by"):
        assert re.search(rf"^{name} +\S", text, re.MULTILINE)
    assert "█" not in text
    iterated = pqreg(*OUT, "--stats", "--iterate").out
    assert re.search(r"^copy +\d", iterated, re.MULTILINE)


def test_the_json_has_every_figure(pqreg: Any) -> None:
    done = pqreg(*OUT, "--json", "--repeat", "3")
    found = done.json
    assert done.err == ""
    assert (found["name"], found["tensors"], found["bytes"]) == ("acme/minilm", 5, TENSOR_BYTES)
    assert found["dtypes"]["BF16"] == {"tensors": 3, "bytes": TENSOR_BYTES - 28}
    assert (found["source"], found["framework"], found["device"], found["io"]) == ("directory", "numpy", "cpu", "auto")
    assert found["memory"]["peak"] >= found["memory"]["before"] > 10_000_000
    assert found["memory"]["device"] is None
    assert len(found["passes"]) == 3
    assert found["seconds"] == sorted(one["seconds"] for one in found["passes"])[1]
    for one in found["passes"]:
        assert set(one["stages"]) == set(STAGES)
        assert one["stages"]["hash"]["bytes"] >= TENSOR_BYTES
        assert one["limited_by"] in get_args(Limit)
    assert found["limited_by"] in get_args(Limit)


def test_kept_memory_is_used_again(pqreg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def watched(opened: Any, request: Request) -> dict[str, Any]:
        tensors = load_opened(opened, request)
        seen.append({name: (tensor.ctypes.data, tensor.tobytes()) for name, tensor in tensors.items() if tensor.size})
        tensors["bias"][:] = 0
        return tensors

    load_opened = api.load_opened
    monkeypatch.setattr(api, "load_opened", watched)
    assert pqreg(*OUT, "--repeat", "3", "--keep", "--json").json["keep"]
    assert seen[0] == seen[1] == seen[2]
    assert not pqreg(*OUT, "--repeat", "2", "--json").json["keep"]
    pqreg(*OUT, "--repeat", "2", "--keep", "--iterate")
    assert "found:    one load" in pqreg(*OUT, "--keep", expect=2).err


def test_names_are_patterns_and_files_are_paths(pqreg: Any) -> None:
    assert pqreg(*OUT, "--json", "--names", "layers.*", "--names", "bias").json["tensors"] == 3
    assert pqreg(*OUT, "--json", "--names", "größe.*").json["bytes"] == 3 * SHARD
    assert pqreg(*OUT, "--json", "--files", "sub", "--names", "*.w", "--iterate").json["tensors"] == 2
    refused = pqreg(*OUT, "--names", "nope*", expect=2).err
    assert "no tensor has a name like 'nope*'" in refused
    assert "größe.weight" in refused
    assert "the release has no safetensors file" in pqreg(*OUT, "--files", "nope", expect=2).err


def test_a_directory_needs_expect_and_a_name_that_is_none_is_said(pqreg: Any) -> None:
    assert "--expect NAME" in pqreg("out", expect=2).err
    assert "neither a directory nor a reference" in pqreg("nowhere", expect=2).err
    assert "there is no directory acme/minilm" in pqreg("acme/minilm:v1", "--expect", "acme/minilm", expect=2).err
    assert "acme/other" in pqreg("out", "--expect", "acme/other", expect=1).err


def test_what_lies_in_the_current_directory_changes_nothing(pqreg: Any, tmp_path: Path) -> None:
    (tmp_path / "out").rename(tmp_path / "acme")
    (tmp_path / "acme" / "minilm").mkdir()
    assert "PQREG_REGISTRY" in pqreg("acme/minilm", expect=2).err


@pytest.mark.parametrize("iterate", [(), ("--iterate",)])
def test_one_flipped_bit_is_exit_1_with_file_shard_and_step(
    pqreg: Any, tmp_path: Path, iterate: tuple[str, ...]
) -> None:
    path = tmp_path / "out" / "one.safetensors"
    data = bytearray(ONE)
    data[SHARD + 5] ^= 0x10
    path.write_bytes(data)
    done = pqreg(*OUT, *iterate, expect=1)
    assert done.out == ""
    assert "shard 1 of one.safetensors" in done.err
    assert re.search(r"^  step: +8, the content$", done.err, re.MULTILINE)
    assert re.search(r"^  next: +\S", done.err, re.MULTILINE)
    problem = json.loads(pqreg(*OUT, *iterate, "--json", expect=1).err)
    assert (problem["type"], problem["exit"]) == ("/problems/shard-mismatch", 1)


def test_errors_speak_of_options_and_not_of_keywords(pqreg: Any) -> None:
    done = pqreg("out", "--expect", "acme/minilm", "--framework", "numpy", "--device", "cuda", expect=2)
    assert "expected: --device cpu" in done.err
    assert "device=" not in done.err
    assert "found:    --device cpu" in pqreg(*OUT, "--check-on", "device", expect=2).err
    error = ShardMismatch("x", hint='give files= or framework="numpy"; iter_tensors needs less, key=5 is none of ours')
    said = as_options(error).hint
    assert said == "give --files or --framework numpy; --iterate needs less, key=5 is none of ours"


def test_a_model_larger_than_memory_is_refused_before_it_is_read(pqreg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: TENSOR_BYTES - 1)
    done = pqreg(*OUT, expect=2)
    assert "do not fit into memory" in done.err
    assert "--iterate" in done.err
    pqreg(*OUT, "--iterate")
    pqreg(*OUT, "--names", "bias")
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    pqreg(*OUT)


def members(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield name
            yield from members(below)
    for below in value if isinstance(value, list) else ():
        yield from members(below)


def test_every_member_of_the_json_and_every_limit_is_documented(pqreg: Any) -> None:
    page = (ROOT / "docs" / "operations" / "loading.md").read_text("utf-8")
    found = pqreg(*OUT, "--json").json
    of_the_release = list(found)[: list(found).index("unsealed")]
    found = set(members({name: value for name, value in found.items() if name not in of_the_release}))
    found -= {"BF16", "F32", "U8"}
    assert not [name for name in (*found, *get_args(Limit)) if f"`{name}`" not in page]


def test_every_option_of_load_is_documented() -> None:
    page = (ROOT / "docs" / "operations" / "loading.md").read_text("utf-8")
    section = page[page.index("\n## Options\n") : page.index("\n## On the command line\n")]
    rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(options.LoadOptions.__annotations__)


def test_the_content_key_is_overwritten_whatever_happens(pqreg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wiped: list[bool] = []
    unsealed: Any = SimpleNamespace(key=SimpleNamespace(wipe=lambda: wiped.append(True)))
    open_for = api.open_for
    monkeypatch.setattr(api, "open_for", lambda *words, **named: replace(open_for(*words, **named), unsealed=unsealed))
    pqreg(*OUT, "--names", "nope*", expect=2)
    assert wiped == [True]


def test_a_warning_of_the_library_is_one_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with library_warnings(Output(quiet=True)):
        logging.getLogger("pq_registry.loader.opening").warning("token %s\x1b", "withheld")
    logging.getLogger("pq_registry").handlers.clear()
    assert capsys.readouterr().err == "warning: token withheld\\x1b\n"


def test_a_file_system_that_does_not_read_past_the_page_cache_is_warned_of(
    pqreg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_direct(source: DirectSource, file: FileEntry) -> int:
        descriptor = DirectorySource._open_file(source, file)
        source._tell(file)
        return descriptor

    monkeypatch.setattr(DirectSource, "_open_file", without_direct)
    done = pqreg(*OUT, "--io", "direct", "--quiet")
    assert done.err.startswith("warning: ")
    assert "does not read past it" in done.err


def test_the_choices_are_those_of_the_library() -> None:
    assert get_args(command.Framework) == get_args(options.FrameworkName)
    assert get_args(command.Reading) == get_args(ReadMode)
    assert get_args(command.CheckedOn) == get_args(options.CheckedOn)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("--framework ", "dlpack"), ("--io ", "buffered"), ("--check-on ", "device"), ("--st", "--stats")],
)
def test_options_and_choices_are_completed_by_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, offered: str
) -> None:
    monkeypatch.setenv("_PQREG_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"pqreg load acme/minilm {typed}")
    monkeypatch.setenv("COMP_CWORD", "4" if typed.endswith(" ") else "3")
    with pytest.raises(SystemExit):
        run([])
    assert offered in capsys.readouterr().out
