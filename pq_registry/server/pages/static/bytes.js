// SPDX-License-Identifier: Apache-2.0
// Bytes, their written forms, and SHA-256. Every reader refuses what its writer would not have written.

const encoder = new TextEncoder();

/** UTF-8 of a text. */
export const utf8 = (text) => encoder.encode(text);

/** The bytes of all parts, one after another. */
export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** Whether two byte strings are the same. Nothing here is secret, so time does not matter. */
export const equal = (left, right) => left.length === right.length && left.every((byte, at) => byte === right[at]);

/** Lowercase hex. */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Padded base64. */
export function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** The bytes of padded base64 in its one form. */
export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  if (base64(bytes) !== text) throw new Error("base64 is not in its one form");
  return bytes;
}

/** A number as `width` bytes, most significant first. */
export function bigEndian(value, width) {
  const bytes = new Uint8Array(width);
  let rest = BigInt(value);
  for (let at = width - 1; at >= 0; at -= 1) {
    bytes[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

/** SHA-256 by the browser. */
export const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

/**
 * Whether a signature verifies; null where the browser does not have the algorithm. The algorithm is looked for with a
 * key that is known to be good, so that a malformed key counts as wrong and not as unknown.
 */
export async function verifies(algorithm, spki, signature, message) {
  if (!(await knows(algorithm))) return null;
  try {
    const key = await crypto.subtle.importKey("spki", spki, algorithm, false, ["verify"]);
    return await crypto.subtle.verify(algorithm, key, signature, message);
  } catch {
    return false;
  }
}

const known = new Map();

function knows(algorithm) {
  const name = algorithm.name + (algorithm.namedCurve ?? "");
  if (!known.has(name)) {
    known.set(
      name,
      crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]).then(
        () => true,
        () => false,
      ),
    );
  }
  return known.get(name);
}
