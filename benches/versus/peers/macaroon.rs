//! A macaroon of the same five caveats, read from its binary form and verified by the crate `macaroon`. The agent looks
//! up the root key of a credential by the macaroon's identifier.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use macaroon::{ByteString, Format, Macaroon, MacaroonKey, Verifier};

use crate::attach::{Caveats, not_ended, operations_allow};
use crate::world::URL;

/// An agent that gives out macaroons, and one of them.
pub struct Peer {
    records: HashMap<ByteString, Record>,
    presented: Vec<u8>,
    macaroon: Macaroon,
}

/// The record that it keeps of a macaroon.
struct Record {
    key: MacaroonKey,
    /// The caveats for its agent, session and ticket, as they have to be.
    exact: [String; 3],
    kept: Verifier,
}

impl Peer {
    pub fn new(caveats: Caveats) -> Self {
        macaroon::initialize().unwrap();
        let Caveats { id, all, exact } = caveats;
        let key = MacaroonKey::generate_random();
        let id = ByteString::from(id);
        let mut macaroon = Macaroon::create(Some(URL.to_owned()), &key, id.clone()).unwrap();
        all.into_iter().for_each(|caveat| macaroon.add_first_party_caveat(caveat.into()));
        // The crate has its binary form in base64 only.
        let presented = URL_SAFE.decode(macaroon.serialize(Format::V2).unwrap()).unwrap();
        let peer = Self {
            records: HashMap::from([(id, Record { key, kept: verifier(&exact), exact })]),
            presented,
            macaroon,
        };
        peer.admit();
        peer.refuses_others();
        peer
    }

    /// From the bytes of a macaroon to the decision. A verifier is made for each request, as the crate's documentation
    /// does it, because what it accepts is the request's.
    pub fn admit(&self) {
        let (macaroon, record) = self.read();
        verifier(&record.exact).verify(&macaroon, &record.key, Vec::new()).unwrap();
    }

    /// The same with a verifier that was made with the record.
    pub fn admit_with_kept_verifier(&self) {
        let (macaroon, record) = self.read();
        record.kept.verify(&macaroon, &record.key, Vec::new()).unwrap();
    }

    fn read(&self) -> (Macaroon, &Record) {
        let macaroon = Macaroon::deserialize_binary(&self.presented).unwrap();
        let record = &self.records[&macaroon.identifier()];
        (macaroon, record)
    }

    /// A comparison with a verifier that accepts anything would say nothing.
    fn refuses_others(&self) {
        let record = &self.records[&self.macaroon.identifier()];
        let verifier = &record.kept;
        for caveat in ["session = another", "ops = interrupt", "time < 1780000000"] {
            let mut other = self.macaroon.clone();
            other.add_first_party_caveat(caveat.into());
            assert!(verifier.verify(&other, &record.key, Vec::new()).is_err(), "{caveat}");
        }
        let other = MacaroonKey::generate_random();
        assert!(verifier.verify(&self.macaroon, &other, Vec::new()).is_err());
    }
}

fn verifier(exact: &[String; 3]) -> Verifier {
    let mut verifier = Verifier::default();
    exact.iter().for_each(|caveat| verifier.satisfy_exact(caveat.as_str().into()));
    verifier.satisfy_general(|caveat| text(caveat).is_some_and(operations_allow));
    verifier.satisfy_general(|caveat| text(caveat).is_some_and(not_ended));
    verifier
}

fn text(caveat: &ByteString) -> Option<&str> {
    std::str::from_utf8(caveat.as_ref()).ok()
}
