# SPDX-License-Identifier: Apache-2.0
"""mirrors.yaml: what is understood, and that everything else is refused with a sentence that says where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, SettingError, UsageError
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.mirror.config import Form, parse_mirrors, read_mirrors
from pq_registry.mirror.tokens import hub_of
from pq_registry.mirror.yamldoc import parse_yaml
from pqreg_cli.main import run

LEAST = """\
version: 1
mirrors:
  - name: huggingface
    namespace: acme-ai
    repositories: [acme/*]
    tags: [main, v1.*]
"""


def test_the_least_and_its_defaults() -> None:
    (mirror,) = parse_mirrors(LEAST.encode())
    assert (mirror.hub, mirror.open, mirror.sealed) == ("https://huggingface.co", Form.FULL, Form.SKIP)
    assert not mirror.private
    assert not mirror.adopt
    assert (mirror.main, mirror.token_variable, mirror.token_file) == (Tag("main"), None, None)
    assert mirror.wants(RepositoryName.parse("ACME/MiniLM"))
    assert not mirror.wants(RepositoryName.parse("other/minilm"))
    assert [mirror.wants_tag(Tag(tag)) for tag in ("main", "v1.0", "v2.0", "V1.0")] == [True, True, False, False]
    assert mirror.target(RepositoryName.parse("acme/MiniLM")) == "acme-ai/MiniLM"


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "mirrors.yaml").write_text(
        LEAST
        + "    hub: http://127.0.0.1:8471/\n    token_file: secrets/token\n    main: v1.0\n    open: card-only\n"
        + "    sealed: ciphertext\n    private: true\n    adopt: true\n    card: card.md\n"
        + "    rename: {Acme/MiniLM: minilm-de}\n"
    )
    (mirror,) = read_mirrors(tmp_path / "mirrors.yaml")
    assert (mirror.hub, mirror.open, mirror.sealed) == ("http://127.0.0.1:8471", Form.CARD_ONLY, Form.CIPHERTEXT)
    assert (mirror.private, mirror.adopt, mirror.main) == (True, True, Tag("v1.0"))
    assert mirror.card == tmp_path / "card.md"
    assert mirror.token_file == tmp_path / "secrets" / "token"
    assert mirror.target(RepositoryName.parse("acme/minilm")) == "acme-ai/minilm-de"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "version"),
        ("version: 1\n", "", "version"),
        ("    namespace: acme-ai\n", "", "namespace"),
        ("acme-ai", "acme/ai", "namespace"),
        ("[acme/*]", "[acme]", "repositories"),
        ("[acme/*]", "[]", "repositories"),
        ("[acme/*]", "acme/*", "repositories"),
        ("[main, v1.*]", "[main, 1]", "tags"),
        ("[main, v1.*]", "['v 1']", "tags"),
        ("huggingface", "Hugging Face", "name"),
        ("    tags", "    token: hf_secret\n    tags", "token_variable"),
        ("    tags", "    open: ciphertext\n    tags", "ciphertext"),
        ("    tags", "    sealed: full\n    tags", "sealed"),
        ("    tags", "    sealed: maybe\n    tags", "sealed"),
        ("    tags", "    hub: https://user:hf_secret@hub.example\n    tags", "hub"),
        ("    tags", "    hub: ftp://hub.example\n    tags", "hub"),
        ("    tags", "    private: no\n    tags", "private"),
        ("    tags", "    main: 'a b'\n    tags", "main"),
        ("    tags", "    rename: {acme/x: a/b}\n    tags", "rename"),
        ("    tags", "    unknown: 1\n    tags", "unknown"),
        ("    tags", "    token_variable: A\n    token_file: b\n    tags", "two tokens"),
        ("    tags", "    token_variable: 'hf_secret token'\n    tags", "token_variable"),
        ("    tags", "    tags", None),
    ],
)
def test_what_is_wrong_is_refused_and_no_secret_is_quoted(old: str, new: str, said: str | None) -> None:
    text = LEAST.replace(old, new, 1)
    if said is None:
        text += text.partition("mirrors:\n")[2]
        said = "twice"
    with pytest.raises(SettingError) as caught:
        parse_mirrors(text.encode())
    assert said in str(caught.value)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: &x 1\nb: *x",
        "a: 1\na: 2",
        "a: !!python/object/apply:os.system [id]",
        "a: !!str 1",
        "[" * (limits.MIRRORS_FILE_DEPTH + 2) + "]" * (limits.MIRRORS_FILE_DEPTH + 2),
        "[" * 100_000,
        "a: 1\n---\nb: 2",
        "%YAML 1.1\n---\na: 1",
        "? [a]\n: b",
        "{a: [}",
        "a: \x00",
        "x" * (limits.MIRRORS_FILE_BYTES + 1),
    ],
)
def test_yaml_that_is_clever_or_broken_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_yaml(text.encode(), what="mirrors.yaml")


def test_words_are_words() -> None:
    data = b"a: no\nb: 1.0\nc: 07\nd: 12\ne: true\nf: 'true'\ng:\nh: 2026-01-01\ni: \xc3\xa9\n"
    assert parse_yaml(data, what="x") == {
        "a": "no", "b": "1.0", "c": "07", "d": 12, "e": True, "f": "true", "g": None, "h": "2026-01-01", "i": "é",
    }  # fmt: skip
    with pytest.raises(FormatError):
        parse_yaml(b"\xff", what="x")


def test_without_yaml_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError) as caught:
        parse_mirrors(LEAST.encode())
    assert "pq-registry[mirror]" in str(caught.value.hint)


def test_tokens_come_from_where_the_file_says(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    from dataclasses import replace

    (mirror,) = parse_mirrors(LEAST.encode())
    by_variable = replace(mirror, token_variable="HF_TOKEN_ACME")
    assert hub_of(by_variable, environment={"HF_TOKEN_ACME": " hf_one \n"}).api.token == "hf_one"
    with pytest.raises(SettingError):
        hub_of(by_variable, environment={"HF_TOKEN": "hf_other"})
    (tmp_path / "token").write_text("hf_two\nand more\n")
    by_file = replace(mirror, token_file=tmp_path / "token")
    assert hub_of(by_file).api.token == "hf_two"
    assert "hf_two" not in repr(hub_of(by_file))
    (tmp_path / "token").write_text("\n")
    with pytest.raises(SettingError):
        hub_of(by_file)
    (tmp_path / "token").unlink()
    with pytest.raises(SettingError):
        hub_of(by_file)
    assert hub_of(mirror, environment={"HF_TOKEN": "hf_other"}).api.token is False


@pytest.mark.parametrize(
    "words",
    [
        ("push", "acme/minilm@sha256:" + "0" * 64),
        ("push", "acme/minilm", "--private"),
        ("push", "acme/minilm", "--to", "hf://minilm"),
        ("push", "acme/minilm", "--to", "hf://acme/minilm@v1"),
        ("push", "acme/minilm", "--to", "hf://acme/minilm", "--sealed", "full"),
        ("push", "acme/minilm", "--to", "hf://acme/minilm", "--mirror", "x"),
        ("sync", "--interval", "60", "--json"),
        ("sync", "--interval", "1"),
        ("sync", "--config", "/nonexistent/mirrors.yaml"),
        ("status", "nobody"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"XDG_CONFIG_HOME": tmp_path, "XDG_STATE_HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PQREG_REGISTRY", "http://127.0.0.1:9")
    (tmp_path / "pqreg").mkdir()
    (tmp_path / "pqreg" / "mirrors.yaml").write_text(LEAST)
    assert run(["mirror", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_mirror_without_its_token_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    second = LEAST.partition("mirrors:\n")[2].replace("name: ", "name: other-", 1)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PQREG_REGISTRY", "http://127.0.0.1:9")
    (tmp_path / "pqreg").mkdir()
    (tmp_path / "pqreg" / "mirrors.yaml").write_text(f"{LEAST}{second}    token_variable: NO_SUCH_TOKEN\n")
    assert run(["mirror", "sync"]) == 2
    assert "has no token" in capsys.readouterr().err
