//! draft
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
        feature = "qr"
    )),
    allow(
        dead_code,
        reason = "each role uses a part of what the roles share; a build with all of them checks"
    )
)]

mod agent_url;
#[cfg(feature = "agent")]
mod audit;
mod caveat;
mod clock;
mod codec;
#[cfg(feature = "_credential")]
mod credential;
#[cfg(feature = "agent")]
mod denial;
mod error;
#[cfg(feature = "agent")]
mod gate;
#[cfg(feature = "agent")]
mod guard;
mod id;
#[cfg(feature = "issuer")]
mod issuer;
mod key;
#[cfg(feature = "agent")]
pub mod ledger;
pub mod limits;
mod link;
#[cfg(any(feature = "holder", feature = "agent"))]
pub mod noise;
mod op;
#[cfg(feature = "agent")]
mod policy;
#[cfg(feature = "qr")]
mod qr;
#[cfg(feature = "holder")]
mod redeem;
mod secret;
mod status;
mod ticket;
mod token;
mod wire;

pub use agent_url::{AgentUrl, Scheme};
#[cfg(feature = "agent")]
pub use audit::{AuditEvent, AuditRecord, AuditSink, RevocationReason};
pub use caveat::{Caveat, Scope};
pub use clock::{Now, Timestamp};
#[cfg(feature = "_credential")]
pub use credential::{Credential, UnboundCredential};
#[cfg(feature = "agent")]
pub use denial::{Denial, LedgerFailure, Quota};
pub use error::{CredentialProblem, Error, Misuse, RuleProblem, UrlProblem};
#[cfg(feature = "agent")]
pub use gate::{
    Admission, Admitted, AgentContext, Gate, GateConfig, Listing, ListingState, PendingGuard, Quotas, Refused,
};
#[cfg(feature = "agent")]
pub use guard::{CutSignal, Guard};
pub use id::{CredentialId, SessionId, TicketId};
#[cfg(feature = "issuer")]
pub use issuer::{Confirmation, Issuer, Pairing, PairingTerms};
pub use key::{
    AgentPublicKey, AgentSecretKey, DevicePublicKey, DeviceSecretKey, HolderPublicKey, HolderSecretKey,
    IssuerPublicKey, IssuerSecretKey,
};
pub use link::{Link, LinkHost, QrMode, QrSegment};
pub use op::{Action, Op, OpSet, Privilege};
#[cfg(feature = "agent")]
pub use policy::{POLICY, Policy};
#[cfg(feature = "qr")]
pub use qr::{QrCode, TerminalStyle};
#[cfg(feature = "holder")]
pub use redeem::{Asking, Attached, Attaching, Redeemed, Redeeming, attach, redeem};
pub use status::Status;
pub use ticket::{PairCode, TicketPublicKey, TicketSecret};
pub use token::CredentialBytes;
pub use wire::{Label, MAGIC, OfferReceipt, is_scoped};
