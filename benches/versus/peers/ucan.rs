//! A UCAN of one link: the issuer delegates five capabilities of a session to the phone. Its chain is verified and its
//! capabilities are reduced by the crate `ucan`; the curve is dalek's.

use std::cell::RefCell;

use anyhow::anyhow;
use async_trait::async_trait;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use futures::executor::block_on;
use sessioncap::OpSet;
use ucan::builder::UcanBuilder;
use ucan::capability::{Ability, CapabilitySemantics, Scope};
use ucan::chain::ProofChain;
use ucan::crypto::KeyMaterial;
use ucan::crypto::did::{DID_KEY_PREFIX, DidParser, ED25519_MAGIC_BYTES, KeyConstructorSlice};
use ucan::store::MemoryStore;
use url::Url;

use crate::attach::Caveats;

use super::allows;

struct Key {
    signer: Option<SigningKey>,
    key: VerifyingKey,
}

#[async_trait]
impl KeyMaterial for Key {
    fn get_jwt_algorithm_name(&self) -> String {
        "EdDSA".to_owned()
    }

    async fn get_did(&self) -> anyhow::Result<String> {
        let bytes = [ED25519_MAGIC_BYTES, self.key.as_bytes()].concat();
        Ok(format!("{DID_KEY_PREFIX}{}", bs58::encode(bytes).into_string()))
    }

    async fn sign(&self, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
        let signer = self.signer.as_ref().ok_or_else(|| anyhow!("no secret key"))?;
        Ok(signer.sign(payload).to_vec())
    }

    async fn verify(&self, payload: &[u8], signature: &[u8]) -> anyhow::Result<()> {
        Ok(self.key.verify_strict(payload, &Signature::from_slice(signature)?)?)
    }
}

impl Key {
    fn generate() -> Self {
        let signer = SigningKey::generate(&mut rand::rngs::OsRng);
        Self { key: signer.verifying_key(), signer: Some(signer) }
    }
}

fn read_key(bytes: Vec<u8>) -> anyhow::Result<Box<dyn KeyMaterial>> {
    let bytes: [u8; 32] = bytes.as_slice().try_into()?;
    Ok(Box::new(Key { signer: None, key: VerifyingKey::from_bytes(&bytes)? }))
}

const KEYS: &KeyConstructorSlice = &[(ED25519_MAGIC_BYTES, read_key)];

#[derive(Clone, PartialEq)]
struct Session(String);

impl Scope for Session {
    fn contains(&self, other: &Self) -> bool {
        self == other
    }
}

impl std::fmt::Display for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "session:{}", self.0)
    }
}

impl TryFrom<Url> for Session {
    type Error = anyhow::Error;

    fn try_from(url: Url) -> anyhow::Result<Self> {
        match url.scheme() {
            "session" => Ok(Self(url.path().to_owned())),
            other => Err(anyhow!("not a session: {other}")),
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Operation(String);

impl Ability for Operation {}

impl std::fmt::Display for Operation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "session/{}", self.0)
    }
}

impl TryFrom<String> for Operation {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let name = text.strip_prefix("session/").ok_or_else(|| anyhow!("not an operation"))?;
        Ok(Self(name.to_owned()))
    }
}

struct Semantics;

impl CapabilitySemantics<Session, Operation> for Semantics {}

pub struct Peer {
    issuer: String,
    phone: String,
    session: String,
    agent: String,
    ticket: String,
    token: String,
    /// It keeps the keys that it has read.
    keys: RefCell<DidParser>,
    store: MemoryStore,
}

impl Peer {
    pub fn new(caveats: Caveats) -> Self {
        let [issuer, other, phone] = [(); 3].map(|()| Key::generate());
        let did = |key: &Key| block_on(key.get_did()).unwrap();
        let [agent, session, ticket, operations, end] = caveats.all;
        let session = session.trim_start_matches("session = ").to_owned();
        let sign = |key: &Key, audience: &str, session: &str, operation: &str| {
            let capability = |name: &str| {
                Semantics.parse(&format!("session:{session}"), &format!("session/{name}"), None).unwrap()
            };
            let names = OpSet::COMPANION.iter().map(|op| op.name().to_owned()).skip(1);
            let capabilities: Vec<_> =
                names.chain([operation.to_owned()]).map(|name| capability(&name)).collect();
            let signed = UcanBuilder::default()
                .issued_by(key)
                .for_audience(audience)
                .with_lifetime(43_200)
                .with_fact("agent", agent.clone())
                .with_fact("ticket", ticket.clone())
                .with_fact("operations", operations.clone())
                .with_fact("end", end.clone())
                .claiming_capabilities(&capabilities)
                .build();
            block_on(signed.unwrap().sign()).unwrap().encode().unwrap()
        };
        let first = OpSet::COMPANION.iter().next().unwrap().name();
        let peer = Self {
            token: sign(&issuer, &did(&phone), &session, first),
            issuer: did(&issuer),
            phone: did(&phone),
            keys: RefCell::new(DidParser::new(KEYS)),
            store: MemoryStore::default(),
            session,
            agent: agent.clone(),
            ticket: ticket.clone(),
        };
        peer.admit();
        let others = [
            sign(&other, &peer.phone, &peer.session, first),
            sign(&issuer, &did(&other), &peer.session, first),
            sign(&issuer, &peer.phone, "another", first),
            sign(&issuer, &peer.phone, &peer.session, "interrupt"),
        ];
        assert!(others.iter().all(|other| !peer.allows(other)));
        peer
    }

    pub fn admit(&self) {
        assert!(self.allows(&self.token));
    }

    fn allows(&self, token: &str) -> bool {
        let mut keys = self.keys.borrow_mut();
        let chain = block_on(ProofChain::try_from_token_string(token, None, &mut keys, &self.store)).unwrap();
        let ucan = chain.ucan();
        let facts = ucan.facts().as_ref().unwrap();
        let text = |name: &str| facts[name].as_str().unwrap_or_default();
        let granted = chain.reduce_capabilities(&Semantics);
        let holds = |name: &str| {
            granted.iter().any(|info| {
                let capability = &info.capability;
                capability.ability.0 == name
                    && capability.resource.to_string() == format!("session:{}", self.session)
                    && info.originators.contains(&self.issuer)
            })
        };
        ucan.audience() == self.phone
            && text("agent") == self.agent
            && text("ticket") == self.ticket
            && allows(text("operations"), text("end"))
            && OpSet::COMPANION.iter().all(|op| holds(op.name()))
    }
}
