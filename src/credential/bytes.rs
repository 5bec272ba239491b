//! A credential as opaque bytes, which a phone stores and sends without parsing them.

use core::fmt;
use core::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::codec::{from_text, to_text};
use crate::error::{CredentialProblem, Error};
use crate::limits::MAX_CREDENTIAL_LEN;

/// The bytes of a credential, at most [`CredentialBytes::MAX_LEN`], not parsed.
///
/// A credential is useless without the phone's Noise key. An unsealed one still contains the key for its next
/// attenuation, so it is wiped when dropped and `Debug` prints only its length. The text form is base64url
/// without padding.
#[derive(Clone)]
pub struct CredentialBytes(Zeroizing<Vec<u8>>);

impl CredentialBytes {
    /// Longest credential, bytes.
    pub const MAX_LEN: usize = MAX_CREDENTIAL_LEN;

    /// Makes a value from stored or received bytes.
    ///
    /// # Errors
    /// [`Error::Credential`] if `bytes` is empty or longer than [`CredentialBytes::MAX_LEN`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            0 => Err(Error::Credential(CredentialProblem::Encoding)),
            1..=MAX_CREDENTIAL_LEN => Ok(Self(bytes)),
            _ => Err(Error::Credential(CredentialProblem::TooLong)),
        }
    }

    /// Returns the bytes, to be stored like a password.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns base64url without padding, to be stored like a password.
    #[must_use]
    pub fn to_text(&self) -> String {
        to_text(&self.0)
    }
}

impl FromStr for CredentialBytes {
    type Err = Error;

    /// # Errors
    /// As [`CredentialBytes::new`], and [`Error::Credential`] for text that is not base64url without padding.
    fn from_str(text: &str) -> Result<Self, Error> {
        // four characters carry three bytes
        if text.len() > MAX_CREDENTIAL_LEN.div_ceil(3) * 4 {
            return Err(Error::Credential(CredentialProblem::TooLong));
        }
        Self::new(from_text(text).ok_or(Error::Credential(CredentialProblem::Text))?)
    }
}

impl TryFrom<Vec<u8>> for CredentialBytes {
    type Error = Error;

    /// # Errors
    /// As [`CredentialBytes::new`].
    fn try_from(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::new(bytes)
    }
}

/// Serialises as the text form, to be stored like a password.
impl serde::Serialize for CredentialBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(self.to_text()))
    }
}

impl<'de> serde::Deserialize<'de> for CredentialBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer, "a credential in base64url")
    }
}

impl PartialEq for CredentialBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for CredentialBytes {}

impl fmt::Debug for CredentialBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialBytes({} bytes, redacted)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_debug_shows_only_the_length() {
        let credential = CredentialBytes::new(vec![0xab; 100]).unwrap();
        assert_eq!(credential.to_text().parse(), Ok(credential.clone()));
        assert_eq!(format!("{credential:?}"), "CredentialBytes(100 bytes, redacted)");
    }

    #[test]
    fn length_is_bounded_in_both_forms() {
        let too_long = Err(Error::Credential(CredentialProblem::TooLong));
        assert!(CredentialBytes::new(vec![1; MAX_CREDENTIAL_LEN]).is_ok());
        assert_eq!(CredentialBytes::new(vec![1; MAX_CREDENTIAL_LEN + 1]), too_long);
        assert_eq!("A".repeat(4 * MAX_CREDENTIAL_LEN).parse(), too_long);
        assert_eq!(CredentialBytes::new(vec![]), Err(Error::Credential(CredentialProblem::Encoding)));
        assert_eq!("a+/=".parse::<CredentialBytes>(), Err(Error::Credential(CredentialProblem::Text)));
    }
}
