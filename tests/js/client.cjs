// SPDX-License-Identifier: Apache-2.0
// Uses the unmodified @huggingface/hub: `node client.cjs '{"hubUrl": ..., "accessToken": ..., "steps": [...]}'`.
// HUB_MODULES is where it is installed. Prints what each step answered, or which error it ended with, as JSON.
"use strict";

const { createHash } = require("node:crypto");
const { createRequire } = require("node:module");
const path = require("node:path");

const hub = createRequire(path.join(process.env.HUB_MODULES, "client.cjs"))("@huggingface/hub");
const { hubUrl, accessToken, steps } = JSON.parse(process.argv[2]);
const common = accessToken ? { hubUrl, accessToken } : { hubUrl };

async function all(generator) {
  const found = [];
  for await (const one of generator) found.push(one);
  return found;
}

async function download(parameters) {
  const blob = await hub.downloadFile({ ...common, ...parameters });
  if (blob === null) return null;
  const bytes = Buffer.from(await blob.arrayBuffer());
  return { size: blob.size, sha256: createHash("sha256").update(bytes).digest("hex") };
}

async function part({ start, end, ...parameters }) {
  const blob = await hub.downloadFile({ ...common, ...parameters });
  return Buffer.from(await blob.slice(start, end).arrayBuffer()).toString("hex");
}

// `files` are path and base64; `repeat` says how often the content follows itself, so that large files need no argument.
function upload({ files, ...parameters }) {
  const blobs = files.map(({ path, content, repeat }) => ({
    path,
    content: new Blob(Array(repeat ?? 1).fill(Buffer.from(content, "base64"))),
  }));
  return hub.uploadFiles({ ...common, ...parameters, files: blobs });
}

const functions = {
  download,
  part,
  upload,
  list: (parameters) => all(hub.listFiles({ ...common, ...parameters })),
  models: (parameters) => all(hub.listModels({ ...common, ...parameters })),
  commits: (parameters) => all(hub.listCommits({ ...common, ...parameters })),
};

async function main() {
  const answers = [];
  for (const [name, parameters] of steps) {
    try {
      const run = functions[name] ?? ((given) => hub[name]({ ...common, ...given }));
      answers.push({ value: (await run(parameters)) ?? null });
    } catch (error) {
      answers.push({ error: error.constructor.name, message: error.message, status: error.statusCode ?? null });
    }
  }
  console.log(JSON.stringify(answers));
}

main();
