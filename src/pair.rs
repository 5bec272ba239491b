//! The `pair.*` methods of desktop and agent as types: six requests, their answers, and the list of what was
//! shared (`docs/PROTOCOL.md` section 8).
//!
//! The desktop writes a [`Request`] and reads an [`Answer`]; the agent does the reverse. Both sides are
//! `Serialize` and `Deserialize`, so that any self-describing format will do; the protocol document gives the
//! shapes in JSON. Whoever reads refuses fields that are not in them. The messages inside ([`Offer`] and its
//! kin) are base64url without padding, ids and keys are lower-case hexadecimal, times are RFC 3339 in whole
//! seconds of UTC, operations are their names.
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
//! How an agent says that it refuses is its own matter, and so is who may ask: the gate asks its caller for
//! the device that the channel has authenticated.

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

/// What a desktop asks its agent. In JSON an object with `method` and the parameters beside it.
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
    /// Lets a waiting phone in. Answered by [`Answer::Confirmed`].
    #[serde(rename = "pair.confirm")]
    Confirm {
        /// The ticket that it has redeemed.
        #[serde(deserialize_with = "text::parsed")]
        ticket: TicketId,
        /// Its key, as the list shows it beside the digits that were compared.
        #[serde(deserialize_with = "text::parsed")]
        holder: HolderPublicKey,
    },
    /// Lodges new terms for a credential. Answered by [`Answer::Renewed`].
    #[serde(rename = "pair.renew")]
    Renew {
        /// The new terms.
        renewal: RenewalOffer,
    },
    /// Asks for a page of what was shared. Answered by [`Answer::Listed`].
    #[serde(rename = "pair.list")]
    List(List),
    /// Revokes something. Answered by [`Answer::Revoked`].
    #[serde(rename = "pair.revoke")]
    Revoke(Revoke),
}

/// What the agent answers to a [`Request`] that it has carried out. In JSON an object whose `answer` is the
/// request's method, so that no answer is taken for another's.
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
    /// The phone is let in when it asks again.
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
    /// What the revocation has ended.
    #[serde(rename = "pair.revoke")]
    Revoked(Revoked),
}

/// What to revoke: exactly one thing. In JSON an object with that one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Revoke {
    /// A ticket; once it was redeemed, its credential.
    #[serde(deserialize_with = "text::parsed")]
    Ticket(TicketId),
    /// A credential, with everything that its holder narrowed from it; before it was redeemed, the ticket that
    /// gives it.
    #[serde(deserialize_with = "text::parsed")]
    Credential(CredentialId),
    /// Every ticket and credential of a session.
    Session(SessionId),
    /// An issuer key, with everything that it signed.
    #[serde(deserialize_with = "text::parsed")]
    Issuer(IssuerPublicKey),
    /// Every issuer key of a device, with everything that they signed.
    #[serde(deserialize_with = "text::parsed")]
    Device(DevicePublicKey),
    /// Every ticket and credential that a device has offered under one name for the phone.
    Phone {
        /// The device that offered them.
        #[serde(deserialize_with = "text::parsed")]
        device: DevicePublicKey,
        /// The name: the label of the offers, byte for byte. An empty one is refused.
        #[serde(deserialize_with = "text::label")]
        name: Label,
    },
}

/// What a revocation has ended. Each outcome is a success: what was named can be used no more.
///
/// A revocation that is said again after an error or a lost answer is [`Revoked::Already`]; a name with a typo
/// is [`Revoked::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Revoked {
    /// Something could be used until now.
    Ended {
        /// How many tickets and credentials. None if nothing but an issuer's registration was left.
        pairings: u64,
    },
    /// It is known by this name, and none of it could be used any more.
    #[serde(deserialize_with = "text::nothing")]
    Already,
    /// Nothing is known by this name: it was never there, or it ended so long ago that it was forgotten.
    #[serde(deserialize_with = "text::nothing")]
    Unknown,
}

/// Which tickets and credentials to list, from where on, and how many at most.
///
/// The default is everything, from the beginning, as many as a page holds. Each `with_` narrows it; several
/// must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct List {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text::parsed_if_any")]
    pub(crate) device: Option<DevicePublicKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Cursor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<NonZeroU32>,
}

impl List {
    /// Only what is of this session.
    #[must_use]
    pub fn with_session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Only what this device has offered.
    #[must_use]
    pub fn with_device(mut self, device: DevicePublicKey) -> Self {
        self.device = Some(device);
        self
    }

    /// Only what is in this state.
    #[must_use]
    pub fn with_state(mut self, state: StateKind) -> Self {
        self.state = Some(state);
        self
    }

    /// Goes on where a page ended, with its [`Page::next`]. Everything else stays as it was for that page.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// At most so many entries. More than [`MAX_LISTED`](crate::limits::MAX_LISTED) counts as that.
    #[must_use]
    pub fn with_limit(mut self, limit: NonZeroU32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// A part of the list.
///
/// Entries come in the order of their ids: tickets that nobody has redeemed by the ticket's, then credentials
/// by their own. Pages that are joined hold each entry once, as long as nothing changes meanwhile. What changes
/// is not missed: a ticket that is redeemed between two pages may come twice, as a ticket and as a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Page {
    /// At most as many as were asked for. Can be empty although there are more: the agent looks at a bounded
    /// number of records for one page.
    pub entries: Vec<Listing>,
    /// From where to go on; none after the last page.
    pub next: Option<Cursor>,
}

/// One ticket or credential. A redeemed ticket is listed as its credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Listing {
    /// The ticket.
    #[serde(deserialize_with = "text::parsed")]
    pub ticket: TicketId,
    /// The credential that it gives or gave.
    #[serde(deserialize_with = "text::parsed")]
    pub credential: CredentialId,
    /// The session.
    pub session: SessionId,
    /// The device that offered it.
    #[serde(deserialize_with = "text::parsed")]
    pub device: DevicePublicKey,
    /// The desktop's name for it.
    #[serde(deserialize_with = "text::label")]
    pub label: Label,
    /// The phone, once it was redeemed.
    #[serde(deserialize_with = "text::parsed_if_any")]
    pub holder: Option<HolderPublicKey>,
    /// The phone's name for itself.
    #[serde(deserialize_with = "text::label_if_any")]
    pub phone_label: Option<Label>,
    /// What it allows.
    #[serde(deserialize_with = "text::ops")]
    pub ops: OpSet,
    /// When it was offered, or redeemed.
    #[serde(deserialize_with = "text::time")]
    pub created_at: Timestamp,
    /// When the phone was last there, at most a minute stale; none before its first transport frame.
    #[serde(deserialize_with = "text::time_if_any")]
    pub last_seen: Option<Timestamp>,
    /// When the ticket, or the credential, ends.
    #[serde(deserialize_with = "text::time")]
    pub expires_at: Timestamp,
    /// How many connections there are now.
    pub connections: u32,
    /// A renewed credential that the phone has not used yet.
    pub renewal: Option<WaitingRenewal>,
    /// What has become of it.
    pub state: ListingState,
}

/// Terms that hold once the phone uses its renewed credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WaitingRenewal {
    /// What it will allow.
    #[serde(deserialize_with = "text::ops")]
    pub ops: OpSet,
    /// When it will end.
    #[serde(deserialize_with = "text::time")]
    pub expires_at: Timestamp,
}

/// What has become of a ticket or credential.
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
    /// It ran out.
    #[serde(deserialize_with = "text::nothing")]
    Expired,
}

impl ListingState {
    /// The state without what belongs to it.
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

/// The name of a [`ListingState`], to ask for what is in it.
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

/// Why something was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevocationReason {
    /// By its owner's word.
    Owner,
    /// Two phones redeemed the same ticket.
    Contest,
    /// All of its session was revoked.
    Session,
    /// The session ended.
    SessionEnd,
    /// Its issuer or the issuer's device was revoked.
    Issuer,
}
