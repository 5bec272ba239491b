//! The rules of the agent's session hub, with real programs on real terminals.

use std::time::Instant;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::world::{DEADLINE, eventually, within};
use sessioncap::session::NotTaken;
use sessioncap_programs::pty::{Always, Hub, HubError, Input, Output, OutputEvent, SessionSpec, Viewer};

fn hub() -> (Hub, UnboundedReceiver<String>) {
    let (tell, ended) = mpsc::unbounded_channel();
    (Hub::new(move |id: &str| drop(tell.send(id.to_owned()))), ended)
}

/// Bytes that the tests have waiting.
const LIMIT: usize = 64 * 1024;

/// A viewer who types, its output, and what is in the terminal's picture already.
fn look(hub: &Hub, id: &str) -> (Viewer, Input, Output, Vec<u8>) {
    let viewer = hub.view(id).unwrap();
    let input = viewer.input(LIMIT, Always);
    let (_, output) = viewer.watch();
    let seen = viewer.history();
    (viewer, input, output, seen)
}

async fn next(output: &mut Output) -> OutputEvent {
    within("an event", output.next()).await
}

async fn until(output: &mut Output, seen: &mut Vec<u8>, text: &str) {
    while !String::from_utf8_lossy(seen).contains(text) {
        match next(output).await {
            OutputEvent::Data(chunk) => seen.extend(chunk),
            event => panic!("{event:?} before {text}: {}", String::from_utf8_lossy(seen)),
        }
    }
}

async fn rest(output: &mut Output, seen: &mut Vec<u8>) -> OutputEvent {
    loop {
        match next(output).await {
            OutputEvent::Data(chunk) => seen.extend(chunk),
            last => {
                assert_eq!(next(output).await, last);
                return last;
            }
        }
    }
}

/// The numbers in lines `P1234`, once there are `count`.
async fn pids(output: &mut Output, seen: &mut Vec<u8>, count: usize) -> Vec<i32> {
    loop {
        let text = String::from_utf8_lossy(seen).into_owned();
        // Only whole lines.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let pids: Vec<_> =
            whole.lines().filter_map(|line| line.strip_prefix('P')?.trim().parse().ok()).collect();
        if pids.len() >= count {
            return pids;
        }
        match next(output).await {
            OutputEvent::Data(chunk) => seen.extend(chunk),
            event => panic!("{event:?}: {text}"),
        }
    }
}

async fn gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_err()
        || stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

#[tokio::test]
async fn every_reader_gets_all_output_before_the_end() {
    let (hub, mut ended) = hub();
    let info = hub.create(SessionSpec::command("read x; seq 1 60000")).unwrap();
    let (viewer, input, mut one, _) = look(&hub, &info.id);
    let mut two = viewer.watch_only();
    input.push(0, b"go\n").unwrap();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let ends = tokio::join!(rest(&mut one, &mut left), rest(&mut two, &mut right));
    assert_eq!(ends, (OutputEvent::Ended, OutputEvent::Ended));
    let expected = "go\r\n".to_owned() + &(1..=60_000).map(|n| format!("{n}\r\n")).collect::<String>();
    assert!(left == expected.as_bytes() && left == right);
    assert_eq!(within("the end", ended.recv()).await, Some(info.id.clone()));
    assert_eq!(input.push(1, b"x"), Err(NotTaken::Ended));
    assert!(matches!(hub.view(&info.id), Err(HubError::NoSuchSession)));
    hub.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_nobody_and_gets_lagged() {
    let (hub, _ended) = hub();
    let command =
        "stty -opost -echo; echo ok; read x; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done; cat";
    let info = hub.create(SessionSpec::command(command)).unwrap();
    let (viewer, input, mut fast, mut seen) = look(&hub, &info.id);
    until(&mut fast, &mut seen, "ok").await;
    let mut slow = viewer.watch_only();
    input.push(0, b"go\n").unwrap();
    let (mut length, mut tail) = (0, Vec::new());
    while !tail.ends_with(b"done\n") {
        match next(&mut fast).await {
            OutputEvent::Data(chunk) => {
                length += chunk.len();
                tail = [tail, chunk].concat();
                tail.drain(..tail.len().saturating_sub(64));
            }
            event => panic!("{event:?} after {length}"),
        }
    }
    assert!(length >= 3_000_000);
    assert_eq!(rest(&mut slow, &mut Vec::new()).await, OutputEvent::Lagged);
    let history = viewer.history();
    assert!(history.len() == 1024 * 1024 && history.ends_with(b"done\n"));
    hub.shutdown().await;
}

#[tokio::test]
async fn a_close_kills_the_whole_group_and_a_shells_jobs() {
    let (hub, mut ended) = hub();
    let stubborn = "trap '' HUP; echo P$$; sleep 1000 & echo P$!; sh -c 'sleep 1000 & echo P$!; wait' & wait; wait; sleep 1000";
    let info = hub.create(SessionSpec::command(stubborn)).unwrap();
    let (_viewer, _input, mut reader, mut seen) = look(&hub, &info.id);
    let mut all = pids(&mut reader, &mut seen, 3).await;
    hub.close(&info.id).unwrap();
    assert!(hub.list().is_empty());
    assert_eq!(ended.try_recv().unwrap(), info.id);
    assert_eq!(rest(&mut reader, &mut seen).await, OutputEvent::Ended);

    let argv = ["/bin/bash", "--norc", "-i"].map(str::to_owned).to_vec();
    if std::path::Path::new("/bin/bash").exists() {
        let shell = hub.create(SessionSpec { argv, ..SessionSpec::command("") }).unwrap();
        let (_viewer, input, mut reader, mut seen) = look(&hub, &shell.id);
        input.push(0, b"sh -c 'trap \"\" HUP; echo; echo P$$; sleep 1001; sleep 1002'\n").unwrap();
        all.extend(pids(&mut reader, &mut seen, 1).await);
        hub.close(&shell.id).unwrap();
        assert_eq!(ended.try_recv().unwrap(), shell.id);
    }
    for pid in all {
        eventually("a program outlived its session", || gone(pid)).await;
    }
    hub.shutdown().await;
    assert!(ended.try_recv().is_err(), "an end was told twice");
}

#[tokio::test]
async fn an_end_is_reported_once_even_when_a_close_races_it() {
    let (hub, mut ended) = hub();
    let mut ids = Vec::new();
    for number in 0..40 {
        let info = hub.create(SessionSpec::command("true")).unwrap();
        if number % 2 == 0 {
            for _ in 0..number * 10 {
                tokio::task::yield_now().await;
            }
            let _ = hub.close(&info.id);
        }
        ids.push(info.id);
    }
    let mut told = Vec::new();
    for _ in &ids {
        told.push(within("an end", ended.recv()).await.unwrap());
    }
    hub.shutdown().await;
    assert!(ended.try_recv().is_err());
    ids.sort();
    told.sort();
    assert_eq!(ids, told);
}

#[tokio::test]
async fn a_process_that_escaped_holds_no_session_not_even_with_jammed_input() {
    let (hub, _ended) = hub();
    let command = "stty raw -echo; setsid sh -c 'echo P$$; exec sleep 1000' & sleep 1000";
    let info = hub.create(SessionSpec::command(command)).unwrap();
    let (_viewer, _input, mut reader, mut seen) = look(&hub, &info.id);
    let escaped = pids(&mut reader, &mut seen, 1).await[0];
    let input = hub.view(&info.id).unwrap().input(LIMIT, Always);
    let start = Instant::now();
    while input.push(0, &[b'x'; 4096]) != Err(NotTaken::TooMuch) {
        assert!(start.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    hub.resize(&info.id, 50, 50).unwrap();
    hub.close(&info.id).unwrap();
    assert_eq!(rest(&mut reader, &mut seen).await, OutputEvent::Ended);
    within("the session's own end", hub.shutdown()).await;
    let escaped = rustix::process::Pid::from_raw(escaped).unwrap();
    let _ = rustix::process::kill_process(escaped, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn a_dropped_hub_kills_what_it_started() {
    let (hub, mut ended) = hub();
    let info = hub.create(SessionSpec::command("trap '' HUP; echo P$$; cat")).unwrap();
    let (_viewer, _input, mut reader, mut seen) = look(&hub, &info.id);
    let pid = pids(&mut reader, &mut seen, 1).await[0];
    drop(hub);
    assert_eq!(rest(&mut reader, &mut seen).await, OutputEvent::Ended);
    assert_eq!(ended.recv().await, Some(info.id));
    assert_eq!(ended.recv().await, None);
    eventually("the program outlived its hub", || gone(pid)).await;
}

#[tokio::test]
async fn a_program_gets_a_bare_environment_and_the_size_asked_for() {
    let (hub, _ended) = hub();
    let spec = SessionSpec {
        cols: 91,
        rows: 33,
        cwd: Some("/".into()),
        ..SessionSpec::command("stty size; pwd; env; echo .")
    };
    let info = hub.create(spec).unwrap();
    let (_viewer, _input, mut reader, mut seen) = look(&hub, &info.id);
    rest(&mut reader, &mut seen).await;
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.starts_with("33 91\r\n/\r\n") && seen.contains("TERM=xterm-256color"), "{seen}");
    assert!(!seen.contains("CARGO"), "the agent's own environment: {seen}");
    for (cols, rows) in [(0, 1), (1, 0), (1_001, 1), (1, 1_001)] {
        let refused = hub.create(SessionSpec { cols, rows, ..SessionSpec::command("true") });
        assert!(matches!(refused, Err(HubError::BadSize)));
    }
    let nowhere = SessionSpec { cwd: Some("/nonexistent".into()), ..SessionSpec::command("true") };
    assert!(matches!(hub.create(nowhere), Err(HubError::Terminal(_))));
    hub.shutdown().await;
}
