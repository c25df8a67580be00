#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts programs that check what lies under deploy/ into build/deploy-tools/bin (`make deploy-tools`): from the Go module
# proxy helm, caddy, amtool and docker-compose, each at a version whose digest the Go checksum database vouches for; from
# Debian promtool and another one for scripts. What is there already is left; what cannot be had is said. It takes some
# minutes, and 3 GB meanwhile.
set -euo pipefail
out="$(cd "$(dirname "$0")/.." && pwd)/build/deploy-tools"
mkdir -p "$out/bin"
work="$(mktemp -d)"
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

from_go() {
  [ -x "$out/bin/$1" ] && return
  echo "building $1"
  GOPATH="$work/go" GOBIN="$out/bin" GOFLAGS=-modcacherw go install "$2" || echo "left out: $1 cannot be built here"
}

if command -v go >/dev/null; then
  from_go helm helm.sh/helm/v3/cmd/helm@v3.22.0
  from_go caddy github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9
  from_go amtool github.com/prometheus/alertmanager/cmd/amtool@v0.34.2
  if [ ! -x "$out/bin/docker-compose" ]; then
    echo "building docker-compose"
    # Its go.mod excludes versions, which `go install` of another module's program does not allow.
    source="$(GOPATH="$work/go" GOFLAGS=-modcacherw go mod download -json github.com/docker/compose/v2@v2.40.3 |
      sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')"
    cp -r "$source" "$work/compose"
    (cd "$work/compose" && GOPATH="$work/go" GOFLAGS=-modcacherw go build -o "$out/bin/docker-compose" ./cmd) ||
      echo "left out: docker-compose cannot be built here"
  fi
else
  echo "left out: helm, caddy, amtool and docker-compose, because go is missing"
fi

if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
  for pair in promtool=prometheus shellcheck=shellcheck; do
    program="${pair%%=*}"
    [ -x "$out/bin/$program" ] && continue
    if (cd "$work" && apt-get download -qq "${pair##*=}" 2>/dev/null && dpkg -x "${pair##*=}"_*.deb "$work/debian"); then
      cp "$work/debian/usr/bin/$program" "$out/bin/"
    else
      echo "left out: $program cannot be downloaded"
    fi
  done
else
  echo "left out: promtool and shellcheck, because this is not Debian"
fi
ls "$out/bin"
