//! An attach beside verifying a macaroon of the same five caveats with the crate `macaroon`, in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/macaroon/Cargo.toml
//! VERSUS_ROUNDS=501 cargo run ...       more pairs of slices than 201
//! VERSUS_TIMES=1 cargo run ...          absolute times as well
//! ```
//!
//! Both sides begin with bytes from the phone and end with a decision, and neither has Noise in it. The agent of
//! macaroons looks up the root key of a credential by the macaroon's identifier, so that it can revoke one.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]
#![allow(clippy::cast_precision_loss, dead_code, reason = "files that are shared with the larger benchmark")]

#[path = "../../versus/attach.rs"]
mod attach;
#[path = "../../versus/report.rs"]
mod report;
#[path = "../../versus/sample.rs"]
mod sample;
#[path = "../../versus/world.rs"]
mod world;

use std::collections::HashMap;

use attach::{Caveats, attaches, not_ended, operations_allow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use macaroon::{ByteString, Format, Macaroon, MacaroonKey, Verifier};
use report::{Budget, Report};
use sample::{compare, repeat};
use world::{Phone, World};

fn main() {
    macaroon::initialize().unwrap();
    let rounds = std::env::var("VERSUS_ROUNDS").map_or(201, |text| text.parse().unwrap());
    let world = World::new();
    let phone = world.phone();
    let peer = Peer::new(&world, &phone);
    let mut report = Report::default();
    report.section("attach with a whole credential, memory ledger, without Noise");
    let compared = compare(rounds, attaches(&world, &phone), repeat(|| peer.admit()));
    report.compared("admit, activate / the crate macaroon", compared, Budget::AtMost(2.5));
    let verify = repeat(|| peer.verify(&peer.macaroon));
    let compared = compare(rounds, repeat(|| peer.admit()), verify);
    report.compared("(peers) the crate macaroon / its verification alone", compared, Budget::Information);
    report.print(std::env::var_os("VERSUS_TIMES").is_some());
}

/// An agent that gives out macaroons, and one of them.
struct Peer {
    records: HashMap<ByteString, Record>,
    presented: Vec<u8>,
    macaroon: Macaroon,
}

/// The record that it keeps of a macaroon.
struct Record {
    key: MacaroonKey,
    /// The caveats for its agent, session and ticket, as they have to be.
    exact: [String; 3],
}

impl Peer {
    fn new(world: &World, phone: &Phone) -> Self {
        let Caveats { id, all, exact } = Caveats::of(world, phone);
        let key = MacaroonKey::generate_random();
        let id = ByteString::from(id);
        let mut macaroon = Macaroon::create(Some(world::URL.to_owned()), &key, id.clone()).unwrap();
        all.into_iter().for_each(|caveat| macaroon.add_first_party_caveat(caveat.into()));
        // The crate has its binary form in base64 only.
        let presented = URL_SAFE.decode(macaroon.serialize(Format::V2).unwrap()).unwrap();
        let peer = Self { records: HashMap::from([(id, Record { key, exact })]), presented, macaroon };
        peer.admit();
        peer.refuses_others();
        peer
    }

    /// From the bytes of a macaroon to the decision.
    fn admit(&self) {
        self.verify(&Macaroon::deserialize_binary(&self.presented).unwrap());
    }

    fn verify(&self, macaroon: &Macaroon) {
        let record = &self.records[&macaroon.identifier()];
        record.verifier().verify(macaroon, &record.key, Vec::new()).unwrap();
    }

    /// A comparison with a verifier that accepts anything would say nothing.
    fn refuses_others(&self) {
        let record = &self.records[&self.macaroon.identifier()];
        let verifier = record.verifier();
        for caveat in ["session = another", "ops = interrupt", "time < 1780000000"] {
            let mut other = self.macaroon.clone();
            other.add_first_party_caveat(caveat.into());
            assert!(verifier.verify(&other, &record.key, Vec::new()).is_err(), "{caveat}");
        }
        let other = MacaroonKey::generate_random();
        assert!(verifier.verify(&self.macaroon, &other, Vec::new()).is_err());
    }
}

impl Record {
    fn verifier(&self) -> Verifier {
        let mut verifier = Verifier::default();
        self.exact.iter().for_each(|caveat| verifier.satisfy_exact(caveat.as_str().into()));
        verifier.satisfy_general(|caveat| text(caveat).is_some_and(operations_allow));
        verifier.satisfy_general(|caveat| text(caveat).is_some_and(not_ended));
        verifier
    }
}

fn text(caveat: &ByteString) -> Option<&str> {
    std::str::from_utf8(caveat.as_ref()).ok()
}
