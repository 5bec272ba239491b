//! The bindings of other languages are what the generator writes from this build.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The shared library that was built with this test program.
fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let deps = own.parent().unwrap();
    let names = ["libsessioncap_ffi.so", "libsessioncap_ffi.dylib", "sessioncap_ffi.dll"];
    let places = [deps.to_path_buf(), deps.parent().unwrap().to_path_buf()];
    let found =
        places.iter().flat_map(|place| names.map(|name| place.join(name))).filter(|path| path.is_file());
    found.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

/// `ffi/bindings.sh` writes them.
#[test]
fn the_bindings_are_what_the_generator_writes() {
    let checked = Command::new("sh")
        .arg(root().join("ffi/bindings.sh"))
        .args(["--check", "--generator", env!("CARGO_BIN_EXE_uniffi-bindgen"), "--library"])
        .arg(library())
        .output()
        .unwrap();
    let told =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "run ffi/bindings.sh: {told}");
}

/// Every generated class has a `close` of its own there, and an error that has a `message`.
#[test]
fn no_name_is_one_that_kotlin_has_already() {
    let path = root().join("bindings/kotlin/src/main/kotlin/org/sessioncap/Generated.kt");
    let text = fs::read_to_string(path).unwrap();
    for taken in ["fun `close`(", "fun `destroy`(", "`message`:", "fun `toString`("] {
        assert!(!text.contains(taken), "{taken}");
    }
}

#[test]
fn the_wrappers_handle_every_event_by_its_name() {
    let events = ["Open", "Send", "Close", "Store"];
    let kotlin =
        fs::read_to_string(root().join("bindings/kotlin/src/main/kotlin/org/sessioncap/Phone.kt")).unwrap();
    let swift = fs::read_to_string(root().join("bindings/swift/Sources/Sessioncap/Phone.swift")).unwrap();
    for event in events {
        assert!(kotlin.contains(&format!("is Event.{event} ->")), "{event}");
        assert!(swift.contains(&format!("case let .{}(", event.to_lowercase())), "{event}");
    }
}

/// The header of Swift's module compiles, as C and with every compiler that is here.
#[test]
fn the_header_of_the_swift_module_compiles() {
    let include = root().join("bindings/swift/Sources/SessioncapFFI/include");
    let map = fs::read_to_string(include.join("module.modulemap")).unwrap();
    assert!(map.contains("module SessioncapFFI {") && map.contains("header \"SessioncapFFI.h\""), "{map}");
    for compiler in ["gcc", "clang"] {
        if !Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success()) {
            continue;
        }
        let compiled = Command::new(compiler)
            // Words of clang's that gcc does not know.
            .args(["-Wall", "-Werror", "-D_Nullable=", "-D_Nonnull=", "-fsyntax-only", "-include"])
            .arg(include.join("SessioncapFFI.h"))
            .args(["-x", "c", "/dev/null"])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    }
}
