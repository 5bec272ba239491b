#!/bin/sh
# Builds the static library for phones, and checks that the phone's library compiles for a browser. Targets that
# `rustup target add` has not installed are named and skipped. The bindings must be the same whatever they are written
# from.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
installed=$(rustup target list --installed)
is_installed() { printf '%s\n' "$installed" | grep -qx "$1"; }

for triple in aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-ios-macabi aarch64-apple-darwin \
  aarch64-linux-android armv7-linux-androideabi x86_64-linux-android; do
  if ! is_installed "$triple"; then
    echo "$triple: not installed, skipped"
    continue
  fi
  # The static library alone: it needs no linker of the platform.
  cargo rustc --quiet --locked --release -p sessioncap-ffi --lib --features uniffi --crate-type staticlib --target "$triple"
  library=$target/$triple/release/libsessioncap_ffi.a
  echo "$triple: $(wc -c < "$library") bytes"
done
if is_installed wasm32-unknown-unknown; then
  cargo check --quiet --locked -p sessioncap --no-default-features --features holder --target wasm32-unknown-unknown
  echo "wasm32-unknown-unknown: the phone's library compiles"
else
  echo "wasm32-unknown-unknown: not installed, skipped"
fi
