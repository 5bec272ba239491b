//! Sessions of a server, as several agents serve them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use sessioncap_programs::pty::{
    Always, Change, Hub, HubError, Input, Mirror, Orders, Output, OutputEvent, SessionSpec, Viewer,
};
use sessioncap_programs::sessions::{Link, Server, Shared};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::wire::{attach, redeem};
use super::world::{ECHO, Running, World, eventually, new_directory, program, within};

/// A server in this process.
pub struct Serving {
    pub path: PathBuf,
    server: Arc<Server>,
    serving: JoinHandle<()>,
}

impl Serving {
    pub async fn start(path: PathBuf) -> Self {
        let server = Arc::new(Server::bind(&path).await.unwrap());
        let listening = Arc::clone(&server);
        let serving = tokio::spawn(async move { listening.serve().await });
        Self { path, server, serving }
    }

    pub async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
        self.server.stop().await;
    }
}

/// An agent's side, and the ids of the sessions that have ended.
struct Side {
    hub: Hub,
    shared: Shared,
    ended: Arc<Mutex<Vec<String>>>,
}

async fn side(path: &Path, node: u32) -> Side {
    let ended = Arc::<Mutex<Vec<String>>>::default();
    let ends = Arc::clone(&ended);
    let on_end = move |id: &str| ends.lock().unwrap().push(id.to_owned());
    let (hub, shared) = Link::new(path.to_owned(), node).mirror(on_end, Arc::new(|_, _, _| ()));
    shared.wait().await.unwrap();
    Side { hub, shared, ended }
}

/// A viewer, its streams, and the screen that it has first.
async fn look(hub: &Hub, id: &str) -> (Viewer, Input, Output, Vec<u8>) {
    let viewer = hub.view(id).unwrap();
    let input = viewer.input(65_536, Always);
    let (screen, output) = viewer.watch();
    (viewer, input, output, screen.bytes)
}

async fn until(output: &mut Output, seen: &mut Vec<u8>, text: &str) {
    while !String::from_utf8_lossy(seen).contains(text) {
        match within("an event", output.next()).await {
            OutputEvent::Data(chunk) => seen.extend(chunk),
            event => panic!("{event:?} before {text}: {}", String::from_utf8_lossy(seen)),
        }
    }
}

/// A session of one hub as another has it, and its id.
fn mirrored(own: &Hub, mirror: &Hub) -> (String, Mirror) {
    let info = own.create(SessionSpec::command(ECHO)).unwrap();
    let (id, whole) = (info.id.clone(), own.whole(&info.id).unwrap());
    let (weak, screen) = (mirror.downgrade(), whole.screen);
    let added = weak.add(info, whole.incarnation, &[], screen.position, &screen.bytes, whole.terminal);
    (id, added.unwrap())
}

#[tokio::test]
async fn an_agent_keeps_the_newest_size_of_each_session_for_a_server_that_is_behind() {
    let own = Hub::new(|_| ());
    let (orders, _starts, mut changes) = Orders::new(2);
    let hub = Hub::mirror(|_| (), orders);
    let [(one, _one), (two, _two), (three, _three)] = [(); 3].map(|()| mirrored(&own, &hub));
    let resized = |id: &String, columns, rows| Some(Change::Resize { id: id.clone(), columns, rows });
    for columns in 1..=1_000 {
        hub.resize(&one, columns, 24).unwrap();
        hub.resize(&two, columns, 25).unwrap();
        assert!(changes.count() <= 2, "{} orders wait", changes.count());
    }
    // When all places are taken, a caller is told so, and nothing has changed.
    assert!(matches!(hub.resize(&three, 99, 99), Err(HubError::Server(_))));
    assert!(matches!(hub.close(&three), Err(HubError::Server(_))));
    let untouched = hub.info(&three).unwrap();
    assert_eq!((untouched.cols, untouched.rows), (80, 24));

    assert_eq!(changes.next().await, resized(&one, 1_000, 24));
    // A size that comes after the one before was taken waits anew, behind the others.
    hub.resize(&one, 7, 8).unwrap();
    hub.resize(&one, 9, 10).unwrap();
    assert_eq!(changes.next().await, resized(&two, 1_000, 25));
    hub.close(&three).unwrap();
    assert_eq!(changes.next().await, resized(&one, 9, 10));
    assert_eq!(changes.next().await, Some(Change::Close { id: three }));
    assert_eq!(changes.count(), 0);
    own.shutdown().await;
}

#[tokio::test]
async fn two_agents_serve_each_session_of_a_server_alike() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let mode = std::fs::metadata(&serving.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (one, two) = (side(&serving.path, 1).await, side(&serving.path, 2).await);
    let info = one.hub.start(SessionSpec::command(ECHO), true).await.unwrap();
    assert!(info.id.starts_with("1."), "{}", info.id);
    // Known to the other as soon as it was made, and before anything was heard of it.
    assert_eq!(two.hub.info(&info.id).unwrap().pid, info.pid);

    let (viewer_one, input_one, mut output_one, mut seen_one) = look(&one.hub, &info.id).await;
    let (viewer_two, input_two, mut output_two, mut seen_two) = look(&two.hub, &info.id).await;
    until(&mut output_one, &mut seen_one, "ready").await;
    until(&mut output_two, &mut seen_two, "ready").await;
    input_one.push(0, b"by one\r").unwrap();
    until(&mut output_two, &mut seen_two, "got:by one").await;
    input_two.push(0, b"by two\r").unwrap();
    until(&mut output_one, &mut seen_one, "got:by two").await;
    until(&mut output_two, &mut seen_two, "got:by two").await;

    // The same bytes at the same positions, also for an agent that comes later.
    let three = side(&serving.path, 3).await;
    let viewer_three = three.hub.view(&info.id).unwrap();
    assert_eq!(viewer_one.history(), viewer_two.history());
    assert_eq!(viewer_three.history(), viewer_one.history());
    let position = viewer_one.position();
    assert_eq!((viewer_two.position(), viewer_three.position()), (position, position));
    assert_eq!(viewer_three.watch().0.bytes, viewer_one.watch().0.bytes);

    two.hub.resize(&info.id, 99, 33).unwrap();
    for hub in [&one.hub, &two.hub, &three.hub] {
        eventually("the size is known", async || {
            hub.info(&info.id).is_some_and(|info| (info.cols, info.rows) == (99, 33))
        })
        .await;
    }
    three.hub.close(&info.id).unwrap();
    for (side, output) in [(&one, &mut output_one), (&two, &mut output_two)] {
        while within("the end", output.next()).await != OutputEvent::Ended {}
        eventually("its end is told", async || *side.ended.lock().unwrap() == [info.id.clone()]).await;
        assert!(side.hub.list().is_empty());
    }
    assert!(one.shared.sessions().await.unwrap().is_empty());
    serving.stop().await;
}

#[tokio::test]
async fn a_session_outlives_its_agent_unless_it_was_a_command_of_a_device() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let (one, two) = (side(&serving.path, 1).await, side(&serving.path, 2).await);
    let stays = one.hub.start(SessionSpec::command(ECHO), true).await.unwrap();
    let goes = one.hub.start(SessionSpec::command(ECHO), false).await.unwrap();
    let other = two.hub.start(SessionSpec::command(ECHO), false).await.unwrap();
    one.hub.shutdown().await;
    drop(one);
    eventually("the command ends", async || two.hub.info(&goes.id).is_none()).await;
    assert!(two.hub.info(&stays.id).is_some() && two.hub.info(&other.id).is_some());
    let again = side(&serving.path, 1).await;
    assert_eq!(again.hub.info(&stays.id).unwrap().pid, stays.pid);
    serving.stop().await;
}

#[tokio::test]
async fn viewers_come_again_when_the_server_is_lost_and_no_session_is_said_to_have_ended() {
    let directory = new_directory();
    let serving = Serving::start(directory.join("sessions")).await;
    let path = serving.path.clone();
    let mut command = Command::new(program("sessions"));
    command.arg("--listen").arg(&path);
    let refused = within("the refusal", command.output()).await.unwrap();
    assert!(!refused.status.success(), "two at one socket");
    serving.stop().await;

    let mut command = Command::new(program("sessions"));
    command.arg("--listen").arg(&path);
    let mut server = Running::start(command);
    server.stdout.until("listening at").await;
    let mut one = side(&path, 1).await;
    let info = one.hub.start(SessionSpec::command(ECHO), true).await.unwrap();
    let (viewer, _input, mut output, mut seen) = look(&one.hub, &info.id).await;
    until(&mut output, &mut seen, "ready").await;
    server.signal(Signal::KILL);
    server.exit_code().await;
    within("the loss", viewer.lost()).await;
    while within("an event", output.next()).await != OutputEvent::Lagged {}
    within("the loss", one.shared.lost()).await;
    assert!(one.hub.list().is_empty());
    assert!(one.ended.lock().unwrap().is_empty(), "nobody knows what has become of it");
    assert!(one.hub.start(SessionSpec::command(ECHO), true).await.is_err());

    let serving = Serving::start(path).await;
    assert!(within("the server", one.shared.joined()).await);
    one.hub.start(SessionSpec::command(ECHO), true).await.unwrap();
    serving.stop().await;
}

#[tokio::test]
async fn an_agent_that_starts_again_goes_on_with_the_sessions_of_its_server() {
    let directory = new_directory();
    let socket = directory.join("sessions");
    let mut command = Command::new(program("sessions"));
    command.arg("--listen").arg(&socket);
    let mut server = Running::start(command);
    server.stdout.until("listening at").await;
    let more = ["--sessions", socket.to_str().unwrap()];
    let mut world = World::start_with(directory.clone(), &more).await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let key = super::phone(1);
    let mut joined = redeem(&world, &pairing.link, &key).await.unwrap();
    joined.stream.follow(None).await.unwrap();
    joined.stream.until("ready").await;

    world.agent.signal(Signal::KILL);
    world.agent.exit_code().await;
    let mut command = Command::new(program("agent"));
    command.arg("--state").arg(world.file("agent")).args(more);
    command.arg("--listen").arg(format!("{}:{}", world.url.host(), world.url.port()));
    world.agent = Running::start(command);
    world.agent.stdout.until("listening").await;
    let (mut stream, _) = attach(&world, &key, &joined.credential).await.unwrap();
    stream.follow(None).await.unwrap();
    stream.until("ready").await;
    stream.type_in("again\r").await;
    stream.until("got:again").await;

    // With the server the sessions end.
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, 0);
    assert!(!socket.exists());
    world.agent.stderr.until("the server of the sessions is lost").await;
}
