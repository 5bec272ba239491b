//! A phone that is silent is asked whether it is there, and let go. On a clock that the test moves.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sessioncap::desktop::PairingTerms;
use sessioncap::{Label, OpSet};
use sessioncap_programs::agent::{self, Config};
use sessioncap_programs::clock::Clock;
use sessioncap_programs::companion::{self, Joined};
use sessioncap_programs::desktop::Desktop;
use sessioncap_programs::desktop::profile::Profile;
use time::{Duration, UtcOffset};

use super::world::{ECHO, new_directory, within};

#[tokio::test]
async fn a_phone_that_answers_no_ping_is_let_go_and_one_that_speaks_stays() {
    let directory = new_directory();
    let profile = Profile { directory: directory.join("desktop"), url: None, agent: None, device_key: None };
    let device = profile.make().unwrap();
    let ahead = Arc::new(AtomicI64::new(0));
    let log = Arc::new(Mutex::new(Vec::<String>::new()));
    let (clock, moved, logged) = (Clock::system().unwrap(), Arc::clone(&ahead), Arc::clone(&log));
    let running = agent::start(Config {
        listen: ([127, 0, 0, 1], 0).into(),
        state: directory.join("agent"),
        in_memory: true,
        urls: Vec::new(),
        rules: None,
        offset: UtcOffset::UTC,
        enroll: vec![device.public()],
        audit: None,
        look: std::time::Duration::from_millis(1),
        patience: std::time::Duration::from_secs(10),
        clock: Clock::new(move || clock.now().plus(Duration::seconds(moved.load(Ordering::Relaxed)))),
        log: Arc::new(move |line| logged.lock().unwrap().push(line)),
        options: agent::Options::default(),
    })
    .await
    .unwrap();
    let identity =
        Profile { url: Some(running.url.clone()), agent: Some(running.key), ..profile }.open().unwrap();
    let mut desktop = Desktop::connect(&identity).await.unwrap();
    let session = desktop.create_session(None, Some(ECHO)).await.unwrap();
    let shared = desktop.share(&session, &PairingTerms::default()).await.unwrap();
    let file = directory.join("phone.json");
    let joined = companion::join(&shared.pairing.link, &Label::new("phone").unwrap(), &file, |_| {}).await;
    let Joined { pairing, mut live, .. } = joined.unwrap();
    // This one is not looked at again.
    let mut silent = companion::attach(&pairing, OpSet::EMPTY).await.unwrap();
    silent.call(&json!({ "method": "shell.list_sessions" })).await.unwrap();

    let lost = || log.lock().unwrap().iter().filter(|line| line.ends_with("it has answered no ping")).count();
    let start = std::time::Instant::now();
    let mut seconds = 0;
    within("the end of the silent one", async {
        while lost() == 0 {
            ahead.fetch_add(1, Ordering::Relaxed);
            seconds += 1;
            live.call(&json!({ "method": "shell.list_sessions" })).await.unwrap();
        }
    })
    .await;
    // The machine's own clock counts as well.
    let passed = seconds + start.elapsed().as_secs() + 1;
    assert!(passed >= 45, "after {passed} s");
    assert_eq!(lost(), 1);
    assert_eq!(desktop.entries(Some(&session)).await.unwrap()[0].connections, 1);
    running.stop().await;
}
