#!/bin/sh
# Builds the static library twice from nothing, in one place, and compares the bytes.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}/twice
kept=$(mktemp)
trap 'rm -rf "$kept" "$target"' EXIT
for time in first second; do
  rm -rf "$target"
  CARGO_INCREMENTAL=0 cargo build --quiet --locked -p sessioncap-ffi --features uniffi --target-dir "$target"
  [ "$time" = second ] || cp "$target/debug/libsessioncap_ffi.a" "$kept"
done
cmp "$kept" "$target/debug/libsessioncap_ffi.a"
echo "two builds are the same, byte for byte"
