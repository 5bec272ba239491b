//! The errors of the shared types: keys, ids, labels, addresses, operations, times, credentials, frames. Each
//! role also has its own: `PhoneError`, `DesktopError` and the agent's `Denial`. `LinkError` is for pairing
//! links and `RuleError` for an operator's rules.

use thiserror::Error;

/// The reason why a value of a shared type could not be built or read.
///
/// Texts are lower case, contain no secret and say what the caller can do. `PartialEq` is for tests and for
/// matching. Failures in a single role have that role's error type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// An agent address that has no canonical form.
    #[error("not an agent address: {0}")]
    AgentUrl(UrlProblem),
    /// The attenuation has no caveat.
    #[error("an attenuation must name operations or an expiry")]
    AttenuationEmpty,
    /// The credential is sealed and cannot be narrowed.
    #[error("the credential is sealed; narrow the credential it was sealed from")]
    CredentialSealed,
    /// The bytes are not a credential of this protocol.
    #[error("not a credential: {0}")]
    Credential(CredentialProblem),
    /// The data does not fit one Noise message.
    #[error("a frame's plaintext has at most {max} bytes, and its data one less; split it")]
    FrameTooLong {
        /// The most bytes that fit.
        max: usize,
    },
    /// The text is not the id of a ticket or credential.
    #[error("an id is 32 lower-case hexadecimal digits")]
    IdMalformed,
    /// The public key is of low order, so that anyone can compute the shared secret.
    #[error("the public key is of low order and gives no security; generate a new key pair")]
    KeyLowOrder,
    /// The public key's encoding is not canonical, or its point is not on the curve.
    #[error("the public key is not the canonical form of a point on its curve")]
    KeyNotCanonical,
    /// The text is not a public key.
    #[error("a public key is 64 lower-case hexadecimal digits")]
    KeyText,
    /// The text is not allowed as a label.
    #[error("not a label: {0}")]
    Label(LabelProblem),
    /// The payload, offer or record is not in its one canonical form.
    #[error("the message is not in its one canonical form; both sides must speak the same version")]
    MessageMalformed,
    /// The parts of a message are together longer than a message may be.
    #[error("a message has at most {max} bytes; split it, or end the connection that sent it")]
    MessageTooLong {
        /// The most bytes of a message.
        max: usize,
    },
    /// The Noise message does not decrypt, or arrived out of order.
    #[error("the noise message could not be read; close the connection")]
    Noise,
    /// The protocol has no operation with this name or number.
    #[error("there is no such operation; see `Op::ALL` for their names")]
    OpUnknown,
    /// No operation was named, but at least one is needed.
    #[error("name at least one operation")]
    OpsEmpty,
    /// The text is not a pair code.
    #[error("a pair code is two groups of three digits")]
    PairCodeText,
    /// The protocol has no privilege with this name.
    #[error("there is no such privilege; see `Privilege::ALL` for their names")]
    PrivilegeUnknown,
    /// The session id is empty, too long, or has a character that could change the meaning of a path or a
    /// line.
    #[error("a session id is 1 to 128 of `A-Z a-z 0-9 . _ ~ -`, and not `.` or `..`")]
    SessionId,
    /// A credential cannot express the time.
    #[error("a time must be within the years 1970 to 9999")]
    Time,
    /// The text is not a time in the format that this crate writes.
    #[error("a time is written as `1970-01-01T00:00:00Z`")]
    TimeText,
    /// The credential already has as many blocks as an agent accepts.
    #[error("the credential was narrowed {max} times already; narrow an earlier copy")]
    TooManyAttenuations {
        /// The most attenuation blocks.
        max: usize,
    },
}

impl Error {
    /// Returns a stable name for programs and logs. An error with a more detailed cause returns that cause's
    /// name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AgentUrl(problem) => problem.code(),
            Self::AttenuationEmpty => "attenuation_empty",
            Self::CredentialSealed => "credential_sealed",
            Self::Credential(problem) => problem.code(),
            Self::FrameTooLong { .. } => "frame_too_long",
            Self::IdMalformed => "id_malformed",
            Self::KeyLowOrder => "key_low_order",
            Self::KeyNotCanonical => "key_not_canonical",
            Self::KeyText => "key_malformed",
            Self::Label(problem) => problem.code(),
            Self::MessageMalformed => "message_malformed",
            Self::MessageTooLong { .. } => "message_too_long",
            Self::Noise => "noise_unreadable",
            Self::OpUnknown => "op_unknown",
            Self::OpsEmpty => "ops_empty",
            Self::SessionId => "session_id_malformed",
            Self::PairCodeText => "pair_code_malformed",
            Self::PrivilegeUnknown => "privilege_unknown",
            Self::Time => "time_out_of_range",
            Self::TimeText => "time_malformed",
            Self::TooManyAttenuations { .. } => "too_many_attenuations",
        }
    }
}

/// The problem with an agent address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// The scheme is not `ws`, `wss`, `http` or `https`.
    #[error("it must begin with `wss://`, `ws://`, `https://` or `http://`")]
    Scheme,
    /// The host is missing, or is neither an ASCII name nor an IP address.
    #[error("its host must be an ascii name, an ipv4 address, or an ipv6 address in brackets")]
    Host,
    /// The port is not 1 to 65535 in plain decimal.
    #[error("its port must be 1 to 65535")]
    Port,
    /// The path has a segment that is empty, `.` or `..`, or a character that is not unreserved.
    #[error("its path must be segments of `A-Z a-z 0-9 . _ ~ -`")]
    Path,
    /// The address has a user name, query or fragment.
    #[error("it must have no user name, query or fragment")]
    Extra,
}

impl UrlProblem {
    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Scheme => "agent_url_scheme",
            Self::Host => "agent_url_host",
            Self::Port => "agent_url_port",
            Self::Path => "agent_url_path",
            Self::Extra => "agent_url_extra",
        }
    }
}

/// The problem with a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LabelProblem {
    /// The text is not empty but has only spaces, marks and joiners.
    #[error("nothing in it can be seen; leave it empty or write something")]
    Blank,
    /// The text has a control character.
    #[error("U+{:04X} is a control character", u32::from(*character))]
    Control {
        /// The first of them.
        character: char,
    },
    /// The text has a format character, or another that is not visible by itself.
    #[error("U+{:04X} cannot be seen, or changes how the text around it is shown", u32::from(*character))]
    Invisible {
        /// The first of them.
        character: char,
    },
    /// The text has a private-use character, which systems show differently.
    #[error("U+{:04X} is for private use", u32::from(*character))]
    PrivateUse {
        /// The first of them.
        character: char,
    },
    /// The text has a line or paragraph separator.
    #[error("U+{:04X} separates lines or paragraphs", u32::from(*character))]
    Separator {
        /// The first of them.
        character: char,
    },
    /// The text has more bytes than [`limits::MAX_LABEL_LEN`](crate::limits::MAX_LABEL_LEN).
    #[error("it has more than {max} bytes; shorten it")]
    TooLong {
        /// The most bytes.
        max: usize,
    },
    /// The text has a code point that Unicode 16.0 does not assign.
    #[error("U+{:04X} is no character of unicode 16.0", u32::from(*character))]
    Unassigned {
        /// The first of them.
        character: char,
    },
}

impl LabelProblem {
    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Blank => "label_blank",
            Self::Control { .. } => "label_control",
            Self::Invisible { .. } => "label_invisible",
            Self::PrivateUse { .. } => "label_private_use",
            Self::Separator { .. } => "label_separator",
            Self::TooLong { .. } => "label_too_long",
            Self::Unassigned { .. } => "label_unassigned",
        }
    }
}

/// The problem with the bytes of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CredentialProblem {
    /// There are more bytes than [`limits::MAX_CREDENTIAL_LEN`](crate::limits::MAX_CREDENTIAL_LEN).
    #[error("it is too long")]
    TooLong,
    /// There are more blocks than [`limits::MAX_BLOCKS`](crate::limits::MAX_BLOCKS).
    #[error("it has too many blocks")]
    TooManyBlocks,
    /// The text is not base64url without padding.
    #[error("its text is not base64url without padding")]
    Text,
    /// The bytes are not a Biscuit, or not in the one encoding of its content.
    #[error("it is not a canonical biscuit")]
    Encoding,
    /// A block has a key, signature or version that this protocol does not use.
    #[error("block {block} has a key or signature of a kind that is not used here")]
    Cryptography {
        /// The block, counted from 0.
        block: usize,
    },
    /// A block is not exactly the rendering of caveats from the closed vocabulary.
    #[error("block {block} holds something other than this protocol's caveats")]
    Content {
        /// The block, counted from 0.
        block: usize,
    },
    /// The credential is bound where an unbound one is needed, or the reverse.
    #[error("it is bound where an unbound one is needed, or the reverse")]
    Binding,
    /// A signature does not verify with the issuer's key.
    #[error("its signatures do not verify")]
    Signature,
}

impl CredentialProblem {
    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "credential_too_long",
            Self::TooManyBlocks => "credential_too_many_blocks",
            Self::Text => "credential_text",
            Self::Encoding => "credential_encoding",
            Self::Cryptography { .. } => "credential_cryptography",
            Self::Content { .. } => "credential_content",
            Self::Binding => "credential_binding",
            Self::Signature => "credential_signature",
        }
    }
}

/// An API call in a context that forbids it, or an invalid configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A call that waits for permits was made from inside a permit and could wait for itself.
    #[error("call the gate after the permit's closure has returned, not inside it")]
    InsidePermit,
    /// The configuration has no address.
    #[error("an agent must have at least one address")]
    NoAgentUrl,
    /// The phone to revoke has no name.
    #[error("name the phone; pairings without a name are revoked one by one")]
    NoPhoneName,
}

impl Misuse {
    /// A stable name for programs and logs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InsidePermit => "inside_permit",
            Self::NoAgentUrl => "no_agent_url",
            Self::NoPhoneName => "no_phone_name",
        }
    }
}
