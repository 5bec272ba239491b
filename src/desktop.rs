//! The desktop's side: registers an issuer key, then mints pairings (`docs/PROTOCOL.md` section 8).
//!
//! Minting needs no connection. The registration, then the offer, must reach the agent before the phone does.

use core::fmt;
use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

use crate::agent_url::AgentUrl;
use crate::clock::Timestamp;
use crate::credential::block::Authority;
use crate::credential::mint::{Signer, UnboundCredential};
use crate::error::Error as Malformed;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, IssuerPublicKey, IssuerSecretKey};
use crate::label::Label;
use crate::limits::{
    DEFAULT_CREDENTIAL_LIFETIME, DEFAULT_TICKET_LIFETIME, MAX_CREDENTIAL_LIFETIME, MAX_TICKET_LIFETIME,
    MIN_CREDENTIAL_LIFETIME, MIN_TICKET_LIFETIME,
};
use crate::op::OpSet;
use crate::protocol::link::Link;
use crate::protocol::message::{Offer, Registration, RenewalOffer};
use crate::protocol::ticket::TicketSecret;

/// A desktop that can share sessions of one agent.
#[derive(Clone)]
pub struct Issuer {
    key: IssuerSecretKey,
    public: IssuerPublicKey,
    signer: Arc<Result<Signer, Malformed>>,
    agent: AgentPublicKey,
    url: AgentUrl,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("public", &self.public)
            .field("agent", &self.agent)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Makes an issuer for the agent with this Noise key, reached at this address. The phone connects to
    /// exactly this address, so it must be one that the agent is configured with.
    #[must_use]
    pub fn new(key: IssuerSecretKey, agent: AgentPublicKey, url: AgentUrl) -> Self {
        let signer = Arc::new(Signer::new(&key));
        Self { public: key.public(), key, signer, agent, url }
    }

    fn mint<R: RngCore + CryptoRng>(
        &self,
        authority: Authority,
        rng: &mut R,
    ) -> Result<UnboundCredential, DesktopError> {
        let signer = self.signer.as_ref().as_ref().map_err(|error| DesktopError::Internal(error.clone()))?;
        UnboundCredential::mint(authority, signer, rng).map_err(DesktopError::Internal)
    }

    /// Returns the key to register.
    #[must_use]
    pub fn public(&self) -> IssuerPublicKey {
        self.public
    }

    /// Signs the registration for the channel with this handshake hash; it is valid on no other channel.
    /// `device` is the desktop's own Noise key on that channel. Costs one Ed25519 signature.
    #[must_use]
    pub fn registration(&self, device: &DevicePublicKey, handshake_hash: &[u8; 32]) -> Registration {
        let issuer = self.public();
        let message = Registration::message(handshake_hash, &self.agent, device, &issuer);
        Registration { issuer, signature: self.key.sign(&message) }
    }

    /// Mints a ticket and an unbound credential for one session. `now` is the desktop's clock, or the
    /// agent's time from a [`Denial::ClockSkew`](crate::agent::Denial::ClockSkew). Costs one Ed25519 signature and
    /// two scalar multiplications.
    ///
    /// # Errors
    /// [`DesktopError::Internal`], which is a defect of this crate.
    pub fn pair<R: RngCore + CryptoRng>(
        &self,
        session: SessionId,
        terms: &PairingTerms,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<Pairing, DesktopError> {
        let ticket = TicketSecret::generate(rng);
        let ticket_key = ticket.public_key();
        let mut credential_id = [0; 16];
        rng.fill_bytes(&mut credential_id);
        let authority = Authority {
            credential: CredentialId::from_bytes(credential_id),
            ticket: ticket_key.id(),
            agent: self.agent,
            url: self.url.clone(),
            session,
            ops: terms.ops,
            expires_at: now.plus(terms.valid_for),
        };
        let credential = self.mint(authority, rng)?;
        let offer = Offer {
            issuer: self.public(),
            ticket: ticket_key,
            ticket_lifetime: terms.ticket_lifetime,
            valid_for: terms.valid_for,
            label: terms.label.clone(),
            require_confirm: terms.confirmation == Confirmation::Required,
            credential: credential.bytes().clone(),
        };
        Ok(Pairing {
            ticket: ticket_key.id(),
            credential: credential.id(),
            offer,
            link: Link::new(self.url.clone(), self.agent, ticket),
        })
    }

    /// Mints new terms for a credential that this issuer key signed, to be sent to the agent over the
    /// desktop's own channel ([`Gate::renew`](crate::agent::Gate::renew)). `now` is as in [`Issuer::pair`].
    /// Costs about two Ed25519 signatures.
    ///
    /// # Errors
    /// [`DesktopError::OpsEmpty`] if no operation is named, [`DesktopError::Lifetime`] if the lifetime is out
    /// of bounds, and [`DesktopError::Internal`], which is a defect of this crate.
    pub fn renew<R: RngCore + CryptoRng>(
        &self,
        renewal: Renewal,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<RenewalOffer, DesktopError> {
        let Renewal { credential, ticket, session, ops, valid_for } = renewal;
        if ops.is_empty() {
            return Err(DesktopError::OpsEmpty);
        }
        check_lifetime(valid_for, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)?;
        let authority = Authority {
            credential,
            ticket,
            agent: self.agent,
            url: self.url.clone(),
            session,
            ops,
            expires_at: now.plus(valid_for),
        };
        let credential = self.mint(authority, rng)?;
        let credential = credential.bytes().clone();
        Ok(RenewalOffer { issuer: self.public(), valid_for, credential })
    }
}

/// New terms for a credential that a phone already holds. The agent's list has the ids.
///
/// Build it as a struct literal: the agent needs every field, and none has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The credential.
    pub credential: CredentialId,
    /// The ticket that it came from.
    pub ticket: TicketId,
    /// Its session.
    pub session: SessionId,
    /// The operations that it will allow: removals take effect at once, additions with the next attach.
    pub ops: OpSet,
    /// How long it will be valid from now, seconds, 30 seconds to 72 hours.
    pub valid_for: u64,
}

/// One pairing: send the offer to the agent, then show the link. `Debug` shows neither the unbound credential
/// in the offer nor the ticket's secret.
#[non_exhaustive]
pub struct Pairing {
    /// The ticket's id, for revoking it.
    pub ticket: TicketId,
    /// The id of the credential that the phone will get, for revoking it.
    pub credential: CredentialId,
    /// The offer to send to the agent over the desktop's own channel.
    pub offer: Offer,
    /// The link to show to the phone, and to nobody else. It contains the ticket's secret.
    pub link: Link,
}

impl core::fmt::Debug for Pairing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pairing")
            .field("ticket", &self.ticket)
            .field("credential", &self.credential)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// Whether the desktop has to confirm the phone that redeems the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confirmation {
    /// The first phone that redeems the ticket is admitted.
    #[default]
    NotRequired,
    /// The phone waits until both people have compared six digits.
    Required,
}

/// What a phone may do, and for how long.
///
/// The default is the companion's operations for twelve hours, with a ticket of five minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairingTerms {
    ops: OpSet,
    ticket_lifetime: u64,
    valid_for: u64,
    label: Label,
    confirmation: Confirmation,
}

impl Default for PairingTerms {
    fn default() -> Self {
        Self {
            ops: OpSet::COMPANION,
            ticket_lifetime: DEFAULT_TICKET_LIFETIME,
            valid_for: DEFAULT_CREDENTIAL_LIFETIME,
            label: Label::default(),
            confirmation: Confirmation::NotRequired,
        }
    }
}

impl PairingTerms {
    /// Shortest lifetime of a ticket, seconds.
    pub const MIN_TICKET_LIFETIME: u64 = MIN_TICKET_LIFETIME;
    /// Longest lifetime of a ticket, seconds.
    pub const MAX_TICKET_LIFETIME: u64 = MAX_TICKET_LIFETIME;
    /// Lifetime of a ticket by default, seconds.
    pub const DEFAULT_TICKET_LIFETIME: u64 = DEFAULT_TICKET_LIFETIME;
    /// Shortest lifetime of a credential, seconds.
    pub const MIN_VALID_FOR: u64 = MIN_CREDENTIAL_LIFETIME;
    /// Longest lifetime of a credential, seconds.
    pub const MAX_VALID_FOR: u64 = MAX_CREDENTIAL_LIFETIME;
    /// Lifetime of a credential by default, seconds.
    pub const DEFAULT_VALID_FOR: u64 = DEFAULT_CREDENTIAL_LIFETIME;

    /// Sets other operations than the companion's.
    ///
    /// # Errors
    /// [`DesktopError::OpsEmpty`] if `ops` is empty.
    pub fn with_ops(mut self, ops: OpSet) -> Result<Self, DesktopError> {
        if ops.is_empty() {
            return Err(DesktopError::OpsEmpty);
        }
        self.ops = ops;
        Ok(self)
    }

    /// Sets how long the ticket can be redeemed, seconds.
    ///
    /// # Errors
    /// [`DesktopError::Lifetime`] outside 30 seconds to 15 minutes.
    pub fn with_ticket_lifetime(mut self, seconds: u64) -> Result<Self, DesktopError> {
        self.ticket_lifetime = check_lifetime(seconds, MIN_TICKET_LIFETIME, MAX_TICKET_LIFETIME)?;
        Ok(self)
    }

    /// Sets how long the credential is valid, seconds.
    ///
    /// # Errors
    /// [`DesktopError::Lifetime`] outside 30 seconds to 72 hours.
    pub fn with_valid_for(mut self, seconds: u64) -> Result<Self, DesktopError> {
        self.valid_for = check_lifetime(seconds, MIN_CREDENTIAL_LIFETIME, MAX_CREDENTIAL_LIFETIME)?;
        Ok(self)
    }

    /// Sets a name for the list of pairings.
    #[must_use]
    pub fn with_label(mut self, label: Label) -> Self {
        self.label = label;
        self
    }

    /// Sets whether the desktop has to confirm the phone.
    #[must_use]
    pub fn with_confirmation(mut self, confirmation: Confirmation) -> Self {
        self.confirmation = confirmation;
        self
    }
}

fn check_lifetime(seconds: u64, min: u64, max: u64) -> Result<u64, DesktopError> {
    if (min..=max).contains(&seconds) { Ok(seconds) } else { Err(DesktopError::Lifetime { min, max }) }
}

/// The reason why a desktop's pairing or renewal could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DesktopError {
    /// The credential could not be minted. This is a defect; please report it. The source says more.
    #[error("the credential could not be minted; please report this")]
    Internal(#[source] Malformed),
    /// A lifetime is outside the protocol's bounds.
    #[error("the lifetime must be {min} to {max} seconds")]
    Lifetime {
        /// The shortest, seconds.
        min: u64,
        /// The longest, seconds.
        max: u64,
    },
    /// No operation was named.
    #[error("name at least one operation")]
    OpsEmpty,
}

impl DesktopError {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Internal(_) => "internal",
            Self::Lifetime { .. } => "lifetime_out_of_bounds",
            Self::OpsEmpty => "ops_empty",
        }
    }
}
