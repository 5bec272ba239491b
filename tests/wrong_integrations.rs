//! Integrations that would be wrong, and do not compile. Those that compile and fail closed have tests of their own,
//! which the last test here names.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "readme_agent/compiler.rs"]
mod compiler;

use compiler::Compiler;

/// What is wrong, the parameters and the body of a function that does it, and the compiler's error.
const WRONG: [(&str, &str, &str, &str); 15] = [
    (
        "a frame is sent without an operation",
        "sender: &mut GuardedSender",
        "sender.seal(b\"output\")",
        "E0599",
    ),
    (
        "a frame is sent by the raw channel that the guarded one holds",
        "channel: GuardedChannel",
        "channel.channel.seal(b\"output\")",
        "E0609",
    ),
    (
        "what was typed is read without an operation",
        "receiver: &mut GuardedReceiver, frame: &[u8], now: Now",
        "match receiver.open(frame, now) { Ok(Frame::Data(data)) => data.len(), _ => 0 }",
        "E0599",
    ),
    (
        "an operation is a privilege",
        "sender: &mut GuardedSender, now: Now",
        "sender.try_send(Privilege::Administer, b\"\", now)",
        "E0308",
    ),
    (
        "a connection becomes live without a frame",
        "pending: PendingChannel, now: Now",
        "pending.activate(now)",
        "E0061",
    ),
    (
        "a connection becomes live twice",
        "pending: PendingChannel, frame: &[u8], now: Now",
        "(pending.activate(frame, now), pending.activate(frame, now))",
        "E0382",
    ),
    (
        "a pending connection is asked for a permit",
        "pending: PendingGuard, now: Now",
        "pending.permit(Op::SendInput, now, || ())",
        "E0599",
    ),
    (
        "the key of one connection is admitted with the payload of another",
        "gate: &Gate, mut one: Received, other: Received, now: Now, rng: &mut R",
        "one.payload = other.payload().to_vec(); gate.admit(one, now, rng)",
        "E0616",
    ),
    (
        "message 1 is admitted twice",
        "gate: &Gate, received: Received, now: Now, rng: &mut R",
        "(gate.admit(received, now, rng), gate.admit(received, now, rng))",
        "E0382",
    ),
    (
        "a peer that nobody has authenticated is a device",
        "gate: &Gate, admission: Admission, offer: &Offer, now: Now",
        "if let Admission::PassThrough(device) = admission { let _ = gate.offer(&device, offer, now); }",
        "E0308",
    ),
    (
        "a registration is lodged as an offer",
        "gate: &Gate, device: &DevicePublicKey, registration: &Registration, now: Now",
        "gate.offer(device, registration, now)",
        "E0308",
    ),
    ("a guard is copied for another connection", "guard: Guard", "(guard.clone(), guard)", "E0599"),
    (
        "an end is sent, and then something else",
        "mut sender: GuardedSender, now: Now",
        "(sender.end(EndCode::LEFT), sender.try_send(Op::StreamOutput, b\"x\", now))",
        "E0382",
    ),
    ("a counter is set back", "sealer: &mut noise::Sealer", "sealer.counter = 0", "E0616"),
    (
        "an error after which the connection is over is taken for one frame's",
        "guard: &mut Guard, now: Now",
        "match guard.permit(Op::Resize, now, || ()) { Ok(()) | Err(PermitError::Refused(_)) => {} }",
        "E0004",
    ),
];

const PRELUDE: &str = "#![allow(unused)]
use rand::rngs::OsRng as R;
use sessioncap::noise::Received;
use sessioncap::agent::*;
use sessioncap::*;
";

fn program(parameters: &str, body: &str) -> String {
    format!("{PRELUDE}pub fn integrate({parameters}) {{ let _ = {{ {body} }}; }}\n")
}

#[test]
fn wrong_integrations_do_not_compile_and_for_the_reason_that_they_are_wrong() {
    let compiler = Compiler::of_the_library("wrong_integrations");
    let options = ["--emit=metadata", "--crate-type=lib"];
    for (index, (what, parameters, body, code)) in WRONG.into_iter().enumerate() {
        let name = format!("wrong_{index}");
        let said = compiler.compile(&name, &program(parameters, body), &options).expect_err(what);
        let codes: Vec<&str> =
            said.split("error[").skip(1).filter_map(|rest| rest.split(']').next()).collect();
        assert_eq!(codes, [code], "{what}: {said}");
    }
    // The same parameters and right bodies compile: nothing else was wrong above.
    let right = [
        ("sender: &mut GuardedSender, now: Now", "sender.try_send(Op::StreamOutput, b\"output\", now)"),
        (
            "receiver: &mut GuardedReceiver, now: Now",
            "receiver.try_receive(Op::SendInput, now, |data| data.len())",
        ),
        ("pending: PendingChannel, frame: &[u8], now: Now", "pending.activate(frame, now)"),
        ("gate: &Gate, received: Received, now: Now, rng: &mut R", "gate.admit(received, now, rng)"),
        ("gate: &Gate, device: &DevicePublicKey, offer: &Offer, now: Now", "gate.offer(device, offer, now)"),
    ];
    for (index, (parameters, body)) in right.into_iter().enumerate() {
        let compiled = compiler.compile(&format!("right_{index}"), &program(parameters, body), &options);
        assert!(compiled.is_ok(), "{body}: {compiled:?}");
    }
}

/// What compiles and is wrong fails closed.
#[test]
fn wrong_integrations_that_compile_have_a_test_that_they_fail_closed() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let tests: String =
        files.filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for (wrong, test) in [
        ("the agent never settles", "a_gate_that_nobody_settles_permits_nothing_after_five_seconds"),
        (
            "the agent never tells of sessions and devices",
            "a_session_or_device_that_the_context_calls_gone_ends_at_the_next_settle",
        ),
        (
            "a part of the agent is left out",
            "no_part_left_out_of_the_readmes_agent_lets_anybody_in_or_keeps_anybody_there",
        ),
        ("a waiting frame is not taken", "one_frame_waits_and_the_next_is_not_opened_before_it_was_taken"),
        (
            "the data's writer forges another kind of frame",
            "the_writer_of_the_data_cannot_overwrite_the_head",
        ),
        ("a revocation is made inside a permit", "revoking_inside_a_permit_is_an_error_and_no_deadlock"),
        ("a write goes on after the cut", "a_driven_future_is_polled_under_permits_and_ends_with_the_cut"),
        ("the gate is dropped", "dropping_a_gate_cuts_its_connections"),
    ] {
        assert!(tests.contains(&format!("fn {test}(")), "{wrong}: no test {test}");
    }
}
