# SPDX-License-Identifier: Apache-2.0
"""The documentation holds what it says: links lead somewhere, commands and options exist, nothing is missing.

``make docs`` runs this file.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from pq_registry.server import routes
from pq_registry.server.metrics import Metrics
from pq_registry.server.problems import HTTP_PROBLEMS
from pq_registry.settings import SETTINGS
from pqreg_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
TOP = "pqreg"
NOT_COMMANDS = tuple(f"pqreg {kind} key v1" for kind in ("secret", "pkcs11", "unseal", "slhdsa"))  # of key files


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors GitHub makes of the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = 0
        while (candidate := slug if not count else f"{slug}-{count}") in found:
            count += 1
        found.add(candidate)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        assert not target.startswith(("http://", "/")), f"{name(page)}: {target}"
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)}: {target}: no such file"
        assert file.is_relative_to(ROOT), f"{name(page)}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{name(page)}: {target}: no such heading"


@pytest.mark.parametrize("folder", ["docs/spec", "docs/adr"])
def test_every_page_of_a_folder_stands_in_its_index(folder: str) -> None:
    index = set(LINK.findall((ROOT / folder / "README.md").read_text("utf-8")))
    pages = {path.name for path in (ROOT / folder).iterdir() if path.name != "README.md" and path.is_file()}
    assert pages <= index, f"not in {folder}/README.md: {sorted(pages - index)}"


def test_every_page_for_operators_stands_in_the_index() -> None:
    index = set(LINK.findall((ROOT / "docs" / "README.md").read_text("utf-8")))
    pages = {f"operations/{path.name}" for path in (ROOT / "docs" / "operations").iterdir()}
    assert pages <= index, f"not in docs/README.md: {sorted(pages - index)}"


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "operations" / "settings.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    assert set(rows) == {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        variable, default = rows[setting.name].split(" | ")[:2]
        assert variable == f"`{setting.variable}`"
        assert default == (f"`{setting.default}`" if setting.default else "–"), setting.name


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that lead to it."""
    context = group.context_class(group, info_name=" ".join((TOP, *path)))
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if hasattr(command, "list_commands"):
            yield from commands(command, (*path, word))
        else:
            yield (*path, word), command


@cache
def every_command() -> dict[tuple[str, ...], Any]:
    return dict(commands(typer.main.get_command(app)))


@cache
def groups() -> set[tuple[str, ...]]:
    return {path[:length] for path in every_command() for length in range(1, len(path))}


def command_lines(page: Path) -> Iterator[str]:
    """Every ``pqreg …`` the page shows: in shell blocks, line by line, and in inline code."""
    text = page.read_text("utf-8")
    for language, body in FENCE.findall(text):
        if language in ("sh", "console"):
            for line in body.replace("\\\n", " ").splitlines():
                yield from re.findall(r"(?:^|[\s;|(])(pqreg(?:\s[^|;)]*)?)", line.split(" #")[0].removeprefix("$ "))
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        if re.match(r"pqreg( |$)", code) and not code.startswith(NOT_COMMANDS):
            yield code


def parsed(line: str) -> tuple[tuple[str, ...], list[str]]:
    """The command a documented line names, and the options it gives."""
    words = shlex.split(line)[1:]
    words = words[: words.index("--")] if "--" in words else words  # what follows is another program's
    if "--" in words:  # what follows is another program's
        words = words[: words.index("--")]
    path: tuple[str, ...] = tuple(words[:1])
    while path in groups() and len(words) > len(path) and not words[len(path)].startswith("-"):
        path = tuple(words[: len(path) + 1])
    return path, [word.split("=")[0] for word in words[len(path) :] if word.startswith("-") and len(word) > 1]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_documented_command_exists_with_its_options(page: Path) -> None:
    for line in command_lines(page):
        path, options = parsed(line)
        if not path or path[0].startswith("-") or path[0].isupper() or path in groups():
            continue  # the program itself, `pqreg COMMAND --help`, or a group as a whole
        assert path in every_command(), f"{name(page)}: {line}: no such command"
        known = {
            option
            for parameter in every_command()[path].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        unknown = [option for option in options if option not in known | {"--help", "-h", "--debug"}]
        assert not unknown, f"{name(page)}: {line}: {path} has no {unknown}"


def test_every_command_is_documented() -> None:
    documented = {parsed(line)[0] for page in PAGES for line in command_lines(page)}
    assert set(every_command()) <= documented, f"not shown anywhere: {sorted(set(every_command()) - documented)}"


def served_routes() -> set[str]:
    """Method and path of every route, from every module of routes there is."""
    found = set()
    for module in pkgutil.iter_modules(routes.__path__):
        for route in importlib.import_module(f"{routes.__name__}.{module.name}").router.routes:
            found |= {f"{method} {route.path}" for method in route.methods}
    return found


def test_every_route_is_documented_and_every_documented_route_is_served() -> None:
    text = "".join((ROOT / "docs" / "spec" / page).read_text("utf-8") for page in ("http-api.md", "hub.md"))
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", text, re.MULTILINE)) == served_routes()


def test_every_problem_of_http_is_documented() -> None:
    text = (ROOT / "docs" / "spec" / "errors.md").read_text("utf-8")
    assert not [code for code, _ in HTTP_PROBLEMS.values() if f"`{code}`" not in text]


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "operations" / "service.md").read_text("utf-8")
    names = set(re.findall(r"^# TYPE (\w+) ", Metrics().render().decode(), re.MULTILINE))
    assert names
    assert not [name for name in names if not name.endswith("_created") and f"`{name}`" not in text]


def test_every_make_target_that_is_documented_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text("utf-8")
        shown = re.findall(r"`make ([a-z-]+)", prose(page))
        shown += [
            word for _, body in FENCE.findall(text) for word in re.findall(r"^make ([a-z-]+)", body, re.MULTILINE)
        ]
        assert set(shown) <= targets, f"{name(page)}: {sorted(set(shown) - targets)}"


def test_every_page_the_sources_name_exists() -> None:
    for folder in ("pq_registry", "cli", "keys", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for page in re.findall(r"\bdocs/[\w./-]+\.(?:md|json)\b", path.read_text("utf-8")):
                assert (ROOT / page).is_file(), f"{path.relative_to(ROOT)} names {page}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = [line.partition(" ||")[0] for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make test" in script
    assert "make lint" in script
    assert re.search(r"^make test\b", readme, re.MULTILINE)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
