//! Agents that end, flood or lie, phones that stall or leave, and several who answer at once.

use std::time::Duration;

use rustix::process::Signal;

use super::*;

#[tokio::test]
async fn of_two_phones_and_a_desktop_that_answer_at_once_one_answer_reaches_the_agent() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let mut one = bridge.phone(&session, "one.json").await;
    let mut two = bridge.phone(&session, "two.json").await;
    for round in 0..10 {
        let turn = desktop.prompt(&upstream, "ask").await;
        let asked = desktop.question().await;
        let first = question_id(&until(&mut one, "a question", is_question).await);
        let second = question_id(&until(&mut two, "a question", is_question).await);
        let option = |kind: &str| {
            let options = asked["params"]["options"].as_array().unwrap();
            options.iter().find(|option| option["kind"] == kind).unwrap()["optionId"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let (allow, reject) = (option("allow_once"), option("reject_once"));
        let outcome = json!({ "outcome": { "outcome": "selected", "optionId": reject } });
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": outcome });
        let by_desktop = async { desktop.send(&answer).await };
        let (first, second, ()) =
            tokio::join!(one.answer(first, Some(&allow)), two.answer(second, Some(&reject)), by_desktop);
        first.and(second).unwrap();
        // The agent is answered once, or its turn would not end in one way.
        let result = desktop.answer(turn).await.unwrap();
        assert_eq!(result["stopReason"], "end_turn", "round {round}");
    }
}

#[tokio::test]
async fn a_desktop_that_is_removed_while_the_bridge_sends_to_it_is_cut_off() {
    // A bridge gives up a desktop that takes nothing for ten seconds. Where the machine is so slow that this comes before
    // the removal, less is sent.
    for updates in [10_000, 6_000, 4_000] {
        if is_cut_off_by_its_removal(updates).await {
            return;
        }
    }
    panic!("the desktop was given up and not cut off");
}

/// Whether the removal ended the connection of a desktop that takes nothing.
async fn is_cut_off_by_its_removal(updates: u32) -> bool {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, _) = bridge.with_session().await;
    // It reads nothing of this. When the turn of another has ended, the bridge is in the middle of sending.
    let turn = desktop.prompt(&upstream, &format!("flood {updates}")).await;
    let mut other = bridge.desktop().await;
    let id = other.prompt(&upstream, "echo next").await;
    other.answer(id).await.unwrap();
    other.messages.leave().await;
    bridge.world.agent.stderr.until("is off: it has left").await;
    std::fs::write(bridge.world.file("agent/devices.json"), "{\"devices\":[]}").unwrap();
    bridge.world.agent.signal(Signal::HUP);
    world::eventually("the device is removed", || async {
        Desktop::connect(&bridge.identity).await.is_err()
    })
    .await;
    let answered = loop {
        match within("the end", desktop.messages.next()).await {
            Ok(Some(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["id"] == turn && message.get("method").is_none() {
                    break true;
                }
            }
            Ok(None) | Err(_) => break false,
        }
    };
    assert!(!answered, "it has heard all of it");
    let is_off = |text: &str| {
        ["is off: the device was removed", "is off: no answer within"].iter().any(|why| text.contains(why))
    };
    let log = bridge.world.agent.stderr.until_holds("the end of the desktop", is_off).await;
    log.contains("is off: the device was removed")
}

#[tokio::test]
async fn an_agent_that_crashes_ends_its_sessions_and_the_next_desktop_gets_a_new_one() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let mut phone = bridge.phone(&session, "phone.json").await;
    let id = desktop.prompt(&upstream, "crash").await;
    let refused = desktop.answer(id).await.unwrap_err();
    assert_eq!(refused["data"]["reason"], "agent_gone");
    desktop.end().await;
    assert_eq!(ended(&mut phone).await, "session_gone");
    // The bridge starts one agent a second at most.
    let start = std::time::Instant::now();
    let mut client = loop {
        let desktop = Desktop::connect(&bridge.identity).await.unwrap();
        let mut client =
            Client { messages: Messages::open(desktop).await.unwrap(), early: Vec::new(), next: 0 };
        client.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": { "protocolVersion": 1 } })).await;
        if let Ok(Some(_)) = within("an answer", client.messages.next()).await {
            break client;
        }
        assert!(start.elapsed() < world::DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let new = client.new_session().await;
    assert!(bridge.session(&new).await != session);
    // The phone's credential was for the session that is gone.
    match Acp::come_back(&bridge.world.file("phone.json"), acp::SEARCH).await {
        Err(Problem::Phone(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is attached"),
    }
}

#[tokio::test]
async fn a_phone_that_leaves_in_the_middle_of_its_turn_stops_nothing() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let mut phone = bridge.phone(&session, "phone.json").await;
    phone.ask("session/prompt", phone.prompt("ask")).await.unwrap();
    let question = desktop.question().await;
    drop(phone);
    let allow = question["params"]["options"][0]["optionId"].clone();
    let outcome = json!({ "outcome": { "outcome": "selected", "optionId": allow } });
    desktop.send(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": outcome })).await;
    // The next turn begins when that one has ended.
    let id = desktop.prompt(&upstream, "echo next").await;
    assert_eq!(desktop.answer(id).await.unwrap()["stopReason"], "end_turn");
    // It comes back to the same session.
    let mut phone = Acp::come_back(&bridge.world.file("phone.json"), acp::SEARCH).await.unwrap();
    phone.initialize(|_| {}).await.unwrap();
    let asked = phone.ask("session/prompt", phone.prompt("echo again")).await.unwrap();
    assert_eq!(super::outcome(&mut phone, &asked).await.unwrap()["stopReason"], "end_turn");
}

#[tokio::test]
async fn a_prompt_that_waits_does_not_reach_the_agent_after_a_revocation() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let (mut phone, ticket) = bridge.pair(&session, OpSet::COMPANION, "phone.json").await;
    phone.initialize(|_| {}).await.unwrap();
    let turn = desktop.prompt(&upstream, "slow").await;
    until(&mut phone, "the turn's beginning", |message| said(message).is_some()).await;
    let waiting = phone.ask("session/prompt", phone.prompt("echo waiting")).await.unwrap();
    // It has come when a later request of the phone is answered.
    phone.call("session/list", params(json!({})), |_| {}).await.unwrap();
    bridge.revoke(ticket).await;
    desktop
        .send(&json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": upstream } }))
        .await;
    assert_eq!(desktop.answer(turn).await.unwrap()["stopReason"], "cancelled");
    let id = desktop.prompt(&upstream, "echo next").await;
    desktop.answer(id).await.unwrap();
    let heard = format!("{:?}", desktop.early);
    assert!(heard.contains("next") && !heard.contains("waiting"), "{heard}");
    drop(waiting);
}

#[tokio::test]
async fn a_phone_that_does_not_read_a_flood_is_cut_off_and_delays_nobody() {
    let bridge = Bridge::start().await;
    let (mut desktop, upstream, session) = bridge.with_session().await;
    let mut stalled = bridge.phone(&session, "phone.json").await;
    // More than all buffers between the agent and a phone hold.
    let id = desktop.prompt(&upstream, "flood 25000").await;
    let answer = loop {
        let text = within("the flood", desktop.messages.next()).await.unwrap().unwrap();
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["id"] == id && message.get("method").is_none() {
            break message;
        }
    };
    assert_eq!(answer["result"]["stopReason"], "end_turn");
    bridge.world.agent.stderr.until("or it does not read").await;
    // What was under way still comes, then the end, which says that it may attach again.
    let why = ended(&mut stalled).await;
    assert!(!why.is_empty());
    let mut back = Acp::come_back(&bridge.world.file("phone.json"), acp::SEARCH).await.unwrap();
    back.initialize(|_| {}).await.unwrap();
}

/// Whether a process with this word on its command line is there.
fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).split('\0').any(|part| part == word))
}

#[tokio::test]
async fn a_bridge_that_is_killed_takes_its_agent_along() {
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let command = format!("{} {mark}", program("sample_agent").display());
    let bridge = Bridge::start_command(&command, &[]).await;
    let (_desktop, _, session) = bridge.with_session().await;
    let mut phone = bridge.phone(&session, "phone.json").await;
    assert!(runs(&mark));
    bridge.world.agent.signal(Signal::KILL);
    // The phone has heard no end, so it knows that the connection was lost.
    assert_eq!(ended(&mut phone).await, Problem::BrokenOff.to_string());
    world::eventually("the agent ends with its standard input", || async { !runs(&mark) }).await;
}

#[tokio::test]
async fn lines_that_are_no_messages_and_a_banner_disturb_nobody() {
    let agent = program("sample_agent");
    let command = format!("sh -c 'echo Welcome; echo starting >&2; exec {}'", agent.display());
    let bridge = Bridge::start_command(&command, &[]).await;
    let (mut desktop, upstream, _) = bridge.with_session().await;
    let id = desktop.prompt(&upstream, "noise").await;
    desktop.answer(id).await.unwrap();
    bridge.world.agent.stderr.until("Welcome").await;
    bridge.world.agent.stderr.until("the agent says: starting").await;
}
