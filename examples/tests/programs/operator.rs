//! Cases for an operator: wrong clocks, failing ledgers, and agents that start again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sessioncap::agent::LedgerFailure;
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Transition};
use sessioncap::desktop::PairingTerms;
use sessioncap::pair::{ListingState, Revoke};
use sessioncap::phone::PhoneError;
use sessioncap::{AgentUrl, Label, OpSet, SessionId, Status};
use time::UtcOffset;

use super::phone;
use super::revocation::follow;
use super::wire::{Told, attach, redeem};
use super::world::{ECHO, World, eventually, new_directory, set_clock_ahead, within, world_with_clock};
use sessioncap_programs::agent::{Config, Options, Running, start_over};
use sessioncap_programs::clock::Clock;
use sessioncap_programs::companion::{Heard, come_back, join};
use sessioncap_programs::desktop::profile::Profile;
use sessioncap_programs::desktop::{Desktop, Identity};
use sessioncap_programs::problem::Problem;

#[tokio::test]
async fn a_clock_that_is_set_back_revives_nothing() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &["--expires", "5m"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let unused = world.pair(&session, &["--ttl", "30s"]).await;
    set_clock_ahead(&ahead, 301);
    let back = attach(&world, &phone(1), &joined.credential).await.err();
    assert_eq!(back, Some(Told::Status(Status::Expired)));
    for seconds in [0, -3_600, -2_000_000_000] {
        set_clock_ahead(&ahead, seconds);
        let back = attach(&world, &phone(1), &joined.credential).await.err();
        assert_eq!(back, Some(Told::Status(Status::Expired)), "{seconds}");
        let late = redeem(&world, &unused.link, &phone(2)).await.err();
        assert_eq!(late, Some(Told::Status(Status::Expired)), "{seconds}");
    }
    // The agent's time continues, and so do its programs.
    let pairing = world.pair(&session, &["--expires", "1h"]).await;
    follow(redeem(&world, &pairing.link, &phone(3)).await.unwrap().stream).await;
    let left = seconds_left(&world, &pairing.ticket).await;
    assert!((3_800..=3_901).contains(&left), "the agent's time has not gone back: {left}");
}

/// How long a phone may stay, by this machine's clock.
async fn seconds_left(world: &World, ticket: &str) -> i64 {
    let end = world.grant(ticket).await["expires_at"].as_str().unwrap().to_owned();
    let end = time::OffsetDateTime::parse(&end, &time::format_description::well_known::Rfc3339).unwrap();
    (end - time::OffsetDateTime::now_utc()).whole_seconds()
}

#[tokio::test]
async fn resetting_the_clock_removes_everything_and_desktops_register_again() {
    let (world, ahead) = world_with_clock().await;
    let session = world.session(ECHO).await;
    set_clock_ahead(&ahead, 50_000);
    let pairing = world.pair(&session, &[]).await;
    let unused = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = follow(joined.stream).await;
    set_clock_ahead(&ahead, 0);

    let mut asked = world.dd_start(&["agent", "reset-clock"]);
    asked.stdout.until("every ticket and every phone of every session is gone").await;
    asked.type_in("n\n").await;
    assert_eq!(asked.exit_code().await, 1);
    stream.type_in("nothing has changed\r").await;
    stream.until("got:nothing has changed").await;

    world.dd_ok(&["agent", "reset-clock", "--yes"]).await;
    assert_eq!(stream.until_end().await.1, Some("revoked"));
    let back = attach(&world, &phone(1), &joined.credential).await.err();
    assert!(matches!(back, Some(Told::Nothing(_))), "{back:?}");
    let back = redeem(&world, &unused.link, &phone(2)).await.err();
    assert!(matches!(back, Some(Told::Nothing(_))), "{back:?}");
    assert!(world.grants().await.is_empty());

    // Without another request.
    let again = world.pair(&session, &["--expires", "1h"]).await;
    let joined = redeem(&world, &again.link, &phone(1)).await.unwrap();
    let left = seconds_left(&world, &again.ticket).await;
    assert!((3_500..=3_600).contains(&left), "the agent's time is the wall clock's: {left}");
    follow(joined.stream).await;
    let log = world.dd_ok(&["session", "log", session.as_str()]).await;
    assert!(log.contains("the clock was reset"), "{log}");
}

/// A ledger that outlives its agent and can be made to fail.
#[derive(Clone, Default)]
struct Kept {
    ledger: Arc<MemoryLedger>,
    broken: Arc<AtomicBool>,
}

impl Kept {
    fn usable(&self) -> Result<&MemoryLedger, LedgerError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(LedgerError::not_done(LedgerFailure::Full).unusable()),
            false => Ok(&self.ledger),
        }
    }
}

impl Ledger for Kept {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.usable()?.read(look)
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.usable()?.transact(transition)
    }
}

/// An agent in this process.
struct Inside {
    running: Running,
    identity: Identity,
    log: Arc<Mutex<Vec<String>>>,
}

impl Inside {
    async fn start(directory: &Path, kept: &Kept, at: Option<&AgentUrl>) -> Self {
        let profile =
            Profile { directory: directory.join("desktop"), url: None, agent: None, device_key: None };
        let device = profile.make().unwrap();
        let listen =
            at.map_or_else(|| "127.0.0.1:0".to_owned(), |url| format!("{}:{}", url.host(), url.port()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let config = Config {
            listen: listen.parse().unwrap(),
            state: directory.join("agent"),
            in_memory: false,
            urls: Vec::new(),
            rules: None,
            offset: UtcOffset::UTC,
            // A removed device stays removed.
            enroll: if at.is_none() { vec![device.public()] } else { Vec::new() },
            audit: Some(directory.join("agent/audit.jsonl")),
            clock: Clock::system().unwrap(),
            // So long that nothing in these tests can be its doing.
            look: Duration::from_secs(3_600),
            patience: Duration::from_secs(3_600),
            log: Arc::new(move |line| lines.lock().unwrap().push(line)),
            options: Options::default(),
        };
        let kept = kept.clone();
        let running = start_over(config, move |_| Ok(kept.clone())).await.unwrap();
        let profile = Profile { url: Some(running.url.clone()), agent: Some(running.key), ..profile };
        Self { identity: profile.open().unwrap(), running, log }
    }

    /// A phone that is in, with its file.
    async fn phone(
        &self,
        desktop: &mut Desktop<'_>,
        session: &SessionId,
        file: &Path,
    ) -> sessioncap_programs::companion::Live {
        let shared = desktop.share(session, &PairingTerms::default()).await.unwrap();
        let label = Label::new("phone").unwrap();
        let joining = join(&shared.pairing.link, &label, file, |_| {});
        let mut live = within("joining", joining).await.unwrap().live;
        live.start_output().await.unwrap();
        live
    }
}

fn told(outcome: Result<sessioncap_programs::companion::Live, Problem>) -> Option<Status> {
    match outcome {
        Err(Problem::Phone(PhoneError::Refused(status))) => Some(status),
        Err(problem) => panic!("{problem}"),
        Ok(_) => None,
    }
}

#[tokio::test]
async fn an_agent_that_starts_again_ends_the_sessions_that_it_does_not_have() {
    for removed in [false, true] {
        let (directory, kept) = (new_directory(), Kept::default());
        let agent = Inside::start(&directory, &kept, None).await;
        let mut desktop = Desktop::connect(&agent.identity).await.unwrap();
        let session = desktop.create_session(None, Some(ECHO)).await.unwrap();
        let file = directory.join("phone.json");
        drop(agent.phone(&mut desktop, &session, &file).await);
        desktop.disconnect().await;
        let url = agent.running.url.clone();
        within("the agent's end", agent.running.stop()).await;

        if removed {
            std::fs::write(directory.join("agent/devices.json"), "{\"devices\":[]}").unwrap();
        }
        let agent = Inside::start(&directory, &kept, Some(&url)).await;
        let expected = if removed { Status::Revoked } else { Status::SessionGone };
        assert_eq!(told(come_back(&file, OpSet::EMPTY).await), Some(expected));
        if !removed {
            let mut desktop = Desktop::connect(&agent.identity).await.unwrap();
            assert!(
                desktop.entries(None).await.unwrap().iter().all(|entry| entry.state != ListingState::Active)
            );
            let log = desktop.log(Some(&session)).await.unwrap();
            let last = log.entries.last().unwrap();
            assert!(last.restarted || log.entries.iter().any(|entry| entry.restarted));
            assert!(log.entries.iter().any(|entry| entry.record["event"] == "session_closed"));
        }
        within("the agent's end", agent.running.stop()).await;
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

#[tokio::test]
async fn a_failed_ledger_makes_phones_wait_and_no_device_until_it_is_open_again() {
    let (directory, kept) = (new_directory(), Kept::default());
    let agent = Inside::start(&directory, &kept, None).await;
    let mut desktop = Desktop::connect(&agent.identity).await.unwrap();
    let session = desktop.create_session(None, Some(ECHO)).await.unwrap();
    let file = directory.join("phone.json");
    let mut live = agent.phone(&mut desktop, &session, &file).await;

    kept.broken.store(true, Ordering::SeqCst);
    let logged = |what: &str| agent.log.lock().unwrap().iter().filter(|line| line.contains(what)).count();
    eventually("it is logged", || async { logged("the ledger failed: all phones wait") > 0 }).await;
    let back = come_back(&file, OpSet::EMPTY).await.err();
    assert!(matches!(back, Some(Problem::BrokenOff)), "the phone may try again: {back:?}");

    // Devices and sessions continue, and the waiting phone sees none of it.
    let mut terminal = desktop.attach(&session).await.unwrap();
    terminal.send(b"goes on\r").await.unwrap();
    let seen = async {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("got:goes on") {
            seen.extend(terminal.receive().await.unwrap().unwrap());
        }
    };
    within("the device's output", seen).await;
    assert_eq!(logged("the ledger is open again"), 0);

    // The disk has room again: the stream continues and has lost nothing.
    kept.broken.store(false, Ordering::SeqCst);
    within("the phone's output", async {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("got:goes on") {
            match live.next().await.unwrap() {
                Heard::Output(output) => seen.extend(output),
                Heard::Screen { bytes, .. } => seen = bytes,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    // The phone may see it before the line is there.
    eventually("it is logged", || async { logged("the ledger is open again") > 0 }).await;
    assert_eq!(logged("the ledger is open again"), 1);
    assert_eq!(logged("the ledger failed"), 1);
    within("the agent's end", agent.running.stop()).await;
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Nothing but the cut itself ends these: neither a timer nor the phone.
#[tokio::test]
async fn a_cut_alone_ends_an_idle_phone_and_one_that_is_stalled_in_the_middle_of_a_frame() {
    let (directory, kept) = (new_directory(), Kept::default());
    let agent = Inside::start(&directory, &kept, None).await;
    let mut desktop = Desktop::connect(&agent.identity).await.unwrap();
    // More than a frame of history, so that each answer with it fills one.
    let history = "stty -opost -echo; head -c 200000 /dev/zero | tr '\\0' x; echo done; exec cat";
    let session = desktop.create_session(None, Some(history)).await.unwrap();
    let mut terminal = desktop.attach(&session).await.unwrap();
    within("the history", async {
        let mut tail = Vec::new();
        while !String::from_utf8_lossy(&tail).contains("done") {
            tail.extend(terminal.receive().await.unwrap().unwrap());
        }
    })
    .await;
    let mut desktop = Desktop::connect(&agent.identity).await.unwrap();
    let all = PairingTerms::default().with_ops(OpSet::ALL).unwrap();
    let shared = desktop.share(&session, &all).await.unwrap();
    let label = Label::new("stalled").unwrap();
    let file = directory.join("stalled.json");
    let joining = join(&shared.pairing.link, &label, &file, |_| {});
    let mut stalled = within("joining", joining).await.unwrap().live;
    // It asks again and again, and never reads: far more than any buffer in between holds. Whatever the
    // agent's clock says, nobody gives up on it.
    let does_not_read = || {
        let log = agent.log.lock().unwrap();
        log.iter().any(|line| line.contains("does not read: a frame waits"))
    };
    let request = serde_json::json!({ "method": "shell.replay_session", "id": session });
    for _ in 0..600 {
        stalled.ask(&request).await.unwrap();
    }
    eventually("the phone's buffers are full", || async { does_not_read() }).await;
    let mut idle = agent.phone(&mut desktop, &session, &directory.join("idle.json")).await;
    // Until it has had all that there is.
    within("the idle phone's output", async {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("done") {
            if let Heard::Output(bytes) | Heard::Screen { bytes, .. } = idle.next().await.unwrap() {
                seen.extend(bytes);
            }
        }
    })
    .await;
    desktop.revoke(Revoke::Session(session.clone())).await.unwrap();
    let code = within("the idle phone's end", async {
        loop {
            if let Heard::End(code) = idle.next().await.unwrap() {
                return code;
            }
        }
    });
    assert_eq!(code.await.status(), Some(Status::Revoked));
    let let_go = || {
        let log = agent.log.lock().unwrap();
        log.iter().filter(|line| line.contains("is off session") && line.contains("was revoked")).count()
    };
    eventually("the agent lets go of both", || async { let_go() == 2 }).await;
    drop(stalled);
    within("the agent's end", agent.running.stop()).await;
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn an_agent_whose_audit_file_cannot_be_written_does_not_start() {
    let directory = new_directory();
    let output = tokio::process::Command::new(super::program("agent"))
        .args(["--listen", "127.0.0.1:0", "--state"])
        .arg(directory.join("agent"))
        .arg("--audit")
        .arg(&directory)
        .output();
    let output = within("the agent's refusal", output).await.unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("`--audit none`"));
}
