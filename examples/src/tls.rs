//! TLS below Noise: a self-signed certificate whose key hash the agent states inside the channel, and a client
//! that takes any certificate, remembers its key, and compares afterwards (`docs/ACP_BRIDGE.md`, "TLS").
//!
//! TLS hides the WebSocket's request and lengths from the network. Who may read and write is decided by Noise
//! alone. The cryptography is named in each configuration, so a process in which another one is built in, or
//! none is chosen, behaves the same.

mod identity;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::lock;
use super::problem::{Outcome, Problem, While};
pub use identity::{ServerIdentity, Serving};

/// SHA-256 over the SubjectPublicKeyInfo of a certificate's key. `Display` and `FromStr` are 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpkiHash([u8; 32]);

impl SpkiHash {
    /// Of a SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpkiHash({self})")
    }
}

impl FromStr for SpkiHash {
    type Err = Problem;

    fn from_str(text: &str) -> Outcome<Self> {
        super::discovery::read_hex(text).map(Self).ok_or_else(|| {
            Problem::said("the hash of a certificate's key is 64 lower-case hexadecimal digits")
        })
    }
}

/// What a certificate is to be compared with, once the agent has been heard inside the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    hash: SpkiHash,
    /// Whether an authority that this system trusts has certified the name that was dialled.
    public: bool,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndsAt {
    /// At the agent: the key is one that it states.
    Agent,
    /// At whoever has a public certificate for the name that was dialled, such as a terminator in front of the agent.
    /// It sees the lengths and times of what passes, as any network does; Noise goes on to the agent.
    CertifiedName,
}

impl Seen {
    /// The hash of the certificate's key.
    pub fn hash(&self) -> SpkiHash {
        self.hash
    }

    /// Compares the certificate with the hashes that the agent stated inside the channel.
    ///
    /// # Errors
    /// The key is none of them, and no authority has certified the name: somebody else ends TLS. The caller ends
    /// the connection and says so.
    pub fn compare(&self, stated: &[SpkiHash]) -> Outcome<EndsAt> {
        if stated.contains(&self.hash) {
            return Ok(EndsAt::Agent);
        }
        if self.public {
            return Ok(EndsAt::CertifiedName);
        }
        Err(Problem::said(
            "the certificate of this connection is not the agent's: somebody on the way ends its encryption; \
             use another network, or an address under which the agent is reached directly",
        ))
    }
}

/// The authorities whose certificates for a name are taken as public.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// The system's. The first call reads them from disk; the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    pub fn of_system() -> Self {
        static ROOTS: OnceLock<Roots> = OnceLock::new();
        // With none that can be read, no certificate is public, and each is compared.
        ROOTS.get_or_init(|| Self::of(rustls_native_certs::load_native_certs().certs)).clone()
    }

    /// These alone. What is no certificate is left out.
    pub fn of(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates);
        Self(Arc::new(store))
    }
}

/// The cryptography of every configuration here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Completes TLS with whoever answers, whatever the certificate says; only the signature of its key is checked. The
/// result has proven nothing and is good for a connection that ends if Noise does not prove the agent's key: within
/// this library only [`crate::transport::Unproven`] holds one. `host` is a name or an address, as in a URL.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    roots: Roots,
) -> Outcome<(TlsStream<S>, Seen)> {
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).during("the address has no host that tls can name")?;
    let lenient = Arc::new(Lenient::new(roots)?);
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&lenient) as _;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .during("tls cannot be set up")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = config.with_no_client_auth();
    // A resumed connection would show no certificate.
    config.resumption = Resumption::disabled();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = connected.map_err(|error| Problem::NotTheAgent(format!("tls failed: {error}")))?;
    let seen = *lock(&lenient.seen);
    let seen = seen.ok_or_else(|| Problem::NotTheAgent("there was no certificate".to_owned()))?;
    Ok((stream, seen))
}

/// Takes any certificate whose key signs the handshake, and remembers it.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// None without a root.
    public: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<Option<Seen>>,
}

impl Lenient {
    fn new(Roots(roots): Roots) -> Outcome<Self> {
        let provider = provider();
        let public = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            Some(builder.build().during("the system's certificates cannot be used")?)
        };
        Ok(Self { provider, public, seen: Mutex::new(None) })
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let hash = SpkiHash::of(&ParsedCertificate::try_from(end_entity)?.subject_public_key_info());
        let public = self.public.as_ref().is_some_and(|public| {
            public.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).is_ok()
        });
        *lock(&self.seen) = Some(Seen { hash, public });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
