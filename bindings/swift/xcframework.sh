#!/bin/sh
# Makes SessioncapFFI.xcframework on a Mac with Xcode: iOS, its simulator, macOS and Mac Catalyst, as static libraries.
#   rustup target add aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin aarch64-apple-ios-macabi
set -eu
cd "$(dirname "$0")/../.."
headers=$(mktemp -d)
trap 'rm -rf "$headers"' EXIT
# A folder of their own, so that no other framework's module map is taken for this one's.
mkdir "$headers/SessioncapFFI"
cp bindings/swift/Sources/SessioncapFFI/include/SessioncapFFI.h "$headers/SessioncapFFI/"
cp bindings/swift/Sources/SessioncapFFI/include/module.modulemap "$headers/SessioncapFFI/"
set --
for target in aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin aarch64-apple-ios-macabi; do
  cargo build --locked --release -p sessioncap-ffi --features uniffi --target "$target"
  set -- "$@" -library "target/$target/release/libsessioncap_ffi.a" -headers "$headers"
done
rm -rf bindings/swift/SessioncapFFI.xcframework
xcodebuild -create-xcframework "$@" -output bindings/swift/SessioncapFFI.xcframework
