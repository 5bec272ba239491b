//! Input on its way into the terminal.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sessioncap::Notice;
use sessioncap::agent::Denial;
use sessioncap::session::{FromPhone, NotTaken, Profile, SessionNotice};
use sessioncap_programs::pty::{Hub, Permit, SessionSpec, Typed};

use super::phone;
use super::revocation::follow;
use super::wire::{Stream, connect_device, redeem};
use super::world::{World, eventually, within};

/// Reads nothing until it gets SIGCONT, and then counts what was typed until then.
const COUNTS: &str = "stty raw -echo; echo \"P$$.\"; echo ready; kill -STOP $$; \
    stty min 0 time 2; echo \"read:$(cat | wc -c).\"; sleep 1000";

/// The number between two texts.
fn number(text: &str, before: &str) -> i32 {
    let rest = text.split(before).last().unwrap();
    rest.split('.').next().unwrap().trim().parse().unwrap()
}

fn go_on(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
}

/// Types until the terminal is full, in messages of 1000 bytes: four are in it.
async fn jam(stream: &mut Stream) {
    let mut numbers = Vec::new();
    for _ in 0..60 {
        numbers.push(stream.type_in(&"x".repeat(1000)).await);
    }
    for number in &numbers[..4] {
        assert_eq!(stream.typed(*number).await.code, SessionNotice::TAKEN);
    }
}

#[tokio::test]
async fn of_what_was_typed_at_a_busy_program_no_more_than_the_terminals_queue_is_read_after_a_revocation() {
    for how in ["revoked", "gone"] {
        let world = World::start().await;
        let session = world.session(COUNTS).await;
        let pairing = world.pair(&session, &[]).await;
        let mut stream = redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream;
        stream.follow(None).await.unwrap();
        let pid = number(&stream.until("ready").await, "P");
        jam(&mut stream).await;
        // Another hundred kilobytes: more than may wait.
        let most = Profile::MAX_UNTAKEN_INPUT;
        let over = stream.type_in(&"y".repeat(most)).await;
        let refused = stream.typed(over).await;
        assert_eq!((refused.code, refused.detail), (SessionNotice::NOT_TAKEN, 0), "{refused:?}");
        let mut device = connect_device(&world, &world.device_key()).await.unwrap();
        device.call(json!({ "method": "shell.attach_session", "id": session })).await;
        match how {
            "revoked" => drop(world.dd_ok(&["session", "revoke", &pairing.ticket]).await),
            _ => {
                stream.send(b"").await;
                stream.until_end().await;
            }
        }
        go_on(pid);
        let read = number(&device.until_raw(".").await, "read:");
        assert!((4000..=4096).contains(&read), "{how}: {read}");
    }
}

#[tokio::test]
async fn input_is_taken_in_order_by_turns_and_dies_with_its_viewer() {
    let hub = Hub::new(|_| {});
    let info = hub.create(SessionSpec::command(COUNTS)).unwrap();
    let viewer = hub.view(&info.id).unwrap();
    eventually("the program is ready", || async {
        String::from_utf8_lossy(&viewer.history()).contains("ready")
    })
    .await;
    let pid = number(&String::from_utf8_lossy(&viewer.history()), "P");
    let mut one = viewer.input(65_536, sessioncap_programs::pty::Always);
    let two = viewer.input(65_536, sessioncap_programs::pty::Always);
    for at in 0..30 {
        one.push(at, &[b'1'; 1000]).unwrap();
    }
    two.push(0, &[b'2'; 65_536]).unwrap();
    assert_eq!(two.push(1, b"2"), Err(NotTaken::TooMuch));
    // Both have had turns: the first viewer cannot have had all four thousand.
    let (number_of_first, typed) = within("the first message", one.typed()).await;
    assert_eq!((number_of_first, typed), (0, Typed::Taken));
    drop((one, two));
    go_on(pid);
    let count =
        |text: &str| text.split("read:").nth(1).and_then(|rest| rest.split('.').next()?.trim().parse().ok());
    eventually("the count", || async { count(&String::from_utf8_lossy(&viewer.history())).is_some() }).await;
    let read: i32 = count(&String::from_utf8_lossy(&viewer.history())).unwrap();
    assert!(read <= 4096, "{read}");
    hub.shutdown().await;
}

/// Refuses from a moment on.
struct Until(tokio::sync::watch::Receiver<bool>);

impl Permit for Until {
    async fn permit(&mut self, write: &mut (dyn FnMut() + Send)) -> Result<(), Denial> {
        if *self.0.borrow() {
            return Err(Denial::CredentialRevoked);
        }
        write();
        Ok(())
    }
}

#[tokio::test]
async fn what_is_not_permitted_any_more_when_its_turn_comes_is_refused() {
    let hub = Hub::new(|_| {});
    let info = hub.create(SessionSpec::command("stty -echo; echo ready; cat")).unwrap();
    let viewer = hub.view(&info.id).unwrap();
    let (forbid, forbidden) = tokio::sync::watch::channel(false);
    let mut input = viewer.input(100, Until(forbidden));
    input.push(4, b"allowed\n").unwrap();
    assert_eq!(within("the answer", input.typed()).await, (4, Typed::Taken));
    forbid.send_replace(true);
    input.push(5, b"forbidden\n").unwrap();
    assert_eq!(within("the answer", input.typed()).await, (5, Typed::Refused(Denial::CredentialRevoked)));
    eventually("the echo", || async { String::from_utf8_lossy(&viewer.history()).contains("allowed") }).await;
    assert!(!String::from_utf8_lossy(&viewer.history()).contains("forbidden"));
    hub.close(&info.id).unwrap();
    eventually("the end", || async { input.push(6, b"x") == Err(NotTaken::Ended) }).await;
    hub.shutdown().await;
}

/// Waits for a permit that does not come, and tells when it is asked.
struct Never(tokio::sync::mpsc::UnboundedSender<()>);

impl Permit for Never {
    async fn permit(&mut self, _: &mut (dyn FnMut() + Send)) -> Result<(), Denial> {
        self.0.send(()).unwrap();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_viewer_that_waits_for_its_permit_keeps_nobody_from_typing() {
    let hub = Hub::new(|_| {});
    let info = hub.create(SessionSpec::command("stty -echo; echo ready; cat")).unwrap();
    let viewer = hub.view(&info.id).unwrap();
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let paused = viewer.input(100, Never(tell));
    paused.push(1, b"paused\n").unwrap();
    within("the question for a permit", asked.recv()).await;
    let mut other = viewer.input(100, sessioncap_programs::pty::Always);
    other.push(2, b"other\n").unwrap();
    assert_eq!(within("the answer", other.typed()).await, (2, Typed::Taken));
    drop(paused);
    hub.shutdown().await;
}

#[tokio::test]
async fn an_interrupt_goes_ahead_of_what_a_phone_has_pasted() {
    let world = World::start().await;
    let session = world
        .session("stty -echo; trap 'echo interrupted' INT; echo ready; while :; do sleep 1000 & wait; done")
        .await;
    let pairing =
        world.pair(&session, &["--ops", "stream_output,send_input,interrupt,receive_notifications"]).await;
    let mut stream = follow(redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream).await;
    let lines = "a line that nobody reads\r".repeat(2_000);
    let mut pasted = Vec::new();
    for chunk in lines.as_bytes().chunks(1_000) {
        pasted.push(stream.type_in(std::str::from_utf8(chunk).unwrap()).await);
    }
    assert_eq!(stream.typed(pasted[0]).await.code, SessionNotice::TAKEN);
    // The desktop's, past the phone's queue.
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session })).await;
    device.send(b"\x03").await;
    device.until_raw("interrupted").await;
    // The phone's own, which discards its queue.
    let last = *pasted.last().unwrap();
    stream.send_message(&FromPhone::Interrupt.to_bytes().unwrap()).await;
    let notice = stream.typed(last).await;
    let discarded = SessionNotice::NotTaken { number: last, why: NotTaken::Interrupted };
    assert_eq!(SessionNotice::from_notice(notice), Some(discarded));
    device.until_raw("interrupted").await;
    // Without the operation there is none.
    let pairing = world.pair(&session, &[]).await;
    let mut other = redeem(&world, &pairing.link, &phone(2)).await.unwrap().stream;
    let number = other.send_message(&FromPhone::Interrupt.to_bytes().unwrap()).await;
    assert_eq!(other.typed(number).await.code, Notice::NOT_GRANTED);
}
