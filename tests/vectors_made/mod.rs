//! How the vectors of `tests/vectors` are made: one pairing in which every draw is fixed, and from it
//! one file for each thing that can be right and each that can be wrong.

use biscuit_auth::builder::BlockBuilder;
use biscuit_auth::format::schema;
use biscuit_auth::{KeyPair, PrivateKey, UnverifiedBiscuit};
use prost::Message;

use super::*;
use crate::common::rng::{CounterRng, Fixed};

pub mod adapters;
pub mod keys;
mod links;
pub mod pair;
pub mod session;
pub mod stored;
pub mod web;

/// One pairing in which every draw is fixed.
pub struct Stage {
    pub world: World,
    desktop: Desktop,
    pairing: Pairing,
    receipt: OfferReceipt,
    request: Vec<u8>,
    reply: Vec<u8>,
    credential: Credential,
}

impl Stage {
    pub fn new() -> Self {
        let world = World::new();
        let desktop = world.desktop(9);
        let terms = terms().with_label(text("laptop"));
        let time = world.now.timestamp();
        let pairing = desktop.issuer.pair(session(SESSION), &terms, time, &mut CounterRng::new(1)).unwrap();
        let receipt = world.gate.offer(&desktop.device, &pairing.offer, world.now).unwrap();
        let asking = redeem(&pairing.link, &phone(2), text("phone"), &mut CounterRng::new(2)).unwrap();
        let received = world.open(&asking.message).unwrap();
        let admission = world.gate.admit_peer(
            Peer::new(received.peer().as_bytes(), received.payload(), received.handshake_hash()),
            world.now,
            &mut CounterRng::new(3),
        );
        let request = received.payload().to_vec();
        let PeerAdmission::Admitted { reply, .. } = admission else { panic!("{admission:?}") };
        let map = cbor::decode_payload(&reply).unwrap();
        let bytes = CredentialBytes::new(cbor::bytes_of(&map, 12)).unwrap();
        let credential = Credential::parse(&bytes).unwrap();
        Self { world, desktop, pairing, receipt, request, reply, credential }
    }

    /// New terms for the pairing's credential.
    pub fn renewal(&self) -> RenewalOffer {
        let renewal = Renewal {
            credential: self.pairing.credential,
            ticket: self.pairing.ticket,
            session: session(SESSION),
            ops: OpSet::ALL,
            valid_for: 86_400,
        };
        self.desktop.issuer.renew(renewal, self.world.now.timestamp(), &mut CounterRng::new(4)).unwrap()
    }

    /// What the agent answers to a renewal, and what the phone's next attach brings it. The key of the
    /// block that the agent appends is the first draw of the counter generator with seed 5.
    pub fn renew(&self, message: &RenewalOffer) -> Result<(Vec<u8>, Vec<u8>), Denial> {
        let mut rng = CounterRng::new(5);
        let receipt = self.world.gate.renew(&self.desktop.device, message, self.world.now, &mut rng)?;
        let attach = attach_payload(OpSet::EMPTY, self.bound());
        let PeerAdmission::Admitted { reply, .. } = self.world.admit(&phone(2), &attach) else { panic!() };
        let edition = cbor::bytes_of(&cbor::decode_payload(&reply).unwrap(), 12);
        Ok((receipt.to_bytes(), edition))
    }

    fn issuer_key(&self) -> KeyPair {
        KeyPair::from(&PrivateKey::from_bytes(&[9 ^ 0x55; 32], Algorithm::Ed25519).unwrap())
    }

    pub fn credential_bytes(&self) -> &[u8] {
        self.bound()
    }

    fn bound(&self) -> &[u8] {
        self.credential.bytes().as_bytes()
    }

    fn unbound(&self) -> Vec<u8> {
        cbor::bytes_of(&cbor::decode(&self.pairing.offer.to_bytes()).unwrap(), 7)
    }

    /// The bound credential, correctly extended by a block with this code.
    fn with_block(&self, code: &str) -> Vec<u8> {
        let block = BlockBuilder::new().code(code).unwrap();
        let token = UnverifiedBiscuit::from(self.bound()).unwrap();
        token.append_with_keypair(&key_pair(7), block).unwrap().to_vec().unwrap()
    }

    /// A correctly signed credential with this code as its first block, and the agent's own second.
    fn with_authority(&self, code: &str, next: &KeyPair) -> Vec<u8> {
        let token = Biscuit::builder().code(code).unwrap();
        let token = token.build_with_key_pair(&self.issuer_key(), Default::default(), next).unwrap();
        let binding = BlockBuilder::new().code(self.datalog(1)).unwrap();
        token.append_with_keypair(&key_pair(8), binding).unwrap().to_vec().unwrap()
    }

    /// The bound credential, rightly extended by these very bytes as a block.
    fn with_raw_block(&self, block: Vec<u8>) -> Vec<u8> {
        self.edited(|token| {
            let Some(schema::proof::Content::NextSecret(secret)) = &token.proof.content else { panic!() };
            let key = SigningKey::from_bytes(secret.as_slice().try_into().unwrap());
            let next = SigningKey::from_bytes(&[0x77; 32]);
            let next_key = schema::PublicKey { algorithm: 0, key: next.verifying_key().to_bytes().to_vec() };
            let signed = [block.as_slice(), &[0; 4], &next_key.key].concat();
            let signature = key.sign(&signed).to_bytes().to_vec();
            token.blocks.push(schema::SignedBlock {
                block,
                next_key,
                signature,
                external_signature: None,
                version: None,
            });
            token.proof.content = Some(schema::proof::Content::NextSecret(next.to_bytes().to_vec()));
        })
    }

    /// What the issuer can make of its own unbound credential: with a binding block of its own, rightly
    /// signed, and the bound credential's text with something else in it.
    fn with_own_binding(&self, from: &str, to: &str) -> Vec<u8> {
        let text = self.datalog(1);
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        let token = UnverifiedBiscuit::from(self.unbound()).unwrap();
        let block = BlockBuilder::new().code(changed).unwrap();
        token.append_with_keypair(&key_pair(9), block).unwrap().to_vec().unwrap()
    }

    /// The unbound credential, sealed by who may seal it.
    fn sealed_unbound(&self) -> Vec<u8> {
        UnverifiedBiscuit::from(self.unbound()).unwrap().seal().unwrap().to_vec().unwrap()
    }

    /// The text of a block of the bound credential.
    fn datalog(&self, block: usize) -> String {
        let token = UnverifiedBiscuit::from(self.bound()).unwrap();
        token.print_block_source(block).unwrap()
    }

    /// The bound credential with its envelope changed.
    fn edited(&self, edit: impl FnOnce(&mut schema::Biscuit)) -> Vec<u8> {
        let mut token = schema::Biscuit::decode(self.bound()).unwrap();
        edit(&mut token);
        token.encode_to_vec()
    }
}

fn key_pair(seed: u64) -> KeyPair {
    KeyPair::new_with_rng(Algorithm::Ed25519, &mut CounterRng::new(seed))
}

pub fn generate() -> Files {
    let stage = Stage::new();
    let mut files = Files::new();
    valid_tickets(&mut files);
    links::valid_links(&mut files);
    valid_labels(&mut files);
    valid_payloads(&stage, &mut files);
    valid_handshakes(&stage, &mut files);
    valid_credentials(&stage, &mut files);
    valid_desktop_messages(&stage, &mut files);
    frames(&mut files);
    session::session(&mut files);
    stored::stored_pairings(&stage, &mut files);
    keys::keys(&mut files);
    web::web(&mut files);
    pair::valid_pair_methods(&stage, &mut files);
    adapters::adapters(&mut files);
    links::invalid_links(&mut files);
    invalid_payloads(&stage, &mut files);
    invalid_credentials(&stage, &mut files);
    pair::invalid_pair_methods(&stage, &mut files);
    invalid_keys(&mut files);
    invalid_names(&mut files);
    files
}

fn valid(files: &mut Files, name: &str, value: Value) {
    assert!(files.insert(format!("valid/{name}.json"), value).is_none(), "{name} twice");
}

fn invalid(files: &mut Files, name: &str, value: Value) {
    assert!(files.insert(format!("invalid/{name}.json"), value).is_none(), "{name} twice");
}

fn valid_tickets(files: &mut Files) {
    let secrets = [("zero", [0; 16]), ("ones", [0xff; 16]), ("counting", core::array::from_fn(|i| i as u8))];
    for (name, secret) in secrets {
        let key = ticket_signing_key(&secret);
        let (public_key, id) = (key.verifying_key().to_bytes(), ticket_id(key.verifying_key().as_bytes()));
        let value = json!({
            "kind": "ticket", "secret": hex(&secret), "public_key": hex(&public_key), "id": hex(&id),
        });
        valid(files, &format!("ticket-{name}"), value);
        let (agent, holder) = (AgentSecretKey::from_bytes([1; 32]), phone(2));
        let message = proof_message(agent.public().as_bytes(), holder.public().as_bytes(), &id);
        let value = json!({
            "kind": "proof", "secret": hex(&secret), "agent_secret": hex(&[1; 32]),
            "holder_secret": hex(&[2; 32]), "proof": hex(&key.sign(&message).to_bytes()),
        });
        valid(files, &format!("proof-{name}"), value);
        let id: [u8; 16] = id.try_into().unwrap();
        let nonce = [0x0b; 16];
        let code = PairCode::new(&TicketId::from_bytes(id), &agent.public(), &holder.public(), &nonce);
        let value = json!({
            "kind": "pair_code", "ticket": hex(&id), "agent": hex(agent.public().as_bytes()),
            "holder": hex(holder.public().as_bytes()), "nonce": hex(&nonce), "code": code.to_string(),
        });
        valid(files, &format!("pair-code-{name}"), value);
    }
}

fn valid_payloads(stage: &Stage, files: &mut Files) {
    let mut request = |name: &str, map: &cbor::Map| {
        let value = json!({ "kind": "request", "fields": json_of(map), "payload": hex(&cbor::payload(map)) });
        valid(files, name, value);
    };
    let redeem = cbor::decode_payload(&stage.request).unwrap();
    request("request-redeem", &redeem);
    request("request-redeem-no-label", &cbor::with(&redeem, 3, cbor::Value::Text(String::new())));
    request("request-redeem-longest-label", &cbor::with(&redeem, 3, cbor::Value::Text("x".repeat(40))));
    let joined = cbor::Value::Text("👩\u{200d}💻 علی\u{200c}رضا".to_owned());
    request("request-redeem-label-with-joiners", &cbor::with(&redeem, 3, joined));
    let attach =
        |ops: u64, credential: &[u8]| vec![(4, cbor::Value::Uint(ops)), (5, cbor::bytes(credential))];
    request("request-attach", &attach(0, stage.bound()));
    request("request-attach-some-ops", &attach(0b1010, stage.bound()));
    request("request-attach-longest", &attach(255, &[1; limits::MAX_CREDENTIAL_LEN]));

    let mut answer = |name: &str, to: &str, map: &cbor::Map| {
        let payload = cbor::payload(map);
        let outcome = answered(to, &payload).unwrap_or_else(|error| format!("{error:?}"));
        let value = json!({
            "kind": "answer", "to": to, "fields": json_of(map), "payload": hex(&payload), "outcome": outcome,
        });
        valid(files, name, value);
    };
    let admitted = cbor::decode_payload(&stage.reply).unwrap();
    answer("answer-admitted-to-redeem", "redeem", &admitted);
    answer("answer-admitted-to-attach", "attach", &admitted[..6].to_vec());
    answer("answer-admitted-to-attach-renewed", "attach", &admitted);
    answer("answer-admitted-nothing-left", "redeem", &cbor::with(&admitted, 8, cbor::Value::Uint(0)));
    let time = (7, cbor::Value::Uint(START as u64));
    let pending = vec![
        (6, cbor::Value::Uint(1)),
        time.clone(),
        (8, cbor::Value::Uint(300)),
        (13, cbor::bytes(&[0x0b; 16])),
    ];
    answer("answer-pending", "redeem", &pending);
    for status in Status::ALL.iter().copied() {
        let map = vec![(6, cbor::Value::Uint(status.number().into())), time.clone()];
        answer(&format!("answer-refused-{}", status.code().replace('_', "-")), "redeem", &map);
    }
}

fn valid_handshakes(stage: &Stage, files: &mut Files) {
    let mut handshake = |name: &str, first: &[u8], second: &[u8]| {
        let (agent, holder) = (AgentSecretKey::from_bytes([1; 32]), phone(2));
        let started = Initiator::start(&holder, &agent.public(), first, &mut Fixed::new([3; 32])).unwrap();
        let received = Responder::read(&agent, &started.message, &mut Fixed::new([4; 32])).unwrap();
        let mut replied = received.reply(second).unwrap();
        let mut finished = started.next.finish(&replied.message).unwrap();
        let frames: Vec<Value> = [("phone", "hello"), ("agent", "world"), ("phone", ""), ("agent", "")]
            .into_iter()
            .map(|(from, plaintext)| {
                let channel = if from == "phone" { &mut finished.channel } else { &mut replied.channel };
                let frame = channel.seal(plaintext.as_bytes()).unwrap();
                json!({ "from": from, "plaintext": hex(plaintext.as_bytes()), "frame": hex(&frame) })
            })
            .collect();
        let value = json!({
            "kind": "handshake", "agent_secret": hex(&[1; 32]), "holder_secret": hex(&[2; 32]),
            "initiator_ephemeral_secret": hex(&[3; 32]), "responder_ephemeral_secret": hex(&[4; 32]),
            "payload_1": hex(first), "message_1": hex(&started.message), "payload_2": hex(second),
            "message_2": hex(&replied.message), "handshake_hash": hex(&replied.handshake_hash),
            "frames": frames,
        });
        valid(files, name, value);
    };
    handshake("handshake-redeem", &stage.request, &stage.reply);
    handshake("handshake-empty", b"", b"");
}

fn valid_credentials(stage: &Stage, files: &mut Files) {
    let issuer = hex(stage.desktop.issuer.public().as_bytes());
    let source = |token: &[u8]| {
        let token = UnverifiedBiscuit::from(token).unwrap();
        (0..token.block_count()).map(|block| token.print_block_source(block).unwrap()).collect::<Vec<_>>()
    };
    let unbound = UnboundCredential::parse(&CredentialBytes::new(stage.unbound()).unwrap()).unwrap();
    let scope = unbound.scope();
    let value = json!({
        "kind": "unbound_credential", "issuer": issuer, "token": hex(unbound.bytes().as_bytes()),
        "id": unbound.id().to_string(), "ops": scope.ops().to_string(),
        "expires_at": scope.expires_at().unwrap().to_string(), "session": SESSION,
        "datalog": source(unbound.bytes().as_bytes()),
    });
    valid(files, "credential-unbound", value);
    let mut credential = |name: &str, credential: &Credential| {
        let scope = credential.scope();
        let value = json!({
            "kind": "credential", "issuer": issuer, "token": hex(credential.bytes().as_bytes()),
            "id": credential.id().to_string(), "holder": hex(scope.holder().unwrap().as_bytes()),
            "ops": scope.ops().to_string(), "expires_at": scope.expires_at().unwrap().to_string(),
            "session": SESSION, "sealed": credential.is_sealed(), "narrowed": credential.attenuations(),
            "caveats": listed_caveats(credential), "datalog": source(credential.bytes().as_bytes()),
        });
        valid(files, name, value);
    };
    let bound = &stage.credential;
    let output = Some(OpSet::only(Op::StreamOutput).with(Op::Detach));
    let end = Some(stage.world.now.timestamp().plus(600));
    let narrow =
        |from: &Credential, ops, end, seed| from.attenuate(ops, end, &mut CounterRng::new(seed)).unwrap();
    credential("credential-bound", bound);
    credential("credential-bound-sealed", &bound.seal().unwrap());
    credential("credential-narrowed-ops", &narrow(bound, output, None, 10));
    credential("credential-narrowed-end", &narrow(bound, None, end, 11));
    let both = narrow(bound, output, end, 12);
    credential("credential-narrowed-both", &both);
    credential("credential-narrowed-sealed", &both.seal().unwrap());
    credential("credential-widened-in-vain", &narrow(&both, Some(OpSet::ALL), Some(Timestamp::MAX), 13));
    let six = (0..6).fold(bound.clone(), |from, n| narrow(&from, Some(OpSet::ALL), None, 20 + n));
    credential("credential-narrowed-six-times", &six);
}

fn valid_desktop_messages(stage: &Stage, files: &mut Files) {
    let device = stage.desktop.device;
    let value = json!({
        "kind": "registration", "issuer_secret": hex(&[9 ^ 0x55; 32]), "device": hex(device.as_bytes()),
        "agent": hex(stage.world.agent.public().as_bytes()), "handshake_hash": hex(&CHANNEL),
        "message": hex(&stage.desktop.issuer.registration(&device, &CHANNEL).to_bytes()),
    });
    valid(files, "registration", value);
    let offer = cbor::decode(&stage.pairing.offer.to_bytes()).unwrap();
    let receipt = stage.receipt.to_bytes();
    let value = json!({
        "kind": "offer", "comment": "at 1780000000, by the device and issuer of registration.json",
        "fields": json_of(&offer), "message": hex(&stage.pairing.offer.to_bytes()), "receipt": hex(&receipt),
    });
    valid(files, "offer", value);
    let value = json!({
        "kind": "receipt", "fields": json_of(&cbor::decode(&receipt).unwrap()), "message": hex(&receipt),
    });
    valid(files, "receipt", value);
    let message = stage.renewal();
    let (receipt, edition) = Stage::new().renew(&message).unwrap();
    let message = message.to_bytes();
    let value = json!({
        "kind": "renewal", "comment": "of valid/credential-bound.json, at 1780000000; the edition is what the phone's next attach brings",
        "fields": json_of(&cbor::decode(&message).unwrap()), "message": hex(&message),
        "receipt": hex(&receipt), "edition": hex(&edition),
    });
    valid(files, "renewal", value);
    let value = json!({
        "kind": "renewal_receipt", "fields": json_of(&cbor::decode(&receipt).unwrap()), "message": hex(&receipt),
    });
    valid(files, "renewal-receipt", value);
}

fn invalid_payloads(stage: &Stage, files: &mut Files) {
    let malformed = "payload_malformed";
    let redeem = cbor::decode_payload(&stage.request).unwrap();
    let good = cbor::payload(&redeem);
    assert_eq!(good, stage.request);
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        edit(&mut bytes);
        bytes
    };
    let framed = |map: &cbor::Map| [b"SCP1".to_vec(), cbor::encode(map)].concat();
    let extra: cbor::Map = [redeem.clone(), vec![(14, cbor::Value::Uint(0))]].concat();
    let reversed: cbor::Map = redeem.iter().rev().cloned().collect();
    let with = |key, value| cbor::payload(&cbor::with(&redeem, key, value));
    let mut bad = |name: &str, input: Vec<u8>| {
        let value = json!({ "kind": "request", "input": hex(&input), "error": malformed });
        invalid(files, &format!("request-{name}"), value);
    };
    bad("magic-alone", b"SCP1".to_vec());
    bad("unpadded", framed(&redeem));
    bad("padding-not-zero", edited(&|bytes| *bytes.last_mut().unwrap() = 1));
    bad(
        "padding-one-short",
        edited(&|bytes| {
            bytes.pop();
        }),
    );
    bad("trailing-byte", edited(&|bytes| bytes.push(0)));
    bad(
        "map-head-too-long",
        edited(&|bytes| {
            bytes.splice(4..5, [0xb8, 4]);
        }),
    );
    bad(
        "map-indefinite",
        edited(&|bytes| {
            bytes[4] = 0xbf;
            bytes.push(0xff);
        }),
    );
    bad("map-count-wrong", edited(&|bytes| bytes[4] = 0xa5));
    bad("tagged", edited(&|bytes| bytes.insert(4, 0xc1)));
    bad("array-instead-of-map", edited(&|bytes| bytes[4] = 0x84));
    bad("keys-in-another-order", cbor::payload(&reversed));
    bad("unknown-field", cbor::payload(&extra));
    bad("ticket-id-too-short", with(1, cbor::bytes(&[1; 15])));
    bad("proof-too-long", with(2, cbor::bytes(&[1; 65])));
    bad("label-too-long", with(3, cbor::Value::Text("x".repeat(41))));
    bad("label-with-newline", with(3, cbor::Value::Text("a\nb".to_owned())));
    bad("label-right-to-left", with(3, cbor::Value::Text("\u{202e}x".to_owned())));
    bad("label-tag", with(3, cbor::Value::Text("x\u{e0067}".to_owned())));
    bad("label-unassigned", with(3, cbor::Value::Text("x\u{378}".to_owned())));
    bad("label-blank", with(3, cbor::Value::Text("\u{200d}".to_owned())));
    bad("label-as-bytes", with(3, cbor::bytes(b"phone")));
    bad("empty-map", cbor::payload(&Vec::new()));
    bad("answer-as-request", stage.reply.clone());
    bad("unknown-op", cbor::payload(&vec![(4, cbor::Value::Uint(256)), (5, cbor::bytes(stage.bound()))]));
    bad("empty-credential", cbor::payload(&vec![(4, cbor::Value::Uint(0)), (5, cbor::bytes(&[]))]));
    bad(
        "credential-too-long",
        cbor::payload(&vec![(4, cbor::Value::Uint(0)), (5, cbor::bytes(&[1; 4_097]))]),
    );
    bad("both-kinds", cbor::payload(&[redeem.clone(), vec![(4, cbor::Value::Uint(0))]].concat()));

    let admitted = cbor::decode_payload(&stage.reply).unwrap();
    let with = |key, value| cbor::payload(&cbor::with(&admitted, key, value));
    let time = (7, cbor::Value::Uint(START as u64));
    let mut bad = |name: &str, to: &str, input: Vec<u8>, error: &str| {
        let value = json!({ "kind": "answer", "to": to, "input": hex(&input), "error": error });
        invalid(files, &format!("answer-{name}"), value);
    };
    bad("empty", "redeem", Vec::new(), "MessageMalformed");
    bad("unpadded", "redeem", framed(&admitted), "MessageMalformed");
    bad("request-as-answer", "redeem", stage.request.clone(), "MessageMalformed");
    bad("unknown-status", "redeem", with(6, cbor::Value::Uint(9)), "MessageMalformed");
    bad("time-after-9999", "redeem", with(7, cbor::Value::Uint(253_402_300_800)), "Time");
    bad("unknown-op", "redeem", with(9, cbor::Value::Uint(256)), "OpUnknown");
    bad("session-climbs", "redeem", with(10, cbor::Value::Text("..".to_owned())), "SessionId");
    bad("session-with-slash", "redeem", with(10, cbor::Value::Text("a/close".to_owned())), "SessionId");
    bad("admitted-without-credential", "redeem", cbor::payload(&admitted[..6].to_vec()), "AnswerMismatch");
    let pending =
        vec![(6, cbor::Value::Uint(1)), time.clone(), (8, cbor::Value::Uint(9)), (13, cbor::bytes(&[1; 16]))];
    bad("pending-to-attach", "attach", cbor::payload(&pending), "AnswerMismatch");
    bad("pending-without-nonce", "redeem", cbor::payload(&pending[..3].to_vec()), "MessageMalformed");
    let refused_with_more = vec![(6, cbor::Value::Uint(4)), time, (8, cbor::Value::Uint(9))];
    bad("refused-with-more", "redeem", cbor::payload(&refused_with_more), "MessageMalformed");

    let receipt = stage.receipt.to_bytes();
    let mut bad = |name: &str, input: Vec<u8>, error: &str| {
        let value = json!({ "kind": "receipt", "input": hex(&input), "error": error });
        invalid(files, &format!("receipt-{name}"), value);
    };
    let map = cbor::decode(&receipt).unwrap();
    let with = |key, value| cbor::encode(&cbor::with(&map, key, value));
    bad("trailing-byte", [receipt.as_slice(), &[0]].concat(), "MessageMalformed");
    bad("cut-short", receipt[..receipt.len() - 1].to_vec(), "MessageMalformed");
    bad("of-another-kind", with(0, cbor::Value::Uint(2)), "MessageMalformed");
    bad("time-after-9999", with(2, cbor::Value::Uint(253_402_300_800)), "Time");

    let offer = cbor::decode(&stage.pairing.offer.to_bytes()).unwrap();
    let mut bad = |name: &str, input: Vec<u8>, error: &str| {
        let value = json!({ "kind": "offer", "input": hex(&input), "error": error });
        invalid(files, &format!("offer-{name}"), value);
    };
    let with = |key, value| cbor::encode(&cbor::with(&offer, key, value));
    let text = |text: &str| cbor::Value::Text(text.to_owned());
    bad(
        "trailing-byte",
        [stage.pairing.offer.to_bytes().as_slice(), &[0]].concat(),
        "OfferMalformed(MessageMalformed)",
    );
    bad("of-another-kind", with(0, cbor::Value::Uint(1)), "OfferMalformed(MessageMalformed)");
    bad("issuer-of-low-order", with(1, cbor::bytes(&identity())), "OfferMalformed(KeyLowOrder)");
    bad("ticket-key-of-low-order", with(2, cbor::bytes(&identity())), "OfferMalformed(KeyLowOrder)");
    bad("ticket-key-off-curve", with(2, cbor::bytes(&off_curve())), "OfferMalformed(KeyNotCanonical)");
    let mut respelled = identity();
    respelled[31] = 0x80;
    bad("ticket-key-respelled", with(2, cbor::bytes(&respelled)), "OfferMalformed(KeyNotCanonical)");
    bad("ticket-of-another-key", with(2, cbor::bytes(&[3; 32])), "OfferMismatch");
    bad(
        "ticket-too-short-lived",
        with(3, cbor::Value::Uint(29)),
        "LifetimeOutOfBounds { min: 30, max: 900 }",
    );
    bad(
        "too-long-lived",
        with(4, cbor::Value::Uint(259_201)),
        "LifetimeOutOfBounds { min: 30, max: 259200 }",
    );
    bad(
        "end-does-not-fit",
        with(4, cbor::Value::Uint(43_200 - 61)),
        "ClockSkew { agent_time: Timestamp(2026-05-28T20:26:40Z) }",
    );
    bad("label-with-newline", with(5, text("a\nb")), r"OfferMalformed(Label(Control { character: '\n' }))");
    bad("confirm-neither-0-nor-1", with(6, cbor::Value::Uint(2)), "OfferMalformed(MessageMalformed)");
    bad("credential-bound", with(7, cbor::bytes(stage.bound())), "OfferMalformed(Credential(Binding))");
    let sealed = stage.sealed_unbound();
    bad("credential-sealed", with(7, cbor::bytes(&sealed)), "OfferMalformed(Credential(Binding))");
    invalid_renewals(stage, files);
}

fn invalid_renewals(stage: &Stage, files: &mut Files) {
    let message = stage.renewal();
    let (receipt, _) = Stage::new().renew(&message).unwrap();
    let message = message.to_bytes();
    let map = cbor::decode(&message).unwrap();
    let mut bad = |name: &str, input: Vec<u8>, error: &str| {
        let value = json!({
            "kind": "renewal", "comment": "at the agent that gave out valid/credential-bound.json",
            "input": hex(&input), "error": error,
        });
        invalid(files, &format!("renewal-{name}"), value);
    };
    let with = |key, value| cbor::encode(&cbor::with(&map, key, value));
    bad("trailing-byte", [message.as_slice(), &[0]].concat(), "OfferMalformed(MessageMalformed)");
    bad("of-another-kind", with(0, cbor::Value::Uint(2)), "OfferMalformed(MessageMalformed)");
    bad("issuer-of-low-order", with(1, cbor::bytes(&identity())), "OfferMalformed(KeyLowOrder)");
    bad("by-another-issuer", with(1, cbor::bytes(&[3; 32])), "RenewalMismatch");
    bad("too-short-lived", with(2, cbor::Value::Uint(29)), "LifetimeOutOfBounds { min: 30, max: 259200 }");
    let late = "ClockSkew { agent_time: Timestamp(2026-05-28T20:26:40Z) }";
    bad("end-does-not-fit", with(2, cbor::Value::Uint(86_400 - 61)), late);
    bad("credential-bound", with(3, cbor::bytes(stage.bound())), "OfferMalformed(Credential(Binding))");
    let token = UnverifiedBiscuit::from(cbor::bytes_of(&map, 3)).unwrap();
    let sealed = token.seal().unwrap().to_vec().unwrap();
    bad("credential-sealed", with(3, cbor::bytes(&sealed)), "OfferMalformed(Credential(Binding))");
    bad("of-another-ticket", with(3, cbor::bytes(&other_ticket(stage))), "RenewalMismatch");
    let mut bad = |name: &str, input: Vec<u8>, error: &str| {
        let value = json!({ "kind": "renewal_receipt", "input": hex(&input), "error": error });
        invalid(files, &format!("renewal-receipt-{name}"), value);
    };
    let map = cbor::decode(&receipt).unwrap();
    let with = |key, value| cbor::encode(&cbor::with(&map, key, value));
    bad("trailing-byte", [receipt.as_slice(), &[0]].concat(), "MessageMalformed");
    bad("of-another-kind", with(0, cbor::Value::Uint(3)), "MessageMalformed");
    bad("waiting-neither-0-nor-1", with(4, cbor::Value::Uint(2)), "MessageMalformed");
}

/// A rightly signed block for the same credential from a ticket that never was.
fn other_ticket(stage: &Stage) -> Vec<u8> {
    let renewal = Renewal {
        credential: stage.pairing.credential,
        ticket: TicketId::from_bytes([9; 16]),
        session: session(SESSION),
        ops: OpSet::ALL,
        valid_for: 86_400,
    };
    let time = stage.world.now.timestamp();
    let message = stage.desktop.issuer.renew(renewal, time, &mut CounterRng::new(6)).unwrap();
    cbor::bytes_of(&cbor::decode(&message.to_bytes()).unwrap(), 3)
}

fn identity() -> [u8; 32] {
    let mut identity = [0; 32];
    identity[0] = 1;
    identity
}

/// y = 2
fn off_curve() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 2;
    bytes
}

fn invalid_credentials(stage: &Stage, files: &mut Files) {
    let mut bad = |name: &str, input: Vec<u8>| {
        let error = show(CredentialBytes::new(input.clone()).and_then(|bytes| Credential::parse(&bytes)));
        let value = json!({ "kind": "credential", "input": hex(&input), "error": error });
        invalid(files, &format!("credential-{name}"), value);
        error
    };
    // What a holder may not append.
    for (name, code) in [
        ("fact-operation", r#"operation("send_input");"#),
        ("fact-time", "time(2019-01-01T00:00:00Z);"),
        ("rule", r#"operation("x") <- session($s);"#),
        ("check-true", "check if true;"),
        ("check-epoch", "check if epoch(2);"),
        ("check-regex", r#"check if session($s), $s.matches("^(a+)+$");"#),
        ("check-closure", "check if [1,2,3].all($x -> $x > 0);"),
        ("check-unknown-op", r#"check all operation($o), {"fleet"}.contains($o);"#),
        ("check-privilege", r#"check all operation($o), {"send_input", "administer"}.contains($o);"#),
        ("check-array", r#"check all operation($o), ["send_input"].contains($o);"#),
        ("check-other-variable", r#"check all operation($x), {"send_input"}.contains($x);"#),
        ("check-if-for-all", r#"check if operation($o), {"send_input"}.contains($o);"#),
        ("check-or", r#"check all operation($o), {"send_input"}.contains($o) or true;"#),
        ("check-no-op", "check all operation($o), {,}.contains($o);"),
        ("check-at-most", "check all time($t), $t <= 2030-01-01T00:00:00Z;"),
        ("check-scope", "check all time($t), $t < 2030-01-01T00:00:00Z trusting previous;"),
        ("check-reject", "reject if time($t), $t > 2030-01-01T00:00:00Z;"),
        (
            "checks-in-wrong-order",
            r#"check all time($t), $t < 2030-01-01T00:00:00Z; check all operation($o), {"send_input"}.contains($o);"#,
        ),
        (
            "check-twice",
            "check all time($t), $t < 2030-01-01T00:00:00Z; check all time($t), $t < 2031-01-01T00:00:00Z;",
        ),
        ("second-binding", &stage.datalog(1)),
        ("empty-block", ""),
    ] {
        let error = bad(&format!("smuggled-{name}"), stage.with_block(code));
        assert!(
            error.contains("Content { block: 2 }") || error.contains("Cryptography { block: 2 }"),
            "{name}"
        );
    }
    // What an issuer may not write.
    let authority = stage.datalog(0);
    let ed25519 = key_pair(6);
    assert!(
        Credential::parse(&CredentialBytes::new(stage.with_authority(&authority, &ed25519)).unwrap()).is_ok()
    );
    let without =
        |word: &str| authority.lines().filter(|line| !line.contains(word)).collect::<Vec<_>>().join("\n");
    for (name, code) in [
        ("time-fact", format!("{authority}time(2019-01-01T00:00:00Z);")),
        ("operation-fact", format!("{authority}operation(\"send_input\");")),
        ("rule", format!("{authority}live($a, $b, $c) <- credential($a), ticket($b), peer($c);")),
        ("version-2", authority.replace("version(1)", "version(2)")),
        ("second-credential", format!("{authority}credential(hex:00);")),
        ("no-session", without("check if session(")),
        ("no-end", without("check all time(")),
        ("no-ticket", without("redeemed(")),
        ("address-not-canonical", authority.replace("wss://agent", "wss://AGENT")),
        ("session-climbs", authority.replace(SESSION, "../sessions?x=")),
        ("privilege", authority.replace("\"send_input\"", "\"create_session\"")),
    ] {
        assert_ne!(code, authority, "{name}");
        let error = bad(&format!("authority-{name}"), stage.with_authority(&code, &ed25519));
        assert!(error.contains("Content { block: 0 }"), "{name}: {error}");
    }
    // Keys, signatures and envelope.
    let p256 = KeyPair::new_with_rng(Algorithm::Secp256r1, &mut CounterRng::new(5));
    assert!(
        bad("p256-next-key", stage.with_authority(&authority, &p256)).contains("Cryptography { block: 0 }")
    );
    let mut envelope = |name: &str, input: Vec<u8>| bad(&format!("envelope-{name}"), input);
    envelope("root-key-id", stage.edited(|token| token.root_key_id = Some(1)));
    envelope("block-version", stage.edited(|token| token.blocks[0].version = Some(1)));
    envelope("block-version-0", stage.edited(|token| token.authority.version = Some(0)));
    envelope("key-algorithm", stage.edited(|token| token.authority.next_key.algorithm = 1));
    envelope(
        "key-short",
        stage.edited(|token| {
            token.authority.next_key.key.pop();
        }),
    );
    envelope("signature-long", stage.edited(|token| token.authority.signature.push(0)));
    envelope(
        "external-signature",
        stage.edited(|token| {
            token.blocks[0].external_signature = Some(schema::ExternalSignature {
                signature: token.blocks[0].signature.clone(),
                public_key: token.blocks[0].next_key.clone(),
            });
        }),
    );
    envelope(
        "secret-short",
        stage.edited(|token| {
            token.proof.content = Some(schema::proof::Content::NextSecret(vec![1; 31]));
        }),
    );
    envelope("no-proof", stage.edited(|token| token.proof.content = None));
    envelope("unknown-field", [stage.bound(), &[0x30, 0x01]].concat());
    envelope("cut-short", stage.bound()[..stage.bound().len() - 1].to_vec());
    envelope("field-twice", [stage.bound(), &stage.bound()[stage.bound().len() - 36..]].concat());
    envelope("not-protobuf", b"not a credential".to_vec());
    envelope("too-long", vec![1; limits::MAX_CREDENTIAL_LEN + 1]);
    envelope("nine-blocks", {
        let block = BlockBuilder::new().code("check all time($t), $t < 2030-01-01T00:00:00Z;").unwrap();
        let token = UnverifiedBiscuit::from(stage.bound()).unwrap();
        let append =
            |token: UnverifiedBiscuit, n| token.append_with_keypair(&key_pair(n), block.clone()).unwrap();
        (30..37).fold(token, append).to_vec().unwrap()
    });
    bad("unbound-as-bound", stage.unbound());
    let check_less = schema::Block { version: Some(4), ..Default::default() };
    let input = stage.with_raw_block(check_less.encode_to_vec());
    let issuer = stage.issuer_key().public();
    assert!(Biscuit::from(&input, issuer).is_ok(), "nothing is wrong but what it says");
    assert_eq!(bad("block-without-caveats", input), "Credential(Content { block: 2 })");
    let sealed = json!({
        "kind": "unbound_credential", "input": hex(&stage.sealed_unbound()), "error": "Credential(Binding)",
    });
    invalid(files, "credential-unbound-sealed", sealed);
    let bound_as_unbound = json!({
        "kind": "unbound_credential", "input": hex(stage.bound()), "error": "Credential(Binding)",
    });
    invalid(files, "credential-bound-as-unbound", bound_as_unbound);

    // In good shape, and worth nothing at the agent that has the record.
    let mut attach = |name: &str, input: Vec<u8>, holder: u8, error: &str| {
        let value = json!({
            "kind": "attach", "comment": "at the agent that gave out valid/credential-bound.json",
            "input": hex(&input), "holder_secret": hex(&[holder; 32]), "error": error,
        });
        invalid(files, &format!("attach-{name}"), value);
    };
    let signature = "credential_signature_invalid";
    attach("other-phone", stage.bound().to_vec(), 3, "holder_mismatch");
    attach("authority-signature", stage.edited(|token| token.authority.signature[0] ^= 1), 2, signature);
    attach("binding-signature", stage.edited(|token| token.blocks[0].signature[0] ^= 1), 2, signature);
    attach(
        "next-secret",
        stage.edited(|token| {
            token.proof.content = Some(schema::proof::Content::NextSecret(vec![1; 32]));
        }),
        2,
        signature,
    );
    attach(
        "seal-signature",
        {
            let sealed = stage.credential.seal().unwrap();
            let mut token = schema::Biscuit::decode(sealed.bytes().as_bytes()).unwrap();
            token.proof.content = Some(schema::proof::Content::FinalSignature(vec![1; 64]));
            token.encode_to_vec()
        },
        2,
        signature,
    );
    attach(
        "own-binding-with-a-later-end",
        stage.with_own_binding("2026-05-29", "2026-05-30"),
        2,
        "credential_retired",
    );
    let other = format!("hex:{}", phone(3).public());
    let own = format!("hex:{}", phone(2).public());
    attach("own-binding-of-another-phone", stage.with_own_binding(&own, &other), 2, signature);
    let epoch = |number: u64| format!("epoch({number})");
    attach("own-binding-of-another-epoch", stage.with_own_binding(&epoch(2), &epoch(3)), 2, signature);
    attach(
        "authority-signature-of-low-order",
        stage.edited(|token| {
            let signed = &mut token.authority;
            let message = [signed.block.as_slice(), &[0; 4], &signed.next_key.key].concat();
            signed.signature = lax::signature(&[9 ^ 0x55; 32], &message).to_vec();
        }),
        2,
        signature,
    );
    attach(
        "other-issuer",
        {
            let token = Biscuit::builder().code(stage.datalog(0)).unwrap();
            let token = token.build_with_key_pair(&key_pair(40), Default::default(), &key_pair(41)).unwrap();
            let binding = BlockBuilder::new().code(stage.datalog(1)).unwrap();
            token.append_with_keypair(&key_pair(42), binding).unwrap().to_vec().unwrap()
        },
        2,
        signature,
    );
    attach(
        "other-credential-id",
        {
            let id = stage.credential.id().to_string();
            let code = stage.datalog(0).replace(&id, &"ab".repeat(16));
            stage.with_authority(&code, &key_pair(6))
        },
        2,
        "credential_unknown",
    );
}

fn invalid_keys(files: &mut Files) {
    let near_p = |low: u8, high: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (low, high);
        bytes
    };
    let small = |value: u8| {
        let mut bytes = [0; 32];
        bytes[0] = value;
        bytes
    };
    let order_8_a = unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    let order_8_b = unhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157");
    let mut with_bit_255 = *phone(2).public().as_bytes();
    with_bit_255[31] |= 0x80;
    for (name, key, error) in [
        ("zero", small(0).to_vec(), "KeyLowOrder"),
        ("one", small(1).to_vec(), "KeyLowOrder"),
        ("order-8", order_8_a, "KeyLowOrder"),
        ("order-8-other", order_8_b, "KeyLowOrder"),
        ("p-minus-1", near_p(0xec, 0x7f).to_vec(), "KeyLowOrder"),
        ("p", near_p(0xed, 0x7f).to_vec(), "KeyNotCanonical"),
        ("p-plus-1", near_p(0xee, 0x7f).to_vec(), "KeyNotCanonical"),
        ("p-plus-9", near_p(0xf6, 0x7f).to_vec(), "KeyNotCanonical"),
        ("bit-255", with_bit_255.to_vec(), "KeyNotCanonical"),
        ("all-ones", [0xff; 32].to_vec(), "KeyNotCanonical"),
    ] {
        let value = json!({ "kind": "x25519_key", "input": hex(&key), "error": error });
        invalid(files, &format!("x25519-{name}"), value);
    }
    let mut negative_zero = small(1);
    negative_zero[31] = 0x80;
    let order_8 = unhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a");
    for (name, key, error) in [
        ("identity", identity().to_vec(), "KeyLowOrder"),
        ("order-2", near_p(0xec, 0x7f).to_vec(), "KeyLowOrder"),
        ("order-4", small(0).to_vec(), "KeyLowOrder"),
        ("order-8", order_8, "KeyLowOrder"),
        ("identity-respelled", near_p(0xee, 0x7f).to_vec(), "KeyNotCanonical"),
        ("negative-zero", negative_zero.to_vec(), "KeyNotCanonical"),
        ("off-curve", off_curve().to_vec(), "KeyNotCanonical"),
    ] {
        let value = json!({ "kind": "ed25519_key", "input": hex(&key), "error": error });
        invalid(files, &format!("ed25519-{name}"), value);
    }
}

fn frames(files: &mut Files) {
    let control = |head: u8, code: u16, detail: u16, number: u64| {
        [&[head], code.to_be_bytes().as_slice(), &detail.to_be_bytes(), &number.to_be_bytes()].concat()
    };
    for (name, head, code, detail, number) in [
        ("notice-not-granted", "notice", 1, 5, 3),
        ("notice-never-allowed", "notice", 2, 1, 0),
        ("notice-of-the-agent", "notice", 64, 9, 1_u64 << 40),
        ("ping", "ping", 0, 0, 7),
        ("ping-answer", "ping", 1, 0, 7),
        ("end-left", "end", 0, 0, 0),
        ("end-revoked", "end", 4, 0, 0),
        ("end-too-slow", "end", 33, 0, 0),
        ("end-of-the-agent", "end", 64, 0, 0),
    ] {
        let first = match head {
            "notice" => 1,
            "ping" => 2,
            _ => 3,
        };
        let plaintext = hex(&control(first, code, detail, number));
        let value = json!({
            "kind": "frame", "frame": head, "code": code, "detail": detail, "number": number,
            "plaintext": plaintext,
        });
        valid(files, &format!("frame-{name}"), value);
    }
    for (name, data) in [("empty", b"".as_slice()), ("bytes", b"ls -l\n"), ("like-a-notice", &[1; 13])] {
        let plaintext = hex(&[&[0], data].concat());
        let value = json!({ "kind": "frame", "frame": "data", "data": hex(data), "plaintext": plaintext });
        valid(files, &format!("frame-data-{name}"), value);
    }
    for (name, bytes) in [("bytes", b"begin ".as_slice()), ("like-a-notice", &[1; 12])] {
        let plaintext = hex(&[&[4], bytes].concat());
        let value = json!({ "kind": "frame", "frame": "part", "data": hex(bytes), "plaintext": plaintext });
        valid(files, &format!("frame-part-{name}"), value);
    }
    let value = json!({ "kind": "frame", "frame": "discard", "data": "", "plaintext": "04" });
    valid(files, "frame-discard", value);
    for (name, plaintext) in [
        ("empty", Vec::new()),
        ("no-head", b"{}".to_vec()),
        ("unknown-kind", control(5, 0, 0, 0)),
        ("notice-short", control(1, 1, 0, 0)[..12].to_vec()),
        ("notice-long", [control(1, 1, 0, 0), vec![0]].concat()),
        ("ping-unknown-code", control(2, 2, 0, 0)),
        ("ping-with-detail", control(2, 0, 1, 0)),
        ("end-with-detail", control(3, 0, 1, 0)),
        ("end-with-number", control(3, 0, 0, 1)),
    ] {
        let value = json!({ "kind": "frame", "input": hex(&plaintext), "error": "MessageMalformed" });
        invalid(files, &format!("frame-{name}"), value);
    }
}

fn invalid_names(files: &mut Files) {
    let mut bad = |kind: &str, name: &str, input: &str, error: &str| {
        let value = json!({ "kind": kind, "input": input, "error": error });
        invalid(files, &format!("{}-{name}", kind.replace('_', "-")), value);
    };
    for (name, id) in [
        ("empty", ""),
        ("dot", "."),
        ("dot-dot", ".."),
        ("climbs", "../sessions?x="),
        ("other-and-verb", "OTHER/close#"),
        ("with-argument", "X notail"),
        ("second-line", "X\nY"),
        ("percent-encoded", "a%2Fb"),
        ("not-ascii", "séance"),
        ("too-long", &"x".repeat(129)),
    ] {
        bad("session_id", name, id, "SessionId");
    }
    for (name, url, problem) in [
        ("no-scheme", "agent.example", "Scheme"),
        ("ftp", "ftp://agent.example", "Scheme"),
        ("no-host", "wss://", "Host"),
        ("empty-label", "wss://agent..example", "Host"),
        ("not-ascii", "wss://agént.example", "Host"),
        ("short-ipv4", "wss://127.1", "Host"),
        ("hexadecimal-ipv4", "wss://0x7f000001", "Host"),
        ("ipv6-with-zone", "wss://[fe80::1%eth0]", "Host"),
        ("port-0", "wss://agent.example:0", "Port"),
        ("port-with-leading-zero", "wss://agent.example:080", "Port"),
        ("path-climbs", "wss://agent.example/../ws", "Path"),
        ("path-percent-encoded", "wss://agent.example/a%2fb", "Path"),
        ("user-name", "wss://user@agent.example", "Extra"),
        ("query", "wss://agent.example/ws?x=1", "Extra"),
    ] {
        bad("agent_url", name, url, &format!("AgentUrl({problem})"));
    }
    let one = |kind: &str, character: char| format!("Label({kind} {{ character: {character:?} }})");
    for (name, character) in INVISIBLE {
        bad("label", name, &format!("a{character}b"), &one("Invisible", character));
    }
    for (name, kind, character) in [
        ("newline", "Control", '\n'),
        ("escape", "Control", '\u{1b}'),
        ("next-line", "Control", '\u{85}'),
        ("line-separator", "Separator", '\u{2028}'),
        ("paragraph-separator", "Separator", '\u{2029}'),
        ("private-use", "PrivateUse", '\u{e000}'),
        ("private-use-last-plane", "PrivateUse", '\u{10fffd}'),
        ("unassigned", "Unassigned", '\u{378}'),
        ("unassigned-emoji", "Unassigned", '\u{1fac7}'),
        ("noncharacter", "Unassigned", '\u{ffff}'),
        ("noncharacter-last", "Unassigned", '\u{10ffff}'),
    ] {
        bad("label", name, &format!("a{character}b"), &one(kind, character));
    }
    for (name, label) in [
        ("space", " "),
        ("wide-space", "\u{3000}\u{a0}"),
        ("joiner", "\u{200d}"),
        ("mark", "\u{301}"),
        ("variation-selector", "\u{fe0f}"),
        ("braille-blank", "\u{2800}"),
    ] {
        bad("label", &format!("blank-{name}"), label, "Label(Blank)");
    }
    for (name, label) in [("too-long", "x".repeat(41)), ("too-long-in-bytes", "é".repeat(20) + "x")] {
        bad("label", name, &label, "Label(TooLong { max: 40 })");
    }
}

/// Characters that hide, or change what stands around them.
const INVISIBLE: [(&str, char); 19] = [
    ("soft-hyphen", '\u{ad}'),
    ("grapheme-joiner", '\u{34f}'),
    ("arabic-number-sign", '\u{600}'),
    ("arabic-letter-mark", '\u{61c}'),
    ("hangul-choseong-filler", '\u{115f}'),
    ("mongolian-variation-selector", '\u{180b}'),
    ("mongolian-vowel-separator", '\u{180e}'),
    ("zero-width", '\u{200b}'),
    ("right-to-left-mark", '\u{200f}'),
    ("right-to-left", '\u{202e}'),
    ("word-joiner", '\u{2060}'),
    ("isolate", '\u{2066}'),
    ("hangul-filler", '\u{3164}'),
    ("variation-selector-1", '\u{fe00}'),
    ("byte-order-mark", '\u{feff}'),
    ("halfwidth-hangul-filler", '\u{ffa0}'),
    ("musical-begin-beam", '\u{1d173}'),
    ("tag", '\u{e0067}'),
    ("ideographic-variation-selector", '\u{e0100}'),
];

fn valid_labels(files: &mut Files) {
    for (name, label) in [
        ("empty", ""),
        ("plain", "phone"),
        ("joiner-in-emoji", "👩\u{200d}💻"),
        ("joiner-in-sinhala", "ශ\u{dca}\u{200d}රී"),
        ("non-joiner-in-persian", "علی\u{200c}رضا"),
        ("emoji-style", "❤\u{fe0f}"),
        ("text-style", "❤\u{fe0e}"),
        ("keycap", "1\u{fe0f}\u{20e3}"),
        ("flag", "🇪🇺"),
        ("combining-mark", "e\u{301}"),
        ("right-to-left-script", "محمد"),
        ("no-break-space", "a\u{a0}b"),
        ("unicode-16", "\u{1fae9}"),
        ("longest", &"é".repeat(20)),
    ] {
        valid(files, &format!("label-{name}"), json!({ "kind": "label", "input": label }));
    }
}
