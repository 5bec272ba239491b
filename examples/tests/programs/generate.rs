//! Completions and man pages.

use tokio::process::Command;

use crate::world::{new_directory, program, within};

#[tokio::test]
async fn completions_and_man_pages_know_every_command() {
    if !cfg!(feature = "generate") {
        println!("skipped: the feature `generate` is off");
        return;
    }
    let directory = new_directory();
    let written = Command::new(program("generate")).arg(&directory).output();
    let written = within("the files", written).await.unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let read = |path: &str| std::fs::read_to_string(directory.join(path)).unwrap();
    let completions = read("bash/dd_client.bash");
    for word in ["pair-mobile", "revoke", "--expires"] {
        assert!(completions.contains(word), "{word}");
    }
    assert!(read("zsh/_agent").contains("--listen"));
    assert!(read("man/companion-join.1").contains("link"));
    assert!(read("man/dd_client-session-pair-mobile.1").contains("phone"));
}
