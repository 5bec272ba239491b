//! The `pair.*` methods between desktop and agent as types: six requests, their answers, and the list of
//! tickets and credentials (`docs/PROTOCOL.md` section 8).
//!
//! The desktop writes a [`Request`] and reads an [`Answer`]; the agent does the reverse. Both implement
//! `Serialize` and `Deserialize`, so any self-describing format works; the protocol document defines the
//! shapes in JSON. Unknown fields are refused. The messages inside ([`Offer`] and the like) are base64url
//! without padding, ids and keys are lower-case hexadecimal, times are RFC 3339 in whole seconds of UTC, and
//! operations are their names.
//!
//! ```
//! use sessioncap::pair::{List, Request, StateKind};
//!
//! let request = Request::List(List::default().with_state(StateKind::Active));
//! let json = serde_json::to_string(&request)?;
//! assert_eq!(json, r#"{"method":"pair.list","state":"active"}"#);
//! assert_eq!(serde_json::from_str::<Request>(&json)?, request);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! This module does not define how an agent reports a refusal, or who may ask: the gate receives from its
//! caller the device that the channel authenticated.

mod text;

use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::op::OpSet;
use crate::protocol::message::{Offer, OfferReceipt, Registration, RenewalOffer, RenewalReceipt};
use crate::protocol::ticket::PairCode;

pub use text::Cursor;

/// A desktop's request to its agent. In JSON, an object with `method` and the parameters beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", deny_unknown_fields)]
#[non_exhaustive]
pub enum Request {
    /// Registers an issuer key, once for each channel. Answered by [`Answer::Registered`].
    #[serde(rename = "pair.register_issuer")]
    RegisterIssuer {
        /// The key, with its proof for this channel.
        registration: Registration,
    },
    /// Lodges an offer. Answered by [`Answer::Offered`].
    #[serde(rename = "pair.offer")]
    Offer {
        /// The offer.
        offer: Offer,
    },
    /// Confirms a waiting phone. Answered by [`Answer::Confirmed`].
    #[serde(rename = "pair.confirm")]
    Confirm {
        /// The ticket that it has redeemed.
        ticket: TicketId,
        /// The phone's key, as the list shows it beside the compared digits.
        holder: HolderPublicKey,
    },
    /// Lodges new terms for a credential. Answered by [`Answer::Renewed`].
    #[serde(rename = "pair.renew")]
    Renew {
        /// The new terms.
        renewal: RenewalOffer,
    },
    /// Asks for a page of the list. Answered by [`Answer::Listed`].
    #[serde(rename = "pair.list")]
    List(List),
    /// Revokes something. Answered by [`Answer::Revoked`].
    #[serde(rename = "pair.revoke")]
    Revoke(Revoke),
}

/// The agent's answer to a [`Request`] that it has carried out. In JSON, an object whose `answer` is the
/// request's method, so that answers cannot be confused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", deny_unknown_fields)]
#[non_exhaustive]
pub enum Answer {
    /// The issuer key is registered.
    #[serde(rename = "pair.register_issuer", deserialize_with = "text::nothing")]
    Registered,
    /// The offer is on record.
    #[serde(rename = "pair.offer")]
    Offered {
        /// The ticket, its end and the agent's time.
        receipt: OfferReceipt,
    },
    /// The phone is confirmed and is admitted when it asks again.
    #[serde(rename = "pair.confirm", deserialize_with = "text::nothing")]
    Confirmed,
    /// The new terms are on record.
    #[serde(rename = "pair.renew")]
    Renewed {
        /// The credential, its end and the agent's time.
        receipt: RenewalReceipt,
    },
    /// A page of the list.
    #[serde(rename = "pair.list")]
    Listed(Page),
    /// The outcome of the revocation.
    #[serde(rename = "pair.revoke")]
    Revoked(Revoked),
}

/// What to revoke: exactly one thing. In JSON, an object with that one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Revoke {
    /// A ticket, or, after its redemption, its credential.
    Ticket(TicketId),
    /// A credential and every copy that its holder narrowed from it; before the redemption, the ticket that
    /// gives it.
    Credential(CredentialId),
    /// Every ticket and credential of a session.
    Session(SessionId),
    /// An issuer key and everything that it signed.
    Issuer(IssuerPublicKey),
    /// Every issuer key of a device and everything that they signed.
    Device(DevicePublicKey),
    /// Every ticket and credential that a device has offered under one phone name.
    Phone {
        /// The device that offered them.
        device: DevicePublicKey,
        /// The name, which is the label of the offers, compared byte for byte. It must not be empty.
        name: Label,
    },
}

/// The outcome of a revocation. Each is a success: what the revocation names can no longer be used.
///
/// A revocation that is repeated after an error or a lost answer returns [`Revoked::Already`]; a mistyped
/// name returns [`Revoked::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Revoked {
    /// Something was usable until now and is revoked.
    Ended {
        /// How many tickets and credentials were revoked. Zero if only an issuer's registration was left.
        pairings: u64,
    },
    /// The name is known, and nothing of it was still usable.
    #[serde(deserialize_with = "text::nothing")]
    Already,
    /// The name is unknown: it never existed, or its records were removed long ago.
    #[serde(deserialize_with = "text::nothing")]
    Unknown,
}

/// A query for tickets and credentials: which ones, from where on, and how many at most.
///
/// The default is everything, from the beginning, a full page. Each `with_` method narrows it; entries must
/// match all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct List {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text::if_any")]
    pub(crate) device: Option<DevicePublicKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Cursor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<NonZeroU32>,
}

impl List {
    /// Lists only entries of this session.
    #[must_use]
    pub fn with_session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Lists only entries that this device has offered.
    #[must_use]
    pub fn with_device(mut self, device: DevicePublicKey) -> Self {
        self.device = Some(device);
        self
    }

    /// Lists only entries in this state.
    #[must_use]
    pub fn with_state(mut self, state: StateKind) -> Self {
        self.state = Some(state);
        self
    }

    /// Continues after a page, with its [`Page::next`]. Keep the other settings of that page's query.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Lists at most this many entries. More than 50 counts as 50.
    #[must_use]
    pub fn with_limit(mut self, limit: NonZeroU32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// A page of the list.
///
/// Unredeemed tickets come first, ordered by ticket id, then credentials, ordered by credential id. If
/// nothing changes in between, joined pages hold each entry once. A change is not missed: a ticket that is
/// redeemed between two pages may appear twice, as a ticket and as a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Page {
    /// The entries, at most as many as were asked for. It can be empty although more follow, because the
    /// agent reads a bounded number of records for one page.
    pub entries: Vec<Listing>,
    /// Where the next page starts; `None` after the last page.
    pub next: Option<Cursor>,
}

/// One ticket or credential. A redeemed ticket is listed as its credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Listing {
    /// The ticket.
    pub ticket: TicketId,
    /// The credential that it gives or gave.
    pub credential: CredentialId,
    /// The session.
    pub session: SessionId,
    /// The device that offered it.
    pub device: DevicePublicKey,
    /// The desktop's name for the phone.
    pub label: Label,
    /// The phone's key, after the redemption.
    #[serde(deserialize_with = "text::if_any")]
    pub holder: Option<HolderPublicKey>,
    /// The phone's name for itself.
    #[serde(deserialize_with = "text::if_any")]
    pub phone_label: Option<Label>,
    /// What it allows.
    pub ops: OpSet,
    /// When it was offered or redeemed.
    pub created_at: Timestamp,
    /// When the phone was last seen, at most a minute behind; `None` before its first transport frame.
    #[serde(deserialize_with = "text::if_any")]
    pub last_seen: Option<Timestamp>,
    /// When the ticket, or the credential, ends.
    pub expires_at: Timestamp,
    /// How many connections it has now.
    pub connections: u32,
    /// A renewed credential that the phone has not used yet.
    pub renewal: Option<WaitingRenewal>,
    /// Its state.
    pub state: ListingState,
}

/// Terms that apply once the phone uses its renewed credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WaitingRenewal {
    /// The operations that it will allow.
    pub ops: OpSet,
    /// When it will expire.
    pub expires_at: Timestamp,
}

/// The state of a ticket or credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ListingState {
    /// The ticket waits for a phone.
    #[serde(deserialize_with = "text::nothing")]
    Open,
    /// A phone waits to be confirmed; both screens show these digits.
    Pending {
        /// The digits.
        code: PairCode,
    },
    /// The credential is live.
    #[serde(deserialize_with = "text::nothing")]
    Active,
    /// It was revoked.
    Revoked {
        /// Why.
        why: RevocationReason,
    },
    /// It expired.
    #[serde(deserialize_with = "text::nothing")]
    Expired,
}

impl ListingState {
    /// Returns the state without its details.
    #[must_use]
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Open => StateKind::Open,
            Self::Pending { .. } => StateKind::Pending,
            Self::Active => StateKind::Active,
            Self::Revoked { .. } => StateKind::Revoked,
            Self::Expired => StateKind::Expired,
        }
    }
}

/// The name of a [`ListingState`], for use as a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StateKind {
    /// [`ListingState::Open`].
    Open,
    /// [`ListingState::Pending`].
    Pending,
    /// [`ListingState::Active`].
    Active,
    /// [`ListingState::Revoked`].
    Revoked,
    /// [`ListingState::Expired`].
    Expired,
}

/// The reason for a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevocationReason {
    /// The owner revoked it.
    Owner,
    /// Two phones redeemed the same ticket.
    Contest,
    /// The whole session was revoked.
    Session,
    /// The session ended.
    SessionEnd,
    /// Its issuer or the issuer's device was revoked.
    Issuer,
}
