//! A PASETO of version 4, public, verified by the crate `pasetors`.

use pasetors::claims::{Claims, ClaimsValidationRules};
use pasetors::keys::{AsymmetricKeyPair, AsymmetricPublicKey, Generate};
use pasetors::token::UntrustedToken;
use pasetors::version4::V4;
use pasetors::{Public, public};

use crate::attach::Caveats;

use super::allows;

pub struct Peer {
    key: AsymmetricPublicKey<V4>,
    /// The record, which is known by the connection's key before the token is read.
    rules: ClaimsValidationRules,
    token: String,
}

impl Peer {
    pub fn new(caveats: Caveats) -> Self {
        let keys = AsymmetricKeyPair::<V4>::generate().unwrap();
        let [agent, session, ticket, operations, end] = &caveats.all;
        let sign = |session: &str, ticket: &str, operations: &str| {
            // begins now, and ends in an hour by the system's clock, which the crate reads
            let mut claims = Claims::new().unwrap();
            claims.audience(agent).unwrap();
            claims.subject(session).unwrap();
            claims.token_identifier(ticket).unwrap();
            claims.add_additional("operations", operations).unwrap();
            claims.add_additional("end", end.as_str()).unwrap();
            public::sign(&keys.secret, &claims, None, None).unwrap()
        };
        let mut rules = ClaimsValidationRules::new();
        rules.validate_audience_with(agent);
        rules.validate_subject_with(session);
        rules.validate_token_identifier_with(ticket);
        let token = sign(session, ticket, operations);
        let mut peer = Self { key: keys.public.clone(), rules, token };
        peer.admit();
        let others = [
            sign("session = another", ticket, operations),
            sign(session, "ticket = another", operations),
            sign(session, ticket, "ops = interrupt"),
        ];
        assert!(others.iter().all(|other| !peer.allows(other)));
        peer.key = AsymmetricKeyPair::<V4>::generate().unwrap().public;
        assert!(!peer.allows(&peer.token));
        peer.key = keys.public;
        peer
    }

    pub fn admit(&self) {
        assert!(self.allows(&self.token));
    }

    fn allows(&self, token: &str) -> bool {
        let untrusted = UntrustedToken::<Public, V4>::try_from(token).unwrap();
        let Ok(trusted) = public::verify(&self.key, &untrusted, &self.rules, None, None) else {
            return false;
        };
        let claims = trusted.payload_claims().unwrap();
        let text = |name| claims.get_claim(name).and_then(|claim| claim.as_str()).unwrap_or_default();
        allows(text("operations"), text("end"))
    }
}
