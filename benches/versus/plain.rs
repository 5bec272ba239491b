//! biscuit-auth used as its documentation shows, and the bare primitives under it, on the same bytes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use biscuit_auth::builder::{Algorithm, Term, fact};
use biscuit_auth::format::schema;
use biscuit_auth::macros::{biscuit, block};
use biscuit_auth::{
    AuthorizerBuilder, AuthorizerLimits, Biscuit, KeyPair, PrivateKey, PublicKey, UnverifiedBiscuit,
};
use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message;
use sessioncap::agent::Policy;
use sessioncap::{Caveat, Credential, OpSet, SessionId};

use crate::world::{Phone, World};

/// The mint that any desktop could do without this crate: one authority block.
pub struct Mint {
    root: KeyPair,
    agent: Vec<u8>,
    url: String,
    session: String,
    expires_at: u64,
}

const AUTHORITY: &str = "
    version({version}); credential({credential}); ticket({ticket});
    check if agent({agent}, {url});
    check if session({session});
    check all operation($o), {ops}.contains($o);
    check all time($t), $t < {expires_at};
    check if redeemed({ticket}, $k), peer($k);
";

impl Mint {
    pub fn new(world: &World, session: &SessionId) -> Self {
        let root = PrivateKey::from_bytes(world.issuer_key.expose_bytes(), Algorithm::Ed25519).unwrap();
        Self {
            root: KeyPair::from(&root),
            agent: world.agent.public().as_bytes().to_vec(),
            url: world.url.to_string(),
            session: session.to_string(),
            expires_at: world.now.timestamp().plus(43_200).seconds(),
        }
    }

    /// Parsed when this program was compiled.
    pub fn by_macro(&self) -> Vec<u8> {
        let (credential, ticket): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
        let ops: BTreeSet<Term> = operations();
        let expires_at = Term::Date(self.expires_at);
        biscuit!(
            "version(1); credential({credential}); ticket({ticket});
            check if agent({agent}, {url});
            check if session({session});
            check all operation($o), {ops}.contains($o);
            check all time($t), $t < {expires_at};
            check if redeemed({ticket}, $k), peer($k);",
            credential = credential.to_vec(),
            ticket = ticket.to_vec(),
            agent = self.agent.clone(),
            url = self.url.clone(),
            session = self.session.clone(),
        )
        .build(&self.root)
        .unwrap()
        .to_vec()
        .unwrap()
    }

    /// Parsed each time, as this crate does.
    pub fn by_text(&self) -> Vec<u8> {
        let (credential, ticket): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
        let values = HashMap::from([
            (String::from("version"), Term::Integer(1)),
            (String::from("credential"), Term::Bytes(credential.to_vec())),
            (String::from("ticket"), Term::Bytes(ticket.to_vec())),
            (String::from("agent"), Term::Bytes(self.agent.clone())),
            (String::from("url"), Term::Str(self.url.clone())),
            (String::from("session"), Term::Str(self.session.clone())),
            (String::from("ops"), Term::Set(operations())),
            (String::from("expires_at"), Term::Date(self.expires_at)),
        ]);
        Biscuit::builder()
            .code_with_params(AUTHORITY, values, HashMap::default())
            .unwrap()
            .build(&self.root)
            .unwrap()
            .to_vec()
            .unwrap()
    }
}

fn operations() -> BTreeSet<Term> {
    OpSet::COMPANION.iter().map(|op| Term::Str(op.name().to_owned())).collect()
}

/// One presented token, and everything about it that the agent knows.
pub struct Presented {
    bytes: Vec<u8>,
    root: PublicKey,
    facts: Facts,
    policy: AuthorizerBuilder,
    token: Biscuit,
    root_key: VerifyingKey,
    signed: Vec<Signed>,
}

/// One block's signature: what was signed, and the key that the next one needs.
struct Signed {
    message: Vec<u8>,
    signature: Signature,
    next_key: [u8; 32],
}

impl Presented {
    pub fn new(world: &World, phone: &Phone) -> Self {
        let bytes = phone.credential.as_bytes().to_vec();
        let root = PublicKey::from_bytes(world.issuer.public().as_bytes(), Algorithm::Ed25519).unwrap();
        Self {
            token: Biscuit::from(&bytes, root).unwrap(),
            facts: Facts::new(world, phone),
            policy: AuthorizerBuilder::new().set_limits(limits()).code(Policy::TEXT).unwrap(),
            root_key: VerifyingKey::from_bytes(world.issuer.public().as_bytes()).unwrap(),
            signed: signed(&bytes),
            bytes,
            root,
        }
    }

    /// Parse, verify, authorize with the same policy text and the same facts.
    pub fn authorize_with_text(&self) -> usize {
        let token = Biscuit::from(&self.bytes, self.root).unwrap();
        let authorizer =
            self.facts.state(AuthorizerBuilder::new().set_limits(limits())).code(Policy::TEXT).unwrap();
        authorizer.build(&token).unwrap().authorize().unwrap()
    }

    /// The same with a policy that was parsed before.
    pub fn authorize(&self) -> usize {
        let authorizer = self.facts.state(self.policy.clone());
        authorizer.build(&self.parse_and_verify()).unwrap().authorize().unwrap()
    }

    pub fn signatures(&self) {
        let mut key = self.root_key;
        for signed in &self.signed {
            key.verify_strict(&signed.message, &signed.signature).unwrap();
            key = VerifyingKey::from_bytes(&signed.next_key).unwrap();
        }
    }

    /// The first signature alone.
    pub fn verification(&self) {
        let first = self.signed.first().unwrap();
        self.root_key.verify_strict(&first.message, &first.signature).unwrap();
    }

    /// The agent's block, appended to a token that is read unverified.
    pub fn append(&self) -> Vec<u8> {
        let token = UnverifiedBiscuit::from(&self.bytes).unwrap();
        let (holder, epoch) = (self.facts.peer.to_vec(), self.facts.epoch);
        let end = Term::Date(self.facts.time + 43_200);
        let block = block!(
            "check all peer($k), $k === {holder}; check if epoch({epoch}); check all time($t), $t < {end};"
        );
        token.append(block).unwrap().to_vec().unwrap()
    }

    pub fn one_run(&self) -> usize {
        let authorizer = self.facts.state(self.policy.clone());
        authorizer.build(&self.token).unwrap().authorize().unwrap()
    }

    pub fn parse_and_verify(&self) -> Biscuit {
        Biscuit::from(&self.bytes, self.root).unwrap()
    }
}

fn limits() -> AuthorizerLimits {
    // the default of one millisecond fails at random on a busy machine
    AuthorizerLimits { max_facts: 2_000, max_iterations: 100, max_time: Duration::from_secs(2) }
}

/// The agent's facts, stated again for each request.
struct Facts {
    agent: [u8; 32],
    url: String,
    session: String,
    peer: [u8; 32],
    epoch: i64,
    time: u64,
    credential: [u8; 16],
    ticket: [u8; 16],
}

impl Facts {
    fn new(world: &World, phone: &Phone) -> Self {
        let credential = Credential::parse(&phone.credential).unwrap();
        let epoch = credential.caveats().find_map(|(_, caveat)| match caveat {
            Caveat::Epoch(epoch) => i64::try_from(epoch).ok(),
            _ => None,
        });
        Self {
            agent: *world.agent.public().as_bytes(),
            url: world.url.to_string(),
            session: phone.session.to_string(),
            peer: *phone.key.public().as_bytes(),
            epoch: epoch.unwrap(),
            time: world.now.timestamp().seconds(),
            credential: *credential.id().as_bytes(),
            ticket: *credential.ticket().as_bytes(),
        }
    }

    fn state(&self, builder: AuthorizerBuilder) -> AuthorizerBuilder {
        let bytes = |bytes: &[u8]| Term::Bytes(bytes.to_vec());
        let text = |text: &str| Term::Str(text.to_owned());
        let mut facts = Vec::with_capacity(12);
        facts.push(fact("agent", &[bytes(&self.agent), text(&self.url)]));
        facts.push(fact("session", &[text(&self.session)]));
        facts.extend(OpSet::COMPANION.iter().map(|op| fact("operation", &[text(op.name())])));
        facts.push(fact("peer", &[bytes(&self.peer)]));
        facts.push(fact("epoch", &[Term::Integer(self.epoch)]));
        facts.push(fact("time", &[Term::Date(self.time)]));
        facts.push(fact("live", &[bytes(&self.credential), bytes(&self.ticket), bytes(&self.peer)]));
        facts.push(fact("redeemed", &[bytes(&self.ticket), bytes(&self.peer)]));
        facts.into_iter().try_fold(builder, AuthorizerBuilder::fact).unwrap()
    }
}

/// Biscuit specification, signature version 0: the block, the next key's algorithm, the next key.
fn signed(bytes: &[u8]) -> Vec<Signed> {
    let token = schema::Biscuit::decode(bytes).unwrap();
    let blocks = core::iter::once(&token.authority).chain(&token.blocks);
    blocks
        .map(|block| {
            let key = &block.next_key;
            Signed {
                message: [block.block.as_slice(), &key.algorithm.to_le_bytes(), &key.key].concat(),
                signature: Signature::from_slice(&block.signature).unwrap(),
                next_key: key.key.as_slice().try_into().unwrap(),
            }
        })
        .collect()
}
