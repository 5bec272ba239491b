//! Several pairings of one phone, by their names: list, reopen, forget.

use std::process::Stdio;

use tokio::process::Command;

use super::world::{ECHO, World, program, within};

/// Runs the companion with the names under this world's directory. Returns its code, output and errors.
async fn companion(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(program("companion"));
    command
        .args(arguments)
        .env("XDG_STATE_HOME", world.file("state"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within("the companion's end", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn named_pairings_are_listed_reopened_and_forgotten() {
    let world = World::start().await;
    let (_, list, _) = companion(&world, &["list"]).await;
    assert_eq!(list, "", "nothing is known yet");
    let mut links = Vec::new();
    for name in ["kitchen", "work"] {
        let session = world.session(ECHO).await;
        let mut pairing = world.pair(&session, &[]).await;
        let joined = companion(&world, &["--name", name, "join", &pairing.text]).await;
        assert_eq!(joined.0, 0, "{joined:?}");
        pairing.desktop.exit_code().await;
        links.push((name, session, pairing));
    }
    let (code, list, _) = companion(&world, &["list"]).await;
    assert_eq!((code, list.lines().count()), (0, 2), "{list}");
    for (name, session, _) in &links {
        let about = format!("{name}  {session} at 127.0.0.1, until 2");
        assert!(list.lines().any(|line| line.starts_with(&about)), "{list}");
    }

    // Each is the pairing of its own session.
    for (name, session, _) in &links {
        let (code, shown, errors) = companion(&world, &["--name", name, "status"]).await;
        assert!(code == 0 && shown.contains(session.as_str()), "{shown}{errors}");
        let sent = companion(&world, &["--name", name, "send", "hello"]).await;
        assert_eq!((sent.0, sent.2.as_str()), (0, "companion: delivered\n"));
    }

    let (_, session, pairing) = &links[0];
    let forgotten = companion(&world, &["forget", "kitchen"]).await;
    assert_eq!(forgotten.0, 0);
    assert!(forgotten.2.contains("forgot kitchen; its owner can still revoke it"), "{}", forgotten.2);
    let (_, list, _) = companion(&world, &["list"]).await;
    assert!(list.starts_with("work  ") && list.lines().count() == 1, "{list}");
    for command in [&["--name", "kitchen", "attach"][..], &["--name", "kitchen", "send", "x"]] {
        let (code, shown, errors) = companion(&world, command).await;
        assert_eq!((code, shown.as_str()), (1, ""));
        assert!(errors.contains("there is nothing at") && errors.contains("`join` a link first"), "{errors}");
    }
    let (code, _, errors) = companion(&world, &["forget", "kitchen"]).await;
    assert!(code == 1 && errors.contains("kitchen.json cannot be forgotten"), "{errors}");
    // The agent keeps its record: the owner sees it until it ends.
    assert_eq!(world.grant(&pairing.ticket).await["session"], session.as_str());

    // The link is spent. With another key it is somebody else's, and the agent takes the credential back.
    let (code, _, errors) = companion(&world, &["--name", "again", "join", &pairing.text]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("revoked"), "{errors}");
    let other = companion(&world, &["--name", "work", "send", "still here"]).await;
    assert_eq!(other.0, 0, "{other:?}");
}

#[tokio::test]
async fn the_pairing_in_a_file_is_listed_and_forgotten_as_well() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let mut pairing = world.pair(&session, &[]).await;
    let file = world.file("phone.json").display().to_string();
    assert_eq!(companion(&world, &["--state", &file, "join", &pairing.text]).await.0, 0);
    pairing.desktop.exit_code().await;
    let (code, list, _) = companion(&world, &["--state", &file, "list"]).await;
    assert_eq!((code, list.lines().count()), (0, 1), "{list}");
    assert!(list.starts_with(&format!("{file}  {session} at 127.0.0.1")), "{list}");
    let (code, _, errors) = companion(&world, &["--state", &file, "forget"]).await;
    assert!(code == 0 && errors.contains(&format!("forgot {file}")), "{errors}");
    assert_eq!(companion(&world, &["--state", &file, "list"]).await.1, "");
    assert_eq!(companion(&world, &["--state", &file, "forget"]).await.0, 1);
}
