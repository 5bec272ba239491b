//! TLS to the database: its certificate is checked, and nothing is sent without it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod scene;

use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use scene::Server;
use sessioncap::{AgentSecretKey, NodeId, SystemClock};
use sessioncap_postgres::{Options, PostgresLedger, Problem};

/// An authority, and a server's certificate and key of it, as PEM.
fn certificates(name: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (authority.pem(), server.pem(), key.serialize_pem())
}

fn open(text: &str, roots: &str) -> Result<(), Problem> {
    let options = Options::new(text, Some(roots.as_bytes())).unwrap().without_standby();
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let now = SystemClock::new().unwrap().now();
    PostgresLedger::open(options, &agent, NodeId::new(1), now).map(drop)
}

#[test]
fn a_server_is_served_over_tls_with_the_certificate_of_its_name_and_never_without() {
    let Some(mut server) = Server::primary() else { return };
    server.migrate();
    // A free port; the server has it as soon as it starts.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!("host=localhost port={port} user=gate dbname=postgres sslmode=disable");
    let (roots, certificate, key) = certificates("localhost");
    let (others, ..) = certificates("localhost");
    server.set_at_start("listen_addresses", "localhost");
    server.set_at_start("port", &port.to_string());
    server.start_again();
    let unencrypted = open(&text, &roots);
    assert!(matches!(&unencrypted, Err(Problem::Connection(why)) if why.contains("TLS")), "{unencrypted:?}");

    server.put_file("server.crt", &certificate);
    server.put_file("server.key", &key);
    server.set_at_start("ssl", "on");
    server.start_again();
    assert_eq!(open(&text, &roots), Ok(()));
    let other = open(&text, &others);
    assert!(matches!(&other, Err(Problem::Connection(why)) if why.contains("certificate")), "{other:?}");
    let by_address = text.replace("localhost", "127.0.0.1");
    let named = open(&by_address, &roots);
    assert!(matches!(&named, Err(Problem::Connection(why)) if why.contains("certificate")), "{named:?}");
}
