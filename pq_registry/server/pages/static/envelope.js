// SPDX-License-Identifier: Apache-2.0
// A statement's envelope against the leaf that stands for it in the log, and both halves of its signature.

import { bigEndian, concat, equal, fromBase64, hex, sha256, utf8, verifies } from "./bytes.js";

const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const CURVES = {
  "3059301306072a8648ce3d020106082a8648ce3d030107034200": { namedCurve: "P-256", hash: "SHA-256", width: 32 },
  "3076301006072a8648ce3d020106052b81040022036200": { namedCurve: "P-384", hash: "SHA-384", width: 48 },
};
// The last byte of the object identifier 2.16.840.1.101.3.4.3.x in an SPKI that begins with two lengths of two bytes.
const PARAMETERS = { 0x11: "ML-DSA-44", 0x12: "ML-DSA-65", 0x13: "ML-DSA-87" };
const PARAMETER_AT = 16;

/** The payload and the two halves of an envelope's signature. */
export function parseEnvelope(bytes) {
  const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (value.payloadType !== PAYLOAD_TYPE || value.signatures?.length !== 2) throw new Error("not an envelope of ours");
  const payload = fromBase64(value.payload);
  const [ec, pq] = value.signatures.map((item) => fromBase64(item.sig));
  return { payload, ec, pq };
}

/** What is signed: DSSE's pre-authentication encoding. */
export function preAuthentication(payload) {
  return concat(utf8(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload);
}

/** The leaf as it must be for this envelope; identity, kind, name and time are those the page shows. */
export async function rebuildLeaf(envelope, shown) {
  const [p, ec, pq] = await Promise.all([envelope.payload, envelope.ec, envelope.pq].map(sha256));
  // Exactly these keys in this order are the RFC 8785 form: names are ASCII, the time is a whole number.
  const { i, k, n, t } = shown;
  return utf8(JSON.stringify({ i, k, n, p: hex(p), s: [hex(ec), hex(pq)], t, v: 1 }));
}

/** The two public keys of an identity's public file, and the id they make. */
export async function parseIdentity(pem) {
  const blocks = [...pem.matchAll(/-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)-----END PUBLIC KEY-----\n/g)];
  if (blocks.length !== 2) throw new Error("not a public identity");
  const [ec, pq] = blocks.map((block) => fromBase64(block[1].replaceAll("\n", "")));
  const id = await sha256(concat(bigEndian(ec.length, 4), ec, bigEndian(pq.length, 4), pq));
  return { ec, pq, id: hex(id) };
}

/** Whether the EC half verifies; null where the browser does not have the algorithm. */
export async function ecHalfVerifies(envelope, spki) {
  const curve = Object.entries(CURVES).find(([prefix]) => hex(spki).startsWith(prefix))?.[1];
  if (curve === undefined) return false;
  const { namedCurve, hash, width } = curve;
  let signature;
  try {
    signature = fromDer(envelope.ec, width);
  } catch {
    return false;
  }
  return verifies({ name: "ECDSA", namedCurve, hash }, spki, signature, preAuthentication(envelope.payload));
}

/** Whether the ML-DSA half verifies; null where the browser does not have the algorithm. */
export async function pqHalfVerifies(envelope, spki) {
  const name = PARAMETERS[spki[PARAMETER_AT]];
  if (name === undefined) return false;
  return verifies({ name }, spki, envelope.pq, preAuthentication(envelope.payload));
}

// DER SEQUENCE of two INTEGERs, as WebCrypto wants it: both at full width.
function fromDer(der, width) {
  const numbers = [];
  let at = 2;
  if (der[0] !== 0x30 || der[1] !== der.length - 2) throw new Error("not a DER signature");
  while (at < der.length) {
    const length = der[at + 1];
    if (der[at] !== 0x02 || length < 1 || at + 2 + length > der.length) throw new Error("not a DER integer");
    const number = der.slice(at + 2, at + 2 + length);
    const digits = number[0] === 0 ? number.slice(1) : number;
    if (digits.length > width) throw new Error("a DER integer is too long");
    numbers.push(concat(new Uint8Array(width - digits.length), digits));
    at += 2 + length;
  }
  if (numbers.length !== 2) throw new Error("not two DER integers");
  return concat(...numbers);
}

/** Whether the entry of the log is the leaf that the envelope demands. */
export const isLeafOf = async (entry, envelope, shown) => equal(entry, await rebuildLeaf(envelope, shown));
