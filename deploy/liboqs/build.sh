#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds liboqs and libpqreg_slhdsa into build/liboqs/lib. Needs cargo, cmake and a C compiler; see README.md.
#   deploy/liboqs/build.sh [DIRECTORY]
set -euo pipefail
umask 022
here="$(cd "$(dirname "$0")" && pwd)"
out="$(mkdir -p "${1:-$here/../../build/liboqs}" && cd "${1:-$here/../../build/liboqs}" && pwd)"
manifest="$here/Cargo.toml"

for tool in cargo cmake cc python3; do
  command -v "$tool" >/dev/null || { echo "make liboqs needs $tool" >&2; exit 1; }
done

# What was built from these very files is not built again.
stamp="$(cat "$here/build.sh" "$manifest" "$here/Cargo.lock" "$here/src/lib.rs" "$here/compat.c" | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi
rm -f "$out/stamp"

cargo fetch --quiet --locked --manifest-path "$manifest"
source="$(cargo metadata --quiet --locked --offline --format-version 1 --manifest-path "$manifest" | python3 -c '
import json, pathlib, sys
found = [p for p in json.load(sys.stdin)["packages"] if p["name"] == "oqs-sys"]
print(pathlib.Path(found[0]["manifest_path"]).parent / "liboqs")')"

# Of liboqs only what crypto/liboqs.py asks for. No OpenSSL in it: a second implementation that hashed with the first
# one's would be half of one. OQS_DIST_BUILD chooses code for the processor at run time, so the result may be copied.
{
  cmake -S "$source" -B "$out/cmake" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DBUILD_SHARED_LIBS=OFF -DOQS_BUILD_ONLY_LIB=ON -DOQS_DIST_BUILD=ON -DOQS_USE_OPENSSL=OFF \
    -DOQS_MINIMAL_BUILD="KEM_ml_kem_768;KEM_ml_kem_1024;SIG_ml_dsa_65;SIG_ml_dsa_87" &&
    cmake --build "$out/cmake" --parallel 2 &&
    mkdir -p "$out/lib" &&
    cc -O2 -fPIC -shared -o "$out/lib/liboqs.so" -Wl,-soname,liboqs.so -Wl,-z,relro,-z,now -s \
      -I "$out/cmake/include" "$here/compat.c" \
      -Wl,--whole-archive "$out/cmake/lib/liboqs.a" -Wl,--no-whole-archive
} >"$out/build.log" 2>&1 || { tail -n 40 "$out/build.log" >&2; exit 1; }

cargo build --quiet --release --locked --offline --manifest-path "$manifest" --target-dir "$out/cargo"
install -m 755 "$out/cargo/release/libpqreg_slhdsa.so" "$out/lib/"
rm -rf "$out/cmake" "$out/cargo"
echo "$stamp" >"$out/stamp"
echo "built $out/lib/liboqs.so and libpqreg_slhdsa.so"
