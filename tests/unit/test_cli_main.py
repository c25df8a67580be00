# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: exit statuses, the error block, help that loads nothing, no traceback for anything."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pq_registry.errors import ConnectionFailed, PqregError, ShardMismatch, UsageError
from pqreg_cli import lazy, main
from pqreg_cli.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("cryptography", "numpy", "urllib3", "fastapi", "sqlalchemy", "rich", "torch", "boto3", "uvicorn", "pqreg_keys")


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=environment(**variables))  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    return {**os.environ, "PYTHONPATH": path, **variables}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Makes ``pqreg version`` raise what the test wants."""

    def set_error(error: BaseException) -> None:
        def version() -> None:
            raise error

        monkeypatch.setattr("pqreg_cli.version.version", version)

    return set_error


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pqreg_cli.main import run; status = run(['--help']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = python("-c", code)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    for entry in lazy.COMMANDS:
        assert re.search(rf"^  {entry.name} +{re.escape(entry.help)}$", done.stdout, re.MULTILINE)


def test_no_arguments_show_the_help() -> None:
    assert main.run([]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert re.fullmatch(r"pqreg \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert main.run(["version", "--json"]) == 0
    assert {"pq-registry", "python", "openssl"} <= set(json.loads(capsys.readouterr().out))


def walk_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for entry in lazy.COMMANDS:
        below = getattr(lazy.load(entry), "commands", None)
        found += [(entry.name, name) for name in below] if below else []
        found.append((entry.name,))
    return found


@pytest.mark.parametrize("words", walk_commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_that_is_not_wrapped(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: pqreg {' '.join(words)} ")
    assert "\x08" not in text
    if "COMMAND [ARGS]" not in text:
        examples = re.search(r"\n  Examples?:\n((?:    .+\n)+)", text)
        assert examples, text
        assert f"pqreg {' '.join(words)}" in examples[1]


@pytest.mark.parametrize("words", [["nonsense"], ["--nonsense"], ["pull"], ["version", "extra"], ["trust", "nonsense"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert re.search(r"^  next: +pqreg.* --help$", printed.err, re.MULTILINE)


def test_an_import_says_first_that_a_volume_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bundle", "import", str(tmp_path / "nothere")]) == 2
    assert f"there is no {tmp_path / 'nothere'}" in " ".join(capsys.readouterr().err.split())
    assert main.run(["bundle", "import", str(tmp_path)]) == 2
    assert "where to?" in capsys.readouterr().err


def test_a_mistyped_command_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["verfy"]) == 2
    assert "Did you mean 'verify'?" in capsys.readouterr().err


def test_the_error_block(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ShardMismatch("a shard is wrong", expected="aa", found="b\x1bb", hint="pull it again"))
    assert main.run(["version"]) == 1
    assert capsys.readouterr().err == (
        "error: a shard is wrong\n"
        "  expected: aa\n"
        "  found:    b\\x1bb\n"
        "  step:     8, the content\n"
        "  next:     pull it again\n"
    )


def test_the_error_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def version(*, json: bool = False) -> None:
        raise ShardMismatch("a shard is wrong", expected="aa", hint="again")

    monkeypatch.setattr("pqreg_cli.version.version", version)
    assert main.run(["version", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err) == {
        "type": "/problems/shard-mismatch", "title": "shard mismatch", "detail": "a shard is wrong", "exit": 1,
        "expected": "aa", "step": 8, "hint": "again",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status"),
    [(ShardMismatch("x"), 1), (UsageError("x"), 2), (ConnectionFailed("x"), 3), (PqregError("x"), 1),
     (KeyError("x"), 3), (OSError(5, "x"), 3), (RecursionError(), 3), (MemoryError(), 3), (KeyboardInterrupt(), 130)],
)  # fmt: skip
def test_exit_status_by_error(failing, error: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    failing(error)
    assert main.run(["version"]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_f8_an_unexpected_error_is_one_line_and_debug_shows_where(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ZeroDivisionError("division\nby zero"))
    assert main.run(["version"]) == 3
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text
    assert "--debug" in text
    assert "Traceback" not in text
    assert main.run(["version", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert main.run(["version"]) == 130
    assert "continue where they stopped" in capsys.readouterr().err


def test_a_missing_extra_is_named(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ModuleNotFoundError("No module named 'fastapi'", name="fastapi"))
    assert main.run(["version"]) == 2
    assert "pip install 'pq-registry[server]'" in capsys.readouterr().err
    assert "some_package" in Problem.of(ModuleNotFoundError(name="some_package.part")).detail


def test_words_after_two_dashes_are_not_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["verify", "--", "--debug"]) != 0
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert "--debug" in text


def test_a_reader_that_goes_away_is_no_refusal() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run([sys.executable, "-m", "pqreg_cli", "--help"], check=False, stdout=write_end,
                              stderr=subprocess.PIPE, env=environment(), timeout=60)  # fmt: skip
    finally:
        os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == b""


def test_a_stream_without_unicode_is_no_reason_to_fail() -> None:
    done = python("-m", "pqreg_cli", "n\u00f6nsense", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2
    assert "n\\xf6nsense" in done.stderr


def test_ctrl_c_while_waiting_ends_with_130() -> None:
    code = (
        "import sys, time, pqreg_cli.version as v\n"
        "def version():\n print('ready', flush=True)\n time.sleep(60)\n"
        "v.version = version\n"
        "from pqreg_cli.main import main\nmain(['version'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment())  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize("delay", [0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_ctrl_c_at_any_moment_ends_with_130_and_no_traceback(delay: float, tmp_path: Path) -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "real = signal.signal\n"
        "def installed(*arguments):\n"
        " signal.signal = real\n answer = real(*arguments)\n os.write(1, b'ready\\n')\n return answer\n"
        "signal.signal = installed\n"
        "sys.argv[1:] = ['whoami']\n"
        "runpy.run_module('pqreg_cli', run_name='__main__')"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        variables = {"PQREG_REGISTRY": f"http://127.0.0.1:{silent.getsockname()[1]}", "PQREG_TOKEN": "t" * 43}
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=environment(HOME=str(tmp_path), **variables))  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)  # not to wait for anything: the moment of the interrupt is what is varied
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_completion_offers_commands_without_importing_them() -> None:
    code = (
        f"import sys, atexit; atexit.register(lambda: print([m for m in {HEAVY!r} if m in sys.modules], "
        "file=sys.stderr)); from pqreg_cli.main import main; main()"
    )
    done = python("-c", code, _PQREG_COMPLETE="complete_bash", COMP_WORDS="pqreg pu", COMP_CWORD="1")
    assert done.stdout.split() == ["push", "pull"]
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("words", [["pull", "acme/m:v1", ""], ["serve", "--data", ""], ["push", "", "acme/m"]])
def test_an_empty_argument_does_not_mean_the_current_directory(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 2
    assert "is empty" in capsys.readouterr().err


def test_an_empty_argument_of_a_program_that_is_run_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["exec", "acme/m:v1", "--", "no-such-program", "{dir}", ""]) == 2
    assert "no program 'no-such-program'" in capsys.readouterr().err
    assert main.run(["exec", "", "--", "ls", "{dir}"]) == 2
    assert "argument 2 is empty" in capsys.readouterr().err
    assert main.run(["pull", "acme/m:v1", "--", ""]) == 2
    assert "is empty" in capsys.readouterr().err


def test_too_little_memory_is_no_surprise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def invoke(_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(main, "_invoke", invoke)
    assert main.run(["version"]) == 3
    assert "there is not enough memory" in capsys.readouterr().err
