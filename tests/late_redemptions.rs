//! The answers to a redemption after its ticket has ended: the rows of `docs/PROTOCOL.md` section 8 and the
//! times of its section 12, one by one, to the second.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::*;
use sessioncap::agent::ledger::MemoryLedger;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::phone::PhoneError;
use sessioncap::*;

const LIFE: i64 = limits::DEFAULT_TICKET_LIFETIME as i64;
const RETRY: i64 = limits::RETRY_WINDOW as i64;

/// The document has this row.
fn row(text: &str) {
    assert!(include_str!("../docs/PROTOCOL.md").contains(text), "{text}");
}

/// A world where `backlog` other tickets are due first whenever something is: a call settles eight.
fn world(backlog: usize) -> (World, Desktop) {
    let quotas = Quotas::default().with_tickets_per_session(99).with_credentials_per_session(99);
    let world = World::with(MemoryLedger::new(), |config| config.with_quotas(quotas));
    let desktop = world.desktop(9);
    world.start_session("other");
    for _ in 0..backlog {
        desktop.share_session(&world, "other", &terms().with_ticket_lifetime(30).unwrap());
    }
    (world, desktop)
}

/// Runs with nothing else due, and with more than a call settles.
fn whatever_is_due(law: impl Fn(World, Desktop)) {
    for backlog in [0, 40] {
        let (world, desktop) = world(backlog);
        law(world, desktop);
    }
}

fn told(world: &World, pairing: &Pairing, who: u8) -> Refusal {
    world.join(&pairing.link, &phone(who)).unwrap_err()
}

#[test]
fn ten_minutes_after_its_end_a_ticket_is_unknown_in_every_state() {
    row("| 10 minutes after the ticket's end, or later | none, as for an unknown ticket |");
    row("| tickets kept | 16 for each that may be open, until their end and 600 s |");
    row("| retry window | 600 s after the ticket's end |");
    whatever_is_due(|mut world, desktop| {
        let [redeemed, open, revoked, waiting] = [0, 1, 2, 3].map(|which| {
            let confirmation = if which == 3 { Confirmation::Required } else { Confirmation::NotRequired };
            desktop.share(&world, &terms().with_confirmation(confirmation))
        });
        let joined = world.join(&redeemed.link, &phone(2)).unwrap();
        world.gate.revoke_ticket(&revoked.ticket, world.now).unwrap();
        assert!(told(&world, &waiting, 4).code.is_some());
        world.pass(LIFE + RETRY - 1);
        assert_eq!(world.join(&redeemed.link, &phone(2)).unwrap().credential, joined.credential);
        assert_eq!(told(&world, &redeemed, 3), Refusal::told(Denial::TicketClaimed, Status::Claimed));
        assert_eq!(told(&world, &open, 2), Refusal::told(Denial::TicketExpired, Status::Expired));
        assert_eq!(told(&world, &revoked, 2), Refusal::told(Denial::TicketRevoked, Status::Revoked));
        assert_eq!(told(&world, &waiting, 4).told, Some(PhoneError::Refused(Status::Expired)));
        world.pass(1);
        for (pairing, who) in [(&redeemed, 2), (&redeemed, 3), (&open, 2), (&revoked, 2), (&waiting, 4)] {
            assert_eq!(told(&world, pairing, who), Refusal::silent(Denial::TicketUnknown));
        }
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok(), "it goes on");
    });
}

#[test]
fn a_ticket_whose_credential_is_no_longer_kept_is_unknown() {
    row(
        "| redeemed, and the credential's record is kept no longer (section 12) | none, as for an unknown ticket |",
    );
    row(
        "| ended credentials kept | 4096, until their end and 600 s; beyond 4096 the one due first is forgotten early |",
    );
    whatever_is_due(|mut world, desktop| {
        let short = terms().with_valid_for(40).unwrap().with_ticket_lifetime(900).unwrap();
        let pairing = desktop.share(&world, &short);
        let joined = world.join(&pairing.link, &phone(2)).unwrap();
        world.pass(40 + RETRY - 1);
        assert_eq!(told(&world, &pairing, 2), Refusal::told(Denial::CredentialExpired, Status::Expired));
        let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(attached, Refusal::told(Denial::CredentialExpired, Status::Expired));
        world.pass(1);
        for who in [2, 3] {
            assert_eq!(told(&world, &pairing, who), Refusal::silent(Denial::TicketUnknown));
        }
        let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(attached, Refusal::silent(Denial::CredentialUnknown));
    });
}

#[test]
fn revoked_and_session_gone_precede_expired() {
    row("| the ticket or its credential was revoked, or its issuer | revoked |");
    row("| its session has ended | session gone |");
    whatever_is_due(|mut world, desktop| {
        let [ticket, credential, gone] = [0, 1, 2].map(|_| desktop.share(&world, &terms()));
        let _joined = world.join(&credential.link, &phone(2)).unwrap();
        world.gate.revoke_ticket(&ticket.ticket, world.now).unwrap();
        world.gate.revoke_credential(&credential.credential, world.now).unwrap();
        for wait in [0, LIFE, RETRY - 1] {
            world.pass(wait);
            for who in [2, 3] {
                assert_eq!(told(&world, &ticket, who).told, Some(PhoneError::Refused(Status::Revoked)));
                assert_eq!(told(&world, &credential, who).told, Some(PhoneError::Refused(Status::Revoked)));
            }
        }
        world.stop_session(SESSION);
        assert_eq!(told(&world, &gone, 2), Refusal::told(Denial::SessionGone, Status::SessionGone));
        assert_eq!(told(&world, &ticket, 2).told, Some(PhoneError::Refused(Status::Revoked)), "first");
    });
}

#[test]
fn an_open_ticket_ends_with_its_own_end_or_its_credentials() {
    row("| open, past its end, or past the end of the credential that it gives | expired |");
    whatever_is_due(|mut world, desktop| {
        let own = desktop.share(&world, &terms());
        let short = terms().with_valid_for(40).unwrap().with_ticket_lifetime(900).unwrap();
        let credentials = desktop.share(&world, &short);
        world.pass(40);
        assert_eq!(told(&world, &credentials, 2), Refusal::told(Denial::CredentialExpired, Status::Expired));
        world.pass(LIFE - 40);
        assert_eq!(told(&world, &own, 2), Refusal::told(Denial::TicketExpired, Status::Expired));
    });
}

#[test]
fn the_phone_that_redeemed_gets_the_same_by_the_precedence_expired_pending_ok() {
    row("| redeemed by this `P` | the same credential; status by the precedence expired, pending, ok |");
    whatever_is_due(|mut world, desktop| {
        let ok = desktop.share(&world, &terms());
        let first = world.join(&ok.link, &phone(2)).unwrap();
        let waits = terms().with_confirmation(Confirmation::Required);
        let pending = desktop.share(&world, &waits);
        let short = desktop.share(&world, &terms().with_valid_for(LIFE as u64).unwrap());
        let _short = world.join(&short.link, &phone(5)).unwrap();
        let code = told(&world, &pending, 4).code;
        world.pass(LIFE - 1);
        assert_eq!(told(&world, &pending, 4).code, code);
        assert_eq!(world.join(&ok.link, &phone(2)).unwrap().credential, first.credential);
        world.pass(1);
        assert_eq!(told(&world, &pending, 4).told, Some(PhoneError::Refused(Status::Expired)));
        assert_eq!(told(&world, &short, 5).told, Some(PhoneError::Refused(Status::Expired)));
        assert_eq!(world.join(&ok.link, &phone(2)).unwrap().credential, first.credential);
    });
}

#[test]
fn another_phone_contests_within_the_lifetime_and_is_told_claimed_later() {
    row(
        "| redeemed by another `P`, within the ticket's lifetime | **contest**: the credential is revoked and its streams are cut; both are told revoked. Where the credential has run out there is nothing to revoke, and only the other `P` is told so |",
    );
    row("| redeemed by another `P`, later | claimed |");
    whatever_is_due(|mut world, desktop| {
        let [early, late] = [0, 1].map(|_| desktop.share(&world, &terms()));
        let short = terms().with_valid_for(40).unwrap();
        let run_out = desktop.share(&world, &short);
        let mut joined = world.join(&early.link, &phone(2)).unwrap();
        let mut other = world.join(&late.link, &phone(3)).unwrap();
        let _short = world.join(&run_out.link, &phone(4)).unwrap();
        world.pass(LIFE - 1);
        let contested = Refusal::told(Denial::TicketContested, Status::Revoked);
        assert_eq!(told(&world, &early, 5), contested);
        assert_eq!(told(&world, &early, 2), contested);
        assert_eq!(joined.guard.checked(world.now), Err(Denial::TicketContested));
        assert_eq!(told(&world, &run_out, 5), contested);
        assert_eq!(told(&world, &run_out, 4), Refusal::told(Denial::CredentialExpired, Status::Expired));
        world.pass(1);
        assert_eq!(told(&world, &late, 5), Refusal::told(Denial::TicketClaimed, Status::Claimed));
        assert_eq!(other.guard.checked(world.now), Ok(()), "nothing was revoked");
    });
}
