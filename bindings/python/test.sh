#!/bin/sh
# Builds the library and the example programs, and runs the tests of the Python package against them.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --locked -p sessioncap-ffi --features bindgen
cargo build --quiet --locked -p sessioncap-programs --examples
for file in so dylib dll; do
  [ ! -f "$target/debug/libsessioncap_ffi.$file" ] || cp "$target/debug/libsessioncap_ffi.$file" bindings/python/sessioncap/
done
cd bindings/python
SESSIONCAP_PROGRAMS=${SESSIONCAP_PROGRAMS:-$(cd ../.. && cd "$target/debug/examples" && pwd)} exec python3 -m unittest "$@"
