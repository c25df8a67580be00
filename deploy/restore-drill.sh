#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A restore drill from end to end: a registry with data, a backup, the loss of everything but the weights, a restore,
# verification, and the comparison of what clients get with what they got before. Prints how long each step took.
#
#   deploy/restore-drill.sh [--megabytes N] [--releases N] [--json FILE] [DIRECTORY]
#
# It needs nothing but pqreg and curl, and touches nothing outside DIRECTORY (a new temporary one by default). What it
# measures on one machine says how the time grows; a drill with a real backup is in docs/operations/backup.md.
set -eu
umask 077
megabytes=64 releases=3 json="" work=""
while [ $# -gt 0 ]; do
  case "$1" in
    --megabytes) megabytes="$2"; shift 2 ;;
    --releases) releases="$2"; shift 2 ;;
    --json) json="$2"; shift 2 ;;
    -*) echo "unknown option $1" >&2; exit 2 ;;
    *) work="$1"; shift ;;
  esac
done
if [ -z "$work" ]; then
  work="$(mktemp -d)"
  remove="$work"
else
  mkdir -p "$work"
  remove=""
fi
service=""
finish() {
  [ -z "$service" ] || kill "$service" 2>/dev/null || true
  [ -z "$service" ] || wait "$service" 2>/dev/null || true
  [ -z "$remove" ] || rm -rf "$remove"
}
trap finish EXIT
trap 'exit 130' INT TERM
cd "$work"
export XDG_CONFIG_HOME="$PWD/home" XDG_STATE_HOME="$PWD/home" PQREG_TRUST="$PWD/trust.json" PQREG_KEY="$PWD/alice.pqkey"
unset PQREG_DATA PQREG_TOKEN PQREG_REGISTRY 2>/dev/null || true

milliseconds() { echo $(($(date +%s%N) / 1000000)); }
steps=""
step() { # step NAME COMMAND...: run it and keep its time
  name="$1"; shift
  begun="$(milliseconds)"
  "$@"
  took=$(($(milliseconds) - begun))
  printf '%-28s %7d ms\n' "$name" "$took"
  steps="$steps${steps:+,}\"$name\":$took"
}
start() { # start DIR: a service on a free port; sets PQREG_REGISTRY
  pqreg serve --data "$1" --listen 127.0.0.1:0 >"$1.log" 2>"$1.err" &
  service=$!
  until address="$(sed -n 's/^pqreg: serving on \(http:[^ ]*\) .*/\1/p' "$1.err" 2>/dev/null)" && [ -n "$address" ]; do
    kill -0 "$service" 2>/dev/null || { cat "$1.err" >&2; exit 3; }
    sleep 0.05
  done
  export PQREG_REGISTRY="$address"
}
stop() {
  kill "$service"
  wait "$service" || true
  service=""
}
publish() {
  for number in $(seq "$releases"); do
    mkdir "model$number"
    base64 -w 0 /dev/urandom | head -c $((megabytes * 1000000 / releases)) >"model$number/weights.txt"
    echo "{\"number\":$number}" >"model$number/config.json"
    pqreg push "model$number" "acme/model$number:v1" --quiet >/dev/null
  done
}
fetch() { # fetch INTO: every release, verified
  for number in $(seq "$releases"); do
    pqreg pull "acme/model$number:v1" "$1/model$number" --quiet >/dev/null
  done
}

pqreg key generate alice --no-passphrase >/dev/null
pqreg trust init trust.json --publisher acme=alice.pqpub >/dev/null
start registry
PQREG_TOKEN="$(cat registry/admin.token)" # the catalogue knows its hash: it is as good after the restore
export PQREG_TOKEN
pqreg trust log add trust.json --fingerprint "$(pqreg log vkey --fingerprint)" >/dev/null
step publish publish
step backup pqreg backup backup --data registry --with-log-key --quiet
curl -fsS -H "Authorization: Bearer $PQREG_TOKEN" "$PQREG_REGISTRY/log/checkpoint" >last.checkpoint
stop
echo "-- the catalogue, the log and its keys are lost; the weights are kept"
mkdir lost restored
mv registry lost/
cp -al lost/registry/blobs restored/blobs
step "restore and verify" sh -c 'pqreg restore backup --data restored --checkpoint last.checkpoint --json >restored.json'
step start start restored
step "fetch everything" fetch after
for number in $(seq "$releases"); do
  cmp "model$number/weights.txt" "after/model$number/weights.txt"
done
stop
step fsck sh -c 'pqreg fsck --data restored --json >fsck.json'
grep -q '"log": "whole"' restored.json || { cat restored.json >&2; exit 1; }
bytes="$(du -sb backup | cut -f1)"
echo "-- all $releases releases ($megabytes MB) are back, the log has every leaf that was shown; the backup has $bytes bytes"
if [ -n "$json" ]; then
  printf '{"megabytes":%d,"releases":%d,"backup_bytes":%d,"milliseconds":{%s}}\n' \
    "$megabytes" "$releases" "$bytes" "$steps" >"$json"
fi
