//! What a frame costs: the permit, alone and around an encryption.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use sessioncap::agent::Guard;
use sessioncap::{Now, Op, SystemClock};

use crate::handshake;
use crate::report::{Budget, Report};
use crate::sample::{Side, compare, repeat, timed};
use crate::world::World;

const OPS: [Op; 5] =
    [Op::ReadMetadata, Op::StreamOutput, Op::SendInput, Op::Detach, Op::ReceiveNotifications];

/// `guard.permit` beside what agents do today, on the same thread in alternating slices.
///
/// Today: the request is parsed JSON, its `method` member is looked up, and the string is matched
/// with thirteen names; parsing is not counted. The requests come in a random order that no branch
/// predictor learns, as from many connections. The permit has no branch that depends on the
/// operation, so it needs no such order. The second row is the other extreme, the same method over
/// and over. All inputs and results go through `black_box`.
pub fn permit(report: &mut Report, rounds: usize, guard: &mut Guard, now: Now) {
    report.section("guard.permit for each frame");
    let requests: Vec<Request> = REQUESTS.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let order = random_order(13);
    let today = || in_order(&order, |at| classify(black_box(&requests[at])));
    let compared = compare(rounds, permits(guard, now), today());
    let row = "permit / method looked up in the parsed request and matched";
    report.compared(row, compared, Budget::AtMost(0.5));
    let compared = compare(rounds, permits(guard, now), one_method());
    report.compared("permit / the same, one method over and over", compared, Budget::Information);
    let names: Vec<&str> = requests.iter().map(|request| request["method"].as_str().unwrap()).collect();
    let bare_match = in_order(&order, |at| match_name(black_box(names[at])));
    let compared = compare(rounds, permits(guard, now), bare_match);
    report.compared("permit / the match alone, without the lookup", compared, Budget::Information);
    // As a frame comes: both clocks are read for it, and it is the same method as before.
    let clock = SystemClock::new().unwrap();
    let with_clocks = repeat(|| {
        // nobody settles this gate, so the time that a permit sees stands still
        black_box(clock.now());
        guard.permit(black_box(Op::StreamOutput), *black_box(&now), || black_box(1)).is_ok()
    });
    let compared = compare(rounds, with_clocks, one_method());
    let row = "permit with a reading of both clocks / the method looked up and matched, one method";
    report.compared(row, compared, Budget::AtMost(2.3));
    let reading = repeat(|| black_box(clock.now()));
    let compared = compare(rounds, reading, one_method());
    report.compared("(the reading of both clocks alone / the same)", compared, Budget::Information);
    let (flag, mark) = (AtomicBool::new(false), AtomicU8::new(0));
    let floor = repeat(|| {
        black_box(clock_gettime(ClockId::RealtimeCoarse));
        black_box(clock_gettime(ClockId::MonotonicCoarse));
        flag.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        black_box(mark.load(Ordering::Acquire));
        black_box(&flag).store(false, Ordering::Release);
    });
    let compared = compare(rounds, floor, one_method());
    let row = "(floors) two clocks of the last tick, a store, a fence, a load and a store / the same";
    report.compared(row, compared, Budget::Information);
}

/// The same permit while few and many other credentials are live and connected.
pub fn flatness(report: &mut Report, rounds: usize, alone: &mut Guard, among: &mut [Guard], now: Now) {
    let connected = among.len();
    let compared = compare(rounds, permits_of_many(among, now), permits(alone, now));
    report.point("a permit", connected, "connected", compared, Budget::AtMost(1.1));
    // Out of every cache there are only reads of memory to compare with: each of another line, and after the one before.
    let lines = vec![1_u8; size_of_val(among)];
    let mut line = 0;
    let one_line = repeat(|| {
        line = (line + STEP * size_of::<Guard>() + usize::from(lines[line])) % lines.len();
        black_box(lines[line])
    });
    let mut at = 0;
    let each_in_turn = repeat(|| {
        at = (at + STEP) % connected;
        among[at].permit(black_box(Op::StreamOutput), black_box(now), || black_box(1))
    });
    let compared = compare(rounds, each_in_turn, one_line);
    let row =
        format!("a permit of another guard each time, {connected} connected / one read out of the caches");
    report.compared(&row, compared, Budget::Information);
}

/// A large odd step, so that the next guard is never in the cache by its place alone.
const STEP: usize = 7_919;

/// 4 KiB of output: permitted and encrypted, beside encrypted.
pub fn transport(report: &mut Report, rounds: usize, guard: &mut Guard, world: &World) {
    report.section("guarded transport, frames of 4 KiB");
    let compared = compare(rounds, guarded(guard, world), raw()).inverted();
    report.compared("throughput: permit + seal / snow write_message", compared, Budget::AtLeast(0.97));
}

const PLAINTEXT: [u8; 4_096] = [0x5a; 4_096];

pub fn guarded<'a>(guard: &'a mut Guard, world: &World) -> Side<'a> {
    let (mut channel, mut frame, now) = (handshake::channel(&world.agent), Vec::new(), world.now);
    repeat(move || {
        guard
            .permit(Op::StreamOutput, black_box(now), || {
                channel.seal_into(black_box(&PLAINTEXT), &mut frame).unwrap();
            })
            .unwrap();
        black_box(frame.len())
    })
}

pub fn raw() -> Side<'static> {
    let (mut raw, mut message) = (handshake::raw_transport(), vec![0; 4_096 + 16]);
    repeat(move || black_box(raw.write_message(black_box(&PLAINTEXT), &mut message).unwrap()))
}

/// The same method over and over, looked up in a parsed request and matched.
pub fn one_method() -> Side<'static> {
    let request: Request = serde_json::from_str(REQUESTS[6]).unwrap();
    repeat(move || classify(black_box(&request)))
}

/// So many permits of one operation.
#[inline]
pub fn permit_times(guard: &mut Guard, op: Op, now: Now, times: usize) {
    for _ in 0..times {
        let permitted = guard.permit(black_box(op), *black_box(&now), || black_box(1));
        black_box(permitted.is_ok());
    }
}

/// Another guard for each slice, in the caches before it is timed: one guard's place in memory could be a lucky one.
fn permits_of_many(guards: &mut [Guard], now: Now) -> Side<'_> {
    let mut turn = 0;
    Box::new(move |times| {
        turn += 1;
        let at = turn * STEP % guards.len();
        let guard = &mut guards[at];
        drop(guard.permit(Op::StreamOutput, now, || 1));
        timed(&mut || permit_times(guard, Op::StreamOutput, now, times))
    })
}

/// One operation for each slice, all in turn.
pub fn permits(guard: &mut Guard, now: Now) -> Side<'_> {
    let mut turn = 0;
    Box::new(move |times| {
        turn += 1;
        let op = OPS[turn % OPS.len()];
        timed(&mut || permit_times(guard, op, now, times))
    })
}

fn in_order<'a, O>(order: &'a [u8], mut operation: impl FnMut(usize) -> O + 'a) -> Side<'a> {
    let mut next = 0;
    repeat(move || {
        next = (next + 1) & (ORDER - 1);
        operation(usize::from(order[next]))
    })
}

/// Longer than what a branch predictor keeps, a power of two so that going around
/// costs nothing, and small enough for the first cache.
const ORDER: usize = 1 << 14;

fn random_order(choices: u8) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(1);
    (0..ORDER).map(|_| rng.gen_range(0..choices)).collect()
}

/// An object as serde_json keeps it by default. Its own type would be another one here, because a peer switches
/// `preserve_order` on, and looking a name up would take twice as long.
type Request = BTreeMap<String, Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Attest,
    Attach,
    Exec,
    Health,
    List,
    Logs,
    AttachSession,
    CloseSession,
    CreateSession,
    ListRecipes,
    ListSessions,
    ReplaySession,
    ResizeSession,
}

fn classify(request: &Request) -> Option<Method> {
    match_name(request.get("method")?.as_str()?)
}

fn match_name(name: &str) -> Option<Method> {
    match name {
        "attest" => Some(Method::Attest),
        "attach" => Some(Method::Attach),
        "exec" => Some(Method::Exec),
        "health" => Some(Method::Health),
        "list" => Some(Method::List),
        "logs" => Some(Method::Logs),
        "shell.attach_session" => Some(Method::AttachSession),
        "shell.close_session" => Some(Method::CloseSession),
        "shell.create_session" => Some(Method::CreateSession),
        "shell.list_recipes" => Some(Method::ListRecipes),
        "shell.list_sessions" => Some(Method::ListSessions),
        "shell.replay_session" => Some(Method::ReplaySession),
        "shell.resize_session" => Some(Method::ResizeSession),
        _ => None,
    }
}

const REQUESTS: [&str; 13] = [
    r#"{"method":"attest","nonce":"7b0c"}"#,
    r#"{"method":"attach","cmd":["bash"]}"#,
    r#"{"method":"exec","cmd":["ls","-l"],"timeout_secs":10}"#,
    r#"{"method":"health"}"#,
    r#"{"method":"list"}"#,
    r#"{"method":"logs","id":"web"}"#,
    r#"{"method":"shell.attach_session","id":"3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55","tail":true}"#,
    r#"{"method":"shell.close_session","id":"3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55"}"#,
    r#"{"method":"shell.create_session","name":"build","command":"make","cwd":"/src"}"#,
    r#"{"method":"shell.list_recipes"}"#,
    r#"{"method":"shell.list_sessions"}"#,
    r#"{"method":"shell.replay_session","id":"3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55"}"#,
    r#"{"method":"shell.resize_session","id":"3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55","cols":80,"rows":24}"#,
];

/// A guard that a fresh phone holds.
pub fn guard(world: &World) -> Guard {
    world.redeem_one().activate_after_first_frame(world.now).unwrap()
}
