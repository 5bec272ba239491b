//! Hands a phone **one agent session, with a few named operations, for a limited time**, through a link or a
//! QR code, and enforces exactly that grant.
//!
//! A desktop that is enrolled at an agent mints a one-time ticket and a capability token, the credential, for
//! one session. A phone redeems the ticket in one Noise IK round trip and receives the credential, bound to
//! its own key. From then on, every frame passes through a guarded channel under a named operation. The owner
//! can revoke a ticket or credential at any time; revoking also cuts live streams.
//!
//! The crate opens no socket, reads no clock and draws no randomness of its own. Messages are byte slices,
//! time is a [`Now`], and randomness is a `rand_core` 0.6 generator that the caller passes. `SystemClock`
//! (feature `system-clock`) reads the operating system's clocks for callers that have no time source; the
//! gate and the guard never use it. The crate works with any async runtime. `docs/PROTOCOL.md` specifies
//! every byte; the code cites its sections.
//!
//! # Which type to use
//!
//! | you write | use |
//! |---|---|
//! | the desktop | [`desktop::Issuer`], [`desktop::Issuer::pair`], [`Link`], [`QrCode`] |
//! | the phone | [`Link::parse`], [`phone::redeem`], [`phone::attach`] |
//! | an app on the phone | [`app::Preview`], [`app::Stored`], [`app::Connection`] |
//! | the agent | [`agent::Gate`], [`agent::Gate::admit`] and [`agent::GuardedChannel`]; [`agent::Gate::admit_peer`] and [`noise::Channel::from_keys`] for an agent with a Noise of its own; [`agent::PolledGate`] for one that has to ask for its sessions |
//! | an operator's tool | [`agent::Gate::list`], [`agent::Gate::revoke_credential`] and the other revoking methods, [`agent::Gate::explain`], [`agent::Gate::stats`], [`agent::Gate::health`], [`agent::Policy`], [`agent::ledger::Check`], [`agent::ledger::Dump`] |
//! | messages between desktop and agent | [`pair::Request`], [`pair::Answer`] |
//! | messages between phone and agent about a terminal | [`session`], [`Assembler`] |
//! | an agent that speaks the deployed JSON requests | `dd::Request` (feature `dd`) |
//! | a bridge to an agent of the Agent Client Protocol | `acp::Guest` (feature `acp`) |
//! | what the host of a link serves | [`web`] |
//! | a narrower copy for a widget | [`Credential::attenuate`] |
//!
//! # Example
//!
//! ```
//! # #[cfg(all(feature = "holder", feature = "issuer", feature = "agent", feature = "system-clock"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rand::rngs::OsRng;
//! use sessioncap::agent::{
//!     Admission, AgentContext, Denial, Gate, GateConfig, PermitError, Presence, ledger::MemoryLedger,
//! };
//! use sessioncap::desktop::{Issuer, PairingTerms};
//! use sessioncap::phone::{Redeemed, redeem};
//! use sessioncap::{noise::Responder, *};
//! # struct Agent(DevicePublicKey);
//! # impl AgentContext for Agent {
//! #     fn device(&self, device: &DevicePublicKey) -> Presence { (*device == self.0).into() }
//! #     fn session(&self, _: &SessionId) -> Presence { Presence::Present }
//! #     fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool { true }
//! # }
//! # let device = DeviceSecretKey::generate(&mut OsRng).public();
//! # let channel_hash = [0; 32];
//!
//! // Both clocks are read anew for every call. Any other time source can build a `Now` itself.
//! let clock = SystemClock::new()?;
//!
//! // The agent: a gate over a ledger.
//! let agent_key = AgentSecretKey::generate(&mut OsRng);
//! let url = AgentUrl::parse("wss://agent.example")?;
//! let config = GateConfig::new(agent_key.public(), [url.clone()])?;
//! let gate = Gate::open(config, MemoryLedger::new(), Agent(device), clock.now())?;
//!
//! // The desktop: register once, then share a session. Offer and registration travel over the
//! // channel that desktop and agent already have.
//! let issuer = Issuer::new(IssuerSecretKey::generate(&mut OsRng), agent_key.public(), url);
//! gate.register_issuer(&device, &channel_hash, &issuer.registration(&device, &channel_hash), clock.now())?;
//! let pairing = issuer.pair(SessionId::new("build-42")?, &PairingTerms::default(), clock.now().timestamp(), &mut OsRng)?;
//! gate.offer(&device, &pairing.offer, clock.now())?;
//! let link = pairing.link.to_https(&LinkHost::Agent)?;
//!
//! // The phone: read the link, make a key, store it, send message 1.
//! let holder = HolderSecretKey::generate(&mut OsRng);
//! let asking = redeem(&Link::parse(&link)?, &holder, Label::new("my phone")?, &mut OsRng)?;
//!
//! // The agent: decide, answer with message 2.
//! let received = Responder::read(&agent_key, &asking.message, &mut OsRng)?;
//! let Admission::Admitted { message, pending } = gate.admit(received, clock.now(), &mut OsRng)
//! else { return Err("refused".into()) };
//!
//! // The phone is admitted.
//! let Redeemed::Attached { credential, mut attached } = asking.next.finish(&message)?
//! else { return Err("waiting for the desktop".into()) };
//! let frame = attached.channel.seal(&Frame::Data(b"ls -l\n").to_bytes())?;
//!
//! // The agent: the first frame activates the channel and waits in it. Data needs an operation.
//! let (mut sender, mut receiver) = pending.activate(&frame, clock.now())?.split();
//! receiver.try_receive(Op::SendInput, clock.now(), |typed| { /* hand it to the session */ })?;
//! let frame = sender.try_send(Op::StreamOutput, b"total 0\n", clock.now())?;
//! // Call it about once a second. Streams pause five seconds after the last call.
//! gate.settle(clock.now())?;
//! assert!(sender.try_send(Op::ReadHistory, b"", clock.now()).is_err());
//!
//! // Revokes the credential and cuts the stream before returning.
//! gate.revoke_credential(&pairing.credential, clock.now())?;
//! assert_eq!(sender.try_send(Op::StreamOutput, b"", clock.now()), Err(PermitError::Over(Denial::CredentialRevoked)));
//! # let _ = (frame, credential);
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "holder", feature = "issuer", feature = "agent", feature = "system-clock")))]
//! # fn main() {}
//! ```
//!
//! # Errors
//!
//! | error | of | what helps |
//! |---|---|---|
//! | [`Error`], [`LinkError`] | values that the roles share, a pairing link | its text says what to do |
//! | [`phone::PhoneError`] | a redemption or an attach | [`phone::PhoneError::after_redeem`], [`phone::PhoneError::after_attach`] |
//! | [`app::AppError`] | an app's connection, a stored pairing | [`app::AppError::advice`] |
//! | [`desktop::DesktopError`] | a pairing or a renewal | its text says what to do |
//! | [`web::WebError`] | the names of apps in a link host's files | its text says what to give |
//! | [`agent::Denial`] | whatever a gate refuses | [`agent::Denial::status`] is what the peer may be told |
//! | [`agent::ledger::LedgerError`] | the agent's ledger | its source is what the operating system said |
//! | [`agent::RuleError`] | an operator's rules | its line, column and source |
//!
//! Each has a `code()`, a name that stays the same from version to version.
//!
//! # Features
//!
//! | feature | for | costs |
//! |---|---|---|
//! | `holder` | the phone; a credential is opaque bytes | Noise and the curves, no biscuit-auth |
//! | `issuer` | the desktop | biscuit-auth |
//! | `agent` | the agent | biscuit-auth, Noise |
//! | `attenuate` | narrowing and sealing offline | biscuit-auth |
//! | `qr` | QR codes for terminal and SVG | one crate without dependencies |
//! | `redb` | the agent's ledger in a file ([`agent::ledger::RedbLedger`]) | one crate |
//! | `conformance` | the tests of a ledger's author (`agent::ledger::conformance`) | nothing |
//! | `system-clock` | `SystemClock`, the operating system's clocks | one crate |
//! | `dd` | the deployed agents' JSON requests (`dd`) | `serde_json` |
//! | `acp` | the Agent Client Protocol (`acp`) | `serde_json` |
//! | `tracing` | spans and events of the gate for the crate `tracing`, with public ids and fixed words | that crate |
//!
//! All but the last five are on by default, and features only add. A phone build is
//! `default-features = false, features = ["holder"]`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
#![cfg_attr(
    not(all(
        feature = "holder",
        feature = "issuer",
        feature = "agent",
        feature = "attenuate",
        feature = "qr",
        feature = "redb"
    )),
    allow(
        dead_code,
        reason = "each role uses a part of what the roles share; a build with all of them checks"
    )
)]

#[cfg(feature = "acp")]
pub mod acp;
#[cfg(feature = "agent")]
pub mod agent;
mod agent_url;
#[cfg(feature = "holder")]
pub mod app;
mod clock;
mod codec;
mod credential;
#[cfg(feature = "dd")]
pub mod dd;
#[cfg(feature = "issuer")]
pub mod desktop;
#[cfg(docsrs)]
pub mod documents;
mod error;
mod id;
#[cfg(any(feature = "acp", feature = "dd"))]
mod json;
mod key;
mod label;
#[doc(hidden)]
pub mod limits;
mod op;
#[cfg(any(feature = "issuer", feature = "agent"))]
pub mod pair;
#[cfg(feature = "holder")]
pub mod phone;
mod protocol;
#[cfg(feature = "qr")]
mod qr;
mod secret;
pub mod session;
mod status;
#[cfg(feature = "agent")]
mod sync;
#[cfg(feature = "system-clock")]
mod system_clock;
mod text;
pub mod web;

/// The generator traits in this crate's signatures. Generators must implement the traits of this version.
pub use rand_core;
/// The date and duration types in this crate's signatures.
pub use time;

pub use agent_url::{AgentUrl, Scheme};
pub use clock::{Now, Timestamp};
#[cfg(feature = "_credential")]
pub use credential::Credential;
pub use credential::bytes::CredentialBytes;
pub use credential::caveat::{Caveat, Scope};
pub use error::{CredentialProblem, Error, LabelProblem, UrlProblem};
pub use id::{CredentialId, NodeId, SessionId, TicketId};
pub use key::{
    AgentPublicKey, AgentSecretKey, DevicePublicKey, DeviceSecretKey, HolderPublicKey, HolderSecretKey,
    IssuerPublicKey, IssuerSecretKey,
};
pub use label::Label;
pub use op::{Action, Op, OpSet, Privilege};
pub use protocol::frame::{Assembler, EndCode, Frame, Notice};
pub use protocol::link::{Link, LinkError, LinkHost, Trimmed};
pub use protocol::message::{Offer, OfferReceipt, Registration, RenewalOffer, RenewalReceipt};
#[cfg(any(feature = "holder", feature = "agent"))]
pub use protocol::noise;
pub use protocol::ticket::{PairCode, TicketSecret};
#[cfg(feature = "qr")]
pub use qr::{ErrorCorrection, QrCode, TerminalStyle};
pub use status::Status;
#[cfg(feature = "system-clock")]
pub use system_clock::{ClockUnsupported, SystemClock};

// For this crate's own tests, fuzz targets and benches; not part of its public interface.
#[cfg(feature = "_credential")]
#[doc(hidden)]
pub use credential::UnboundCredential;
#[doc(hidden)]
pub use protocol::handshake::{MAGIC, is_scoped};
#[doc(hidden)]
pub use protocol::link::{QrMode, QrSegment};
#[doc(hidden)]
pub use protocol::ticket::TicketPublicKey;
