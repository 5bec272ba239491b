use std::os::unix::fs::PermissionsExt;

use super::*;

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("sessioncap-keys-{}", uuid::Uuid::new_v4().simple()))
}

#[tokio::test]
async fn a_file_keeps_any_bytes_for_its_owner_alone() {
    let directory = directory();
    let keeper = Keeper::files(directory.clone());
    assert_eq!(keeper.get("bridge", "agent").await.unwrap(), None);
    assert!(!keeper.delete("bridge", "agent").await.unwrap());
    let secret: Vec<u8> = (0..=255).collect();
    keeper.set("bridge", "agent", b"first").await.unwrap();
    keeper.set("bridge", "agent", &secret).await.unwrap();
    keeper.set("bridge", "other", b"").await.unwrap();
    assert_eq!(keeper.get("bridge", "agent").await.unwrap().unwrap().as_slice(), secret);
    assert_eq!(keeper.get("bridge", "other").await.unwrap().unwrap().as_slice(), b"");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in std::fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert!(keeper.delete("bridge", "agent").await.unwrap());
    assert_eq!(keeper.get("bridge", "agent").await.unwrap(), None);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_not_used() {
    let directory = directory();
    let keeper = Keeper::files(directory.clone());
    keeper.set("bridge", "agent", b"secret").await.unwrap();
    let path = file(&directory, "bridge", "agent");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = keeper.get("bridge", "agent").await.unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn names_that_leave_the_directory_and_long_secrets_are_refused() {
    let keeper = Keeper::files(directory());
    let long = "n".repeat(65);
    for (service, name) in [
        ("", "n"),
        ("s", ""),
        ("s", "../n"),
        ("s", "a/b"),
        ("..", "n"),
        ("s", ".n"),
        ("s", "a@b"),
        ("s", "a\0"),
        ("s", &long),
        ("s", "ä"),
    ] {
        assert!(keeper.set(service, name, b"x").await.is_err(), "{service:?} {name:?}");
        assert!(keeper.get(service, name).await.is_err());
        assert!(keeper.delete(service, name).await.is_err());
    }
    assert!(keeper.set("s", "n", &[0; Keeper::MAX_LEN + 1]).await.is_err());
}

#[test]
fn it_says_where_the_keys_are() {
    let keeper = Keeper::files(PathBuf::from("state/keys"));
    assert_eq!(keeper.to_string(), "keys are in files in state/keys, which only their owner can read");
}

#[cfg(not(feature = "keyring"))]
#[test]
fn a_program_without_the_keyring_says_so() {
    let error = Keeper::system(Keeper::PATIENCE).err().unwrap().to_string();
    assert!(error.contains("feature `keyring`"), "{error}");
}
