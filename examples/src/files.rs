//! Files with secrets: readable by their owner only, and written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rand::rngs::OsRng;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::problem::{Outcome, Problem, While};

/// Largest file that a program reads as its own.
const MAX_FILE: u64 = 1024 * 1024;

/// Makes a directory, with those above it, that only its owner can enter.
pub fn make_private_directory(path: &Path) -> Outcome<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.during(format_args!("the directory {} cannot be made", path.display()))
}

/// Writes a file of mode 0600: beside it, to disk, and then over it.
pub fn write_private(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let doing = format!("{} cannot be written", path.display());
    let mut name = path.file_name().ok_or_else(|| Problem::said(doing.as_str()))?.to_owned();
    name.push(format!(".{}", Uuid::new_v4().simple()));
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // It may not exist, and the error that counts is the first.
        let _ = fs::remove_file(&beside);
    }
    written.during(doing)
}

/// Reads a file that only its owner may read; `None` if there is none.
pub fn read_private(path: &Path) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
    let shown = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).during(format_args!("{shown} cannot be read")),
    };
    let mode = file.metadata().during(format_args!("{shown} cannot be read"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Problem::Said(format!("{shown} can be read by others; run `chmod 600 {shown}`")));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = file.take(MAX_FILE).read_to_end(&mut bytes);
    read.during(format_args!("{shown} cannot be read"))?;
    Ok(Some(bytes))
}

/// A key of 32 raw bytes, as the deployed programs store theirs; `None` if there is no such file.
pub fn read_key<K>(path: &Path, of_bytes: impl FnOnce([u8; 32]) -> K) -> Outcome<Option<K>> {
    let Some(bytes) = read_private(path)? else {
        return Ok(None);
    };
    let key = <[u8; 32]>::try_from(bytes.as_slice());
    key.map(of_bytes).map(Some).map_err(|_| {
        Problem::Said(format!("{} is not a key of 32 bytes; move it away to get a new one", path.display()))
    })
}

/// Draws a key and stores it before anyone uses it.
pub fn new_key<K>(
    path: &Path,
    draw: impl FnOnce(&mut OsRng) -> K,
    bytes: impl FnOnce(&K) -> &[u8; 32],
) -> Outcome<K> {
    let key = draw(&mut OsRng);
    write_private(path, bytes(&key).as_slice())?;
    Ok(key)
}
