//! What a phone that follows gets: the screen first, then the output; after a lost connection what it has missed.

use serde_json::json;
use sessioncap::session::{Event, EventKind, FromAgent, Incarnation, ResumePoint, SessionNotice};
use sessioncap::{EndCode, Frame, Notice};
use sessioncap_programs::pty::{Always, Hub, OutputEvent, SessionSpec};

use super::phone;
use super::proxy::Proxy;
use super::revocation::{follow, go_on};
use super::wire::{Heard, Stream, attach, connect_device, redeem};
use super::world::{ECHO, World, new_directory, within};

/// Until this is shown.
async fn until(output: &mut sessioncap_programs::pty::Output, text: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        match within("output", output.next()).await {
            OutputEvent::Data(chunk) => seen.extend(chunk),
            event => panic!("{event:?}"),
        }
    }
    seen
}

#[tokio::test]
async fn a_resume_joins_what_was_had_and_reports_a_gap_where_it_cannot() {
    let hub = Hub::new(|_| {});
    let command = "stty -opost -echo; echo ready; while read -r line; do \
        case $line in flood) head -c 1200000 /dev/zero | tr '\\0' x; echo; echo flooded ;; *) echo \"got:$line\" ;; esac; done";
    let info = hub.create(SessionSpec::command(command)).unwrap();
    let viewer = hub.view(&info.id).unwrap();
    let input = viewer.input(4096, Always);
    let mut reading = viewer.watch().1;
    if !String::from_utf8_lossy(&viewer.history()).contains("ready") {
        until(&mut reading, "ready").await;
    }
    let mut first = viewer.follow(None, 0);
    let screen = first.screen.take().unwrap();
    assert_eq!((first.following.missed, first.following.from.position), (Some(0), screen.position));
    assert!(String::from_utf8_lossy(&screen.bytes).contains("ready"));
    input.push(0, b"one\r").unwrap();
    until(&mut first.output, "got:one").await;
    let had = ResumePoint { position: first.output.position(), ..first.following.from };
    drop(first);

    input.push(1, b"two\r").unwrap();
    until(&mut reading, "got:two").await;
    let mut back = viewer.follow(Some(had), 0);
    assert!(back.screen.is_none() && back.following.from == had && back.following.missed == Some(0));
    let seen = until(&mut back.output, "got:two").await;
    assert_eq!(String::from_utf8(seen).unwrap().trim(), "got:two");

    // What was written before the credential was redeemed does not come back.
    let floor = had.position + 1;
    let late = viewer.follow(Some(had), floor);
    assert_eq!(late.following.missed, Some(viewer.position() - had.position));
    assert!(late.screen.is_some() && late.following.from.position == viewer.position());
    // Nor what another incarnation had.
    let incarnation = Incarnation::from_bytes([7; 16]).unwrap();
    let other = viewer.follow(Some(ResumePoint { incarnation, ..had }), 0);
    assert!(other.screen.is_some() && other.following.missed.is_none());
    // Nor what is kept no longer.
    input.push(2, b"flood\r").unwrap();
    until(&mut reading, "flooded").await;
    let gap = viewer.follow(Some(had), 0);
    assert_eq!(gap.following.missed, Some(gap.following.from.position - had.position));
    assert!(gap.screen.is_some() && gap.following.missed > Some(1_200_000));
    hub.shutdown().await;
}

#[tokio::test]
async fn a_late_viewer_gets_no_query_and_no_clipboard_write_of_the_past_and_of_the_present_only_who_asks() {
    let world = World::start().await;
    let session = world
        .session(
            "stty -echo; printf '\\033[6n\\033[c\\033]52;c;cGFzdA==\\007\\033[?1049hin the \\033[5n\\033[1malternate\\033[0m screen'; \
             while read -r x; do printf '\\033]52;c;bm93\\007and on\\033[6n'; done",
        )
        .await;
    let pairing = world.pair(&session, &[]).await;
    let mut stream = redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream;
    let mut asks = connect_device(&world, &world.device_key()).await.unwrap();
    asks.call(json!({ "method": "shell.attach_session", "id": session, "tail": true, "clipboard": true }))
        .await;
    let past = asks.until_raw("screen").await;
    stream.follow(None).await.unwrap();
    let screen = stream.until("screen").await;
    for past in [&past, &screen] {
        assert!(
            past.contains("\x1b[?1049h") && !past.contains("\x1b[6n") && !past.contains("\x1b[c"),
            "{past:?}"
        );
        assert!(!past.contains("]52;") && !past.contains("\x1b[5n"), "{past:?}");
    }
    let mut does_not = connect_device(&world, &world.device_key()).await.unwrap();
    does_not.call(json!({ "method": "shell.attach_session", "id": session })).await;
    stream.type_in("go\r").await;
    assert_eq!(asks.until_raw("\x1b[6n").await, "\x1b]52;c;bm93\x07and on\x1b[6n");
    assert_eq!(does_not.until_raw("\x1b[6n").await, "and on\x1b[6n");
    assert_eq!(stream.until("\x1b[6n").await, "and on\x1b[6n");
}

#[tokio::test]
async fn a_phone_that_was_cut_off_gets_what_it_missed_and_nothing_twice() {
    let (proxy, world) = Proxy::before_an_agent().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut companion = world.companion("phone.json", &["join", &pairing.text, "--attach"]);
    companion.stdout.until("ready").await;
    companion.type_in("one\n").await;
    companion.stdout.until("got:one").await;
    proxy.cut();
    companion.stderr.until("broke off").await;
    // Not over the relay, which the phone may not have found again yet.
    go_on(&world, session.as_str(), "meanwhile").await;
    companion.type_in("two\n").await;
    let seen = companion.stdout.until("got:two").await;
    for line in ["ready", "got:one", "got:meanwhile", "got:two"] {
        assert_eq!(seen.matches(line).count(), 1, "{line}: {seen}");
    }
    assert_eq!(seen.matches("\x1b[2J").count(), 1, "one screen: {seen}");
}

#[tokio::test]
async fn a_resume_brings_nothing_from_before_the_redemption_or_from_under_rules() {
    let directory = new_directory();
    let rules = directory.join("rules");
    std::fs::write(&rules, r#"deny if operation("resize"), hour($h), $h >= 0;"#).unwrap();
    for arguments in [&[][..], &["--rules", rules.to_str().unwrap()]] {
        let world = World::start_with(new_directory(), arguments).await;
        let session = world.session(ECHO).await;
        go_on(&world, session.as_str(), "before").await;
        let pairing = world.pair(&session, &[]).await;
        let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
        let mut stream = joined.stream;
        let from = stream.follow(None).await.unwrap().from;
        let claimed = stream.follow(Some(ResumePoint { position: 0, ..from })).await.unwrap();
        assert_eq!(
            (claimed.from.position, claimed.missed, claimed.screen),
            (from.position, Some(from.position), true)
        );
        drop(stream);
        go_on(&world, session.as_str(), "meanwhile").await;
        let (mut stream, _) = attach(&world, &phone(1), &joined.credential).await.unwrap();
        let back = stream.follow(Some(from)).await.unwrap();
        // Rules may have forbidden output while nobody was there to see it.
        let ruled = !arguments.is_empty();
        assert_eq!((back.screen, back.missed > Some(0)), (ruled, ruled), "{back:?}");
        stream.until("got:meanwhile").await;
    }
}

#[tokio::test]
async fn a_narrowing_stops_the_output_and_a_phone_that_is_renewed_sees_a_gap() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = joined.stream;
    let from = stream.follow(None).await.unwrap().from;
    stream.until("ready").await;
    let renew = ["session", "renew", session.as_str(), &pairing.ticket, "--ops"];
    world.dd_ok(&[&renew[..], &["send_input"]].concat()).await;
    go_on(&world, session.as_str(), "forbidden").await;
    let notice = loop {
        match stream.hear().await.unwrap() {
            Heard::Notice(notice) if notice.code == Notice::NOT_GRANTED => break notice,
            Heard::Message(message) => assert!(!String::from_utf8_lossy(&message).contains("forbidden")),
            _ => {}
        }
    };
    assert_eq!(notice.number, 0, "the number of the follow");
    assert_eq!(stream.follow(Some(from)).await.unwrap_err()["code"], "operation_not_granted");
    world.dd_ok(&[&renew[..], &["stream_output,send_input"]].concat()).await;
    drop(stream);
    let (mut stream, terms) = attach(&world, &phone(1), &joined.credential).await.unwrap();
    assert!(terms.ops.contains(sessioncap::Op::StreamOutput));
    let back = stream.follow(Some(from)).await.unwrap();
    assert!(back.screen && back.missed > Some(0), "{back:?}");
}

/// Events until the end, and its code.
async fn events(stream: &mut Stream) -> (Vec<(EventKind, i32, String)>, EndCode) {
    let mut events = Vec::new();
    loop {
        match stream.hear().await.unwrap() {
            Heard::Message(message) => {
                if let FromAgent::Event(Event { kind, value, text, .. }) =
                    FromAgent::from_bytes(&message).unwrap()
                {
                    events.push((kind, value, text.to_owned()));
                }
            }
            Heard::End(code) => return (events, code),
            _ => {}
        }
    }
}

#[tokio::test]
async fn phones_are_told_what_happens_whether_they_follow_or_not() {
    let world = World::start().await;
    let command = "stty -echo; echo ready; read -r x; printf '\\007\\007\\033]9;build\\tdone\\033\\\\\\033]133;D;7\\007\\033]133;B\\007'; exit 3";
    let session = world.session(command).await;
    let mut streams = Vec::new();
    for (seed, ops) in [
        (1, "stream_output,send_input,receive_notifications"),
        (2, "receive_notifications"),
        (3, "stream_output"),
    ] {
        let pairing = world.pair(&session, &["--ops", ops]).await;
        let mut stream = redeem(&world, &pairing.link, &phone(seed)).await.unwrap().stream;
        // Begun, as its answer shows.
        stream.begin().await;
        while !matches!(stream.hear().await.unwrap(), Heard::Notice(_)) {}
        if seed != 2 {
            stream = follow(stream).await;
        }
        streams.push(stream);
    }
    streams[0].type_in("go\r").await;
    let all = [
        (EventKind::Bell, 0, String::new()),
        (EventKind::Notification, 0, "builddone".to_owned()),
        (EventKind::CommandEnded, 7, String::new()),
        (EventKind::Prompt, 0, String::new()),
        (EventKind::SessionEnded, 3, String::new()),
    ];
    let gone = EndCode::from(sessioncap::Status::SessionGone);
    assert_eq!(events(&mut streams[0]).await, (all.to_vec(), gone));
    assert_eq!(events(&mut streams[1]).await, (all.to_vec(), gone));
    assert_eq!(events(&mut streams[2]).await, (Vec::new(), gone));
}

#[tokio::test]
async fn the_version_comes_first_and_long_messages_come_in_parts() {
    let world = World::start().await;
    let session =
        world.session("stty -opost -echo; head -c 300000 /dev/zero | tr '\\0' x; echo ready; cat").await;
    let pairing = world.pair(&session, &["--ops", "read_history,stream_output,read_metadata"]).await;
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();

    let mut stream = joined.stream;
    stream.send_plaintext(&Frame::Data(&[4]).to_bytes()).await;
    assert_eq!(stream.hear().await, Some(Heard::End(EndCode::PROTOCOL)));
    let (mut stream, _) = attach(&world, &phone(1), &joined.credential).await.unwrap();
    let version =
        |version| Frame::<Vec<u8>>::Notice(SessionNotice::Profile { version }.to_notice()).to_bytes();
    stream.send_plaintext(&version(0)).await;
    assert_eq!(stream.hear().await, Some(Heard::End(EndCode::new(64))));

    let (mut stream, _) = attach(&world, &phone(1), &joined.credential).await.unwrap();
    stream.send_plaintext(&Frame::<Vec<u8>>::Ping { answer: false, number: 9 }.to_bytes()).await;
    assert_eq!(stream.hear().await, Some(Heard::Ping { answer: true, number: 9 }));
    stream.send_plaintext(&version(700)).await;
    let agreed = SessionNotice::Profile { version: 1 }.to_notice();
    assert_eq!(stream.hear().await, Some(Heard::Notice(agreed)));
    // A second one is skipped.
    stream.begin().await;
    stream = follow(stream).await;
    let replay = stream.call(json!({ "method": "shell.replay_session" })).await;
    assert!(replay["data"].as_str().unwrap().len() > 400_000 && replay["truncated"] == false);
    // A long request too.
    let long = format!("{{\"method\":\"shell.list_sessions\"{}}}", " ".repeat(200_000));
    assert_eq!(stream.call_raw(long.as_bytes()).await["ok"], true);
    for unreadable in [&[0_u8][..], &[3, 0, 0, 0, 9], &[16, 1], &[128], &[1, b'[', b']']] {
        let number = stream.send_message(unreadable).await;
        assert_eq!(stream.typed(number).await.code, Notice::UNREADABLE, "{unreadable:?}");
    }
}
