//! Test vectors as files, for this implementation and for others.
//!
//! `vectors/valid/*.json` hold inputs and the bytes that must result, `vectors/invalid/*.json`
//! one defective input each, named for its defect, with the error that it must give. Each file names
//! its kind. Bytes are lower-case hexadecimal. Every file is checked from its own content alone, and
//! all of them together must be what this build would write:
//!
//! ```text
//! cargo test --all-features --test vectors -- --ignored regenerate
//! ```
#![cfg(all(
    feature = "agent",
    feature = "holder",
    feature = "issuer",
    feature = "attenuate",
    feature = "acp",
    feature = "dd"
))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;
mod vectors_made;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use biscuit_auth::builder::Algorithm;
use biscuit_auth::{Biscuit, PublicKey};
use common::rng::{CounterRng, Fixed};
use common::*;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use serde_json::{Value, json};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::noise::{Initiator, Responder};
use sessioncap::phone::*;
use sessioncap::session::{FromAgent, FromPhone};
use sessioncap::*;
use sha2::{Digest, Sha256};
use vectors_made::{Stage, generate};

/// Path below `vectors/` → content.
type Files = BTreeMap<String, Value>;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(
        text.len().is_multiple_of(2)
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The members of one file, each of which must be looked at.
struct Fields {
    name: String,
    left: BTreeMap<String, Value>,
}

impl Fields {
    fn take(&mut self, key: &str) -> Value {
        self.left.remove(key).unwrap_or_else(|| panic!("{}: no `{key}`", self.name))
    }

    fn text(&mut self, key: &str) -> String {
        self.take(key).as_str().unwrap_or_else(|| panic!("{}: `{key}` is no text", self.name)).to_owned()
    }

    fn number(&mut self, key: &str) -> u64 {
        self.take(key).as_u64().unwrap_or_else(|| panic!("{}: `{key}` is no number", self.name))
    }

    fn bytes(&mut self, key: &str) -> Vec<u8> {
        unhex(&self.text(key))
    }

    fn array<const N: usize>(&mut self, key: &str) -> [u8; N] {
        self.bytes(key).try_into().unwrap_or_else(|_| panic!("{}: `{key}` is not {N} bytes", self.name))
    }
}

#[test]
fn every_file_holds_by_its_own_content() {
    let files = read_files();
    assert!(files.len() > 300, "{}", files.len());
    for (name, value) in files {
        check_file(&name, &value);
    }
}

/// Defects that only one check sees; `weakened/` has a patch for each such check.
fn holds(names: &[&str]) {
    let files = read_files();
    for name in names {
        check_file(name, &files[*name]);
    }
}

#[test]
fn a_link_that_names_its_agent_in_another_spelling_is_damaged() {
    holds(&[
        "invalid/link-damaged-default-port-spelled.json",
        "invalid/link-damaged-behind-digits-default-port-spelled.json",
        "invalid/link-scheme-damaged-default-port-spelled.json",
    ]);
}

#[test]
fn a_link_whose_checksum_covers_another_spelling_than_the_writers_is_damaged() {
    holds(&[
        "invalid/link-damaged-own-default-port-covered.json",
        "invalid/link-damaged-behind-digits-default-port-covered.json",
        "invalid/link-scheme-damaged-default-port-covered.json",
    ]);
}

#[test]
fn a_links_agent_is_read_as_any_other_agent_address() {
    holds(&[
        "invalid/link-damaged-ipv6-mapped.json",
        "invalid/link-damaged-ipv6-port-0.json",
        "invalid/link-damaged-own-port-0.json",
        "invalid/link-scheme-damaged-ipv6-mapped.json",
        "invalid/link-scheme-damaged-ipv6-port-0.json",
    ]);
}

#[test]
fn a_link_host_is_checked_before_the_digits() {
    holds(&[
        "invalid/link-foreign-link-host-no-digits.json",
        "invalid/link-foreign-link-host-ipv4-newer.json",
        "invalid/link-foreign-link-host-with-port.json",
    ]);
}

#[test]
fn a_sealed_unbound_credential_is_refused() {
    holds(&[
        "invalid/credential-unbound-sealed.json",
        "invalid/offer-credential-sealed.json",
        "invalid/renewal-credential-sealed.json",
    ]);
}

#[test]
fn a_block_without_caveats_is_refused() {
    holds(&["invalid/credential-block-without-caveats.json"]);
}

#[test]
fn a_binding_block_for_another_phone_than_the_records_gets_no_answer() {
    holds(&["invalid/attach-own-binding-of-another-phone.json"]);
}

#[test]
fn a_binding_block_for_another_epoch_than_the_records_gets_no_answer() {
    holds(&["invalid/attach-own-binding-of-another-epoch.json"]);
}

fn check_file(name: &str, value: &Value) {
    let left = value.as_object().unwrap().clone().into_iter().collect();
    let mut fields = Fields { name: name.to_owned(), left };
    let kind = fields.text("kind");
    let _comment = fields.left.remove("comment");
    match (name.split('/').next().unwrap(), kind.as_str()) {
        ("valid", "ticket") => check_ticket(&mut fields),
        ("valid", "proof") => check_proof(&mut fields),
        ("valid", "pair_code") => check_pair_code(&mut fields),
        ("valid", "label") => {
            let input = fields.text("input");
            assert_eq!(Label::new(input.as_str()).unwrap().as_str(), input);
        }
        ("valid", "link") => check_link(&mut fields),
        ("valid", "request") => check_request(&mut fields),
        ("valid", "answer") => check_answer(&mut fields),
        ("valid", "handshake") => check_handshake(&mut fields),
        ("valid", "unbound_credential" | "credential") => check_credential(&mut fields, &kind),
        ("valid", "registration") => check_registration(&mut fields),
        ("valid", "offer") => check_offer(&mut fields),
        ("valid", "receipt") => check_receipt(&mut fields),
        ("valid", "renewal") => check_renewal(&mut fields),
        ("valid", "frame") => check_frame(&mut fields),
        ("valid", "frames") => check_frames(&mut fields),
        ("valid", "from_phone") => check_session(&mut fields, true),
        ("valid", "from_agent") => check_session(&mut fields, false),
        ("valid", "stored") => vectors_made::stored::check_stored(&mut fields),
        ("valid", "key") => vectors_made::keys::check_key(&mut fields),
        ("valid", "apple_file") => vectors_made::web::check_apple(&mut fields),
        ("valid", "android_file") => vectors_made::web::check_android(&mut fields),
        ("valid", "landing_page") => vectors_made::web::check_page(&mut fields),
        ("valid", "renewal_receipt") => check_renewal_receipt(&mut fields),
        ("valid", "pair_request") => check_json::<sessioncap::pair::Request>(&mut fields),
        ("valid", "pair_answer") => check_json::<sessioncap::pair::Answer>(&mut fields),
        ("valid", "acp_from_phone") => vectors_made::adapters::check_acp_from_phone(&mut fields),
        ("valid", "acp_to_phone") => vectors_made::adapters::check_acp_to_phone(&mut fields),
        ("valid", "dd_request") => vectors_made::adapters::check_dd_request(&mut fields),
        ("invalid", _) => check_invalid(&mut fields, &kind),
        _ => panic!("{name}: unknown kind `{kind}`"),
    }
    assert!(fields.left.is_empty(), "{name}: unknown members {:?}", fields.left);
}

/// Every vector as it is on disk.
fn spelled() -> vector_files::Files {
    generate().into_iter().map(|(name, value)| (name, vector_files::spelled(&value))).collect()
}

#[test]
fn the_files_are_what_this_build_writes() {
    vector_files::assert_same(&spelled(), &directory(), &["valid", "invalid"]);
}

#[test]
#[ignore = "writes the files"]
fn regenerate() {
    let _ = fs::remove_dir_all(directory());
    vector_files::write(&spelled(), &directory());
}

fn read_files() -> Files {
    let mut files = Files::new();
    for folder in fs::read_dir(directory()).expect("the vectors are committed") {
        let folder = folder.unwrap();
        for file in fs::read_dir(folder.path()).unwrap_or_else(|_| panic!("{folder:?} does not belong here"))
        {
            let path = file.unwrap().path();
            assert_eq!(
                path.extension().and_then(|e| e.to_str()),
                Some("json"),
                "{path:?} does not belong here"
            );
            let name = path.strip_prefix(directory()).unwrap().to_str().unwrap().to_owned();
            files.insert(name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap());
        }
    }
    files
}

// --- the kinds of vectors ---

fn agent_key(bytes: [u8; 32]) -> AgentPublicKey {
    AgentPublicKey::from_bytes(bytes).unwrap()
}

/// Section 4, from the primitives and not from the library.
fn ticket_signing_key(secret: &[u8]) -> SigningKey {
    let mut seed = [0; 32];
    Hkdf::<Sha256>::new(Some(b"sessioncap/1"), secret).expand(b"ticket-signing-key", &mut seed).unwrap();
    SigningKey::from_bytes(&seed)
}

fn ticket_id(public_key: &[u8]) -> Vec<u8> {
    Sha256::digest([b"sessioncap/1 ticket-id\0", public_key].concat())[..16].to_vec()
}

fn check_ticket(fields: &mut Fields) {
    let secret: [u8; 16] = fields.array("secret");
    let key = TicketSecret::from_bytes(secret).public_key();
    let (public_key, id) = (fields.bytes("public_key"), fields.bytes("id"));
    assert_eq!((key.as_bytes().to_vec(), key.id().as_bytes().to_vec()), (public_key.clone(), id.clone()));
    assert_eq!(ticket_signing_key(&secret).verifying_key().to_bytes().to_vec(), public_key);
    assert_eq!(ticket_id(&public_key), id);
}

fn proof_message(agent: &[u8], holder: &[u8], id: &[u8]) -> Vec<u8> {
    [b"sessioncap/1 redeem\0", agent, holder, id].concat()
}

fn check_proof(fields: &mut Fields) {
    let secret: [u8; 16] = fields.array("secret");
    let agent = AgentSecretKey::from_bytes(fields.array("agent_secret"));
    let holder = HolderSecretKey::from_bytes(fields.array("holder_secret"));
    let proof: [u8; 64] = fields.array("proof");
    let key = ticket_signing_key(&secret);
    let id = ticket_id(key.verifying_key().as_bytes());
    let message = proof_message(agent.public().as_bytes(), holder.public().as_bytes(), &id);
    assert_eq!(key.sign(&message).to_bytes(), proof);
    let link = Link::new(AgentUrl::parse(URL).unwrap(), agent.public(), TicketSecret::from_bytes(secret));
    let asking = redeem(&link, &holder, Label::default(), &mut CounterRng::new(0)).unwrap();
    let received = Responder::read(&agent, &asking.message, &mut CounterRng::new(0)).unwrap();
    let map = cbor::decode_payload(received.payload()).unwrap();
    assert_eq!((cbor::bytes_of(&map, 1), cbor::bytes_of(&map, 2)), (id, proof.to_vec()));
}

fn check_pair_code(fields: &mut Fields) {
    let ticket = TicketId::from_bytes(fields.array("ticket"));
    let agent = agent_key(fields.array("agent"));
    let holder = HolderPublicKey::from_bytes(fields.array("holder")).unwrap();
    let nonce: [u8; 16] = fields.array("nonce");
    let code = fields.text("code");
    assert_eq!(PairCode::new(&ticket, &agent, &holder, &nonce).to_string(), code);
    let label = b"sessioncap/1 pair-code\0".as_slice();
    let hash =
        Sha256::digest([label, ticket.as_bytes(), agent.as_bytes(), holder.as_bytes(), &nonce].concat());
    let number = u64::from_be_bytes(hash[..8].try_into().unwrap()) % 1_000_000;
    assert_eq!(format!("{:03} {:03}", number / 1_000, number % 1_000), code);
}

fn check_link(fields: &mut Fields) {
    let url = AgentUrl::parse(&fields.text("agent_url")).unwrap();
    let agent = agent_key(fields.array("agent"));
    let link = Link::new(url, agent, TicketSecret::from_bytes(fields.array("secret")));
    let text = fields.text("text");
    if fields.left.contains_key("scheme") {
        let scheme = fields.text("scheme");
        assert_eq!(link.to_custom_scheme(&scheme).unwrap(), text);
        assert_eq!(Link::parse_custom_scheme(&text, &scheme).unwrap(), link);
        return;
    }
    let host = match fields.take("link_host") {
        Value::Null => LinkHost::Agent,
        host => LinkHost::Fixed(host.as_str().unwrap().to_owned()),
    };
    assert_eq!(link.to_https(&host).unwrap(), text);
    assert_eq!(Link::parse(&text).unwrap(), link);
    let segments = link.to_qr_segments(&host).unwrap();
    assert_eq!(qr_segments(&segments), fields.take("qr"));
    let scanned: String = segments.iter().map(QrSegment::as_str).collect();
    assert_eq!(Link::parse(&scanned).unwrap(), link);
}

fn qr_segments(segments: &[QrSegment]) -> Value {
    let mode = |mode| match mode {
        QrMode::Alphanumeric => "alphanumeric",
        QrMode::Bytes => "bytes",
        QrMode::Numeric => "numeric",
    };
    segments.iter().map(|segment| json!([mode(segment.mode()), segment.as_str()])).collect()
}

/// `{"key": value}`: a number, `"text:…"`, or bytes.
fn map_of(value: Value) -> cbor::Map {
    let mut map: cbor::Map = value
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Number(number) => cbor::Value::Uint(number.as_u64().unwrap()),
                Value::String(text) => match text.strip_prefix("text:") {
                    Some(text) => cbor::Value::Text(text.to_owned()),
                    None => cbor::bytes(&unhex(text)),
                },
                other => panic!("{other}"),
            };
            (key.parse().unwrap(), value)
        })
        .collect();
    map.sort_by_key(|(key, _)| *key);
    map
}

fn json_of(map: &cbor::Map) -> Value {
    let pairs = map.iter().map(|(key, value)| {
        let value = match value {
            cbor::Value::Uint(number) => json!(number),
            cbor::Value::Bytes(bytes) => json!(hex(bytes)),
            cbor::Value::Text(text) => json!(format!("text:{text}")),
        };
        (key.to_string(), value)
    });
    Value::Object(pairs.collect())
}

fn check_request(fields: &mut Fields) {
    let (map, payload) = (map_of(fields.take("fields")), fields.bytes("payload"));
    assert_eq!(cbor::payload(&map), payload);
    // It can be read: an agent without records knows the ticket or credential not, or finds it unfit.
    assert!(!matches!(judged(&payload), "payload_malformed"), "{}", fields.name);
}

/// The answer of an agent without records to a request.
fn judged(payload: &[u8]) -> &'static str {
    match World::new().admit(&phone(2), payload) {
        PeerAdmission::Refused { denial, .. } => denial.code(),
        PeerAdmission::PassThrough => "device",
        PeerAdmission::Admitted { .. } => panic!("admitted without a record"),
    }
}

fn check_answer(fields: &mut Fields) {
    let (map, payload) = (map_of(fields.take("fields")), fields.bytes("payload"));
    assert_eq!(cbor::payload(&map), payload);
    let outcome = match answered(&fields.text("to"), &payload) {
        Ok(outcome) => outcome,
        Err(error) => shown(&error),
    };
    assert_eq!(outcome, fields.text("outcome"));
}

/// What is wrong with an answer, or that it refuses.
fn shown(error: &PhoneError) -> String {
    match error {
        PhoneError::AnswerMalformed(cause) => format!("{cause:?}"),
        error => format!("{error:?}"),
    }
}

/// What a phone that asked makes of an answer.
fn answered(question: &str, payload: &[u8]) -> Result<String, PhoneError> {
    let agent = AgentSecretKey::from_bytes([1; 32]);
    let reply = |message: &[u8]| {
        let received = Responder::read(&agent, message, &mut CounterRng::new(4)).unwrap();
        received.reply(payload).unwrap().message
    };
    match question {
        "redeem" => {
            let ticket = TicketSecret::from_bytes([0x11; 16]);
            let link = Link::new(AgentUrl::parse(URL).unwrap(), agent.public(), ticket);
            let asking = redeem(&link, &phone(2), Label::default(), &mut CounterRng::new(3)).unwrap();
            match asking.next.finish(&reply(&asking.message))? {
                Redeemed::Attached { attached, .. } => {
                    Ok(format!("attached, {} s left", attached.seconds_left))
                }
                Redeemed::Waiting { code, seconds_left } => Ok(format!("code {code}, {seconds_left} s left")),
            }
        }
        "attach" => {
            let credential = CredentialBytes::new(vec![1]).unwrap();
            let asking =
                attach(&agent.public(), &phone(2), &credential, OpSet::EMPTY, &mut CounterRng::new(3))
                    .unwrap();
            let attached = asking.next.finish(&reply(&asking.message))?;
            Ok(format!("attached, {} s left", attached.seconds_left))
        }
        other => panic!("{other}"),
    }
}

fn check_handshake(fields: &mut Fields) {
    let agent = AgentSecretKey::from_bytes(fields.array("agent_secret"));
    let holder = HolderSecretKey::from_bytes(fields.array("holder_secret"));
    let mut phone_rng = Fixed::new(fields.bytes("initiator_ephemeral_secret"));
    let mut agent_rng = Fixed::new(fields.bytes("responder_ephemeral_secret"));
    let (first, second) = (fields.bytes("payload_1"), fields.bytes("payload_2"));
    let started = Initiator::start(&holder, &agent.public(), &first, &mut phone_rng).unwrap();
    assert_eq!(hex(&started.message), fields.text("message_1"));
    let received = Responder::read(&agent, &started.message, &mut agent_rng).unwrap();
    assert_eq!((*received.peer(), received.payload()), (holder.public(), first.as_slice()));
    let mut replied = received.reply(&second).unwrap();
    assert_eq!(hex(&replied.message), fields.text("message_2"));
    let mut finished = started.next.finish(&replied.message).unwrap();
    assert_eq!(finished.payload, second);
    assert_eq!(finished.handshake_hash, replied.handshake_hash);
    assert_eq!(hex(&finished.handshake_hash), fields.text("handshake_hash"));
    for frame in fields.take("frames").as_array().unwrap() {
        let (plaintext, sealed) =
            (unhex(frame["plaintext"].as_str().unwrap()), frame["frame"].as_str().unwrap());
        let (from, to) = match frame["from"].as_str().unwrap() {
            "phone" => (&mut finished.channel, &mut replied.channel),
            _ => (&mut replied.channel, &mut finished.channel),
        };
        assert_eq!(hex(&from.seal(&plaintext).unwrap()), sealed);
        assert_eq!(to.open(&unhex(sealed)).unwrap(), plaintext);
    }
}

fn check_credential(fields: &mut Fields, kind: &str) {
    let issuer = fields.bytes("issuer");
    let token = CredentialBytes::new(fields.bytes("token")).unwrap();
    let (scope, caveats) = if kind == "credential" {
        let credential = Credential::parse(&token).unwrap();
        assert_eq!(credential.is_sealed(), fields.take("sealed").as_bool().unwrap());
        assert_eq!(credential.attenuations() as u64, fields.number("narrowed"));
        assert_eq!(credential.id().to_string(), fields.text("id"));
        (credential.scope(), listed_caveats(&credential))
    } else {
        let credential = UnboundCredential::parse(&token).unwrap();
        assert_eq!(credential.id().to_string(), fields.text("id"));
        (credential.scope(), Value::Null)
    };
    if kind == "credential" {
        assert_eq!(caveats, fields.take("caveats"));
        assert_eq!(hex(scope.holder().unwrap().as_bytes()), fields.text("holder"));
    }
    assert_eq!(scope.ops().to_string(), fields.text("ops"));
    assert_eq!(scope.expires_at().unwrap().to_string(), fields.text("expires_at"));
    assert_eq!(scope.session().unwrap().as_str(), fields.text("session"));
    // Any Biscuit library verifies it.
    let issuer = PublicKey::from_bytes(&issuer, Algorithm::Ed25519).unwrap();
    let biscuit = Biscuit::from(token.as_bytes(), issuer).unwrap();
    let source: Vec<String> =
        (0..biscuit.block_count()).map(|block| biscuit.print_block_source(block).unwrap()).collect();
    assert_eq!(json!(source), fields.take("datalog"));
}

fn listed_caveats(credential: &Credential) -> Value {
    credential.caveats().map(|(block, caveat)| json!([block, caveat.to_string()])).collect()
}

fn check_registration(fields: &mut Fields) {
    let issuer = IssuerSecretKey::from_bytes(fields.array("issuer_secret"));
    let device = DevicePublicKey::from_bytes(fields.array("device")).unwrap();
    let agent = agent_key(fields.array("agent"));
    let hash: [u8; 32] = fields.array("handshake_hash");
    let message = fields.bytes("message");
    let public = issuer.public();
    assert_eq!(
        Issuer::new(issuer, agent, AgentUrl::parse(URL).unwrap()).registration(&device, &hash).to_bytes(),
        message
    );
    let map = cbor::decode(&message).unwrap();
    assert_eq!(map[0], (0, cbor::Value::Uint(1)));
    assert_eq!(cbor::bytes_of(&map, 1), public.as_bytes());
    let signed =
        [b"sessioncap/1 issuer\0", &hash[..], agent.as_bytes(), device.as_bytes(), public.as_bytes()]
            .concat();
    let signature = Signature::from_slice(&cbor::bytes_of(&map, 2)).unwrap();
    VerifyingKey::from_bytes(public.as_bytes()).unwrap().verify_strict(&signed, &signature).unwrap();
}

fn check_offer(fields: &mut Fields) {
    let (map, message) = (map_of(fields.take("fields")), fields.bytes("message"));
    assert_eq!(cbor::encode(&map), message);
    let world = World::new();
    let desktop = world.desktop(9);
    let receipt = world.take_offer(&desktop.device, &message).unwrap();
    assert_eq!(hex(&receipt.to_bytes()), fields.text("receipt"));
}

fn check_receipt(fields: &mut Fields) {
    let (map, message) = (map_of(fields.take("fields")), fields.bytes("message"));
    assert_eq!(cbor::encode(&map), message);
    let receipt = OfferReceipt::from_bytes(&message).unwrap();
    assert_eq!(cbor::bytes_of(&map, 1), receipt.ticket.as_bytes());
    assert_eq!(receipt.to_bytes(), message);
}

fn check_renewal(fields: &mut Fields) {
    let (map, message) = (map_of(fields.take("fields")), fields.bytes("message"));
    assert_eq!(cbor::encode(&map), message);
    let (receipt, edition) = Stage::new().renew(&RenewalOffer::from_bytes(&message).unwrap()).unwrap();
    assert_eq!(hex(&receipt), fields.text("receipt"));
    assert_eq!(hex(&edition), fields.text("edition"));
}

fn check_renewal_receipt(fields: &mut Fields) {
    let (map, message) = (map_of(fields.take("fields")), fields.bytes("message"));
    assert_eq!(cbor::encode(&map), message);
    let receipt = RenewalReceipt::from_bytes(&message).unwrap();
    assert_eq!(cbor::bytes_of(&map, 1), receipt.credential.as_bytes());
    assert_eq!(receipt.to_bytes(), message);
}

fn check_frame(fields: &mut Fields) {
    let plaintext = fields.bytes("plaintext");
    let frame = Frame::from_bytes(&plaintext).unwrap();
    assert_eq!(frame.to_bytes(), plaintext);
    let kind = fields.text("frame");
    let (name, data) = match &frame {
        Frame::Data(data) => ("data", Some(data.clone())),
        Frame::Part(data) => ("part", Some(data.clone())),
        Frame::Discard => ("discard", Some(Vec::new())),
        _ => ("", None),
    };
    if let Some(data) = data {
        assert_eq!((kind.as_str(), data), (name, fields.bytes("data")));
        return;
    }
    let (code, detail, number) = (fields.number("code"), fields.number("detail"), fields.number("number"));
    let seen = match frame {
        Frame::Notice(notice) => ("notice", notice.code.into(), notice.detail.into(), notice.number),
        Frame::Ping { answer, number } => ("ping", u64::from(answer), 0, number),
        Frame::End(code) => ("end", code.number().into(), 0, 0),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen, (kind.as_str(), code, detail, number));
}

/// Reads as what the file says, and is written as it was.
fn check_session(fields: &mut Fields, from_phone: bool) {
    let message = fields.bytes("message");
    let (said, written) = if from_phone {
        let read = FromPhone::from_bytes(&message).unwrap();
        (vectors_made::session::phone_says(&read), read.to_bytes())
    } else {
        let read = FromAgent::from_bytes(&message).unwrap();
        (vectors_made::session::agent_says(&read), read.to_bytes())
    };
    assert_eq!((said, written), (fields.take("says"), Ok(message)), "{}", fields.name);
}

fn check_frames(fields: &mut Fields) {
    let messages: Vec<String> = vectors_made::session::assembled(&fields.take("frames"))
        .unwrap()
        .iter()
        .map(|message| hex(message))
        .collect();
    assert_eq!(json!(messages), fields.take("messages"));
}

/// Reads, and is written as it was.
fn check_json<T: serde::Serialize + serde::de::DeserializeOwned>(fields: &mut Fields) {
    let json = fields.take("json");
    let read: T = serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{}: {e}", fields.name));
    assert_eq!(serde_json::to_value(&read).unwrap(), json, "{}", fields.name);
    let text: T = serde_json::from_str(&json.to_string()).unwrap();
    assert_eq!(serde_json::to_value(&text).unwrap(), json, "{}", fields.name);
}

fn refused_json<T: serde::de::DeserializeOwned>(input: &str) -> String {
    assert!(serde_json::from_str::<Value>(input).is_ok(), "it is JSON");
    let error = serde_json::from_str::<T>(input).err().expect("it is invalid");
    vectors_made::pair::without_place(&error.to_string())
}

fn check_invalid(fields: &mut Fields, kind: &str) {
    let error = fields.text("error");
    let found = match kind {
        "link" => link_error(Link::parse(&fields.text("input"))),
        "custom_scheme_link" => {
            let text = fields.text("input");
            link_error(Link::parse_custom_scheme(&text, &fields.text("scheme")))
        }
        "agent_url" => show(AgentUrl::parse(&fields.text("input"))),
        "session_id" => show(SessionId::new(fields.text("input"))),
        "label" => show(Label::new(fields.text("input"))),
        "x25519_key" => show(HolderPublicKey::from_bytes(fields.array("input"))),
        "ed25519_key" => show(IssuerPublicKey::from_bytes(fields.array("input"))),
        "credential" => show(CredentialBytes::new(fields.bytes("input")).and_then(|b| Credential::parse(&b))),
        "unbound_credential" => {
            show(CredentialBytes::new(fields.bytes("input")).and_then(|b| UnboundCredential::parse(&b)))
        }
        "request" => judged(&fields.bytes("input")).to_owned(),
        "answer" => {
            let payload = fields.bytes("input");
            shown(&answered(&fields.text("to"), &payload).expect_err("it is invalid"))
        }
        "frame" => show(Frame::from_bytes(&fields.bytes("input"))),
        "frames" => show(vectors_made::session::assembled(&fields.take("input"))),
        "from_phone" => show(FromPhone::from_bytes(&fields.bytes("input"))),
        "from_agent" => show(FromAgent::from_bytes(&fields.bytes("input"))),
        "key" => {
            let error = fields.text("input").parse::<sessioncap::app::KeyPress>().unwrap_err();
            error.code().to_owned()
        }
        "apple_file" | "android_file" | "landing_page" => vectors_made::web::refusal(kind, fields),
        "stored" => vectors_made::stored::refusal(&fields.bytes("input")),
        "acp_from_phone" => vectors_made::adapters::acp_refusal(&fields.text("input")),
        "acp_to_phone" => {
            let shown = vectors_made::adapters::acp_shown(&fields.text("method"), &fields.take("input"));
            assert_eq!(shown, None, "{}", fields.name);
            "withheld".to_owned()
        }
        "dd_request" => vectors_made::adapters::dd_refusal(&fields.text("input")),
        "pair_request" => refused_json::<sessioncap::pair::Request>(&fields.text("input")),
        "pair_answer" => refused_json::<sessioncap::pair::Answer>(&fields.text("input")),
        "receipt" => show(OfferReceipt::from_bytes(&fields.bytes("input"))),
        "offer" => {
            let world = World::new();
            let desktop = world.desktop(9);
            show(world.take_offer(&desktop.device, &fields.bytes("input")))
        }
        "renewal" => {
            let renewal = RenewalOffer::from_bytes(&fields.bytes("input")).map_err(Denial::OfferMalformed);
            show(renewal.and_then(|renewal| Stage::new().renew(&renewal)))
        }
        "renewal_receipt" => show(RenewalReceipt::from_bytes(&fields.bytes("input"))),
        "attach" => {
            // at the agent that has the record of valid/credential-bound.json
            let stage = Stage::new();
            let payload = attach_payload(OpSet::EMPTY, &fields.bytes("input"));
            let who = HolderSecretKey::from_bytes(fields.array("holder_secret"));
            match stage.world.admit(&who, &payload) {
                PeerAdmission::Refused { reply, denial } => {
                    assert_eq!(reply.is_some(), denial.status().is_some(), "told only what it may know");
                    denial.code().to_owned()
                }
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{}: unknown kind `{other}`", fields.name),
    };
    assert_eq!(found, error, "{}", fields.name);
}

fn link_error(outcome: Result<Link, LinkError>) -> String {
    outcome.expect_err("it is invalid").code().to_owned()
}

fn show<T: std::fmt::Debug, E: std::fmt::Debug>(outcome: Result<T, E>) -> String {
    format!("{:?}", outcome.expect_err("it is invalid"))
}
