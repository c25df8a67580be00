// SPDX-License-Identifier: Apache-2.0
// What this browser remembers of a log: the last checkpoint whose proof held, and the keys it was first shown.
// A checkpoint that contradicts the one kept never takes its place.

const PREFIX = "pqreg.log.";

/** What is kept of a log, or null. A browser that keeps nothing (private mode, storage blocked) answers null too. */
export function recall(origin) {
  try {
    const value = JSON.parse(localStorage.getItem(PREFIX + origin) ?? "null");
    const isWhole = value !== null && Number.isSafeInteger(value.size) && typeof value.root === "string";
    return isWhole && Array.isArray(value.keys) ? value : null;
  } catch {
    return null;
  }
}

/** Keep a checkpoint; answers whether the browser did. */
export function remember(origin, { size, root, keys, note }) {
  try {
    localStorage.setItem(PREFIX + origin, JSON.stringify({ size, root, keys, note, at: new Date().toISOString() }));
    return true;
  } catch {
    return false;
  }
}
