//! Errors of the vocabulary that the roles share: keys, ids, labels, addresses, operations, times,
//! credentials, frames. Each role has its own beside them: `PhoneError`, `DesktopError`, and the agent's
//! `Denial`. What is wrong with a pairing link is `LinkError`, with an operator's rules `RuleError`.

use thiserror::Error;

/// Why a value that the roles share could not be built or read.
///
/// Texts are lower case, name no secret and say what the caller can do. `PartialEq` is for tests
/// and for matching. What goes wrong in one role only is that role's own error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// An agent address that has no canonical form.
    #[error("not an agent address: {0}")]
    AgentUrl(UrlProblem),
    /// An attenuation without a single caveat.
    #[error("an attenuation must name operations or an expiry")]
    AttenuationEmpty,
    /// A sealed credential cannot be narrowed.
    #[error("the credential is sealed; narrow the credential it was sealed from")]
    CredentialSealed,
    /// Bytes that are not a credential of this protocol.
    #[error("not a credential: {0}")]
    Credential(CredentialProblem),
    /// A frame longer than one Noise message can carry.
    #[error("a frame holds at most {max} bytes; split it")]
    FrameTooLong {
        /// The most bytes that fit.
        max: usize,
    },
    /// Text that is not the id of a ticket or credential.
    #[error("an id is 32 lower-case hexadecimal digits")]
    IdMalformed,
    /// A public key of low order, with which anyone can compute the shared secret.
    #[error("the public key is of low order; whoever sent it holds no secret")]
    KeyLowOrder,
    /// A public key with a second spelling, or off its curve.
    #[error("the public key is not the canonical form of a point on its curve")]
    KeyNotCanonical,
    /// Text that is not a public key.
    #[error("a public key is 64 lower-case hexadecimal digits")]
    KeyText,
    /// A label that people could not read as what it is.
    #[error("not a label: {0}")]
    Label(LabelProblem),
    /// A payload, offer or record that is not in its one canonical form.
    #[error("the message is not in its one canonical form; both sides must speak the same version")]
    MessageMalformed,
    /// A Noise message that does not decrypt, or arrived out of order.
    #[error("the noise message could not be read; close the connection")]
    Noise,
    /// An operation name or number that the protocol does not have.
    #[error("there is no such operation; see `Op::ALL` for their names")]
    OpUnknown,
    /// No operation was named where at least one is needed.
    #[error("name at least one operation")]
    OpsEmpty,
    /// Text that is not a pair code.
    #[error("a pair code is two groups of three digits")]
    PairCodeText,
    /// A name of a privilege that the protocol does not have.
    #[error("there is no such privilege; see `Privilege::ALL` for their names")]
    PrivilegeUnknown,
    /// A session id with a character that could change the meaning of a path or a line.
    #[error("a session id is 1 to 128 of `A-Z a-z 0-9 . _ ~ -`, and not `.` or `..`")]
    SessionId,
    /// A time that a credential cannot express.
    #[error("a time must be within the years 1970 to 9999")]
    Time,
    /// Text that is not a time in the one form that this crate writes.
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
    /// A stable name for programs and logs. One that says what is wrong in more detail has that detail's name.
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

/// What is wrong with an agent address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// No `ws`, `wss`, `http` or `https` scheme.
    #[error("it must begin with `wss://`, `ws://`, `https://` or `http://`")]
    Scheme,
    /// No host, or one that is neither an ASCII name nor an IP address.
    #[error("its host must be an ascii name, an ipv4 address, or an ipv6 address in brackets")]
    Host,
    /// A port that is not 1 to 65535 in plain decimal.
    #[error("its port must be 1 to 65535")]
    Port,
    /// A path with a segment that is empty, `.` or `..`, or with other than unreserved characters.
    #[error("its path must be segments of `A-Z a-z 0-9 . _ ~ -`")]
    Path,
    /// A user name, query or fragment.
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

/// What is wrong with a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LabelProblem {
    /// It is not empty, and shows nothing but spaces, marks and joiners.
    #[error("nothing in it can be seen; leave it empty or write something")]
    Blank,
    /// A control character.
    #[error("U+{:04X} is a control character", u32::from(*character))]
    Control {
        /// The first of them.
        character: char,
    },
    /// A format character, or another that is not shown by itself.
    #[error("U+{:04X} cannot be seen, or changes how the text around it is shown", u32::from(*character))]
    Invisible {
        /// The first of them.
        character: char,
    },
    /// A character that each system shows as it likes.
    #[error("U+{:04X} is for private use", u32::from(*character))]
    PrivateUse {
        /// The first of them.
        character: char,
    },
    /// A separator of lines or paragraphs.
    #[error("U+{:04X} separates lines or paragraphs", u32::from(*character))]
    Separator {
        /// The first of them.
        character: char,
    },
    /// More bytes than [`limits::MAX_LABEL_LEN`](crate::limits::MAX_LABEL_LEN).
    #[error("it has more than {max} bytes; shorten it")]
    TooLong {
        /// The most bytes.
        max: usize,
    },
    /// A code point that is no character of Unicode 16.0.
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

/// What is wrong with the bytes of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CredentialProblem {
    /// More bytes than [`limits::MAX_CREDENTIAL_LEN`](crate::limits::MAX_CREDENTIAL_LEN).
    #[error("it is too long")]
    TooLong,
    /// More blocks than [`limits::MAX_BLOCKS`](crate::limits::MAX_BLOCKS).
    #[error("it has too many blocks")]
    TooManyBlocks,
    /// Not base64url without padding.
    #[error("its text is not base64url without padding")]
    Text,
    /// Not a Biscuit, or not in the one encoding that its content has.
    #[error("it is not a canonical biscuit")]
    Encoding,
    /// A key, signature or version that this protocol does not use.
    #[error("block {block} has a key or signature of a kind that is not used here")]
    Cryptography {
        /// The block, counted from 0.
        block: usize,
    },
    /// A block that is not exactly the rendering of caveats from the closed vocabulary.
    #[error("block {block} holds something other than this protocol's caveats")]
    Content {
        /// The block, counted from 0.
        block: usize,
    },
    /// A credential that is bound where an unbound one belongs, or the reverse.
    #[error("it is not at this step of its life")]
    Binding,
    /// A signature that does not verify with the issuer's key.
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

/// A call in the wrong place, or a configuration that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Misuse {
    /// Revoking or admitting from inside a permit could wait for itself.
    #[error("call the gate after the permit's closure has returned, not inside it")]
    InsidePermit,
    /// A configuration value that makes no sense.
    #[error("an agent must have at least one address")]
    NoAgentUrl,
    /// A phone without a name cannot be told from others.
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
