//! Hand a phone **one agent session, a few named operations, for a while**, through a link or QR
//! code, and hold the phone to exactly that.
//!
//! A desktop that is enrolled at an agent mints a one-time ticket and a capability token for one
//! session. A phone redeems the ticket in one Noise IK round trip and gets the token, bound to its
//! own key. From then on the agent asks a guard before every frame. Whatever was handed out can be
//! taken back at once, live streams included.
//!
//! The crate opens no socket, reads no clock and draws no randomness of its own: messages are byte
//! slices, time is a [`Now`] and randomness a `rand_core` 0.6 generator that the caller passes. It
//! runs beside any async runtime. `docs/PROTOCOL.md` specifies every byte; sections are cited where
//! the code follows them.
//!
//! # Which type for which need
//!
//! | you write | you want |
//! |---|---|
//! | the desktop | [`desktop::Issuer`], [`desktop::Issuer::pair`], [`Link`], [`QrCode`] |
//! | the phone | [`Link::parse`], [`phone::redeem`], [`phone::attach`] |
//! | the agent | [`agent::Gate`], [`agent::Gate::admit`], [`agent::Guard`]; [`noise::Responder`] if it has no Noise of its own |
//! | an operator's tool | [`agent::Gate::list`], [`agent::Gate::revoke_credential`] and its kin, [`agent::Gate::explain`], [`agent::Policy`] |
//! | desktop and agent, for what they say to each other | [`pair::Request`], [`pair::Answer`] |
//! | a narrower copy for a widget | [`Credential::attenuate`] |
//!
//! # The whole story
//!
//! ```
//! # #[cfg(all(feature = "holder", feature = "issuer", feature = "agent"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rand::rngs::OsRng;
//! use sessioncap::agent::{Admission, AgentContext, Denial, Gate, GateConfig, Presence, ledger::MemoryLedger};
//! use sessioncap::desktop::{Issuer, PairingTerms};
//! use sessioncap::phone::{Redeemed, redeem};
//! use sessioncap::{noise::Responder, *};
//! # struct Agent(DevicePublicKey);
//! # impl AgentContext for Agent {
//! #     fn device(&self, device: &DevicePublicKey) -> Presence { (*device == self.0).into() }
//! #     fn session(&self, _: &SessionId) -> Presence { Presence::Present }
//! #     fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool { true }
//! # }
//! # let now = Now::new(time::OffsetDateTime::now_utc(), time::Duration::ZERO);
//! # let device = DeviceSecretKey::generate(&mut OsRng).public();
//! # let channel_hash = [0; 32];
//!
//! // The agent: a gate over a ledger.
//! let agent_key = AgentSecretKey::generate(&mut OsRng);
//! let url = AgentUrl::parse("wss://agent.example")?;
//! let config = GateConfig::new(agent_key.public(), [url.clone()])?;
//! let gate = Gate::open(config, MemoryLedger::new(), Agent(device), now)?;
//!
//! // The desktop: register once, then share a session. Offer and registration travel over the
//! // channel that desktop and agent already have.
//! let issuer = Issuer::new(IssuerSecretKey::generate(&mut OsRng), agent_key.public(), url);
//! gate.register_issuer(&device, &channel_hash, &issuer.registration(&device, &channel_hash), now)?;
//! let pairing = issuer.pair(SessionId::new("build-42")?, &PairingTerms::default(), now.timestamp(), &mut OsRng)?;
//! gate.offer(&device, &pairing.offer, now)?;
//! let link = pairing.link.to_https(&LinkHost::Agent)?;
//!
//! // The phone: read the link, make a key, store it, send message 1.
//! let holder = HolderSecretKey::generate(&mut OsRng);
//! let asking = redeem(&Link::parse(&link)?, &holder, Label::new("my phone")?, &mut OsRng)?;
//!
//! // The agent: decide, answer with message 2.
//! let received = Responder::read(&agent_key, &asking.message, &mut OsRng)?;
//! let Admission::Admitted(admitted) = gate.admit(&received, now, &mut OsRng)
//! else { return Err("refused".into()) };
//! let mut replied = received.next.reply(&admitted.reply)?;
//!
//! // The phone is in.
//! let Redeemed::Attached { credential, mut attached } = asking.next.finish(&replied.message)?
//! else { return Err("waiting for the desktop".into()) };
//! let frame = attached.channel.seal(b"ls -l\n")?;
//!
//! // The agent: the first frame that decrypts makes the guard live; every frame asks it.
//! let typed = replied.channel.open(&frame)?;
//! let mut guard = admitted.guard.activate(now)?;
//! guard.permit(Op::SendInput, now, || { /* hand `typed` to the session */ })?;
//! // About once a second: without it, streams wait after five.
//! gate.settle(now)?;
//! assert!(guard.permit(Op::Resize, now, || ()).is_err());
//!
//! // Taken back: the stream is cut before this returns.
//! gate.revoke_credential(&pairing.credential, now)?;
//! assert_eq!(guard.permit(Op::SendInput, now, || ()), Err(Denial::CredentialRevoked));
//! # let _ = (typed, credential);
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "holder", feature = "issuer", feature = "agent")))]
//! # fn main() {}
//! ```
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
//!
//! All but `conformance` are on by default, and features only add. A phone build is
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

#[cfg(feature = "agent")]
pub mod agent;
mod agent_url;
mod clock;
mod codec;
mod credential;
#[cfg(feature = "issuer")]
pub mod desktop;
mod error;
mod id;
mod key;
mod label;
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
mod status;
#[cfg(feature = "agent")]
mod sync;

pub use agent_url::{AgentUrl, Scheme};
pub use clock::{Now, Timestamp};
pub use credential::bytes::CredentialBytes;
pub use credential::caveat::{Caveat, Scope};
#[cfg(feature = "_credential")]
pub use credential::{Credential, UnboundCredential};
pub use error::{CredentialProblem, Error, LabelProblem, Misuse, UrlProblem};
pub use id::{CredentialId, NodeId, SessionId, TicketId};
pub use key::{
    AgentPublicKey, AgentSecretKey, DevicePublicKey, DeviceSecretKey, HolderPublicKey, HolderSecretKey,
    IssuerPublicKey, IssuerSecretKey,
};
pub use label::Label;
pub use op::{Action, Op, OpSet, Privilege};
pub use protocol::handshake::{MAGIC, is_scoped};
pub use protocol::link::{Link, LinkError, LinkHost, QrMode, QrSegment};
pub use protocol::message::{Offer, OfferReceipt, Registration, RenewalOffer, RenewalReceipt};
#[cfg(any(feature = "holder", feature = "agent"))]
pub use protocol::noise;
pub use protocol::ticket::{PairCode, TicketPublicKey, TicketSecret};
#[cfg(feature = "qr")]
pub use qr::{QrCode, TerminalStyle};
pub use status::Status;
