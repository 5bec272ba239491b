//! An attach beside what other tokens, and a policy language, take for the same five caveats: agent, session,
//! operations, end and ticket. Each crate is used as its documentation shows.
//!
//! A side of a token begins with its bytes as the phone sends them and ends with a decision. The agent keeps a record
//! of each token, because it has to be able to revoke one. Keys and policies are read beforehand where a crate lets
//! that be done.

use crate::attach::{Caveats, attaches, not_ended, operations_allow};
use crate::plain::Presented;
use crate::report::{Budget, Report};
use crate::sample::{Side, compare, repeat};
use crate::world::{Phone, World};

#[path = "peers/cedar.rs"]
mod cedar;
#[path = "peers/hmac.rs"]
mod hmac;
#[path = "peers/jwt.rs"]
mod jwt;
#[path = "peers/macaroon.rs"]
mod macaroon;
#[path = "peers/paseto.rs"]
mod paseto;
#[path = "peers/ucan.rs"]
mod ucan;

/// The name of the section, which a plot draws.
const SECTION: &str = "an attach beside other tokens";

pub fn attach(report: &mut Report, rounds: usize) {
    report.section(SECTION);
    let world = World::new();
    let phone = world.phone();
    let caveats = || Caveats::of(&world, &phone);
    let hmac = hmac::Peer::new(caveats());
    let macaroon = macaroon::Peer::new(caveats());
    let jwt = jwt::Peer::new(caveats());
    let paseto = paseto::Peer::new(caveats());
    let ucan = ucan::Peer::new(caveats());
    let cedar = cedar::Peer::new(caveats());
    let biscuit = Presented::new(&world, &phone);
    let peers: [(&str, Budget, Side<'_>); 8] = [
        ("bare HMAC chain, no format", Budget::Information, repeat(|| hmac.verify())),
        ("macaroon", Budget::AtMost(2.5), repeat(|| macaroon.admit())),
        ("macaroon, its verifier kept", Budget::Information, repeat(|| macaroon.admit_with_kept_verifier())),
        ("Cedar, five decisions, no token", Budget::Information, repeat(|| cedar.decide())),
        ("JWT with EdDSA, jsonwebtoken", Budget::Information, repeat(|| jwt.admit())),
        ("PASETO v4.public, pasetors", Budget::Information, repeat(|| paseto.admit())),
        ("UCAN of one link, ucan", Budget::Information, repeat(|| ucan.admit())),
        ("biscuit-auth, the same bytes", Budget::Information, repeat(|| biscuit.authorize())),
    ];
    for (name, budget, peer) in peers {
        let compared = compare(rounds, attaches(&world, &phone), peer);
        report.compared(name, compared, budget);
    }
}

/// The macaroon alone, whose instructions are counted.
pub fn macaroon(world: &World, phone: &Phone) -> macaroon::Peer {
    macaroon::Peer::new(Caveats::of(world, phone))
}

/// Whether the operations and the end of a token allow what the phone asks for.
fn allows(operations: &str, end: &str) -> bool {
    operations_allow(operations) && not_ended(end)
}
