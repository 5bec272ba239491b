//! Every bound of the protocol, each with the reason for its value. Programs use the constants of the bounded
//! types, such as [`Label::MAX_LEN`](crate::Label::MAX_LEN). This module is public for the crate's own tests
//! and is not part of the public interface.
//!
//! No input from a peer makes this crate allocate or loop beyond these numbers. Sizes are in bytes and
//! lifetimes in seconds unless a name says otherwise. `docs/PROTOCOL.md` section 12 lists the same numbers
//! for other implementations.

/// Longest credential, bytes. One Noise message holds 65,535; a bound credential for a UUID session
/// and a 29-byte host takes about 950, and six attenuation blocks add about 170 each.
pub const MAX_CREDENTIAL_LEN: usize = 4_096;

/// Most attenuation blocks that a holder can append after the binding block. Each costs the agent one Ed25519
/// verification, so this also bounds the work that a holder can cause.
pub const MAX_ATTENUATIONS: usize = 6;

/// Most blocks of a credential: authority, binding, attenuations.
pub const MAX_BLOCKS: usize = 2 + MAX_ATTENUATIONS;

/// Longest handshake payload, bytes: the largest padding bucket. A responder refuses a longer one before
/// decoding it.
pub const MAX_PAYLOAD_LEN: usize = 4_608;

/// Longest first or second handshake message, bytes: the payload and the 96 bytes that message 1
/// of Noise IK adds (ephemeral key 32, encrypted static key 48, tag 16).
pub const MAX_HANDSHAKE_LEN: usize = MAX_PAYLOAD_LEN + 96;

/// Longest transport plaintext, bytes: a Noise message of 65,535 less its 16-byte tag (Noise
/// revision 34, section 3).
pub const MAX_FRAME_LEN: usize = 65_519;

/// Most bytes of data in one frame between a phone and its agent: a plaintext minus its one-byte head.
pub const MAX_DATA_LEN: usize = MAX_FRAME_LEN - 1;

/// Longest message between a phone and its agent, bytes: several frames, of which all but the last are parts. A
/// page of a listing, a long paste or a screen of any terminal is shorter.
pub const MAX_MESSAGE_LEN: usize = 1_024 * 1_024;

/// Most bytes of unfinished messages that one agent holds, by default: sixteen of the longest.
pub const DEFAULT_MESSAGE_ROOM: u32 = 16 * 1_024 * 1_024;

/// How long a phone may take from a message's first part to its last frame, seconds.
pub const MESSAGE_TIMEOUT: i64 = 30;

/// Longest offer or registration, bytes: a credential and the fields around it.
pub const MAX_OFFER_LEN: usize = MAX_CREDENTIAL_LEN + 512;

/// Most entries of one page of the list. The longest in JSON, about 1,100 bytes each, fit one frame of
/// [`MAX_FRAME_LEN`].
pub const MAX_LISTED: u32 = 50;

/// Most records that the agent reads for one page of the list, however many match the filter.
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

/// Longest link, characters. The longest canonical one, with a full-length host and path, is shorter.
pub const MAX_LINK_LEN: usize = 1_536;

/// Longest pasted text that is searched for a link, bytes.
pub const MAX_PASTED_LEN: usize = 4 * MAX_LINK_LEN;

/// Shortest ticket lifetime that an agent accepts, seconds: a person needs this long to unlock a phone.
pub const MIN_TICKET_LIFETIME: u64 = 30;

/// Longest ticket lifetime that an agent accepts, seconds. A photographed code can be redeemed during this
/// time.
pub const MAX_TICKET_LIFETIME: u64 = 15 * 60;

/// Ticket lifetime if the desktop sets none, seconds: the most common choice in the field.
pub const DEFAULT_TICKET_LIFETIME: u64 = 5 * 60;

/// How long after a ticket's end its holder can fetch the same answer again, seconds. It helps a phone that
/// lost the answer, for example in a tunnel.
pub const RETRY_WINDOW: u64 = 10 * 60;

/// Credential lifetime if the desktop sets none, seconds: a working day.
pub const DEFAULT_CREDENTIAL_LIFETIME: u64 = 12 * 60 * 60;

/// Longest credential lifetime that an agent accepts, seconds: a weekend.
pub const MAX_CREDENTIAL_LIFETIME: u64 = 72 * 60 * 60;

/// Shortest credential lifetime that an agent accepts, seconds.
pub const MIN_CREDENTIAL_LIFETIME: u64 = 30;

/// How far the desktop's clock may differ from the agent's when it mints, seconds.
pub const MAX_CLOCK_SKEW: u64 = 60;

/// How long an admitted connection has to send its first transport frame, seconds. A replayed
/// message 1 can never send one.
pub const ACTIVATION_TIMEOUT: u64 = 5;

/// Apps, or certificates of an app, that a link host's file may name.
pub const MAX_APPS: usize = 32;

/// Longest name of an app in such a file, bytes.
pub const MAX_APP_NAME_LEN: usize = 255;

/// Typed bytes that wait for a session, beyond which a bridged connection receives nothing more of its phone.
pub const MAX_BRIDGED_INPUT: usize = 65_536;

/// How long a phone may take to answer a ping, seconds. A connection that misses it can be replaced by
/// another of the same phone.
pub const PING_TIMEOUT: i64 = 10;

/// After how much silence a side sends a ping, seconds. Shorter than the half minute after which many proxies close
/// an idle connection.
pub const PING_AFTER: u64 = 15;

/// How long after an unanswered ping the agent closes the connection, seconds. It is replaceable before that, after
/// [`PING_TIMEOUT`].
pub const CLOSE_AFTER: u64 = 30;

/// How long a phone's connection has to last before the pauses begin anew after it, seconds. An agent that falls over a
/// second after each start is not asked four times a second.
pub const STABLE_AFTER: u64 = 10;

/// How long a phone waits for a socket to open, seconds: a system's own timeouts can take minutes.
pub const OPEN_PATIENCE: u64 = 20;

/// How long a phone waits for message 2, seconds.
pub const ANSWER_PATIENCE: u64 = 10;

/// How long a phone tries to redeem a link, seconds: the longest ticket, and the time in which its answer is kept.
pub const LONGEST_JOIN: u64 = MAX_TICKET_LIFETIME + RETRY_WINDOW;

/// After how long a phone that waits to be confirmed asks again, milliseconds; up to as much again is added at random.
pub const ASK_AGAIN_AFTER: u64 = 1_500;

/// How often a phone asks who has proven nothing, before it tells the person.
pub const ASK_BRIEFLY: u32 = 5;

/// Most addresses of an agent that a phone keeps.
pub const MAX_ADDRESSES: usize = 8;

/// Longest text of an agent's address, characters: scheme, host, port and path.
pub const MAX_ADDRESS_LEN: usize = 6 + MAX_HOST_LEN + 6 + MAX_PATH_LEN;

/// Most hashes of the keys of an agent's TLS certificates that a phone keeps: the one in use, the next one, and as many
/// for an agent behind two names.
pub const MAX_TLS_PINS: usize = 4;

/// Longest stored pairing, bytes: a credential, eight addresses, and the rest in 512.
pub const MAX_STORED_LEN: usize = MAX_CREDENTIAL_LEN + MAX_ADDRESSES * (3 + MAX_ADDRESS_LEN) + 512;

/// Most pairings in a phone's list. A person has a few.
pub const MAX_PAIRINGS: usize = 64;

/// How often a side looks at its liveness, seconds.
pub const LIVENESS_TICK: u64 = 1;

/// Most time that counts between two looks at the liveness, seconds. What is longer, the process did not run.
pub const LIVENESS_STEP: u64 = 2;

/// First pause before a phone attaches again, milliseconds. Each further one is twice as long.
pub const RECONNECT_FIRST: u64 = 250;

/// Longest pause before a phone attaches again, milliseconds, before the random factor.
pub const RECONNECT_LONGEST: u64 = 15_000;

/// Most bytes of input that one connection may have sent and that are not in the terminal yet. A pasted file is
/// shorter; a phone sends more once these were taken.
pub const MAX_UNTAKEN_INPUT: usize = 65_536;

/// Most input that stands in the terminal's own queue, where the agent cannot take it back, bytes.
pub const MAX_TERMINAL_QUEUE: usize = 4_096;

/// Most requests of one connection that are not answered yet.
pub const MAX_REQUESTS: usize = 16;

/// Longest text of an event, bytes of UTF-8: two lines of a notification.
pub const MAX_EVENT_TEXT_LEN: usize = 256;

/// Most columns and most rows of a terminal. An agent keeps the screen in memory.
pub const MAX_TERMINAL_SIDE: u16 = 1_000;

/// Deepest nesting in the JSON of a request or an answer.
pub const MAX_JSON_DEPTH: usize = 16;

/// Deepest nesting in a message of the Agent Client Protocol: the input of a tool is nested as its author likes.
/// Half of what `serde_json` takes.
pub const MAX_ACP_JSON_DEPTH: usize = 64;

/// Most values in one text of JSON that an adapter reads. Each takes up to 56 bytes in memory, however short it is
/// in the text.
pub const MAX_JSON_VALUES: usize = 65_536;

/// Longest id of a JSON-RPC request that is a text, bytes. Answers repeat it.
pub const MAX_ACP_REQUEST_ID_LEN: usize = 256;

/// Longest name of a method in JSON, bytes.
pub const MAX_METHOD_LEN: usize = 256;

/// Longest id of a session at an agent of the Agent Client Protocol, bytes.
pub const MAX_ACP_SESSION_ID_LEN: usize = 1_024;

/// Most questions of an agent that are open at one phone.
pub const MAX_ACP_QUESTIONS: usize = 32;

/// Longest form that a phone is asked to fill in, bytes of JSON. What may be answered is kept until it is.
pub const MAX_ACP_FORM_LEN: usize = 65_536;

/// Most choices of a permission that a phone is offered.
pub const MAX_ACP_OPTIONS: usize = 16;

/// Longest text of an agent's error that a phone is shown, bytes.
pub const MAX_ERROR_TEXT_LEN: usize = 1_024;

/// Most admissions of one credential that wait for their first frame. Beyond it, the oldest is dropped.
pub const MAX_PENDING: usize = 16;

/// How long permits are granted after the gate was settled, seconds. An agent settles about once a second.
pub const LEASE: u64 = 5;

/// How far a node's wall clock may be ahead of the clock of the store that it shares with others, seconds. Beyond
/// this it does not count: one node in the future would otherwise end the credentials of all.
pub const MAX_NODE_LEAD: u64 = 30;

/// How long streams wait for a failed ledger to be reopened before they are cut, seconds.
pub const STALE_TIMEOUT: u64 = 60;

/// How long the agent's context may answer "unknown" for a session or device before its streams pause,
/// seconds.
pub const UNKNOWN_TIMEOUT: u64 = 30;

/// Most unwritten revocations that the gate keeps, to write them later. Beyond it, the gate shuts.
pub const MAX_UNWRITTEN: usize = 1_024;

/// Most names of revocations that the gate remembers, so that it can tell a repeated revocation from a typo
/// when no record is left.
#[cfg(feature = "agent")]
pub(crate) const MAX_REMEMBERED: usize = 1_024;

/// How often a guard evaluates the policy again if the operator has rules, seconds.
pub const POLICY_REVIEW_INTERVAL: u64 = 60;

/// How far the stored time of last use may be behind, seconds: at most one durable write a minute.
pub const LAST_SEEN_RESOLUTION: u64 = 60;

/// How long an ended credential's record is kept, so that its holder learns why it ended, seconds.
pub const TOMBSTONE_GRACE: u64 = 10 * 60;

/// Most expired records that one transition removes, so that no call takes long because many expired at the
/// same time.
pub const COLLECT_PER_TRANSITION: usize = 8;

/// Most expired connected credentials that one transition ends before others. All of their streams are cut at
/// once, however many there are.
#[cfg(feature = "agent")]
pub(crate) const SETTLE_FIRST: usize = 64;

/// Most transitions that one commit contains.
#[cfg(feature = "agent")]
pub(crate) const MAX_MEMBERS: usize = 256;

/// Most visits of phones that wait for a commit to be written with. Beyond that, an activation makes one.
#[cfg(feature = "agent")]
pub(crate) const MAX_VISITS_OWED: usize = 1_024;

/// How often an attach reads its record again because something was revoked meanwhile.
#[cfg(feature = "agent")]
pub(crate) const MAX_READS_AGAIN: usize = 64;

/// Most audit records that one transition removes from the ledger after the sink has taken them.
#[cfg(feature = "agent")]
pub(crate) const FORGET_PER_TRANSITION: usize = 256;

/// How far the agent's stored time may be behind the time that it last used, seconds: at most one durable
/// write a minute while nothing else is written. Every write updates it.
pub const CLOCK_MARK_RESOLUTION: u64 = 60;

/// Most renewed credentials of one record that the phone has not used yet. Further extensions are refused
/// until it attaches with one of them, because it may hold only one of them. Each takes about 80 bytes.
pub const MAX_EDITIONS: usize = 64;

/// Longest encoding of a record's decisions of the policy, bytes.
#[cfg(feature = "agent")]
pub(crate) const MAX_VERDICT_LEN: usize = 128;

/// Most records of ended credentials that are kept so that their holders learn why. Beyond it, the record
/// that is due for removal first is removed early.
pub const MAX_ENDED_CREDENTIALS: u32 = 4_096;

/// Most records of ended credentials that are kept of one device: a quarter of the total. Beyond it, the
/// device's own are removed first, so that a looping script does not remove those of others.
#[cfg(feature = "agent")]
pub(crate) const ENDED_CREDENTIALS_SHARE: u32 = MAX_ENDED_CREDENTIALS.div_ceil(4);

/// Most tickets on record, in any state, for each one that may be open at the agent. Each is kept for at most
/// 25 minutes.
pub const TICKETS_KEPT_PER_OPEN: u32 = 16;

/// Most audit records that wait in the ledger for a sink that cannot keep them. Beyond it, the oldest is
/// dropped: a log that cannot be written must not fill the ledger or stop a revocation.
pub const MAX_AUDIT_WAITING: usize = 1_024;

/// Most issuer keys of one device: a desktop has one, or two while it changes its key.
pub const ISSUERS_PER_DEVICE: u32 = 4;

/// Open tickets for one session, by default.
pub const DEFAULT_TICKETS_PER_SESSION: u32 = 4;
/// Live credentials for one session, by default.
pub const DEFAULT_CREDENTIALS_PER_SESSION: u32 = 8;
/// Open tickets at one agent, by default.
pub const DEFAULT_TICKETS_PER_AGENT: u32 = 256;
/// Live credentials at one agent, by default.
pub const DEFAULT_CREDENTIALS_PER_AGENT: u32 = 1_024;
/// Most simultaneous connections of one credential, by default.
pub const DEFAULT_CONNECTIONS_PER_CREDENTIAL: u32 = 4;

/// Most facts of one policy run. A run has about twenty; the engine's own default is 1,000.
#[cfg(feature = "_credential")]
pub(crate) const POLICY_MAX_FACTS: u64 = 2_000;
/// Most rule iterations of one policy run. Neither the policy nor a credential has rules.
#[cfg(feature = "_credential")]
pub(crate) const POLICY_MAX_ITERATIONS: u64 = 100;
/// Most wall time of one policy run, milliseconds. A run takes under 0.1 ms; a busy machine would reach the
/// engine's default of 1 ms and refuse at random.
#[cfg(feature = "_credential")]
pub(crate) const POLICY_MAX_MILLIS: u64 = 2_000;

/// Longest operator rule text, bytes.
pub const MAX_OPERATOR_RULES_LEN: usize = 16 * 1_024;
/// Deepest nesting of brackets and negations in an operator rule, outside its strings. The engine's text
/// parser recurses on each.
pub const MAX_OPERATOR_RULE_DEPTH: usize = 32;
/// Most operator characters (`+ - * / & | ^ < > = ! .`) in one operator rule, outside its strings. The engine
/// recurses on each.
pub const MAX_OPERATOR_RULE_OPERATORS: usize = 256;
/// Most steps that all operator rules together may take for one decision, with closures counted once for each
/// value in their rule. The engine does not interrupt an expression.
pub const MAX_OPERATOR_RULES_WORK: u64 = 20_000;
/// Largest compiled form of a regular expression in an operator rule, bytes.
pub const MAX_OPERATOR_REGEX_SIZE: usize = 256 * 1_024;

/// Ranges of a histogram of times: below a microsecond, then each twice as long as the one before, the last
/// from about 18 minutes on.
#[cfg(feature = "agent")]
pub(crate) const HISTOGRAM_BUCKETS: usize = 32;
