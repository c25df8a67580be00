# SPDX-License-Identifier: Apache-2.0
"""The page's own Merkle tree, run in a browser against tiles of our log and proofs of its brute-force twin: every
inclusion and consistency proof it computes is the specification's, and nothing else passes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import brute_tree
from tests.e2e.browser import Open, chromium, require_chromium, visitor
from tests.logsamples import MemoryLog
from tests.server_harness import running

require_chromium()

LARGE = 70_000
SIZES = (1, 2, 3, 7, 255, 256, 257, brute_tree.LEAVES)
TREE = """
async ([path, files, size, indices, olds]) => {
  const { Tiles, leafHash, rootFromInclusion, isConsistent } = await import(path);
  const decode = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const hex = bytes => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
  const tiles = new Tiles(async name => name in files ? decode(files[name]) : null, size);
  const root = await tiles.hash(0, size);
  const found = { root: hex(root), inclusion: {}, consistency: {}, wrong: [], tampered: 0 };
  for (const index of indices) {
    const proof = await tiles.inclusionPath(index);
    found.inclusion[index] = proof.map(hex);
    const leaf = await leafHash(new TextEncoder().encode(`leaf ${index}`));
    const same = (...given) => rootFromInclusion(...given).then(found => hex(found) === hex(root), () => false);
    if (!await same(index, size, leaf, proof)) found.wrong.push(`leaf ${index} is refused`);
    if (index + 1 < size && await same(index + 1, size, leaf, proof)) found.wrong.push(`leaf ${index} at ${index + 1}`);
    if (await same(index, size, leaf, [...proof, root])) found.wrong.push(`leaf ${index}, path too long`);
    if (proof.length && await same(index, size, leaf, proof.slice(1))) found.wrong.push(`leaf ${index}, too short`);
    const other = await leafHash(new TextEncoder().encode(`leaf ${index}x`));
    if (await same(index, size, other, proof)) found.wrong.push(`another leaf at ${index}`);
  }
  if (!await tiles.leadTo(root)) found.wrong.push('the tiles are refused');
  for (const name of Object.keys(files).sort().reverse()) {
    for (const index of indices) {
      let read = false;
      const bent = new Tiles(async asked => {
        if (!(asked in files)) return null;
        const bytes = decode(files[asked]);
        if (asked === name) { read = true; bytes[0] ^= 1; }
        return bytes;
      }, size);
      await bent.inclusionPath(index);
      if (await bent.leadTo(root) && read) found.wrong.push(`${name} altered, leaf ${index}`);
    }
    found.tampered += 1;
    if (found.tampered === 12) break;
  }
  for (const [old, known] of olds) {
    const proof = await tiles.consistencyPath(old);
    found.consistency[old] = proof.map(hex);
    const before = decode(known);
    if (!await isConsistent(old, before, size, root, proof)) found.wrong.push(`${old} is refused`);
    const bent = before.slice(); bent[0] ^= 1;
    if (await isConsistent(old, bent, size, root, proof)) found.wrong.push(`another root at ${old}`);
    for (let at = 0; at < proof.length; at += 1) {
      const altered = proof.map(hash => hash.slice()); altered[at][7] ^= 1;
      if (await isConsistent(old, before, size, root, altered)) found.wrong.push(`${old}, hash ${at} altered`);
    }
    const short = proof.slice(1);
    if (old < size && await isConsistent(old, before, size, root, short)) found.wrong.push(`${old}, too short`);
    if (await isConsistent(old, before, size, root, [...proof, root])) found.wrong.push(`${old}, too long`);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a registry, and the path of its tree.js."""
    with running(tmp_path_factory.mktemp("tree") / "registry") as registry:
        yield registry.url, f"/static/{registry.app.state.pages.build}/tree.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    with visitor(browser) as open_page:
        yield open_page


def encoded(log: MemoryLog, *, full: bool = False) -> dict[str, str]:
    """The tiles of hashes; ``full`` leaves out partial ones that a full one has made superfluous."""
    names = [name for name in log.files if name.startswith("tile/") and "entries" not in name]
    kept = [name for name in names if not full or name.partition(".p/")[0] not in names or ".p/" not in name]
    return {name: base64.b64encode(log.files[name]).decode() for name in kept}


def roots(sizes: Iterable[int]) -> list[tuple[int, str]]:
    """Sizes of trees with their roots."""
    return [(size, base64.b64encode(brute_tree.mth(0, size)).decode()) for size in sizes]


def test_every_proof_is_the_specifications(visit: Open, module: tuple[str, str]) -> None:
    log = MemoryLog()
    for index in range(brute_tree.LEAVES):
        log.append_raw(brute_tree.entry(index))
        if log.size in SIZES:
            log.publish()
    url, path = module
    page = visit()
    page.goto(url)
    for size in SIZES:
        indices = sorted({0, 1, size // 2, 254, 255, 256, size - 2, size - 1} & set(range(size)))
        olds = sorted({1, 2, 3, 128, 255, 256, 257, size - 1, size} & set(range(1, size + 1)))
        for full in (False, True):
            found = page.evaluate(TREE, [path, encoded(log, full=full), size, indices, roots(olds)])
            assert found["wrong"] == [], size
            assert found["root"] == brute_tree.mth(0, size).hex(), size
            for index in indices:
                expected = [hash_.hex() for hash_ in brute_tree.path(index, 0, size)]
                assert found["inclusion"][str(index)] == expected, (size, index)
            for old in olds:
                assert found["consistency"][str(old)] == [hash_.hex() for hash_ in brute_tree.proof(old, size)]


def test_a_tree_of_three_levels_of_tiles(visit: Open, module: tuple[str, str]) -> None:
    log = MemoryLog()
    log.append_raw(*(brute_tree.entry(index) for index in range(LARGE)))
    log.publish()
    url, path = module
    page = visit()
    page.goto(url)
    indices, olds = [0, 65_535, 65_536, LARGE - 1], [1, 256, 65_536, 65_537, LARGE - 1, LARGE]
    found = page.evaluate(TREE, [path, encoded(log), LARGE, indices, roots(olds)])
    assert found["wrong"] == []
    tree = log.tree()
    assert found["root"] == tree.root.hex()
    for index in indices:
        assert found["inclusion"][str(index)] == [hash_.hex() for hash_ in tree.inclusion_proof(index)]
    for old in olds:
        assert found["consistency"][str(old)] == [hash_.hex() for hash_ in tree.consistency_proof(old)]


@pytest.mark.parametrize(
    ("level", "index", "width", "expected"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 0, 1, "tile/0/000.p/1"),
        (1, 999, 256, "tile/1/999"),
        (0, 1000, 256, "tile/0/x001/000"),
        (0, 1234067, 7, "tile/0/x001/x234/067.p/7"),
        (5, 1_000_000_000, 256, "tile/5/x001/x000/x000/000"),
    ],
)
def test_paths_of_tiles(
    visit: Open, module: tuple[str, str], tmp_path: Path, level: int, index: int, width: int, expected: str
) -> None:
    url, path = module
    page = visit()
    page.goto(url + "/session")
    script = "async ([path, ...where]) => (await import(path)).tilePath(...where)"
    assert page.evaluate(script, [path, level, index, width]) == expected
