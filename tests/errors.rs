//! Errors: their texts, codes and sources.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use sessioncap::agent::ledger::{Ledger, LedgerError, Look, MemoryLedger, Transition};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::phone::*;
use sessioncap::*;

/// `EIO`, as an operating system reports it.
const EIO: i32 = 5;

/// A ledger whose disk is gone.
struct Gone(MemoryLedger, Arc<AtomicBool>);

impl Gone {
    fn check(&self) -> Result<(), LedgerError> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(LedgerError::not_done(LedgerFailure::Io).because(io::Error::from_raw_os_error(EIO))),
            false => Ok(()),
        }
    }
}

impl Ledger for Gone {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.check().and_then(|()| self.0.read(look))
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        self.check().and_then(|()| self.0.transact(transition))
    }
}

fn os_error(error: &LedgerError) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

#[test]
fn a_gate_that_does_not_open_keeps_the_systems_error_as_source() {
    let ledger = Gone(MemoryLedger::new(), Arc::new(AtomicBool::new(true)));
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let config = GateConfig::new(agent, [AgentUrl::parse(URL).unwrap()]).unwrap();
    let error = Gate::open(config, ledger, Context::default(), World::new().now).unwrap_err();
    assert_eq!((error.cause(), os_error(&error)), (LedgerFailure::Io, Some(EIO)));
    assert_eq!(error.code(), "ledger_io");
}

#[test]
fn a_denial_and_a_failed_reopening_keep_the_systems_error_as_source() {
    let gone = Arc::new(AtomicBool::new(false));
    let world = World::on(Gone(MemoryLedger::new(), Arc::clone(&gone)));
    assert_eq!(world.gate.ledger_error(), None);
    gone.store(true, Ordering::SeqCst);
    assert_eq!(world.gate.settle(world.now), Err(Denial::Ledger(LedgerFailure::Io)));
    assert_eq!(world.gate.ledger_error().as_ref().and_then(os_error), Some(EIO));
    // the ledger can be used, so the gate continues
    gone.store(false, Ordering::SeqCst);
    assert_eq!(world.gate.settle(world.now), Ok(()));
    assert_eq!(world.gate.reopen(MemoryLedger::new(), world.now).unwrap_err().cause(), LedgerFailure::InUse);
}

#[test]
fn ledger_errors_that_differ_only_in_their_source_are_equal() {
    let error = LedgerError::not_done(LedgerFailure::Full);
    assert_eq!(error.clone().because("no space left"), error);
    assert_ne!(error.clone().unusable(), error);
    assert_ne!(LedgerError::unknown(LedgerFailure::Full), error);
    assert_ne!(LedgerError::not_done(LedgerFailure::Io), error);
}

#[test]
fn a_malformed_answer_has_its_defect_as_source() {
    let error = PhoneError::AnswerMalformed(Error::Time);
    assert_eq!(error.source().unwrap().to_string(), Error::Time.to_string());
    assert!(PhoneError::Refused(Status::Busy).source().is_none());
}

#[test]
fn a_rule_error_has_a_position_and_the_engines_error_as_source() {
    let error = Policy::with_operator_rules("deny if hour($h), $h > ;", time::UtcOffset::UTC).unwrap_err();
    assert_eq!((error.line(), error.code()), (1, "syntax"));
    assert!(error.column() > 1 && error.source().is_some(), "{error:?}");
}

#[test]
fn each_error_text_gives_advice_that_helps() {
    let full = |quota| Denial::QuotaReached { quota, max: 1 }.to_string();
    for quota in [Quota::TicketsKept, Quota::TicketsKeptPerDevice] {
        assert!(full(quota).ends_with("; wait a few minutes"), "revoking does not help: {}", full(quota));
    }
    for quota in [Quota::TicketsPerSession, Quota::CredentialsPerAgent, Quota::CredentialsPerDevice] {
        assert!(full(quota).ends_with("; revoke one"), "{}", full(quota));
    }
    assert!(full(Quota::IssuersPerDevice).ends_with("; revoke an issuer"));

    // a typo in hexadecimal digits is no question of canonical forms
    let typo = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeg";
    assert_eq!(typo.parse::<HolderPublicKey>(), Err(Error::KeyText));
    assert_eq!(Error::KeyText.to_string(), "a public key is 64 lower-case hexadecimal digits");
    assert_eq!(
        "0g".parse::<TicketId>().unwrap_err().to_string(),
        "an id is 32 lower-case hexadecimal digits"
    );

    // a scheme that no app can have is not the link's fault
    let link = Link::parse_custom_scheme("https://p#1", "https").unwrap_err();
    assert_eq!((link, link.code()), (LinkError::Scheme, "link_scheme"));
}

/// What the agent refuses, from the phone's point of view: the next step and whether it works.
#[test]
fn a_phone_that_follows_the_next_step_attaches_or_stops_asking() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    let told = |refusal: Refusal| refusal.told.unwrap();

    // for its own good the phone asks for less
    let narrow = desktop.share(&world, &terms().with_ops(OpSet::only(Op::StreamOutput)).unwrap());
    let narrow = world.join(&narrow.link, &phone(3)).unwrap();
    let refused = told(world.attach(&phone(3), &narrow.credential, OpSet::only(Op::Resize)).unwrap_err());
    assert_eq!(refused.after_attach(), NextStep::AskForOtherOps);
    assert!(world.attach(&phone(3), &narrow.credential, OpSet::only(Op::StreamOutput)).is_ok());

    // another phone has to forget a code that was used
    world.pass(limits::DEFAULT_TICKET_LIFETIME as i64 + 1);
    let late = told(world.join(&pairing.link, &phone(4)).unwrap_err());
    assert_eq!((late.after_redeem(), late.after_redeem().keeps_key()), (NextStep::Forget, false));

    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    let revoked = told(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err());
    assert_eq!(revoked.after_attach(), NextStep::Forget);
    assert!(!NextStep::Forget.is_retryable());
}

#[test]
fn a_desktop_error_says_the_bounds() {
    let error = PairingTerms::default().with_valid_for(1).unwrap_err();
    assert_eq!(error.to_string(), "the lifetime must be 30 to 259200 seconds");
    assert_eq!(error.code(), "lifetime_out_of_bounds");
    assert_eq!(PairingTerms::default().with_ops(OpSet::EMPTY).unwrap_err().code(), "ops_empty");
}

#[test]
fn a_problem_of_a_shared_value_has_its_own_code() {
    assert_eq!(AgentUrl::parse("ftp://agent.example").unwrap_err().code(), "agent_url_scheme");
    assert_eq!(Label::new("a\nb").unwrap_err().code(), "label_control");
    assert_eq!(CredentialBytes::new(vec![]).unwrap_err().code(), "credential_encoding");
    assert_eq!(SessionId::new("..").unwrap_err().code(), "session_id_malformed");
}
