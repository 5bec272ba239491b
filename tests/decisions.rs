//! The policy's decisions on record: when the policy runs, and when it does not.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer", feature = "attenuate"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::ledger::TestLedger;
use common::*;
use rand::rngs::OsRng;
use sessioncap::agent::ledger::Table;
use sessioncap::agent::*;
use sessioncap::*;
use time::UtcOffset;

fn runs(world: &World) -> u64 {
    world.gate.stats().policy_runs
}

/// An agent with one desktop and a phone, whose pairing has ended its first visit.
struct Paired {
    ledger: TestLedger,
    world: World,
    desktop: Desktop,
    pairing: sessioncap::desktop::Pairing,
    credential: CredentialBytes,
}

impl Paired {
    fn new() -> Self {
        let ledger = TestLedger::default();
        let world = World::on(ledger.clone());
        let desktop = world.desktop(9);
        let pairing = desktop.share(&world, &terms());
        let credential = world.join(&pairing.link, &phone(2)).unwrap().credential;
        // The visit, and the decision with it, are written with the next commit.
        world.gate.settle(world.now).unwrap();
        Self { ledger, world, desktop, pairing, credential }
    }

    fn attach(&self) -> Result<Guard, Refusal> {
        self.world.attach(&phone(2), &self.credential, OpSet::EMPTY)
    }

    /// The agent started again with another configuration.
    fn restarted(&mut self, configure: impl FnOnce(GateConfig) -> GateConfig) {
        self.world.gate.settle(self.world.now).unwrap();
        self.world = World::try_with(self.ledger.opened_again(), self.world.now, configure).unwrap();
        self.world.enrol(self.desktop.device);
    }

    /// How often the policy runs for an attach that succeeds.
    fn runs_to_attach(&self, credential: &CredentialBytes) -> u64 {
        let before = runs(&self.world);
        self.world.attach(&phone(2), credential, OpSet::EMPTY).unwrap();
        runs(&self.world) - before
    }

    fn narrowed(&self, op: Op) -> CredentialBytes {
        let credential = Credential::parse(&self.credential).unwrap();
        credential.attenuate(Some(OpSet::only(op)), None, &mut OsRng).unwrap().bytes().clone()
    }
}

fn at_addresses(addresses: &'static [&'static str]) -> impl FnOnce(GateConfig) -> GateConfig {
    move |_| {
        let urls = addresses.iter().map(|url| AgentUrl::parse(url).unwrap());
        GateConfig::new(AgentSecretKey::from_bytes([1; 32]).public(), urls.collect::<Vec<_>>()).unwrap()
    }
}

#[test]
fn the_policy_runs_once_for_an_edition_and_not_again_after_a_restart() {
    let mut paired = Paired::new();
    assert_eq!(runs(&paired.world), 1, "at the first frame after the redemption");
    for _ in 0..3 {
        assert_eq!(paired.runs_to_attach(&paired.credential), 0);
    }
    let subset = OpSet::only(Op::Detach);
    assert_eq!(paired.world.attach(&phone(2), &paired.credential, subset).unwrap().ops(), subset);
    assert_eq!(runs(&paired.world), 1);
    paired.restarted(|config| config);
    assert_eq!(paired.runs_to_attach(&paired.credential), 0);
    // The phone has lost the answer to its redemption, and asks by its ticket.
    paired.world.join(&paired.pairing.link, &phone(2)).unwrap();
    assert_eq!(runs(&paired.world), 0);
}

#[test]
fn a_message_1_that_no_first_frame_follows_runs_no_policy() {
    let paired = Paired::new();
    let second = paired.desktop.share(&paired.world, &terms());
    let before = runs(&paired.world);
    let asking = paired.world.ask(&second.link, &phone(3));
    assert!(matches!(paired.world.respond(&asking.message), Response::Admitted(..)));
    let narrowed = paired.narrowed(Op::Detach);
    for credential in [&paired.credential, &narrowed] {
        let message = sessioncap::phone::attach(
            &paired.world.agent.public(),
            &phone(2),
            credential,
            OpSet::EMPTY,
            &mut OsRng,
        );
        assert!(matches!(paired.world.respond(&message.unwrap().message), Response::Admitted(..)));
    }
    assert_eq!(runs(&paired.world), before);
}

#[test]
fn another_configuration_runs_the_policy_once_more() {
    let offset = UtcOffset::from_hms(2, 0, 0).unwrap();
    let more = at_addresses(&[URL, "wss://second.example"]);
    let mut paired = Paired::new();
    paired.restarted(more);
    assert_eq!(paired.runs_to_attach(&paired.credential), 1, "an address was added");
    assert_eq!(paired.runs_to_attach(&paired.credential), 0);
    let mut paired = Paired::new();
    let policy = Policy::with_operator_rules("// none", UtcOffset::UTC).unwrap();
    paired.restarted(|config| config.with_policy(policy));
    assert_eq!(paired.runs_to_attach(&paired.credential), 1, "another text of rules");
    assert_eq!(paired.runs_to_attach(&paired.credential), 0);
    let mut paired = Paired::new();
    let policy = Policy::with_operator_rules("", offset).unwrap();
    paired.restarted(|config| config.with_policy(policy));
    assert_eq!(paired.runs_to_attach(&paired.credential), 1, "another offset");
    assert_eq!(paired.runs_to_attach(&paired.credential), 0);
}

#[test]
fn with_operator_rules_the_policy_runs_each_time_for_each_operation() {
    let mut paired = Paired::new();
    let rules = "deny if operation(\"send_input\");";
    let policy = Policy::with_operator_rules(rules, UtcOffset::UTC).unwrap();
    paired.restarted(|config| config.with_policy(policy));
    let ops = u64::try_from(OpSet::COMPANION.iter().count()).unwrap();
    for _ in 0..2 {
        let before = runs(&paired.world);
        assert_eq!(paired.attach().unwrap().ops(), OpSet::COMPANION.without(Op::SendInput));
        assert_eq!(runs(&paired.world) - before, ops);
    }
}

#[test]
fn a_removed_address_is_refused_by_the_policy_although_a_decision_is_on_record() {
    let mut paired = Paired::new();
    paired.restarted(at_addresses(&["wss://second.example"]));
    let refused = paired.attach().unwrap_err();
    assert!(matches!(refused.denial, Denial::CaveatFailed { block: 0, .. }), "{refused:?}");
    assert_eq!(runs(&paired.world), 1);
}

#[test]
fn every_refusal_of_an_operation_is_the_policys() {
    let paired = Paired::new();
    let before = runs(&paired.world);
    for number in 1..=2 {
        let refused = paired.world.attach(&phone(2), &paired.credential, OpSet::only(Op::Interrupt));
        let refused = refused.unwrap_err();
        assert!(matches!(refused.denial, Denial::CaveatFailed { block: 0, .. }), "{refused:?}");
        assert_eq!(runs(&paired.world) - before, number);
    }
}

#[test]
fn a_narrowed_copy_is_decided_at_first_sight_and_the_decision_recorded_with_a_visit() {
    let mut paired = Paired::new();
    let (one, other) = (paired.narrowed(Op::Detach), paired.narrowed(Op::StreamOutput));
    let calls = |paired: &Paired| paired.ledger.rows();
    let before = calls(&paired);
    assert_eq!(paired.runs_to_attach(&one), 1);
    assert_eq!(calls(&paired), before, "a copy within the minute of a visit writes nothing");
    assert_eq!(paired.runs_to_attach(&one), 1);
    paired.world.pass(61);
    assert_eq!(paired.runs_to_attach(&one), 1);
    assert_eq!(paired.runs_to_attach(&one), 0);
    assert_eq!(paired.runs_to_attach(&paired.credential), 0, "beside the edition's own");
    paired.world.pass(61);
    assert_eq!(paired.runs_to_attach(&other), 1);
    paired.world.gate.settle(paired.world.now).unwrap();
    assert_eq!([paired.runs_to_attach(&other), paired.runs_to_attach(&one)], [0, 1]);
    let granted = paired.world.attach(&phone(2), &other, OpSet::EMPTY).unwrap();
    assert_eq!(granted.ops(), OpSet::only(Op::StreamOutput));
    let wider = paired.world.attach(&phone(2), &other, OpSet::only(Op::SendInput)).unwrap_err();
    assert!(matches!(wider.denial, Denial::CaveatFailed { block: 2, .. }), "{wider:?}");
}

#[test]
fn a_renewed_edition_is_decided_once() {
    let paired = Paired::new();
    paired.desktop.renew(&paired.world, &paired.pairing, OpSet::COMPANION, 86_400).unwrap();
    let before = runs(&paired.world);
    let renewed = paired.world.attach_renewed(&phone(2), &paired.credential).unwrap();
    assert_eq!(runs(&paired.world) - before, 1);
    assert_eq!(paired.runs_to_attach(&renewed), 0);
}

#[test]
fn a_decision_on_record_ends_with_its_credential() {
    let mut paired = Paired::new();
    let end = paired.attach().unwrap().expires_at();
    paired.world.pass(i64::try_from(end.since(paired.world.now.timestamp())).unwrap() - 1);
    assert_eq!(paired.runs_to_attach(&paired.credential), 0, "one second before");
    paired.world.pass(1);
    assert_eq!(paired.attach().unwrap_err().denial, Denial::CredentialExpired);
}

#[test]
fn a_decision_on_record_admits_nobody_whom_the_record_or_the_context_refuses() {
    let refused = |change: &dyn Fn(&Paired)| {
        let paired = Paired::new();
        paired.attach().unwrap();
        change(&paired);
        let refused = paired.attach().unwrap_err().denial;
        assert_eq!(runs(&paired.world), 1, "{refused:?}");
        refused
    };
    let revoked = refused(&|p| drop(p.world.gate.revoke_credential(&p.pairing.credential, p.world.now)));
    assert_eq!(revoked, Denial::CredentialRevoked);
    let ended = refused(&|p| drop(p.world.gate.end_session(&session(SESSION), p.world.now)));
    assert_eq!(ended, Denial::SessionGone);
    assert_eq!(refused(&|p| p.world.stop_session(SESSION)), Denial::SessionGone);
    assert_eq!(refused(&|p| p.world.strike_off(&p.desktop.device)), Denial::CredentialRevoked);
    let paired = Paired::new();
    let stolen = paired.world.attach(&phone(3), &paired.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(stolen.denial, Denial::HolderMismatch);
}

#[test]
fn without_its_record_a_credential_has_no_decision() {
    let mut paired = Paired::new();
    let mut rows = paired.ledger.rows();
    rows.retain(|(table, _), _| *table != Table::Credentials);
    paired.ledger = TestLedger::with_rows(rows);
    paired.restarted(|config| config);
    assert_eq!(paired.attach().unwrap_err().denial, Denial::CredentialUnknown);
}

#[test]
fn a_privilege_is_refused_in_a_stream_whose_decision_was_on_record() {
    let paired = Paired::new();
    let mut guard = paired.attach().unwrap();
    for &privilege in Privilege::ALL {
        let refused = guard.ask_action(Action::Privileged(privilege), paired.world.now, || ());
        assert_eq!(refused, Err(Denial::PrivilegeDenied { privilege }));
        let explained = paired.world.gate.explain(
            &phone(2).public(),
            &paired.credential,
            Action::Privileged(privilege),
            paired.world.now,
        );
        assert_eq!(explained, Err(Denial::PrivilegeDenied { privilege }));
    }
}

#[test]
fn a_changed_credential_is_no_edition_on_record() {
    let mut paired = Paired::new();
    let narrowed = paired.narrowed(Op::Detach);
    paired.world.pass(61);
    assert_eq!([paired.runs_to_attach(&narrowed), paired.runs_to_attach(&narrowed)], [1, 0]);
    for credential in [&paired.credential, &narrowed] {
        no_changed_bit_is_admitted(&paired, credential.as_bytes());
    }
}

fn no_changed_bit_is_admitted(paired: &Paired, credential: &[u8]) {
    for bit in 0..8 * credential.len() {
        let mut changed = credential.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let admitted = paired.world.admit(&phone(2), &attach_payload(OpSet::EMPTY, &changed));
        assert!(matches!(admitted, PeerAdmission::Refused { reply: None, .. }), "bit {bit}: {admitted:?}");
    }
}
