// SPDX-License-Identifier: Apache-2.0
// Signed notes, checkpoints, verifier keys and cosignatures (c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature).

import { base64, bigEndian, concat, equal, fromBase64, hex, sha256, utf8, verifies } from "./bytes.js";

const ED25519 = 1;
const ED25519_COSIGNATURE = 4;
const MLDSA44_COSIGNATURE = 6;
const TIME_BYTES = 8;
const KEY_BYTES = { [ED25519]: 32, [ED25519_COSIGNATURE]: 32, [MLDSA44_COSIGNATURE]: 1312 };
const SPKI_PREFIX = {
  [ED25519]: Uint8Array.of(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00),
  [MLDSA44_COSIGNATURE]: Uint8Array.of(
    0x30, 0x82, 0x05, 0x32, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11, 0x03, 0x82,
    0x05, 0x21, 0x00,
  ),
};
const ALGORITHM = {
  [ED25519]: { name: "Ed25519" },
  [ED25519_COSIGNATURE]: { name: "Ed25519" },
  [MLDSA44_COSIGNATURE]: { name: "ML-DSA-44" },
};

/** A verifier key from its written form `name+hash+base64(type || key)`. */
export async function parseKey(text) {
  const [name, id, encoded, ...rest] = splitKey(text);
  const bytes = fromBase64(encoded ?? "");
  const type = bytes[0];
  const key = bytes.slice(1);
  if (!name || rest.length > 0 || KEY_BYTES[type] !== key.length) throw new Error("not a verifier key");
  const computed = hex((await sha256(concat(utf8(name), Uint8Array.of(0x0a, type), key))).slice(0, 4));
  if (computed !== id) throw new Error("the verifier key's id is not that of its key");
  return { text, name, id, type, key };
}

// Base64 may hold plus signs, a name and an id may not.
function splitKey(text) {
  const first = text.indexOf("+");
  const second = text.indexOf("+", first + 1);
  return first < 0 || second < 0 ? [] : [text.slice(0, first), text.slice(first + 1, second), text.slice(second + 1)];
}

/** Whether this key type's signatures are post-quantum ones. */
export const isPostQuantum = (key) => key.type === MLDSA44_COSIGNATURE;

/** Whether this key type's signatures carry a time. */
export const isCosignature = (key) => key.type !== ED25519;

/** A checkpoint note: its text, origin, size, root and signature lines. */
export function parseCheckpoint(bytes) {
  const whole = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  const border = whole.lastIndexOf("\n\n");
  if (border < 0 || !whole.endsWith("\n")) throw new Error("not a signed note");
  const text = whole.slice(0, border + 1);
  const [origin, size, root, ...rest] = text.split("\n");
  if (!origin || !/^(0|[1-9][0-9]{0,15})$/.test(size) || rest.length !== 1) throw new Error("not a checkpoint");
  const hash = fromBase64(root);
  if (hash.length !== 32) throw new Error("the root is no SHA-256");
  const lines = whole
    .slice(border + 2, -1)
    .split("\n")
    .map((line) => {
      const match = /^\u2014 (\S+) (\S+)$/.exec(line);
      if (match === null) throw new Error("not a signature line");
      const data = fromBase64(match[2]);
      return { name: match[1], id: hex(data.slice(0, 4)), signature: data.slice(4) };
    });
  return { note: whole, text, origin, size: Number(size), root: hash, rootText: base64(hash), lines };
}

/**
 * What the note's lines of one key come to: `{state, time}`. `state` is "ok", "bad", "absent", or "unknown" where the
 * browser does not have the algorithm; `time` is the cosignature's, or null.
 */
export async function judgeLine(checkpoint, key) {
  const line = checkpoint.lines.find((item) => item.name === key.name && item.id === key.id);
  if (line === undefined) return { state: "absent", time: null };
  let time = null;
  let { signature } = line;
  let message = utf8(checkpoint.text);
  if (key.type !== ED25519) {
    if (signature.length <= TIME_BYTES) return { state: "bad", time };
    time = Number(new DataView(signature.buffer, signature.byteOffset, TIME_BYTES).getBigUint64(0));
    signature = signature.slice(TIME_BYTES);
    message =
      key.type === ED25519_COSIGNATURE
        ? concat(utf8(`cosignature/v1\ntime ${time}\n`), message)
        : subtreeMessage(key.name, time, checkpoint);
  }
  const prefix = SPKI_PREFIX[key.type === ED25519_COSIGNATURE ? ED25519 : key.type];
  const answer = await verifies(ALGORITHM[key.type], concat(prefix, key.key), signature, message);
  return { state: answer === null ? "unknown" : answer ? "ok" : "bad", time };
}

function subtreeMessage(cosigner, time, checkpoint) {
  const name = utf8(cosigner);
  const origin = utf8(checkpoint.origin);
  return concat(
    utf8("subtree/v1\n\0"), Uint8Array.of(name.length), name, bigEndian(time, 8), Uint8Array.of(origin.length), origin,
    bigEndian(0, 8), bigEndian(checkpoint.size, 8), checkpoint.root,
  );
}

/** Whether two checkpoints say the same of one log. */
export const sameTree = (left, right) => left.size === right.size && equal(left.root, right.root);
