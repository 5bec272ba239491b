//! TLS on the bridge's own port: a peer that begins with it gets it, others speak plain. Noise is the same in both.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sessioncap_programs::agent::{Log, Secure};
use sessioncap_programs::clock::Clock;
use sessioncap_programs::lock;
use sessioncap_programs::problem::Outcome;
use sessioncap_programs::tls::{ServerIdentity, Serving};
use sessioncap_programs::transport::Stream;
use tokio::time::sleep;

/// How a connection with TLS begins: a record of the handshake.
const HANDSHAKE: u8 = 0x16;
/// How often the certificate's dates are looked at.
const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

/// The bridge's certificate, and what serves it.
pub struct Certificate {
    identity: Mutex<ServerIdentity>,
    serving: Mutex<Serving>,
}

impl Certificate {
    /// Reads the certificate and its keys, or makes them.
    pub fn open(state: &Path, names: &[String], clock: &Clock) -> Outcome<Arc<Self>> {
        let identity = ServerIdentity::open(&state.join("tls.json"), names, clock.now().timestamp())?;
        let serving = identity.serving()?;
        Ok(Arc::new(Self { identity: Mutex::new(identity), serving: Mutex::new(serving) }))
    }

    /// The hashes that phones are told, of the present key and of the next.
    pub fn hashes(&self) -> Vec<String> {
        lock(&self.serving).hashes.iter().map(ToString::to_string).collect()
    }

    /// Makes the next key the present one.
    pub fn rotate(&self, clock: &Clock) -> Outcome<()> {
        let mut identity = lock(&self.identity);
        identity.rotate(clock.now().timestamp())?;
        *lock(&self.serving) = identity.serving()?;
        Ok(())
    }

    /// For the listener.
    pub fn secure(this: &Arc<Self>) -> Secure {
        let this = Arc::clone(this);
        Arc::new(move |stream| {
            let acceptor = lock(&this.serving).acceptor.clone();
            Box::pin(async move {
                let mut first = [0];
                match stream.peek(&mut first).await? {
                    1 if first == [HANDSHAKE] => acceptor.accept(stream).await.map(Stream::from),
                    _ => Ok(Stream::from(stream)),
                }
            })
        })
    }

    /// Renews the certificate before it ends, with the same key.
    pub async fn keep_valid(self: Arc<Self>, clock: Clock, log: Log) {
        loop {
            sleep(DAILY).await;
            let renewed = {
                let mut identity = lock(&self.identity);
                match identity.renew_if_due(clock.now().timestamp()) {
                    Ok(true) => identity.serving().map(Some),
                    Ok(false) => Ok(None),
                    Err(problem) => Err(problem),
                }
            };
            match renewed {
                Ok(Some(serving)) => {
                    *lock(&self.serving) = serving;
                    log("the certificate was renewed".to_owned());
                }
                Ok(None) => {}
                Err(problem) => log(format!("the certificate cannot be renewed: {problem}")),
            }
        }
    }
}
