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
        let others = [("session = another", 1), ("ops = interrupt", 3), ("time < 1780000000", 4)];
        for (caveat, at) in others {
            let kept = std::mem::replace(&mut peer.caveats.all[at], caveat.to_owned());
            assert!(!peer.allows(), "{caveat}");
            // With a signature of its own it is still not what was granted.
            let signature = std::mem::take(&mut peer.signature);
            peer.signature = peer.fold();
            assert!(!peer.allows(), "{caveat}");
            (peer.caveats.all[at], peer.signature) = (kept, signature);
        }
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
        assert!(self.allows());
    }

    fn allows(&self) -> bool {
        let [agent, session, ticket, operations, end] = &self.caveats.all;
        self.fold() == self.signature
            && [agent, session, ticket].into_iter().eq(&self.caveats.exact)
            && allows(operations, end)
    }
}
