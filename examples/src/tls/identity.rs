//! The agent's certificate and its keys, in one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use rand::rngs::OsRng;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sessioncap::Timestamp;
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::ParsedCertificate;
use zeroize::{Zeroize, Zeroizing};

use super::{SpkiHash, provider};
use crate::files::{read_private, write_private};
use crate::problem::{Outcome, Problem, While};

const DAY: u64 = 86_400;

/// A self-signed certificate with its key, and the key that comes next. Both hashes are stated to phones, so that
/// whoever compares with a hash that it kept is not locked out when the next key takes over.
pub struct ServerIdentity {
    file: PathBuf,
    current: KeyPair,
    next: KeyPair,
    certificate: CertificateDer<'static>,
    names: Vec<String>,
    begins: u64,
    ends: u64,
}

/// What accepts connections, with the hashes to state on them. After a rotation a connection that was accepted
/// before is told the hashes of its own time.
#[derive(Clone)]
pub struct Serving {
    /// Accepts TLS.
    pub acceptor: TlsAcceptor,
    /// The hash of the certificate's key, and that of the next.
    pub hashes: [SpkiHash; 2],
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    /// PKCS #8 in Base64, like the next.
    current: String,
    next: String,
    /// DER in Base64.
    certificate: String,
    names: Vec<String>,
    /// Seconds since 1970.
    begins: u64,
    ends: u64,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.current.zeroize();
        self.next.zeroize();
    }
}

impl ServerIdentity {
    /// How long a certificate is valid, days. Apple's systems take 825 at most.
    pub const VALID_DAYS: u64 = 820;
    /// How long before its end a certificate is renewed, days.
    pub const RENEWED_DAYS: u64 = 60;
    const VERSION: u32 = 1;

    /// Reads the identity from `file`, or makes one there. A certificate that is for other names, or that `now` is
    /// not well inside of, is replaced by one with the same key. `names` are DNS names and IP addresses.
    ///
    /// # Errors
    /// There is no name or one that no certificate can have; the file cannot be read or written, can be read by
    /// others, or is damaged.
    pub fn open(file: &Path, names: &[String], now: Timestamp) -> Outcome<Self> {
        let mut identity = match read_private(file)? {
            Some(bytes) => {
                let damaged = || {
                    Problem::Said(format!(
                        "{} is damaged; move it away to get a new certificate and keys",
                        file.display()
                    ))
                };
                let mut identity = Self::of_bytes(file, &bytes).ok_or_else(damaged)?;
                if identity.names != names {
                    identity.names = names.to_vec();
                    identity.certify(now)?;
                }
                identity
            }
            None => {
                let mut identity = Self {
                    file: file.to_owned(),
                    current: new_key()?,
                    next: new_key()?,
                    certificate: Vec::new().into(),
                    names: names.to_vec(),
                    begins: 0,
                    ends: 0,
                };
                identity.certify(now)?;
                identity
            }
        };
        identity.renew_if_due(now)?;
        Ok(identity)
    }

    fn of_bytes(file: &Path, bytes: &[u8]) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        let key = |text: &str| {
            let der = STANDARD.decode(text).ok()?;
            KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).ok()
        };
        let certificate = CertificateDer::from(STANDARD.decode(&stored.certificate).ok()?);
        let certified = ParsedCertificate::try_from(&certificate).ok()?.subject_public_key_info();
        let current = key(&stored.current)?;
        let fits = stored.version == Self::VERSION && *certified == *current.subject_public_key_info();
        fits.then_some(Self {
            file: file.to_owned(),
            current,
            next: key(&stored.next)?,
            certificate,
            names: stored.names.clone(),
            begins: stored.begins,
            ends: stored.ends,
        })
    }

    /// Renews the certificate if `now` is near its end, or before its beginning because a clock was wrong. Its key
    /// stays. Says whether it did; then [`ServerIdentity::serving`] has another certificate. To be asked daily.
    pub fn renew_if_due(&mut self, now: Timestamp) -> Outcome<bool> {
        let now_seconds = now.seconds();
        let due = now_seconds < self.begins || now_seconds + Self::RENEWED_DAYS * DAY >= self.ends;
        if due {
            self.certify(now)?;
        }
        Ok(due)
    }

    /// Makes the next key the current one, and draws another as the next.
    pub fn rotate(&mut self, now: Timestamp) -> Outcome<()> {
        let drawn = new_key()?;
        self.current = std::mem::replace(&mut self.next, drawn);
        self.certify(now)
    }

    /// Makes a certificate for the current key, and stores everything before anyone sees it.
    fn certify(&mut self, now: Timestamp) -> Outcome<()> {
        if self.names.is_empty() {
            return Err(Problem::said("a certificate needs a name or an address"));
        }
        // A phone whose clock is behind takes it too.
        self.begins = now.seconds().saturating_sub(DAY);
        self.ends = self.begins + Self::VALID_DAYS * DAY;
        let mut params =
            CertificateParams::new(self.names.as_slice()).during("no certificate can have these names")?;
        params.not_before = date(self.begins)?;
        params.not_after = date(self.ends)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "sessioncap agent");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Clients refuse two certificates of one issuer with one number, and a renewed one has the same key.
        let mut serial = [0; 16];
        OsRng.fill_bytes(&mut serial);
        serial[0] &= 0x7f;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&self.current).during("the certificate cannot be made")?;
        self.certificate = certificate.der().clone();
        self.store()
    }

    fn store(&self) -> Outcome<()> {
        let key = |key: &KeyPair| {
            let der = Zeroizing::new(key.serialize_der());
            STANDARD.encode(der.as_slice())
        };
        let stored = Stored {
            version: Self::VERSION,
            current: key(&self.current),
            next: key(&self.next),
            certificate: STANDARD.encode(&self.certificate),
            names: self.names.clone(),
            begins: self.begins,
            ends: self.ends,
        };
        let bytes = Zeroizing::new(serde_json::to_vec(&stored).during("the certificate cannot be written")?);
        write_private(&self.file, &bytes)
    }

    /// The hash of the certificate's key, and that of the next.
    pub fn hashes(&self) -> [SpkiHash; 2] {
        [&self.current, &self.next].map(|key| SpkiHash::of(&key.subject_public_key_info()))
    }

    /// The certificate, in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What accepts connections with the present certificate.
    pub fn serving(&self) -> Outcome<Serving> {
        let key = PrivatePkcs8KeyDer::from(self.current.serialize_der());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .during("tls cannot be set up")?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key.into())
            .during("the certificate cannot be used")?;
        Ok(Serving { acceptor: TlsAcceptor::from(Arc::new(config)), hashes: self.hashes() })
    }
}

fn new_key() -> Outcome<KeyPair> {
    KeyPair::generate().during("no key can be drawn for the certificate")
}

fn date(seconds: u64) -> Outcome<OffsetDateTime> {
    let seconds = i64::try_from(seconds).during("the clock is out of range")?;
    OffsetDateTime::from_unix_timestamp(seconds).during("the clock is out of range")
}
