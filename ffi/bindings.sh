#!/bin/sh
# Writes the bindings of Python, Swift and Kotlin from the built library, with the generator of the lockfile. With
# `--check`, writes nothing and fails if they are not what it would write. With `--library FILE`, reads that library; the
# bindings must not depend on the platform that it was built for.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
check=no library= generator=
while [ $# -gt 0 ]; do
  case $1 in
    --check) check=yes ;;
    --library) library=$2; shift ;;
    --generator) generator=$2; shift ;;
    *) echo "usage: $0 [--check] [--library FILE] [--generator FILE]" >&2; exit 2 ;;
  esac
  shift
done
if [ -z "$generator" ]; then
  cargo build --quiet --locked -p sessioncap-ffi --features bindgen --target-dir "$target"
  generator=$target/debug/uniffi-bindgen
fi
for file in so dylib dll; do
  [ -n "$library" ] || [ ! -f "$target/debug/libsessioncap_ffi.$file" ] || library=$target/debug/libsessioncap_ffi.$file
done
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for language in python swift kotlin; do
  "$generator" generate --no-format --config ffi/bindings.toml --language "$language" \
    --out-dir "$made/$language" "$library" > /dev/null
done

failed=0
put() { # from, to
  # No trailing blanks: the generator leaves some.
  sed 's/[ \t]*$//' "$1" > "$made/clean"
  if [ "$check" = yes ]; then
    cmp "$made/clean" "$2" || failed=1
  else
    cp "$made/clean" "$2"
  fi
}
put "$made/python/sessioncap.py" bindings/python/sessioncap/generated.py
put "$made/swift/Sessioncap.swift" bindings/swift/Sources/Sessioncap/Generated.swift
put "$made/swift/SessioncapFFI.h" bindings/swift/Sources/SessioncapFFI/include/SessioncapFFI.h
put "$made/swift/SessioncapFFI.modulemap" bindings/swift/Sources/SessioncapFFI/include/module.modulemap
put "$made/kotlin/org/sessioncap/sessioncap.kt" bindings/kotlin/src/main/kotlin/org/sessioncap/Generated.kt
exit "$failed"
