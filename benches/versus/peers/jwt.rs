//! A JSON web token (RFC 7519) signed with Ed25519 (RFC 8037), verified by the crate `jsonwebtoken`.

use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::attach::Caveats;
use crate::sample::unix_time;

use super::allows;

/// RFC 8410, section 7: the start of a PKCS #8 key of Ed25519, before its 32 bytes.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    jti: String,
    operations: String,
    end: String,
    /// By the system's clock, which the crate reads.
    exp: u64,
}

pub struct Peer {
    key: DecodingKey,
    /// The record, which is known by the connection's key before the token is read: its ticket, and its other claims.
    ticket: String,
    expected: Validation,
    token: String,
}

impl Peer {
    pub fn new(caveats: Caveats) -> Self {
        let signer = SigningKey::generate(&mut rand::rngs::OsRng);
        let [aud, sub, jti, operations, end] = caveats.all;
        let mut expected = Validation::new(Algorithm::EdDSA);
        expected.set_audience(&[&aud]);
        expected.sub = Some(sub.clone());
        expected.set_required_spec_claims(&["exp", "aud", "sub"]);
        let key = EncodingKey::from_ed_der(&[&PKCS8[..], &signer.to_bytes()].concat());
        let exp = unix_time() + 43_200;
        let claims = Claims { aud, sub, jti: jti.clone(), operations, end, exp };
        let sign = |claims: &Claims| encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap();
        let mut peer = Self {
            key: DecodingKey::from_ed_der(signer.verifying_key().as_bytes()),
            ticket: jti,
            expected,
            token: sign(&claims),
        };
        peer.admit();
        let others = [
            Claims { sub: "session = another".to_owned(), ..claims.clone() },
            Claims { aud: "agent = another".to_owned(), ..claims.clone() },
            Claims { jti: "ticket = another".to_owned(), ..claims.clone() },
            Claims { operations: "ops = interrupt".to_owned(), ..claims.clone() },
            Claims { exp: unix_time() - 3_600, ..claims },
        ];
        assert!(others.iter().all(|other| !peer.allows(&sign(other))));
        let stranger = SigningKey::generate(&mut rand::rngs::OsRng).verifying_key();
        let key = std::mem::replace(&mut peer.key, DecodingKey::from_ed_der(stranger.as_bytes()));
        assert!(!peer.allows(&peer.token));
        peer.key = key;
        peer
    }

    pub fn admit(&self) {
        assert!(self.allows(&self.token));
    }

    fn allows(&self, token: &str) -> bool {
        decode::<Claims>(token, &self.key, &self.expected).is_ok_and(|decoded| {
            let Claims { jti, operations, end, .. } = &decoded.claims;
            *jti == self.ticket && allows(operations, end)
        })
    }
}
