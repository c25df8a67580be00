// SPDX-License-Identifier: Apache-2.0
// The Merkle tree of RFC 6962 §2.1 over the tiles of c2sp.org/tlog-tiles. Whatever is read from a tile counts only once
// a root that somebody signed has been computed from it.

import { concat, equal, sha256 } from "./bytes.js";

const WIDTH = 256;
const HEIGHT = 8;
const HASH = 32;

/** The hash of a leaf: SHA-256(0x00 || entry). */
export const leafHash = (entry) => sha256(concat(Uint8Array.of(0), entry));

/** The hash of an inner node: SHA-256(0x01 || left || right). */
export const nodeHash = (left, right) => sha256(concat(Uint8Array.of(1), left, right));

/** The path of a tile: `tile/0/x001/234.p/7`. */
export function tilePath(level, index, width) {
  const groups = [];
  for (let rest = index; groups.length === 0 || rest > 0; rest = Math.floor(rest / 1000)) {
    groups.unshift(String(rest % 1000).padStart(3, "0"));
  }
  const path = groups.map((group, at) => (at < groups.length - 1 ? `x${group}` : group)).join("/");
  return `tile/${level}/${path}${width < WIDTH ? `.p/${width}` : ""}`;
}

/** The tiles of a tree of `size` leaves; `read` answers the bytes of a path, or null if there is no such file. */
export class Tiles {
  constructor(read, size) {
    this.size = size;
    this.fetched = 0;
    this._read = read;
    this._tiles = new Map();
  }

  /** MTH(D[start:end]); the range is a whole subtree or reaches the right edge. */
  async hash(start, end) {
    const count = end - start;
    if (count === 0) return sha256(new Uint8Array());
    const split = largestPowerBelow(count);
    if (count === 1 || 2 * split === count) return this._complete(start, Math.log2(count));
    return nodeHash(await this.hash(start, start + split), await this.hash(start + split, end));
  }

  /** The hashes that lead from a leaf to the root, the leaf's sibling first. */
  async inclusionPath(index, start = 0, end = this.size) {
    if (end - start === 1) return [];
    const middle = start + largestPowerBelow(end - start);
    return index < middle
      ? [...(await this.inclusionPath(index, start, middle)), await this.hash(middle, end)]
      : [...(await this.inclusionPath(index, middle, end)), await this.hash(start, middle)];
  }

  /** The hashes that lead from the tree of the first `old` leaves to this one (RFC 6962 §2.1.2). */
  consistencyPath(old) {
    return this._subproof(old, 0, this.size, true);
  }

  /** The hash of a leaf as its tile has it. */
  async leaf(index) {
    return this._complete(index, 0);
  }

  /**
   * Whether every hash of every tile that was read leads to `root`. A proof needs few of them: without this, a tile
   * could be altered where nobody happens to look.
   */
  async leadTo(root) {
    const top = await this.hash(0, this.size);
    if (!equal(top, root)) return false;
    // Each partial tile is part of what was just hashed; each full one has its root in the tile above it.
    const checked = new Set();
    for (let found = true; found; ) {
      found = false;
      for (const key of [...this._tiles.keys()].filter((name) => !checked.has(name))) {
        checked.add(key);
        found = true;
        const [level, index] = key.split("/").map(Number);
        const tile = await this._tile(level, index);
        if (tile.length < WIDTH * HASH) continue;
        const above = await this._tile(level + 1, Math.floor(index / WIDTH));
        const at = (index % WIDTH) * HASH;
        if (!equal(await rootOf(rowOf(tile, 0, WIDTH)), above.slice(at, at + HASH))) return false;
      }
    }
    return true;
  }

  async _subproof(old, start, end, whole) {
    const count = end - start;
    if (old === count) return whole ? [] : [await this.hash(start, end)];
    const split = largestPowerBelow(count);
    const middle = start + split;
    return old <= split
      ? [...(await this._subproof(old, start, middle, whole)), await this.hash(middle, end)]
      : [...(await this._subproof(old - split, middle, end, false)), await this.hash(start, middle)];
  }

  // A complete subtree of 2^height leaves stands in the tile of its level, or a few nodes below it in the same one.
  async _complete(start, height) {
    const level = Math.floor(height / HEIGHT);
    const below = height - level * HEIGHT;
    const first = start / 2 ** (level * HEIGHT);
    const tile = await this._tile(level, Math.floor(first / WIDTH));
    const at = first % WIDTH;
    return rootOf(rowOf(tile, at, 2 ** below));
  }

  _tile(level, index) {
    const key = `${level}/${index}`;
    if (!this._tiles.has(key)) this._tiles.set(key, this._fetch(level, index));
    return this._tiles.get(key);
  }

  async _fetch(level, index) {
    const hashes = Math.floor(this.size / WIDTH ** level) - index * WIDTH;
    const width = Math.min(WIDTH, hashes);
    let data = await this._read(tilePath(level, index, width));
    // A partial tile may be deleted once the full one exists.
    if (data === null && width < WIDTH) data = await this._read(tilePath(level, index, WIDTH));
    if (data === null) throw new Missing(tilePath(level, index, width));
    this.fetched += 1;
    const tile = data.slice(0, width * HASH);
    if (tile.length !== width * HASH || (data.length !== tile.length && data.length !== WIDTH * HASH)) {
      throw new Error(`${tilePath(level, index, width)}: ${data.length} bytes`);
    }
    return tile;
  }
}

function rowOf(tile, first, count) {
  return Array.from({ length: count }, (_, at) => tile.slice((first + at) * HASH, (first + at + 1) * HASH));
}

async function rootOf(hashes) {
  let row = hashes;
  while (row.length > 1) {
    const above = [];
    for (let at = 0; at < row.length; at += 2) above.push(nodeHash(row[at], row[at + 1]));
    row = await Promise.all(above);
  }
  return row[0];
}

/** A file of the log that is not there. */
export class Missing extends Error {}

/** The root that a leaf's hash and an inclusion path lead to (RFC 9162 §2.1.3.2). */
export async function rootFromInclusion(index, size, leaf, path) {
  let position = index;
  let last = size - 1;
  let root = leaf;
  for (const sibling of path) {
    if (last === 0) throw new Error("the inclusion path is too long");
    if (position % 2 === 1 || position === last) {
      root = await nodeHash(sibling, root);
      while (position % 2 === 0 && position !== 0) {
        position = Math.floor(position / 2);
        last = Math.floor(last / 2);
      }
    } else {
      root = await nodeHash(root, sibling);
    }
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  if (last !== 0) throw new Error("the inclusion path is too short");
  return root;
}

/** Whether the tree of `size` leaves and `root` continues the one of `old` leaves and `oldRoot` (RFC 9162 §2.1.4.2). */
export async function isConsistent(old, oldRoot, size, root, path) {
  if (old === size) return path.length === 0 && equal(oldRoot, root);
  if (old === 0) return path.length === 0;
  const hashes = Number.isInteger(Math.log2(old)) ? [oldRoot, ...path] : [...path];
  if (hashes.length === 0) return false;
  let position = old - 1;
  let last = size - 1;
  while (position % 2 === 1) {
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  let before = hashes[0];
  let after = hashes[0];
  for (const hash of hashes.slice(1)) {
    if (last === 0) return false;
    if (position % 2 === 1 || position === last) {
      before = await nodeHash(hash, before);
      after = await nodeHash(hash, after);
      while (position % 2 === 0 && position !== 0) {
        position = Math.floor(position / 2);
        last = Math.floor(last / 2);
      }
    } else {
      after = await nodeHash(after, hash);
    }
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && equal(before, oldRoot) && equal(after, root);
}

function largestPowerBelow(count) {
  let power = 1;
  while (2 * power < count) power *= 2;
  return power;
}
