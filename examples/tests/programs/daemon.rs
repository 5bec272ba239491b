//! The agent as a daemon: crowds at the door, files that go away and come back, and what it tells who watches it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use futures_util::SinkExt;
use rand::rngs::OsRng;
use rustix::process::Signal;
use serde_json::json;
use sessioncap::noise::Initiator;
use sessioncap::{HolderSecretKey, OpSet, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::phone;
use super::revocation::follow;
use super::wire::{Answer, Told, answer, attach, connect_device, knock, open, redeem};
use super::world::{ECHO, Running, World, eventually, new_directory, program, within};

/// One request in plain HTTP, and all that is answered.
async fn ask(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect((world.url.host(), world.url.port())).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_all(stream).await
}

async fn read_all(mut stream: impl AsyncReadExt + Unpin) -> String {
    let mut text = Vec::new();
    within("an answer", stream.read_to_end(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// What an agent with `--observe unix:…` answers.
async fn observed(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").as_bytes()).await.unwrap();
    read_all(stream).await
}

async fn metric(socket: &Path, name: &str) -> u64 {
    let text = observed(socket, "/metrics").await;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

async fn observed_world(more: &[&str]) -> (World, std::path::PathBuf) {
    let directory = new_directory();
    // Short: the path of a socket may not be long.
    let socket = std::env::temp_dir().join(format!("sessioncap-{}", uuid::Uuid::new_v4().simple()));
    let observe = format!("unix:{}", socket.display());
    let world = World::start_with(directory, &[&["--observe", &observe], more].concat()).await;
    (world, socket)
}

#[tokio::test]
async fn whoever_asks_for_no_websocket_gets_a_line_of_text() {
    let world = World::start().await;
    for (path, status) in [("/P", "200"), ("/", "200"), (world.url.path(), "426"), ("/elsewhere", "404")] {
        let answer = ask(&world, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        let text = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(text.lines().any(|line| line.len() > 10), "{path}: {answer}");
    }
    let other = "GET /P HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert!(ask(&world, other).await.starts_with("HTTP/1.1 421"), "the page would make links of that host");
    assert!(ask(&world, "POST / HTTP/1.1\r\nHost: agent\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    assert!(ask(&world, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9_000));
    assert!(ask(&world, &long).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn web_pages_are_refused_unless_they_are_listed_and_the_subprotocol_is_selected() {
    let world = World::start_with(new_directory(), &["--origin", "https://app.example"]).await;
    for (origin, let_in) in [("https://evil.example", false), ("null", false), ("https://app.example", true)]
    {
        let mut request = world.url.to_string().into_client_request().unwrap();
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        request.headers_mut().insert("Sec-WebSocket-Protocol", "other, sessioncap.1".parse().unwrap());
        match within("an answer", tokio_tungstenite::connect_async(request)).await {
            Ok((_, response)) => {
                assert!(let_in, "{origin}");
                assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "sessioncap.1");
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                assert!(!let_in && response.status() == 403, "{origin}: {response:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn each_close_has_its_code() {
    let mut world = World::start().await;
    assert_eq!(knock(&world, Message::text("hello")).await.0, Answer::Closed(Some((1003, String::new()))));
    let long = Message::binary(vec![0; 65_536]);
    assert_eq!(knock(&world, long).await.0, Answer::Closed(Some((1009, String::new()))));
    let stranger = Message::binary(vec![0; 96]);
    assert_eq!(knock(&world, stranger).await.0, Answer::Closed(Some((1008, String::new()))));

    // Those who are connected when the agent stops: a stranger, a phone and a device.
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut phone = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.list_sessions" })).await;
    let mut stranger = open(&world).await;
    world.agent.signal(Signal::TERM);
    for socket in [&mut phone.socket, &mut device.socket, &mut stranger] {
        let closed = loop {
            match answer(socket).await {
                Answer::Message(_) => {}
                Answer::Closed(closed) => break closed,
            }
        };
        assert_eq!(closed, Some((1001, String::new())));
    }
    assert_eq!(world.agent.exit_code().await, 0);
}

/// Connections that say nothing, and how many of them are there.
async fn silent(world: &World, number: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..number {
        silent.push(TcpStream::connect((world.url.host(), world.url.port())).await.unwrap());
    }
    silent
}

/// A crowd that repeats what it does as fast as it can, until it is dropped.
struct Crowd {
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    /// Connections that send one recorded first message, again and again.
    async fn of_copies(world: &World, message: Vec<u8>, number: usize) -> Self {
        let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let url = world.url.to_string();
        let repeated = |_| {
            let (over, rounds) = (Arc::clone(&over), Arc::clone(&rounds));
            let (url, message) = (url.clone(), message.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if let Ok((mut socket, _)) = tokio_tungstenite::connect_async(&url).await {
                        let _ = socket.send(Message::binary(message.clone())).await;
                        // Until it is closed, or waits for the first frame of whoever was recorded.
                        rounds.fetch_add(1, Ordering::Relaxed);
                        let _ = futures_util::StreamExt::next(&mut socket).await;
                    }
                }
            })
        };
        let tasks = (0..number).map(repeated).collect();
        let crowd = Self { over, tasks };
        eventually("the crowd is at the door", || async { rounds.load(Ordering::Relaxed) > 200 }).await;
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(|task| task.abort());
    }
}

/// The first message of an attach, as whoever listens to the network can record it.
fn recorded(world: &World, key: &HolderSecretKey, credential: &sessioncap::CredentialBytes) -> Vec<u8> {
    sessioncap::phone::attach(&world.key, key, credential, OpSet::EMPTY, &mut OsRng).unwrap().message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_gets_in_and_revokes_under_a_thousand_silent_connections() {
    let (world, socket) = observed_world(&[]).await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let _silent = silent(&world, 1_000).await;
    world.dd_ok(&["session", "revoke", "--session", session.as_str()]).await;
    let told = attach(&world, &phone(1), &joined.credential).await.err();
    assert_eq!(told, Some(Told::Status(Status::Revoked)));
    assert!(metric(&socket, "sessioncap_agent_connections{kind=\"stranger\"}").await <= 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_gets_in_and_revokes_while_recorded_messages_are_repeated() {
    let (world, socket) = observed_world(&[]).await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let of_phone = recorded(&world, &phone(1), &joined.credential);
    let device = HolderSecretKey::from_bytes(*world.device_key().expose_bytes());
    let of_device = Initiator::start(&device, &world.key, b"", &mut OsRng).unwrap().message;
    let _phones = Crowd::of_copies(&world, of_phone, 12).await;
    let _devices = Crowd::of_copies(&world, of_device, 12).await;
    world.dd_ok(&["session", "revoke", "--session", session.as_str()]).await;
    let repeated = metric(&socket, "sessioncap_agent_sent_away_total{reason=\"repeated\"}").await;
    assert!(repeated > 0, "copies are refused before any arithmetic");
    assert!(metric(&socket, "sessioncap_agent_connections{kind=\"unproven\"}").await <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_file_descriptors_lets_a_desktop_in_and_complains_seldom() {
    let directory = new_directory();
    let profile = directory.join("desktop");
    let keygen = Command::new(program("dd_client")).arg("--profile").arg(&profile).arg("keygen").output();
    let device = String::from_utf8(keygen.await.unwrap().stdout).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 48; exec \"$0\" \"$@\""]).arg(program("agent"));
    command.arg("--state").arg(directory.join("agent")).args([
        "--listen",
        "127.0.0.1:0",
        "--per-address",
        "128",
    ]);
    command.args(["--enroll", device.trim()]);
    let agent = Running::start(command);
    let line: serde_json::Value = serde_json::from_str(&agent.stdout.until("\n").await).unwrap();
    let url = sessioncap::AgentUrl::parse(line["url"].as_str().unwrap()).unwrap();
    let key = line["agent_key"].as_str().unwrap().parse().unwrap();
    let world = World { directory, agent, url, key };
    world.point_desktop_at(&world.url.to_string()).await;
    let _silent = silent(&world, 100).await;
    world.agent.stderr.until("no connection can be accepted").await;
    world.dd_ok(&["session", "list"]).await;
    // At most once a minute, and nothing here takes longer than two.
    assert!(world.agent.stderr.get().matches("no connection can be accepted").count() <= 3);
}

#[tokio::test]
async fn a_list_of_devices_that_is_away_or_half_written_revokes_nobody() {
    let mut world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = follow(joined.stream).await;
    let (file, kept) = (world.file("agent/devices.json"), world.file("agent/kept"));

    std::fs::rename(&file, &kept).unwrap();
    world.agent.stderr.until("is missing").await;
    world.agent.stderr.until("nothing is revoked").await;
    stream.type_in("still here\r").await;
    stream.until("got:still here").await;
    world.dd_ok(&["session", "list"]).await;
    let whole = std::fs::read(&kept).unwrap();
    let half = world.file("agent/half");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    std::fs::set_permissions(&half, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&half, &file).unwrap();
    world.agent.stderr.until("cannot be read").await;
    assert!(attach(&world, &phone(1), &joined.credential).await.is_ok());

    // An agent that starts without its list lets no device in, and still revokes nothing.
    std::fs::remove_file(&file).unwrap();
    world.restart(|_| {}).await;
    world.agent.stderr.until("no device is enrolled and nothing is revoked").await;
    assert!(connect_device(&world, &world.device_key()).await.is_err());
    std::fs::rename(&kept, &file).unwrap();
    world.agent.stderr.until("can be read again").await;
    let back = attach(&world, &phone(1), &joined.credential).await.err();
    assert_eq!(back, Some(Told::Status(Status::SessionGone)), "the device was not removed");

    // A list that says so removes everybody.
    std::fs::write(&file, "{\"devices\": []}").unwrap();
    eventually("the device is out", || async { connect_device(&world, &world.device_key()).await.is_err() })
        .await;
}

#[tokio::test]
async fn renamed_files_go_on_in_new_ones_and_the_log_has_no_control_characters() {
    let directory = new_directory();
    let log = directory.join("agent.log");
    let world = World::start_with(directory, &["--log", log.to_str().unwrap()]).await;
    let session = world.session(ECHO).await;
    let first = world.pair(&session, &[]).await;
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    eventually("the log is written", || async { text(&log).contains("started") }).await;
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let audit = world.file("agent/audit.jsonl");
    let (old_log, old_audit) = (world.file("agent.log.1"), world.file("agent/audit.jsonl.1"));
    std::fs::rename(&log, &old_log).unwrap();
    std::fs::rename(&audit, &old_audit).unwrap();
    world.agent.signal(Signal::USR1);
    eventually("both are there again", || async { log.exists() && audit.exists() }).await;
    let second = world.pair(&session, &[]).await;
    let other = world.session(ECHO).await;
    eventually("the new log is written", || async { text(&log).contains(other.as_str()) }).await;
    assert!(text(&old_audit).contains(&first.ticket) && !text(&old_audit).contains(&second.ticket));
    assert!(text(&audit).contains(&second.ticket) && !text(&audit).contains(&first.ticket));
    assert!(!text(&old_log).contains(other.as_str()) && world.agent.stderr.get().is_empty());
}

#[tokio::test]
async fn metrics_count_and_name_nobody_and_health_says_what_is_wrong() {
    let (world, socket) = observed_world(&[]).await;
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket() && found.permissions().mode() & 0o777 == 0o600);
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--label", "kitchen"]).await;
    let stream = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    assert_eq!(metric(&socket, "sessioncap_gate_redeemed_total").await, 1);
    assert_eq!(metric(&socket, "sessioncap_agent_connections{kind=\"phone\"}").await, 1);
    assert_eq!(metric(&socket, "sessioncap_agent_sessions").await, 1);
    let health = observed(&socket, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200 ") && health.ends_with("\r\n\r\nok\n"), "{health}");
    assert!(observed(&socket, "/elsewhere").await.starts_with("HTTP/1.1 404 "));
    let metrics = observed(&socket, "/metrics").await;
    for name in
        [session.as_str(), &pairing.ticket, "kitchen", "127.0.0.1", &world.device_key().public().to_string()]
    {
        assert!(!metrics.contains(name), "{name}");
    }
    std::fs::rename(world.file("agent/devices.json"), world.file("agent/kept")).unwrap();
    eventually("it is noticed", || async {
        let health = observed(&socket, "/healthz").await;
        health.starts_with("HTTP/1.1 503 ") && health.contains("devices_unknown: ")
    })
    .await;
    drop(stream);
    let place = socket.clone();
    drop(world);
    assert!(!place.exists(), "the socket's file goes with the agent");
}

#[tokio::test]
async fn on_loopback_only_this_machines_own_address_is_answered() {
    let world = World::start_with(new_directory(), &["--observe", "127.0.0.1:0"]).await;
    let told = world.agent.stderr.until("metrics are served on ").await;
    let place = told.split("metrics are served on ").nth(1).unwrap().lines().next().unwrap().to_owned();
    for (host, status) in [(place.as_str(), "200"), ("evil.example", "403")] {
        let mut stream = TcpStream::connect(&place).await.unwrap();
        stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_all(stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn the_document_names_each_metric_and_no_other_and_the_unit_has_options_that_exist() {
    let document = include_str!("../../../docs/OPERATIONS.md");
    let documented: std::collections::BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `sessioncap_")?.split(['`', '{']).next())
        .collect();
    let (_world, socket) = observed_world(&[]).await;
    let metrics = observed(&socket, "/metrics").await;
    let served: std::collections::BTreeSet<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE sessioncap_")?.split(' ').next())
        .collect();
    assert!(served.len() > 40);
    assert_eq!(documented, served);
    let help = Command::new(program("agent")).arg("--help").output().await.unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let unit = include_str!("../../systemd/sessioncap-agent.service");
    let of_the_agent = unit.split("ExecStart=").nth(1).unwrap().lines().next().unwrap().split(' ');
    let documented = ["--enroll", "--url", "--per-address", "--origin", "--log", "--audit", "--observe"];
    for option in of_the_agent.filter(|word| word.starts_with("--")).chain(documented) {
        assert!(help.contains(option), "{option}");
    }
}

#[tokio::test]
async fn an_agent_on_every_address_makes_codes_for_addresses_that_a_phone_reaches() {
    let directory = new_directory();
    let mut command = Command::new(program("agent"));
    command.args(["--listen", "0.0.0.0:0", "--state"]).arg(directory.join("agent"));
    let mut agent = Running::start(command);
    tokio::select! {
        line = agent.stdout.until("\n") => {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            for url in line["urls"].as_array().unwrap() {
                let url = url.as_str().unwrap();
                assert!(!url.contains("0.0.0.0") && !url.contains("127.0.0.1"), "{url}");
            }
        }
        // A machine without a network.
        told = agent.stderr.until("name one with `--url`") => assert!(told.contains("every address")),
    }
    agent.signal(Signal::TERM);
    agent.exit_code().await;
    std::fs::remove_dir_all(directory).unwrap();

    let world = World::start().await;
    world.agent.stderr.until("only this machine reaches 127.0.0.1").await;
}

#[tokio::test]
async fn a_service_manager_hears_when_the_agent_is_ready_and_when_it_stops() {
    let directory = new_directory();
    let place = std::env::temp_dir().join(format!("sessioncap-{}", uuid::Uuid::new_v4().simple()));
    let manager = tokio::net::UnixDatagram::bind(&place).unwrap();
    let mut command = Command::new(program("agent"));
    command.args(["--listen", "127.0.0.1:0", "--state"]).arg(directory.join("agent"));
    command.env("NOTIFY_SOCKET", &place);
    let mut agent = Running::start(command);
    let mut buffer = [0; 64];
    let length = within("a word", manager.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
    agent.signal(Signal::TERM);
    let length = within("a word", manager.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"STOPPING=1");
    assert_eq!(agent.exit_code().await, 0);
    std::fs::remove_dir_all(directory).unwrap();
    std::fs::remove_file(place).unwrap();
}

/// For `.ci/long crowd`: how long a desktop's revocation takes in peace and in a crowd, as a ratio.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures time"]
async fn a_revocation_in_a_crowd_takes_less_than_ten_times_as_long_as_in_peace() {
    const ROUNDS: u32 = 10;
    /// Sessions with an open code each, made in peace.
    async fn shared(world: &World) -> Vec<sessioncap::SessionId> {
        let mut sessions = Vec::new();
        for _ in 0..ROUNDS {
            let session = world.session(ECHO).await;
            drop(world.pair(&session, &[]).await);
            sessions.push(session);
        }
        sessions
    }
    async fn revoke(world: &World, what: &str, sessions: Vec<sessioncap::SessionId>) -> f64 {
        let mut slowest = 0_f64;
        for session in sessions {
            let begun = Instant::now();
            world.dd_ok(&["session", "revoke", "--session", session.as_str()]).await;
            slowest = slowest.max(begun.elapsed().as_secs_f64());
        }
        println!("{what}: the slowest of {ROUNDS} took {slowest:.3} s");
        slowest
    }
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--expires", "1h"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let sets = [shared(&world).await, shared(&world).await, shared(&world).await];
    let [first, second, third] = sets;
    let peace = revoke(&world, "in peace", first).await;
    let silent = silent(&world, 1_000).await;
    let among_silent = revoke(&world, "among 1,000 silent connections", second).await;
    drop(silent);
    let copies = Crowd::of_copies(&world, recorded(&world, &phone(1), &joined.credential), 64).await;
    let among_copies = revoke(&world, "among copies of a first message", third).await;
    drop(copies);
    println!("{:.1} and {:.1} times as long as in peace", among_silent / peace, among_copies / peace);
    assert!(among_silent < 10.0 * peace && among_copies < 10.0 * peace);
}
