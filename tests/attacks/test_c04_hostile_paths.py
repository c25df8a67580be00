# SPDX-License-Identifier: Apache-2.0
"""C4: file names that leave the directory, meet another file, or cannot exist on one of the systems we serve.

huggingface_hub #1429, #3896 and #4086, go-tuf CVE-2026-24686. Every name is tried where a publisher can put one.
"""

from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.statement import ReleaseStatement
from tests.format_samples import changed, documents, file_entry, manifest, put
from tests.strategies import ALPHABET

PAYLOAD, MANIFEST = documents()

HOSTILE = {
    "parent": "..",
    "climbs": "../x",
    "climbs later": "a/../../x",
    "climbs and comes back": "a/../a",
    "here": ".",
    "here inside": "a/./b",
    "empty": "",
    "empty component": "a//b",
    "ends in a slash": "a/",
    "absolute": "/etc/passwd",
    "two slashes": "//host/share",
    "drive": "C:/x",
    "drive, relative": "C:x",
    "backslash": "..\\x",
    "backslash inside": "a\\..\\..\\x",
    "UNC": "\\\\host\\share\\x",
    "device path": "\\\\?\\C:\\x",
    "NUL": "a\0b",
    "NUL before a suffix": "model.bin\0.safetensors",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "escape": "\x1b[2Ja",
    "DEL": "a\x7f",
    "C1 control": "a\x9b31m",
    "stream": "a.txt:hidden",
    "stream of a directory": "a::$DATA",
    "wildcards": "a*",
    "question": "a?",
    "quote": 'a"',
    "redirect": "a>b",
    "pipe": "a|b",
    "trailing dot": "a.",
    "trailing dot of a directory": "a./b",
    "trailing space": "a ",
    "trailing space of a directory": "a /b",
    "three dots": "...",
    "device": "con",
    "device in capitals": "NUL",
    "device with a suffix": "aux.txt",
    "device with two suffixes": "com1.tar.gz",
    "device in a directory": "prn/x",
    "device with a superscript": "com\u00b9",
    "console": "CONIN$",
    "not NFC": unicodedata.normalize("NFD", "möbel"),
    "not NFC, compatibility": "\u212b",
    "a Kelvin sign": "\u212a",
    "lone surrogate": "\ud800",
    "component of 256 bytes": "a" * 256,
    "component of 256 bytes in UTF-8": "é" * 128,
    "1025 bytes": "/".join(["a" * 204] * 5) + "b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_path_is_no_path(text: str) -> None:
    with pytest.raises(FormatError):
        ReleasePath(text)


@pytest.mark.parametrize("text", [text for name, text in HOSTILE.items() if name != "lone surrogate"], ids=ascii)
def test_a_hostile_path_gets_into_no_document(text: str) -> None:
    for parse, data, keys in (
        (Manifest.parse, MANIFEST, ("files", 0, "path")),
        (ReleaseStatement.parse, PAYLOAD, ("predicate", "resources", 0, "name")),
    ):
        with pytest.raises(FormatError):
            parse(changed(data, put(*keys, value=text)))


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a/b",
        ".hidden",
        "a..b",
        "-x",
        "~",
        "a b",
        "icon",
        "console.txt",
        "com10",
        "nul1.txt",
        "möbel/größe.txt",
        "模型/权重.safetensors",
        "😀",
        "a" * 255,
        "/".join(["a" * 204] * 5),
        "#x",
        "$x",
        "a'b",
        "(1)",
    ],
    ids=ascii,
)
def test_ordinary_paths_are_paths(text: str) -> None:
    assert str(ReleasePath(text)) == text


@given(st.lists(st.text(ALPHABET + '\\:*?"<>|\0\n', max_size=6), min_size=1, max_size=4).map("/".join))
def test_what_is_accepted_stays_inside_on_both_systems(text: str) -> None:
    try:
        path = ReleasePath(text)
    except FormatError:
        return
    assert posixpath.normpath(posixpath.join("/root", text)) == "/root/" + text
    assert ntpath.normpath(ntpath.join("C:\\root", text)) == "C:\\root\\" + text.replace("/", "\\")
    assert not PureWindowsPath(text).is_reserved()
    assert not any(part.endswith((".", " ")) for part in path.parts)
    assert path.under(Path("/root")).relative_to("/root").as_posix() == text
    assert unicodedata.normalize("NFC", text) == text


COLLISIONS = {
    "case": ("README.md", "readme.MD"),
    "case of a directory's file": ("a/B", "A/b"),
    "sharp s": ("straße", "STRASSE"),
    "long s": ("s", "\u017f"),
    "ligature": ("ﬁle", "file"),
    "Greek final sigma": ("σας", "ΣΑΣ"),
    "dotted I, folded and composed": ("\u0130", "i\u0307"),
    "a file and a directory": ("a", "a/b"),
    "a file and a directory, folded": ("A", "a/b/c"),
    "a file and a deeper directory": ("x/y", "x/Y/z"),
    "the same": ("a", "a"),
}


@pytest.mark.parametrize("pair", COLLISIONS.values(), ids=COLLISIONS.keys())
def test_two_names_of_one_file(pair: tuple[str, str]) -> None:
    one, other = (ReleasePath(unicodedata.normalize("NFC", text)) for text in pair)
    with pytest.raises(FormatError):
        check_distinct([one, other])
    with pytest.raises(FormatError):
        check_distinct([other, one])
    with pytest.raises(FormatError):
        manifest(files=tuple(sorted((file_entry(one.text), file_entry(other.text)), key=lambda entry: entry.path)))


def test_names_that_only_look_alike_are_two_files() -> None:
    check_distinct([ReleasePath(text) for text in ("a", "а", "a.b", "ab", "a-", "b/a", "b/c/a")])


@pytest.mark.parametrize(
    "name",
    ["../x", "acme/..", "acme/.", "/acme", "acme/", "acme/x/y", "acme\\x", "acme/x\n", "acme/x\0", "ac me/x", "acme/ü",
     "acme/x..y", "acme/x--y", "-a/x", "acme/.git", "acme/x:y", "acme/x@y", "a" * 97 + "/x", "acme/%2e%2e"],
    ids=ascii,
)  # fmt: skip
def test_a_hostile_repository_name_is_no_name(name: str) -> None:
    with pytest.raises(NameSyntaxError):
        RepositoryName.parse(name)
    with pytest.raises(FormatError):
        Manifest.parse(changed(MANIFEST, put("name", value=name)))
