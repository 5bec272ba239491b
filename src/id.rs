//! Ids of sessions, tickets and credentials.

use core::fmt;
use core::num::ParseIntError;
use core::str::FromStr;

use crate::codec::{from_hex, to_hex};
use crate::error::Error;
use crate::limits::MAX_SESSION_ID_LEN;
use crate::text::text_forms;

/// A session's id: 1 to 128 of `A-Z a-z 0-9 . _ ~ -`, and neither `.` nor `..`.
///
/// These are the unreserved characters of RFC 3986 section 2.3. Inserted into a path, query or line, such an
/// id cannot end it, start another one or leave its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// Longest session id, characters.
    pub const MAX_LEN: usize = MAX_SESSION_ID_LEN;

    /// Makes an id after checking the text.
    ///
    /// # Errors
    /// [`Error::SessionId`] for any other text.
    pub fn new(id: impl Into<String>) -> Result<Self, Error> {
        let id = id.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let well_formed = (1..=MAX_SESSION_ID_LEN).contains(&id.len())
            && id.bytes().all(allowed)
            && id != "."
            && id != "..";
        if well_formed { Ok(Self(id)) } else { Err(Error::SessionId) }
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// # Errors
    /// As [`SessionId::new`].
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

text_forms!(SessionId, "a session id");

macro_rules! id_16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 16 bytes; `Display` and [`FromStr`] are 32 lower-case hexadecimal digits. Not a secret.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes an id from its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// # Errors
            /// [`Error::IdMalformed`] for any other text.
            fn from_str(text: &str) -> Result<Self, Error> {
                from_hex(text).map(Self).ok_or(Error::IdMalformed)
            }
        }

        impl From<[u8; 16]> for $name {
            fn from(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        text_forms!($name, "an id of 32 hexadecimal digits");
    };
}

id_16! {
    /// A ticket's id, `tid`: a hash of the ticket's public key (`docs/PROTOCOL.md` section 4).
    TicketId
}
id_16! {
    /// A credential's id, `cid`: random, chosen by the issuer, used to revoke the credential.
    CredentialId
}

/// The number of one gateway, if several gateways of an agent share a ledger. The operator gives each gateway
/// another number. A single gateway keeps the default, 0. Serialised as a number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(u32);

impl NodeId {
    /// Makes the id of the gateway with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl From<u32> for NodeId {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl FromStr for NodeId {
    type Err = ParseIntError;

    /// # Errors
    /// [`ParseIntError`], as for `u32`.
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_uuids_and_plain_names() {
        for id in ["3f0c8f0e-5f0b-4a53-9a58-0d6f3c1c9e55", "a", "build_1.log~2", "...", "-"] {
            assert_eq!(SessionId::new(id).unwrap().as_str(), id);
        }
        assert!(SessionId::new("x".repeat(128)).is_ok());
    }

    #[test]
    fn refuses_every_id_that_could_change_a_path_or_a_line() {
        let long = "x".repeat(129);
        for id in [
            "",
            ".",
            "..",
            "../sessions?x=",
            "OTHER/close#",
            "X notail",
            "X\nY",
            "X/close?",
            "a%2Fb",
            "é",
            "a\0b",
            "a:b",
            "a;b",
            "a\\b",
            &long,
        ] {
            assert_eq!(SessionId::new(id), Err(Error::SessionId), "{id:?}");
        }
    }
}
