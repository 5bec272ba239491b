use std::path::PathBuf;
use std::process::Command;

use rand::rngs::OsRng;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use sessioncap::noise::{Initiator, Responder};
use sessioncap::{AgentSecretKey, AgentUrl, HolderSecretKey, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_tungstenite::accept_async;

use super::*;
use crate::transport::{self, Stream};

const DAY: u64 = 86_400;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds).unwrap()
}

/// Of the present, for whoever compares with the machine's clock.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    at(since.as_secs())
}

fn new_file() -> PathBuf {
    std::env::temp_dir().join(format!("sessioncap-tls-{}.json", uuid::Uuid::new_v4().simple()))
}

fn names() -> Vec<String> {
    ["agent.local", "10.0.0.1", "fd00::1"].map(str::to_owned).to_vec()
}

/// What a client sees of a server, and the first bytes that each sends to the other.
async fn meet(acceptor: TlsAcceptor, host: &str, roots: Roots) -> Outcome<Seen> {
    let (client, server) = duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(server).await.ok()?;
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.ok()?;
        stream.write_all(&asked).await.ok()
    });
    let (mut stream, seen) = connect(client, host, roots).await?;
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    serving.await.unwrap().unwrap();
    Ok(seen)
}

fn none() -> Roots {
    Roots::of([])
}

#[tokio::test]
async fn the_certificate_is_the_agents_if_its_hash_was_stated() {
    let file = new_file();
    let identity = ServerIdentity::open(&file, &names(), now()).unwrap();
    let serving = identity.serving().unwrap();
    let [current, next] = serving.hashes;
    assert_ne!(current, next);
    for host in ["agent.local", "10.0.0.1", "[fd00::1]", "another.example"] {
        let seen = meet(serving.acceptor.clone(), host, none()).await.unwrap();
        assert_eq!((seen.hash(), seen.compare(&serving.hashes).unwrap()), (current, EndsAt::Agent), "{host}");
        assert!(seen.compare(&[next]).is_err() && seen.compare(&[]).is_err());
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn somebody_on_the_way_with_another_certificate_is_noticed() {
    let (file, other) = (new_file(), new_file());
    let agent = ServerIdentity::open(&file, &names(), now()).unwrap();
    // With the same names and dates; only the key is another.
    let between = ServerIdentity::open(&other, &names(), now()).unwrap();
    let seen = meet(between.serving().unwrap().acceptor, "agent.local", none()).await.unwrap();
    let error = seen.compare(&agent.hashes()).unwrap_err().to_string();
    assert!(error.contains("not the agent's"), "{error}");
    for file in [file, other] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn a_name_that_a_trusted_authority_has_certified_may_end_tls_before_the_agent() {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["agent.example".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let roots = || Roots::of([authority_certificate.der().clone()]);
    let stated = [SpkiHash::from_bytes([1; 32]), SpkiHash::from_bytes([2; 32])];
    let seen = meet(acceptor.clone(), "agent.example", roots()).await.unwrap();
    assert_eq!(seen.compare(&stated).unwrap(), EndsAt::CertifiedName);
    // Not under another name, nor for those who do not trust that authority.
    for (host, roots) in [("other.example", roots()), ("agent.example", none())] {
        let seen = meet(acceptor.clone(), host, roots).await.unwrap();
        assert_eq!(seen.hash(), SpkiHash::of(&key.subject_public_key_info()));
        assert!(seen.compare(&stated).is_err(), "{host}");
    }
}

/// Shows one certificate and signs with the key of another.
#[derive(Debug)]
struct Copied(Arc<CertifiedKey>);

impl ResolvesServerCert for Copied {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let file = new_file();
    let agent = ServerIdentity::open(&file, &names(), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signing = provider().key_provider.load_private_key(key.serialize_der().try_into().unwrap()).unwrap();
    let copied = Arc::new(CertifiedKey::new(vec![agent.certificate().clone()], signing));
    for version in [&tokio_rustls::rustls::version::TLS12, &tokio_rustls::rustls::version::TLS13] {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Copied(Arc::clone(&copied))));
        let outcome = meet(TlsAcceptor::from(Arc::new(config)), "agent.local", none()).await;
        assert!(matches!(outcome, Err(Problem::NotTheAgent(_))), "{version:?}");
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_the_process_has_no_default_cryptography() {
    let file = new_file();
    let agent = ServerIdentity::open(&file, &names(), now()).unwrap();
    let serving = agent.serving().unwrap();
    meet(serving.acceptor.clone(), "agent.local", none()).await.unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&serving.acceptor.config().cert_resolver));
    config.send_tls13_tickets = 0;
    let seen = meet(TlsAcceptor::from(Arc::new(config)), "agent.local", none()).await.unwrap();
    assert_eq!(seen.hash(), agent.hashes()[0]);
    // Whoever builds in a second provider gets a panic from the default, and here none is asked for.
    assert!(CryptoProvider::get_default().is_none());
    std::fs::remove_file(file).unwrap();
}

/// A WebSocket over TLS and TCP, and Noise inside: one frame there and back.
#[tokio::test]
async fn over_wss_only_noise_makes_a_stream_whatever_the_certificate() {
    let file = new_file();
    let identity = ServerIdentity::open(&file, &names(), now()).unwrap();
    let (pinned, other) = (AgentSecretKey::generate(&mut OsRng), AgentSecretKey::generate(&mut OsRng));
    let holder = HolderSecretKey::generate(&mut OsRng);
    for (agent, is_pinned) in [(&pinned, true), (&other, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (acceptor, agent) =
            (identity.serving().unwrap().acceptor, AgentSecretKey::from_bytes(*agent.expose_bytes()));
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = Stream::from(acceptor.accept(stream).await.unwrap());
            let mut socket = accept_async(stream).await.unwrap();
            let message = transport::receive(&mut socket).await.unwrap();
            // An agent with another key cannot even read it, and answers what it likes.
            let Ok(received) = Responder::read(&agent, &message, &mut OsRng) else {
                transport::send(&mut socket, message).await.unwrap();
                return false;
            };
            let mut replied = received.reply(b"").unwrap();
            transport::send(&mut socket, replied.message).await.unwrap();
            let frame = transport::receive(&mut socket).await.unwrap();
            let frame = replied.channel.open(&frame).unwrap();
            let frame = replied.channel.seal(&frame).unwrap();
            transport::send(&mut socket, frame).await.unwrap();
            true
        });
        let url: AgentUrl = format!("wss://{at}/noise/ws").parse().unwrap();
        let mut unproven = match is_pinned {
            true => transport::connect(&url).await.unwrap(),
            // The address that was found is dialled, not that of the url.
            false => transport::connect_at(&"wss://agent.local/noise/ws".parse().unwrap(), at).await.unwrap(),
        };
        let started = Initiator::start(&holder, &pinned.public(), b"", &mut OsRng).unwrap();
        unproven.send(started.message).await.unwrap();
        let finished = started.next.finish(&unproven.receive_soon().await.unwrap());
        assert_eq!(finished.is_ok(), is_pinned);
        if let Ok(finished) = finished {
            let (mut stream, certificate) = unproven.prove(finished.channel);
            stream.send(b"hello").await.unwrap();
            assert_eq!(stream.receive_soon().await.unwrap().unwrap(), b"hello");
            assert_eq!(certificate.unwrap().compare(&identity.hashes()).unwrap(), EndsAt::Agent);
        }
        assert_eq!(serving.await.unwrap(), is_pinned);
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_next_key_takes_over_and_nobody_is_locked_out() {
    let file = new_file();
    let mut identity = ServerIdentity::open(&file, &names(), now()).unwrap();
    let [first, second] = identity.hashes();
    let before = identity.serving().unwrap();
    identity.rotate(now()).unwrap();
    let [current, third] = identity.hashes();
    assert_eq!(current, second, "whoever kept both hashes knows the new key");
    assert!(![first, second].contains(&third));
    assert_eq!(before.hashes, [first, second], "connections of before are told their own hashes");
    let certified = ParsedCertificate::try_from(identity.certificate()).unwrap().subject_public_key_info();
    assert_eq!(SpkiHash::of(&certified), second);
    let again = ServerIdentity::open(&file, &names(), now()).unwrap();
    assert_eq!((again.hashes(), again.certificate()), ([second, third], identity.certificate()));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_certificate_is_renewed_with_its_key_before_it_ends_and_when_its_names_change() {
    let file = new_file();
    let begun = 1_800_000_000;
    let mut identity = ServerIdentity::open(&file, &names(), at(begun)).unwrap();
    let (hashes, first) = (identity.hashes(), identity.certificate().clone());
    let due = begun + (ServerIdentity::VALID_DAYS - 1 - ServerIdentity::RENEWED_DAYS) * DAY;
    assert!(!identity.renew_if_due(at(due - 1)).unwrap());
    assert_eq!(identity.certificate(), &first);
    assert!(identity.renew_if_due(at(due)).unwrap());
    assert_eq!(identity.hashes(), hashes);
    assert_ne!(identity.certificate(), &first);
    // A clock that was years ahead when it was made.
    assert!(identity.renew_if_due(at(begun)).unwrap());
    let reopened = |names: &[String]| ServerIdentity::open(&file, names, at(begun)).unwrap();
    let same = reopened(&names());
    assert_eq!(same.certificate(), identity.certificate());
    let renamed = reopened(&["agent.example".to_owned()]);
    assert_eq!(renamed.hashes(), hashes);
    assert_ne!(renamed.certificate(), identity.certificate());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_damaged_or_open_file_and_a_certificate_without_names_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = new_file();
    let open = || ServerIdentity::open(&file, &names(), now()).map(|identity| identity.hashes());
    assert!(ServerIdentity::open(&file, &[], now()).is_err());
    assert!(ServerIdentity::open(&file, &["ä".to_owned()], now()).is_err());
    assert!(!file.exists());
    open().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = std::fs::read_to_string(&file).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&whole).unwrap();
    // The certificate of another key.
    let taken = parsed["next"].take();
    parsed["next"] = std::mem::replace(&mut parsed["current"], taken);
    let changed = whole.replace("\"version\":1", "\"version\":2");
    assert_ne!(changed, whole);
    for damaged in [whole[..whole.len() / 2].to_owned(), parsed.to_string(), changed, String::new()] {
        std::fs::write(&file, damaged).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }
    std::fs::write(&file, whole).unwrap();
    open().unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open().unwrap_err().to_string().contains("chmod 600"));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_certificate_says_what_phones_ask_for() {
    let file = new_file();
    let begun = 1_800_000_000;
    let identity = ServerIdentity::open(&file, &names(), at(begun)).unwrap();
    let der = file.with_extension("der");
    std::fs::write(&der, identity.certificate()).unwrap();
    let read = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-noout", "-text", "-in"])
        .arg(&der)
        .env("TZ", "UTC")
        .output();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(&der).unwrap();
    let Ok(read) = read else {
        println!("skipped: there is no openssl here to read the certificate");
        return;
    };
    let text = String::from_utf8(read.stdout).unwrap();
    for said in [
        "Version: 3",
        "ecdsa-with-SHA256",
        "Not Before: Jan 14 08:00:00 2027 GMT",
        // 820 days later
        "Not After : Apr 13 08:00:00 2029 GMT",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n",
        "DNS:agent.local, IP Address:10.0.0.1, IP Address:FD00:0:0:0:0:0:0:1",
        "CA:FALSE",
    ] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
}

#[test]
fn a_hash_has_one_text() {
    let hash = SpkiHash::from_bytes([0xab; 32]);
    assert_eq!(hash.to_string().parse::<SpkiHash>().unwrap(), hash);
    for wrong in [String::new(), "ab".repeat(31), "AB".repeat(32), "ab".repeat(33), "é".repeat(32)] {
        assert!(wrong.parse::<SpkiHash>().is_err(), "{wrong}");
    }
}
