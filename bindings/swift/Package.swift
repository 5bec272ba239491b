// swift-tools-version:5.9
import PackageDescription

// On Apple systems the library comes as an XCFramework, made by `xcframework.sh`. Elsewhere the static library is linked
// from the folder `lib`: `cargo build --release -p sessioncap-ffi --features uniffi` makes it.
#if os(macOS)
let library: Target = .binaryTarget(name: "SessioncapFFI", path: "SessioncapFFI.xcframework")
let linked: [LinkerSetting] = []
#else
let library: Target = .target(name: "SessioncapFFI")
let linked: [LinkerSetting] = [.unsafeFlags(["-Llib"]), .linkedLibrary("sessioncap_ffi")]
#endif

let package = Package(
    name: "Sessioncap",
    platforms: [.iOS(.v16), .macOS(.v13), .macCatalyst(.v16)],
    products: [
        // Needs no framework of Apple's.
        .library(name: "Sessioncap", targets: ["Sessioncap"]),
        // Keychain, URLSession and the screen "Join session".
        .library(name: "SessioncapApple", targets: ["SessioncapApple"]),
    ],
    targets: [
        library,
        .target(name: "Sessioncap", dependencies: ["SessioncapFFI"], linkerSettings: linked),
        .target(name: "SessioncapApple", dependencies: ["Sessioncap"]),
        .testTarget(name: "SessioncapTests", dependencies: ["Sessioncap"]),
    ]
)
