//! Runs one of the gateways, with a service of its own that has one session, a shell without a terminal.
//!
//! ```text
//! cargo run -p sessioncap-gateway -- after 127.0.0.1:7700 gateway.ledger DEVICE-KEY…
//! ```

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use rand::RngCore;
use rand::rngs::OsRng;
use sessioncap::{AgentSecretKey, DevicePublicKey};
use sessioncap_gateway::backend::Backend;
use sessioncap_gateway::service::Service;
use sessioncap_gateway::{Outcome, after, after_responder, before};
use tokio::net::TcpListener;
use tokio::sync::RwLock;

const USAGE: &str = "gateway before|after|after_responder ADDRESS LEDGER DEVICE-KEY…";

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or(USAGE);
    let (which, address, ledger) = (next()?, next()?, PathBuf::from(next()?));
    let devices = arguments.map(|key| Ok(*key.parse::<DevicePublicKey>()?.as_bytes()));
    let trust = Arc::new(RwLock::new(devices.collect::<Outcome<HashSet<_>>>()?));
    let (http, bytes) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let backend = Backend { http: http.local_addr()?, bytes: bytes.local_addr()? };
    let service = Service::default();
    service.create("shell", "sh").await?;
    tokio::spawn(service.run(http, bytes));
    // A new key at each start: pairings of an earlier run end.
    let mut key = [0; 32];
    OsRng.fill_bytes(&mut key);
    let listener = TcpListener::bind(&address).await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let router = match which.as_str() {
        "before" => before::router(key, trust, backend),
        "after" => after::router(key, trust, backend, &url, ledger)?,
        "after_responder" => after_responder::router(key, trust, backend, &url, ledger)?,
        _ => return Err(USAGE.into()),
    };
    println!("{url} has the key {} and the session `shell`", AgentSecretKey::from_bytes(key).public());
    Ok(axum::serve(listener, router).await?)
}
