// SPDX-License-Identifier: Apache-2.0
// Checks in the visitor's browser what the page shows, and says which of it was checked. What is hashed is what stands
// on the page: the leaf's fields are read from where they are displayed.
//
// Three states, each with its own word and sign: "ok", "bad", and "none" for what was not checked. One "bad" makes the
// verdict bad; without the checks a panel needs for certain (data-needs) the verdict is "none".

import { equal, fromBase64, hex, utf8 } from "./bytes.js";
import { ecHalfVerifies, isLeafOf, parseEnvelope, parseIdentity, pqHalfVerifies } from "./envelope.js";
import { recall, remember } from "./memory.js";
import { isCosignature, isPostQuantum, judgeLine, parseCheckpoint, parseKey, sameTree } from "./note.js";
import { Missing, Tiles, isConsistent, leafHash, rootFromInclusion } from "./tree.js";

const SIGNS = { ok: "\u2713", bad: "\u2715", none: "\u2013", busy: "\u2026" };

/** A file of the registry that could not be had: that says nothing about the log, so it makes nothing bad. */
class Unavailable extends Error {}

async function fetchBytes(path, { absent = false } = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", redirect: "error", credentials: "same-origin" });
  } catch {
    throw new Unavailable(path);
  }
  if (absent && answer.status === 404) return null;
  if (!answer.ok) throw new Unavailable(`${path}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

class Panel {
  constructor(section) {
    this.section = section;
    this.states = new Map();
    this.needs = section.dataset.needs.split(" ");
    this.texts = new Map(
      Array.from(document.getElementById("proof-texts").content.querySelectorAll("[data-key]"), (item) => [
        item.dataset.key,
        item.textContent,
      ]),
    );
  }

  text(key, values = {}) {
    return this.texts.get(key).replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
  }

  has(check) {
    return this.section.querySelector(`[data-check="${check}"]`) !== null;
  }

  show(element, state, word) {
    element.classList.remove("is-ok", "is-bad", "is-none", "is-busy");
    element.classList.add(`is-${state}`);
    element.querySelector(".sign").textContent = SIGNS[state];
    element.querySelector(".state").textContent = word;
  }

  report(check, state, key, values) {
    const item = this.section.querySelector(`[data-check="${check}"]`);
    if (item === null) return;
    // What was found wrong stays wrong.
    if (this.states.get(check) === "bad") return;
    this.states.set(check, state);
    this.show(item, state, this.text(`state_${state}`));
    item.querySelector(".detail").textContent = this.text(key, values);
  }

  conclude(interrupted) {
    const states = [...this.states.values()];
    const bad = states.includes("bad");
    const whole = !interrupted && this.needs.every((check) => this.states.get(check) === "ok");
    const state = bad ? "bad" : whole ? "ok" : "none";
    const verdict = this.section.querySelector(".verdict");
    this.show(verdict, state, this.text(`verdict_${state}`));
    verdict.querySelector(".detail").textContent =
      interrupted && !bad ? this.text(interrupted.key, interrupted.values) : this.text(`verdict_${state}_detail`);
    this.section.setAttribute("aria-busy", "false");
    this.section.dataset.verdict = state;
    return state;
  }

  start() {
    this.states.clear();
    this.section.setAttribute("aria-busy", "true");
    delete this.section.dataset.verdict;
    const verdict = this.section.querySelector(".verdict");
    this.show(verdict, "busy", this.text("verdict_busy"));
    verdict.querySelector(".detail").textContent = "";
  }
}

// The leaf as the page shows it, from the elements that display its fields.
function shownLeaf() {
  const field = (name) => document.querySelector(`[data-leaf="${name}"]`)?.textContent.trim() ?? "";
  const time = Date.parse(field("t").replace(" UTC", "Z").replace(" ", "T")) / 1000;
  return { i: field("i"), k: field("k"), n: field("n"), p: field("p"), s: [field("ec"), field("pq")], t: time, v: 1 };
}

const entryOf = ({ i, k, n, p, s, t, v }) => utf8(JSON.stringify({ i, k, n, p, s, t, v }));

async function checkStatement(panel, shown) {
  const { envelope: path } = panel.section.dataset;
  if (!path) {
    for (const check of ["leaf", "ec", "pq"]) panel.report(check, "none", "no_envelope");
    return;
  }
  let envelope;
  try {
    envelope = parseEnvelope(await fetchBytes(path));
  } catch (error) {
    const key = error instanceof Unavailable ? "no_envelope" : "envelope_malformed";
    for (const check of ["leaf", "ec", "pq"]) panel.report(check, error instanceof Unavailable ? "none" : "bad", key);
    return;
  }
  const matches = await isLeafOf(entryOf(shown), envelope, shown);
  panel.report("leaf", matches ? "ok" : "bad", matches ? "leaf_ok" : "leaf_bad");
  const pem = document.getElementById("identity-public")?.textContent;
  if (!pem) {
    for (const check of ["ec", "pq"]) panel.report(check, "none", "no_identity");
    return;
  }
  let identity;
  try {
    identity = await parseIdentity(pem);
  } catch {
    identity = { id: "" };
  }
  if (identity.id !== shown.i) {
    for (const check of ["ec", "pq"]) panel.report(check, "bad", "identity_bad");
    return;
  }
  const halves = { ec: await ecHalfVerifies(envelope, identity.ec), pq: await pqHalfVerifies(envelope, identity.pq) };
  for (const [check, verified] of Object.entries(halves)) {
    if (verified === null) panel.report(check, "none", "no_algorithm");
    else panel.report(check, verified ? "ok" : "bad", verified ? "half_ok" : "half_bad");
  }
}

async function checkSignatures(panel, checkpoint, keys) {
  const own = keys.filter((key) => key.name === checkpoint.origin);
  for (const [check, wanted] of [["signature", false], ["signature-pq", true]]) {
    const key = own.find((item) => isPostQuantum(item) === wanted && (wanted || !isCosignature(item)));
    const { state } = key === undefined ? { state: "absent" } : await judgeLine(checkpoint, key);
    const found = { ok: "ok", unknown: "none", bad: "bad", absent: "bad" }[state];
    panel.report(check, found, { ok: "line_ok", unknown: "no_algorithm", bad: "line_bad", absent: "line_absent" }[state], {
      name: checkpoint.origin,
      size: checkpoint.size,
    });
  }
  await checkWitnesses(panel, checkpoint);
}

async function checkWitnesses(panel, checkpoint) {
  const texts = Array.from(document.querySelectorAll("[data-witness-key]"), (item) => item.textContent.trim());
  const judged = { ok: 0, bad: 0, unknown: 0, absent: 0 };
  for (const text of texts) {
    try {
      judged[(await judgeLine(checkpoint, await parseKey(text))).state] += 1;
    } catch {
      judged.bad += 1;
    }
  }
  const values = { ...judged, all: texts.length };
  if (texts.length === 0) panel.report("witnesses", "none", "witnesses_none", values);
  else if (judged.bad > 0) panel.report("witnesses", "bad", "witnesses_bad", values);
  else if (judged.ok === 0) panel.report("witnesses", "none", "witnesses_silent", values);
  else panel.report("witnesses", "ok", judged.ok === texts.length ? "witnesses_all" : "witnesses_ok", values);
}

async function checkMemory(panel, checkpoint, keys, tiles) {
  const kept = recall(checkpoint.origin);
  const written = keys.map((key) => key.text).sort();
  if (kept === null) return { kept, written };
  const values = { size: kept.size, at: String(kept.at).slice(0, 10), now: checkpoint.size };
  if (JSON.stringify(kept.keys) !== JSON.stringify(written)) {
    panel.report("memory", "bad", "memory_keys", values);
  } else if (kept.size > checkpoint.size) {
    panel.report("memory", "bad", "memory_rollback", values);
  } else {
    const path = await tiles.consistencyPath(kept.size);
    const old = fromBase64(kept.root);
    const holds = await isConsistent(kept.size, old, checkpoint.size, checkpoint.root, path);
    panel.report("memory", holds ? "ok" : "bad", holds ? "memory_ok" : "memory_fork", values);
  }
  return { kept, written };
}

function keep(panel, checkpoint, { kept, written }) {
  if (panel.needs.some((check) => panel.states.get(check) !== "ok")) return;
  if ([...panel.states.values()].includes("bad")) return;
  if (kept !== null && sameTree({ size: kept.size, root: fromBase64(kept.root) }, checkpoint)) return;
  const { size, rootText, note } = checkpoint;
  const stored = remember(checkpoint.origin, { size, root: rootText, keys: written, note });
  if (kept === null) panel.report("memory", "none", stored ? "memory_first" : "memory_off");
}

async function checkInclusion(panel, checkpoint, tiles, shown) {
  const index = Number(panel.section.dataset.index);
  if (index >= checkpoint.size) {
    panel.report("inclusion", "none", "not_covered", { size: checkpoint.size });
    return;
  }
  const leaf = await leafHash(entryOf(shown));
  const path = await tiles.inclusionPath(index);
  const root = await rootFromInclusion(index, checkpoint.size, leaf, path);
  const holds = equal(root, checkpoint.root) && equal(leaf, await tiles.leaf(index));
  panel.report("inclusion", holds ? "ok" : "bad", holds ? "inclusion_ok" : "inclusion_bad", {
    index, size: checkpoint.size, hashes: path.length, root: hex(checkpoint.root),
  });
}

// After everything that reads tiles, so that none of them goes unchecked.
async function checkTiles(panel, checkpoint, tiles) {
  const holds = await tiles.leadTo(checkpoint.root);
  panel.report("root", holds ? "ok" : "bad", holds ? "root_ok" : "root_bad", {
    size: checkpoint.size, tiles: tiles.fetched, root: hex(checkpoint.root),
  });
}

async function run(panel) {
  panel.start();
  if (globalThis.crypto?.subtle === undefined) {
    panel.conclude({ key: "insecure" });
    return;
  }
  const shown = shownLeaf();
  let interrupted = null;
  try {
    if (panel.has("leaf")) await checkStatement(panel, shown);
    const vkeys = new TextDecoder().decode(await fetchBytes("/log/vkey"));
    const note = await fetchBytes("/log/checkpoint");
    let checkpoint;
    let keys;
    try {
      keys = await Promise.all(vkeys.trim().split("\n").map(parseKey));
      checkpoint = parseCheckpoint(note);
    } catch {
      panel.report("signature", "bad", "checkpoint_malformed");
      panel.conclude(null);
      return;
    }
    await checkSignatures(panel, checkpoint, keys);
    const tiles = new Tiles((path) => fetchBytes(`/log/${path}`, { absent: true }), checkpoint.size);
    try {
      if (panel.has("inclusion")) await checkInclusion(panel, checkpoint, tiles, shown);
      const memory = await checkMemory(panel, checkpoint, keys, tiles);
      await checkTiles(panel, checkpoint, tiles);
      keep(panel, checkpoint, memory);
    } catch (error) {
      if (error instanceof Unavailable) throw error;
      const key = error instanceof Missing ? "tile_missing" : "tile_malformed";
      panel.report("root", "bad", key, { path: error.message });
    }
  } catch (error) {
    if (!(error instanceof Unavailable)) {
      // Not foreseen: whatever it is, nothing is proved, and the panel does not go on as if it were still checking.
      panel.conclude({ key: "verdict_none_detail" });
      throw error;
    }
    interrupted = { key: "unavailable", values: { path: error.message } };
  }
  panel.conclude(interrupted);
}

for (const section of document.querySelectorAll("[data-proof]")) {
  const panel = new Panel(section);
  const again = section.querySelector("[data-again]");
  again.hidden = false;
  again.addEventListener("click", () => run(panel));
  run(panel);
}
