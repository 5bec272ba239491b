//! Compiles what a test has written, against this very build of the workspace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A compiler that finds this crate and the others that the tests use, as this very build has them.
pub struct Compiler {
    externs: Vec<String>,
    dependencies: PathBuf,
    scratch: PathBuf,
}

impl Compiler {
    /// Its files are in a directory of this name, below the target directory. `test` is how the test that uses it is
    /// built, `libraries` which ones it finds, each with how its version begins.
    pub fn new(name: &str, test: &[&str], libraries: &[(&str, &str)]) -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let built = Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["test", "--no-run", "--offline", "--message-format=json"])
            .args(test)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut found = BTreeMap::new();
        for line in String::from_utf8(built.stdout).unwrap().lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            let target = message["target"]["name"].as_str().unwrap_or_default();
            let mut library = message["filenames"]
                .as_array()
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .filter_map(Value::as_str);
            let package = message["package_id"].as_str().unwrap_or_default();
            let wanted = message["target"]["kind"][0] == "lib"
                && libraries.iter().any(|(name, version)| {
                    let is_version =
                        |sign: char| package.contains(&format!("{sign}{version}")) || version.is_empty();
                    *name == target && (is_version('@') || is_version('#'))
                });
            if let Some(path) = library.rfind(|path| wanted && path.ends_with(".rlib")) {
                found.insert(target.to_owned(), path.to_owned());
            }
        }
        assert_eq!(found.len(), libraries.len(), "{found:?}");
        let dependencies = Path::new(&found["tokio"]).parent().unwrap().to_owned();
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&scratch).unwrap();
        let externs = found.iter().map(|(name, path)| format!("{name}={path}")).collect();
        Self { externs, dependencies, scratch }
    }

    /// For what the README's agent uses.
    #[allow(dead_code, reason = "the gateway's tests use more")]
    pub fn of_the_library(name: &str) -> Self {
        let libraries = [("rand", "0.8."), ("sessioncap", ""), ("time", ""), ("tokio", "")];
        Self::new(name, &["--all-features", "--test", "readme_agent"], &libraries)
    }

    /// Compiles a file, and says what is wrong with it if something is.
    pub fn compile(&self, name: &str, source: &str, extra: &[&str]) -> Result<PathBuf, String> {
        let file = self.scratch.join(name).with_extension("rs");
        fs::write(&file, source).unwrap();
        let output = self.scratch.join(format!("lib{name}.out"));
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let mut command = Command::new(rustc);
        command
            .arg("--edition=2024")
            .arg(&file)
            .arg("-L")
            .arg(format!("dependency={}", self.dependencies.display()));
        for library in &self.externs {
            command.args(["--extern", library]);
        }
        let done = command.args(extra).args(["--cap-lints=allow", "-o"]).arg(&output).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(output) } else { Err(said) }
    }
}
