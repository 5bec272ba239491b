//! The session profile: messages in their one encoding, what a phone shows of the output, liveness and pauses.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use core::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sessioncap::session::*;
use sessioncap::*;

fn incarnation(byte: u8) -> Incarnation {
    Incarnation::from_bytes([byte; 16]).unwrap()
}

fn point(byte: u8, position: u64) -> ResumePoint {
    ResumePoint { incarnation: incarnation(byte), position }
}

/// Reads back, and is what was written.
fn phone_says(message: FromPhone<'_>) {
    let bytes = message.to_bytes().unwrap();
    assert_eq!(FromPhone::from_bytes(&bytes), Ok(message));
    assert_eq!(FromAgent::from_bytes(&bytes).ok().and_then(|read| read.op()), None, "the types are apart");
}

fn agent_says(message: FromAgent<'_>) {
    let bytes = message.to_bytes().unwrap();
    assert_eq!(FromAgent::from_bytes(&bytes), Ok(message));
}

#[test]
fn each_message_of_a_phone_names_its_operation() {
    let needs = |message: FromPhone<'static>, op: Option<Op>| {
        phone_says(message);
        assert_eq!(message.action(), op.map(Action::Session));
    };
    needs(FromPhone::Input(b"ls\r"), Some(Op::SendInput));
    needs(FromPhone::Request(r#"{"method":"shell.list_sessions"}"#), None);
    needs(FromPhone::Follow(None), Some(Op::StreamOutput));
    needs(FromPhone::Follow(Some(point(1, u64::MAX))), Some(Op::StreamOutput));
    needs(FromPhone::Resize { columns: 1, rows: Profile::MAX_TERMINAL_SIDE }, Some(Op::Resize));
    needs(FromPhone::Interrupt, Some(Op::Interrupt));
    needs(FromPhone::Own { kind: 255, content: b"" }, None);
}

#[test]
fn each_message_of_an_agent_names_its_operation() {
    let event = |kind, value, text| FromAgent::Event(Event { kind, position: 7, value, text });
    let following = Following { from: point(2, 9), missed: None, screen: true };
    for (message, op) in [
        (FromAgent::Output { position: 3, bytes: b"x" }, Some(Op::StreamOutput)),
        (FromAgent::Answer { number: 4, json: r#"{"ok":true}"# }, None),
        (FromAgent::Following(following), Some(Op::StreamOutput)),
        (FromAgent::Screen { position: 9, columns: 80, rows: 24, bytes: b"\x1b[2J" }, Some(Op::StreamOutput)),
        (event(EventKind::Bell, 0, ""), Some(Op::ReceiveNotifications)),
        (event(EventKind::Notification, 0, "built"), Some(Op::ReceiveNotifications)),
        (event(EventKind::Prompt, 0, ""), Some(Op::ReceiveNotifications)),
        (event(EventKind::CommandEnded, -1, ""), Some(Op::ReceiveNotifications)),
        (event(EventKind::SessionEnded, -15, ""), Some(Op::ReceiveNotifications)),
        (FromAgent::Own { kind: 128, content: b"own" }, None),
    ] {
        agent_says(message);
        assert_eq!(message.op(), op, "{message:?}");
    }
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let malformed = Err(Error::MessageMalformed);
    let too_long = vec![b'x'; Assembler::MAX_MESSAGE_LEN];
    let most = &too_long[1..];
    assert!(FromPhone::Input(most).to_bytes().is_ok());
    for message in [
        FromPhone::Input(b""),
        FromPhone::Input(&too_long),
        FromPhone::Request("[]"),
        FromPhone::Request(""),
        FromPhone::Resize { columns: 0, rows: 24 },
        FromPhone::Resize { columns: 80, rows: Profile::MAX_TERMINAL_SIDE + 1 },
        FromPhone::Own { kind: 0, content: b"typed" },
        FromPhone::Own { kind: 127, content: b"" },
    ] {
        assert_eq!(message.to_bytes(), malformed);
    }
    let event = |kind, value, text| FromAgent::Event(Event { kind, position: 0, value, text });
    let long = "x".repeat(Profile::MAX_EVENT_TEXT_LEN + 1);
    for message in [
        FromAgent::Output { position: 0, bytes: b"" },
        FromAgent::Output { position: u64::MAX, bytes: b"x" },
        FromAgent::Answer { number: 0, json: "true" },
        FromAgent::Following(Following { from: point(1, 1), missed: Some(1), screen: false }),
        FromAgent::Following(Following { from: point(1, 1), missed: None, screen: false }),
        FromAgent::Following(Following { from: point(1, 1), missed: Some(u64::MAX), screen: true }),
        FromAgent::Screen { position: 0, columns: 80, rows: 24, bytes: b"" },
        FromAgent::Screen { position: 0, columns: 80, rows: 0, bytes: b"x" },
        event(EventKind::Bell, 1, ""),
        event(EventKind::Prompt, 0, "text"),
        event(EventKind::Notification, 0, "two\nlines"),
        event(EventKind::Notification, 0, &long),
        FromAgent::Own { kind: 16, content: &[0; 9] },
    ] {
        assert_eq!(message.to_bytes(), malformed, "{message:?}");
    }
}

#[test]
fn the_text_of_an_event_is_cut_at_a_character_and_has_no_controls() {
    assert_eq!(Event::clean_text("a\u{1b}[31m\u{9b}b\r\nc\u{7f}"), "a[31mbc");
    let clean = Event::clean_text(&"é".repeat(200));
    assert_eq!(clean, "é".repeat(Profile::MAX_EVENT_TEXT_LEN / 2));
    let clean = Event::clean_text(&format!("x{}", "é".repeat(200)));
    assert_eq!(clean.len(), Profile::MAX_EVENT_TEXT_LEN - 1);
    agent_says(FromAgent::Event(Event {
        kind: EventKind::Notification,
        position: 0,
        value: 0,
        text: &clean,
    }));
}

#[test]
fn the_notices_of_the_profile_read_back_and_others_are_none() {
    let mut notices = vec![SessionNotice::Profile { version: 1 }, SessionNotice::Taken { number: u64::MAX }];
    notices.extend([SessionNotice::Acp { version: 1 }, SessionNotice::Late { number: 7 }]);
    notices.extend(NotTaken::ALL.iter().map(|why| SessionNotice::NotTaken { number: 3, why: *why }));
    for notice in notices {
        assert_eq!(SessionNotice::from_notice(notice.to_notice()), Some(notice));
    }
    for (code, detail, number) in
        [(5, 0, 0), (63, 0, 0), (64, 1, 1), (65, 1, 0), (66, 3, 0), (67, 1, 1), (68, 1, 0), (69, 0, 0)]
    {
        assert_eq!(SessionNotice::from_notice(Notice { code, detail, number }), None, "{code}");
    }
    assert_eq!(Profile::agree(1), Ok(1));
    assert_eq!(Profile::agree(9), Ok(Profile::VERSION));
    assert_eq!(Profile::agree(0), Err(Profile::NO_COMMON_VERSION));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_reads_is_written_the_same(
        kind in prop_oneof![0..6_u8, 16..22_u8, any::<u8>()],
        rest in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>(), 1 => Just(b'{')], 0..40),
        closed: bool,
    ) {
        let closing: &[u8] = if closed { b"}" } else { b"" };
        let bytes = [&[kind], rest.as_slice(), closing].concat();
        if let Ok(read) = FromPhone::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), Ok(bytes.clone()));
        }
        if let Ok(read) = FromAgent::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), Ok(bytes));
        }
    }
}

// --- what a phone shows ---

/// A session's output, of which a phone follows some.
const WRITTEN: &[u8] = b"the quick brown fox jumps over the lazy dog";

fn at(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

#[test]
fn a_reconnect_brings_what_was_missed_and_nothing_twice() {
    let mut tracker = OutputTracker::new(None);
    assert_eq!(tracker.follow(), FromPhone::Follow(None));
    assert_eq!(tracker.output(0, b"x"), Err(Error::MessageMalformed), "nothing was followed");
    tracker.following(&Following { from: point(1, 10), missed: Some(0), screen: true }).unwrap();
    assert_eq!(tracker.output(10, b"x"), Err(Error::MessageMalformed), "the screen comes first");
    assert_eq!(tracker.screen(10, b"screen"), Ok(Shown { missing: Some(0), bytes: b"screen" }));
    assert_eq!(tracker.output(10, b"abc"), Ok(Shown { missing: Some(0), bytes: b"abc" }));
    tracker.disconnected();
    assert_eq!(tracker.output(13, b"d"), Err(Error::MessageMalformed), "of the lost connection");
    assert_eq!(tracker.follow(), FromPhone::Follow(Some(point(1, 13))));
    tracker.following(&Following { from: point(1, 13), missed: Some(0), screen: false }).unwrap();
    assert_eq!(tracker.output(11, b"bcd"), Ok(Shown { missing: Some(0), bytes: b"d" }));
    assert_eq!(tracker.output(11, b"bc"), Ok(Shown { missing: Some(0), bytes: b"" }));
    assert_eq!(tracker.output(17, b"h"), Ok(Shown { missing: Some(3), bytes: b"h" }));
    assert_eq!(tracker.shown(), Some(point(1, 18)));
}

#[test]
fn a_phone_that_is_cut_off_before_the_screen_asks_for_it_again() {
    let mut tracker = OutputTracker::new(Some(point(1, 5)));
    tracker.following(&Following { from: point(1, 50), missed: Some(45), screen: true }).unwrap();
    tracker.disconnected();
    assert_eq!(tracker.follow(), FromPhone::Follow(Some(point(1, 5))));
    tracker.following(&Following { from: point(2, 8), missed: None, screen: true }).unwrap();
    assert_eq!(tracker.screen(8, b"s"), Ok(Shown { missing: None, bytes: b"s" }));
    assert_eq!(tracker.shown(), Some(point(2, 8)));
}

#[test]
fn an_answer_that_does_not_join_is_refused() {
    let following = |from, missed, screen| Following { from, missed, screen };
    for (shown, answer) in [
        (None, following(point(1, 0), Some(0), false)),
        (Some(point(1, 5)), following(point(1, 6), Some(0), false)),
        (Some(point(1, 5)), following(point(1, 4), Some(0), false)),
        (Some(point(1, 5)), following(point(1, 4), Some(0), true)),
        (Some(point(1, 5)), following(point(2, 5), Some(0), false)),
    ] {
        assert_eq!(OutputTracker::new(shown).following(&answer), Err(Error::MessageMalformed), "{answer:?}");
    }
    let mut tracker = OutputTracker::new(None);
    assert_eq!(tracker.screen(0, b"s"), Err(Error::MessageMalformed), "none was announced");
    tracker.following(&following(point(1, 3), Some(0), true)).unwrap();
    assert_eq!(tracker.screen(4, b"s"), Err(Error::MessageMalformed), "another position");
    tracker.following(&following(point(1, 3), Some(0), true)).unwrap();
    assert!(tracker.screen(3, b"s").is_ok());
    assert_eq!(tracker.screen(3, b"s"), Err(Error::MessageMalformed), "a second one");
    assert_eq!(tracker.output(u64::MAX, b"x"), Err(Error::MessageMalformed), "no position follows it");
}

proptest! {
    /// Whatever an agent sends, every byte that is shown is of its place, later than all before it, and what was
    /// left out is told.
    #[test]
    fn nothing_is_shown_twice_and_what_is_missing_is_told(
        moves in proptest::collection::vec((0..8_u8, 0..44_u64, 0..44_u64), 0..40),
    ) {
        let mut tracker = OutputTracker::new(None);
        let mut shown_to = 0;
        for (what, one, other) in moves {
            let (from, to) = (one.min(other).min(43), one.max(other).min(43));
            match what {
                0 => tracker.disconnected(),
                1 | 2 => {
                    let known = tracker.shown().is_some();
                    let answer = Following { from: point(1, to), missed: Some(0), screen: what == 2 || !known };
                    if tracker.following(&answer).is_ok()
                        && answer.screen
                        && tracker.screen(to, b"screen").is_ok()
                    {
                        prop_assert!(to >= shown_to);
                        shown_to = to;
                    }
                }
                _ => {
                    let bytes = &WRITTEN[at(from)..at(to)];
                    if let Ok(shown) = tracker.output(from, bytes) {
                        let begins = shown_to + shown.missing.unwrap();
                        let ends = begins + shown.bytes.len() as u64;
                        prop_assert_eq!(shown.bytes, &WRITTEN[at(begins)..at(ends)]);
                        prop_assert!(shown.bytes.is_empty() || ends == to);
                        shown_to = shown_to.max(ends);
                    }
                }
            }
            prop_assert_eq!(tracker.shown().map_or(0, |point| point.position), shown_to);
        }
    }
}

// --- liveness ---

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Looks until something is due, and returns when that was.
fn due(liveness: &mut Liveness, now: &mut Duration) -> Look {
    for _ in 0..1_000 {
        match liveness.look(*now) {
            Look::Wait(pause) => {
                assert!(!pause.is_zero() && pause <= Liveness::TICK);
                *now += pause;
            }
            look => return look,
        }
    }
    panic!("nothing is ever due")
}

#[test]
fn a_silent_side_is_asked_after_fifteen_seconds_and_lost_after_ten_more_or_thirty() {
    for (mut liveness, patience) in
        [(Liveness::of_phone(seconds(100)), 10), (Liveness::of_agent(seconds(100)), 30)]
    {
        let mut now = seconds(100);
        assert_eq!((due(&mut liveness, &mut now), now), (Look::Ping { number: 1 }, seconds(115)));
        assert_eq!(liveness.look(now), Look::Ping { number: 1 }, "it was not sent");
        liveness.sent_ping(now);
        // Any frame counts, not the answer alone.
        now += seconds(9);
        for _ in 0..9 {
            assert!(matches!(liveness.look(now), Look::Wait(_)));
        }
        liveness.received(now);
        let heard = now;
        assert_eq!((due(&mut liveness, &mut now), now), (Look::Ping { number: 2 }, heard + seconds(15)));
        liveness.sent_ping(now);
        assert_eq!((due(&mut liveness, &mut now), now), (Look::Lost, heard + seconds(15 + patience)));
    }
}

#[test]
fn time_in_which_the_process_did_not_run_does_not_count() {
    let mut liveness = Liveness::of_phone(Duration::ZERO);
    let mut now = Duration::ZERO;
    assert_eq!(due(&mut liveness, &mut now), Look::Ping { number: 1 });
    liveness.sent_ping(now);
    now += seconds(1);
    assert_eq!(liveness.look(now), Look::Wait(Liveness::TICK));
    // Stopped for an hour, nine seconds before the end: two of them may have run.
    now += seconds(3_600);
    assert_eq!(liveness.look(now), Look::Wait(Liveness::TICK));
    let woke = now;
    assert_eq!((due(&mut liveness, &mut now), now), (Look::Lost, woke + seconds(7)));
    // A clock that goes back counts nothing, and does not fail.
    let mut liveness = Liveness::of_agent(seconds(50));
    assert_eq!(liveness.look(seconds(10)), Look::Wait(Liveness::TICK));
    liveness.received(seconds(20));
}

#[test]
fn pauses_grow_and_no_two_phones_pause_alike() {
    let (mut one, mut other) = (StdRng::seed_from_u64(1), StdRng::seed_from_u64(2));
    let (mut first, mut second) = (Reconnect::new(), Reconnect::default());
    let mut base = Reconnect::FIRST;
    for _ in 0..40 {
        let (pause, others) = (first.pause(&mut one), second.pause(&mut other));
        assert_ne!(pause, others);
        for pause in [pause, others] {
            assert!(pause >= base / 2 && pause <= base * 3 / 2, "{pause:?} {base:?}");
        }
        base = (base * 2).min(Reconnect::LONGEST);
    }
    assert_eq!(base, Reconnect::LONGEST);
}

#[test]
fn an_incarnation_is_drawn_and_never_all_zero() {
    let drawn = Incarnation::generate(&mut StdRng::seed_from_u64(3));
    assert_ne!(drawn, Incarnation::generate(&mut StdRng::seed_from_u64(4)));
    assert_eq!(Incarnation::from_bytes(*drawn.as_bytes()), Some(drawn));
    assert_eq!(Incarnation::from_bytes([0; 16]), None);
    assert_eq!(format!("{:?}", incarnation(0xa0)), format!("Incarnation({})", "a0".repeat(16)));
}
