//! The signatures of a macaroon: each is the HMAC-SHA256 of a caveat under the one before it. It has no format to read.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::attach::Caveats;

use super::allows;

pub struct Peer {
    key: [u8; 32],
    caveats: Caveats,
    signature: [u8; 32],
}

impl Peer {
    pub fn new(caveats: Caveats) -> Self {
        let mut peer = Self { key: [7; 32], caveats, signature: [0; 32] };
        peer.signature = peer.fold();
        peer.verify();
        peer
    }

    fn fold(&self) -> [u8; 32] {
        let step = |key: [u8; 32], message: &[u8]| -> [u8; 32] {
            Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(message).finalize().into_bytes().into()
        };
        let Caveats { id, all, .. } = &self.caveats;
        all.iter().fold(step(self.key, id), |key, caveat| step(key, caveat.as_bytes()))
    }

    pub fn verify(&self) {
        let [agent, session, ticket, operations, end] = &self.caveats.all;
        assert!(self.fold() == self.signature);
        assert!([agent, session, ticket].into_iter().eq(&self.caveats.exact) && allows(operations, end));
    }
}
