//! The header is that of the source, and a C program made with it and the static library does what an app does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `SESSIONCAP_HEADER=write cargo test -p sessioncap-ffi --test header` writes it.
#[test]
fn the_header_is_that_of_the_source() {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).unwrap();
    let mut written = Vec::new();
    cbindgen::Builder::new()
        .with_src(here().join("src/c.rs"))
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut written);
    let path = here().join("include/sessioncap.h");
    if std::env::var_os("SESSIONCAP_HEADER").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert_eq!(kept, String::from_utf8(written).unwrap(), "write it anew");
}

#[test]
fn every_function_and_type_of_the_interface_is_in_the_header() {
    let source = std::fs::read_to_string(here().join("src/c.rs")).unwrap();
    let header = std::fs::read_to_string(here().join("include/sessioncap.h")).unwrap();
    let mut functions = 0;
    for line in source.lines() {
        if let Some((_, rest)) = line.split_once("extern \"C\" fn ") {
            let name = rest.split('(').next().unwrap();
            assert!(header.contains(&format!("{name}(")), "{name}");
            functions += 1;
        }
    }
    assert!(functions > 30, "{functions}");
}

/// The static library that this test program was built with.
fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let deps = own.parent().unwrap();
    let named = |directory: &Path| directory.join("libsessioncap_ffi.a");
    [named(deps.parent().unwrap()), named(deps)]
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .unwrap_or_else(|| panic!("no static library beside {}", own.display()))
}

fn compilers() -> Vec<&'static str> {
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    ["gcc", "clang"].into_iter().filter(works).collect()
}

/// Compiles and runs `tests/app.c` against the static library, with every compiler that is here.
#[test]
fn a_c_program_links_the_static_library_and_uses_the_interface() {
    let compilers = compilers();
    if compilers.is_empty() {
        eprintln!("skipped: no C compiler is here");
    }
    for compiler in compilers {
        for language in ["c", "c++"] {
            if language == "c++"
                && !Command::new("g++").arg("--version").output().is_ok_and(|o| o.status.success())
            {
                continue;
            }
            let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("app-{compiler}-{language}"));
            let built = Command::new(compiler)
                .args(["-Wall", "-Wextra", "-Werror", "-x", language, "-I"])
                .arg(here().join("include"))
                .arg(here().join("tests/app.c"))
                .args(["-x", "none", "-o"])
                .arg(&program)
                .arg(library())
                .args(["-lpthread", "-ldl", "-lm"])
                .output()
                .unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            let ran = Command::new(&program).arg(link()).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success(), "{compiler}: {said}{}", String::from_utf8_lossy(&ran.stderr));
            assert!(said.ends_with("all of it holds\n"), "{said}");
        }
    }
}

/// An app may have a Rust library of its own.
#[test]
fn a_c_program_links_this_library_and_another_one_of_rust() {
    let Some(compiler) = compilers().first().copied() else {
        return eprintln!("skipped: no C compiler is here");
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("two");
    std::fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write(
        "other.rs",
        "#[unsafe(no_mangle)] pub extern \"C\" fn other_length(number: u32) -> usize { number.to_string().len() }",
    );
    write(
        "both.c",
        "#include \"sessioncap.h\"\nextern size_t other_length(uint32_t);\nint main(void) {\n\
         SessioncapPairings *pairings = sessioncap_pairings_new();\n\
         size_t length = other_length(12345);\n\
         sessioncap_pairings_free(pairings);\n\
         return length == 5 ? 0 : 1;\n}\n",
    );
    let done = |mut command: Command| {
        let output = command.current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-type", "staticlib", "-o", "libother.a", "other.rs"]);
    done(rustc);
    for order in [[library(), "libother.a".into()], ["libother.a".into(), library()]] {
        let mut link = Command::new(compiler);
        link.arg("-I").arg(here().join("include")).args(["-o", "both", "both.c"]);
        link.args(order).args(["-lpthread", "-ldl", "-lm"]);
        done(link);
        done(Command::new(directory.join("both")));
    }
}

fn link() -> String {
    let agent = sessioncap::AgentSecretKey::from_bytes([1; 32]).public();
    let url = sessioncap::AgentUrl::parse("wss://agent.example").unwrap();
    let ticket = sessioncap::TicketSecret::from_bytes([3; 16]);
    sessioncap::Link::new(url, agent, ticket).to_https(&sessioncap::LinkHost::Agent).unwrap()
}
