#!/bin/sh
# Builds the shared libraries of each Android architecture, with cargo-ndk and the NDK, and checks that their pages fit
# phones with 16 KB pages.
#   rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android
set -eu
cd "$(dirname "$0")/../.."
out=bindings/kotlin/src/main/jniLibs
RUSTFLAGS="-C link-arg=-Wl,-z,max-page-size=16384" cargo ndk -t arm64-v8a -t armeabi-v7a -t x86_64 -o "$out" \
  build --locked --release -p sessioncap-ffi --features uniffi
for library in "$out"/arm64-v8a/*.so "$out"/x86_64/*.so; do
  readelf -lW "$library" | awk '$1 == "LOAD" && $NF != "0x4000" { bad = 1 } END { exit bad }' \
    || { echo "$library: its segments are not aligned to 16 KB" >&2; exit 1; }
done
