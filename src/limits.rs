//! Every bound of the protocol in one place, each with the reason for its value. What a program needs of
//! them are constants of the types that they bound, such as [`Label::MAX_LEN`](crate::Label::MAX_LEN); the
//! module itself can be reached by the crate's tests, and is no part of its interface.
//!
//! Nothing in this crate allocates or loops on a peer's word beyond these numbers. Sizes are in
//! bytes and lifetimes in seconds unless a name says otherwise. `docs/PROTOCOL.md` section 12
//! lists the same numbers for other implementations.

/// Longest credential, bytes. One Noise message holds 65,535; a bound credential for a UUID session
/// and a 29-byte host takes about 950, and six attenuation blocks add about 170 each.
pub const MAX_CREDENTIAL_LEN: usize = 4_096;

/// Most attenuation blocks that a holder can append after the binding block. Each costs the agent
/// one Ed25519 verification, so this also bounds the work that a holder can ask for.
pub const MAX_ATTENUATIONS: usize = 6;

/// Most blocks of a credential: authority, binding, attenuations.
pub const MAX_BLOCKS: usize = 2 + MAX_ATTENUATIONS;

/// Longest handshake payload, bytes: the largest padding bucket. A responder refuses more before
/// it decodes anything.
pub const MAX_PAYLOAD_LEN: usize = 4_608;

/// Longest first or second handshake message, bytes: the payload and the 96 bytes that message 1
/// of Noise IK adds (ephemeral key 32, encrypted static key 48, tag 16).
pub const MAX_HANDSHAKE_LEN: usize = MAX_PAYLOAD_LEN + 96;

/// Longest transport plaintext, bytes: a Noise message of 65,535 less its 16-byte tag (Noise
/// revision 34, section 3).
pub const MAX_FRAME_LEN: usize = 65_519;

/// Most bytes of data in one frame between a phone and its agent: a plaintext less its head of one byte.
pub const MAX_DATA_LEN: usize = MAX_FRAME_LEN - 1;

/// Longest offer or registration, bytes: a credential and the fields around it.
pub const MAX_OFFER_LEN: usize = MAX_CREDENTIAL_LEN + 512;

/// Most entries of one page of the list. The longest in JSON, about 1,100 bytes each, fit one frame of
/// [`MAX_FRAME_LEN`].
pub const MAX_LISTED: u32 = 50;

/// Records that the agent reads at most for one page of the list, whatever the filter leaves of them.
#[cfg(feature = "agent")]
pub(crate) const MAX_LIST_READS: usize = 512;

/// Longest label, bytes of UTF-8. It is shown to people beside a key; forty bytes fit one line and
/// keep message 1 within 256 bytes.
pub const MAX_LABEL_LEN: usize = 40;

/// Longest session id, characters.
pub const MAX_SESSION_ID_LEN: usize = 128;

/// Longest host name, characters (RFC 1035 section 2.3.4).
pub const MAX_HOST_LEN: usize = 253;

/// Longest path in an agent address, characters.
pub const MAX_PATH_LEN: usize = 128;

/// Longest link, characters. The longest canonical one, with a full-length host and path, is below.
pub const MAX_LINK_LEN: usize = 1_536;

/// Shortest ticket lifetime that an agent accepts, seconds: less loses the race against a person
/// who unlocks a phone.
pub const MIN_TICKET_LIFETIME: u64 = 30;

/// Longest ticket lifetime that an agent accepts, seconds. A photographed code stays dangerous for
/// as long.
pub const MAX_TICKET_LIFETIME: u64 = 15 * 60;

/// Ticket lifetime when the desktop does not name one, seconds: the most common choice in the field.
pub const DEFAULT_TICKET_LIFETIME: u64 = 5 * 60;

/// How long after a ticket's end its holder can fetch the same answer again, seconds. It covers a
/// phone that lost the answer and went through a tunnel.
pub const RETRY_WINDOW: u64 = 10 * 60;

/// Credential lifetime when the desktop does not name one, seconds: a working day.
pub const DEFAULT_CREDENTIAL_LIFETIME: u64 = 12 * 60 * 60;

/// Longest credential lifetime that an agent accepts, seconds: a weekend.
pub const MAX_CREDENTIAL_LIFETIME: u64 = 72 * 60 * 60;

/// Shortest credential lifetime that an agent accepts, seconds.
pub const MIN_CREDENTIAL_LIFETIME: u64 = 30;

/// How far the desktop's clock may stand from the agent's when it mints, seconds.
pub const MAX_CLOCK_SKEW: u64 = 60;

/// How long an admitted connection has to send its first transport frame, seconds. A replayed
/// message 1 can never send one.
pub const ACTIVATION_TIMEOUT: u64 = 5;

/// How long the answer to a ping may take, seconds. A connection that misses it makes room for another of the
/// same phone.
pub const PING_TIMEOUT: i64 = 10;

/// Admissions of one credential that may wait for their first frame, at a time. Beyond it the oldest goes.
pub const MAX_PENDING: usize = 16;

/// How long permits are granted after a settling of the gate, seconds. An agent settles about once a
/// second.
pub const LEASE: u64 = 5;

/// How long streams wait for a ledger that has failed to be opened again, seconds. Then they are cut.
pub const STALE_TIMEOUT: u64 = 60;

/// How long the agent's context may not know whether a session or device is still there before its streams
/// pause, seconds.
pub const UNKNOWN_TIMEOUT: u64 = 30;

/// Revocations that could not be written and that the gate keeps, to make up for them. Beyond it the gate
/// shuts.
pub const MAX_UNWRITTEN: usize = 1_024;

/// Names of revocations that the gate remembers, so that one that is said again is told from a typo where no
/// record is left.
#[cfg(feature = "agent")]
pub(crate) const MAX_REMEMBERED: usize = 1_024;

/// How often a guard asks the policy again when the operator has rules of their own, seconds.
pub const POLICY_REVIEW_INTERVAL: u64 = 60;

/// How stale the stored time of last use may be, seconds: one durable write a minute at most.
pub const LAST_SEEN_RESOLUTION: u64 = 60;

/// How long an ended credential's record is kept so that its holder learns why, seconds.
pub const TOMBSTONE_GRACE: u64 = 10 * 60;

/// How many expired records one transition removes at most, so that no call takes long because
/// many expired at once.
pub const COLLECT_PER_TRANSITION: usize = 8;

/// How many connected credentials that have run out one transition ends before anything else. Their streams
/// are cut at once, however many they are.
#[cfg(feature = "agent")]
pub(crate) const SETTLE_FIRST: usize = 64;

/// How many audit records that the sink has one transition removes from the ledger.
#[cfg(feature = "agent")]
pub(crate) const FORGET_PER_TRANSITION: usize = 256;

/// How far the agent's stored time may lag behind the time that it last used, seconds: one durable
/// write a minute at most while nothing else is written. Every write brings it up to date.
pub const CLOCK_MARK_RESOLUTION: u64 = 60;

/// Renewed credentials of one record that the phone has not used yet. A further extension is refused until
/// it attaches with one of them: any of them may be all that it holds. Each takes about 80 bytes.
pub const MAX_EDITIONS: usize = 64;

/// Longest stored verdict, bytes: room in the ledger's format.
#[cfg(feature = "agent")]
pub(crate) const MAX_VERDICT_LEN: usize = 128;

/// Records of ended credentials that are kept so that their holders learn why. Beyond it the one that
/// would be forgotten first is forgotten early.
pub const MAX_ENDED_CREDENTIALS: u32 = 4_096;

/// Records of ended credentials that are kept of one device: a quarter. Beyond it the device's own go
/// first, so that a looping script forgets nobody else's.
#[cfg(feature = "agent")]
pub(crate) const ENDED_CREDENTIALS_SHARE: u32 = MAX_ENDED_CREDENTIALS.div_ceil(4);

/// Tickets on record, whatever became of them, for each one that may be open at the agent. Each stays
/// for at most 25 minutes.
pub const TICKETS_KEPT_PER_OPEN: u32 = 16;

/// Audit records that wait in the ledger for a sink that cannot keep them. Beyond it the oldest is given
/// up: a log that cannot be written must not fill the ledger, and must not stop a revocation.
pub const MAX_AUDIT_WAITING: usize = 1_024;

/// Most issuer keys of one device: a desktop has one, or two while it changes.
pub const ISSUERS_PER_DEVICE: u32 = 4;

/// Open tickets for one session, by default.
pub const DEFAULT_TICKETS_PER_SESSION: u32 = 4;
/// Live credentials for one session, by default.
pub const DEFAULT_CREDENTIALS_PER_SESSION: u32 = 8;
/// Open tickets at one agent, by default.
pub const DEFAULT_TICKETS_PER_AGENT: u32 = 256;
/// Live credentials at one agent, by default.
pub const DEFAULT_CREDENTIALS_PER_AGENT: u32 = 1_024;
/// Connections that one credential may hold at a time, by default.
pub const DEFAULT_CONNECTIONS_PER_CREDENTIAL: u32 = 4;

/// Facts that one policy run may hold. A run has about twenty; the engine's own default is 1,000.
#[cfg(feature = "_credential")]
pub(crate) const POLICY_MAX_FACTS: u64 = 2_000;
/// Rule iterations of one policy run. Neither the policy nor a credential has rules.
#[cfg(feature = "_credential")]
pub(crate) const POLICY_MAX_ITERATIONS: u64 = 100;
/// Wall time of one policy run, milliseconds. A run takes under 0.1 ms; the engine's default of
/// 1 ms is hit on a busy machine and turns into a refusal at random.
#[cfg(feature = "_credential")]
pub(crate) const POLICY_MAX_MILLIS: u64 = 2_000;

/// Longest operator rule text, bytes.
pub const MAX_OPERATOR_RULES_LEN: usize = 16 * 1_024;
/// Deepest nesting of brackets and negations in an operator rule, outside its strings. The engine's text
/// parser recurses on each.
pub const MAX_OPERATOR_RULE_DEPTH: usize = 32;
/// Characters of operators (`+ - * / & | ^ < > = ! .`) in one operator rule, outside its strings. The
/// engine recurses on each.
pub const MAX_OPERATOR_RULE_OPERATORS: usize = 256;
/// Steps that all operator rules together may take for one decision, closures counted once for every value
/// that their rule names. The engine does not interrupt an expression.
pub const MAX_OPERATOR_RULES_WORK: u64 = 20_000;
/// Largest compiled form of a regular expression in an operator rule, bytes.
pub const MAX_OPERATOR_REGEX_SIZE: usize = 256 * 1_024;
