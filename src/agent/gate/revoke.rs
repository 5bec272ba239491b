//! Revocation. Each verb is idempotent, cuts live streams before anything that waits, is durable before it
//! returns, and keeps the guard's contract: after it returns no permit is granted, and none is in use.

use super::Gate;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::Revocation;
use crate::clock::Now;
use crate::error::Misuse;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};
use crate::label::Label;
use crate::pair::{Revoke, Revoked};

/// # Revocation
///
/// Each verb is idempotent, and says what it has ended ([`Revoked`]): said again it answers
/// [`Revoked::Already`], and for a name that is not on record [`Revoked::Unknown`], which is no error. A gate
/// remembers the last 1,024 names that it has revoked; beyond them, and after a restart, an issuer, a phone or
/// a pairing whose records are kept no longer is unknown as well.
///
/// Live streams are cut first, and what is named is closed to offers, redemptions, attaches and activations,
/// before the verb waits for the ledger, the audit sink, the context or a waker. When it returns, the
/// revocation is durable, no further permit is granted and none is in use. Each costs one durable write and
/// what the audit sink does with its records, and waits for permits in use, microseconds.
impl Gate {
    /// Revokes a ticket before it is redeemed, its credential afterwards.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_ticket(&self, ticket: &TicketId, now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::Ticket(*ticket), now)
    }

    /// Revokes a credential, with everything that its holder narrowed from it.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_credential(&self, credential: &CredentialId, now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::Credential(*credential), now)
    }

    /// Revokes every ticket and credential of a session that goes on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_session(&self, session: &SessionId, now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::Session(session.clone()), now)
    }

    /// Ends every ticket and credential of a session that has ended. Call it for each session that
    /// ends, before its id can be used again.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn end_session(&self, session: &SessionId, now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::SessionEnd(session.clone()), now)
    }

    /// Revokes an issuer key, with everything that it signed. A later registration of the same key
    /// revives nothing. Costs as much as there is to revoke.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_issuer(&self, issuer: &IssuerPublicKey, now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::Issuer(*issuer), now)
    }

    /// Revokes every issuer key of a device, with everything that they signed.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_device(&self, device: &DevicePublicKey, now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::Device(*device), now)
    }

    /// Revokes every device that is not in `enrolled`. Call it when the trust set has changed, and at
    /// start.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn sync_devices(&self, enrolled: &[DevicePublicKey], now: Now) -> Result<Revoked, Denial> {
        self.apply(&Revocation::DevicesOutside(enrolled.into()), now)
    }

    /// Sets the agent's time to the wall clock's, which may be earlier. For an operator whose clock
    /// once stood in the future: the agent's time never goes back by itself. Whatever could be revived
    /// by that goes first: every ticket, credential and issuer registration. Desktops register again,
    /// phones pair again; their credentials are unknown here from now on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn reset_clock(&self, now: Now) -> Result<(), Denial> {
        self.apply(&Revocation::Everything, now).map(drop)
    }

    /// Revokes every pairing that a device has offered under one name for the phone, its label: for a phone
    /// that was stolen. Any enrolled device may ask for it. The name is compared byte for byte.
    ///
    /// # Errors
    /// [`Denial::ApiMisuse`] for an empty name. Otherwise as [`Gate::revoke_credential`].
    pub fn revoke_phone(&self, device: &DevicePublicKey, name: &Label, now: Now) -> Result<Revoked, Denial> {
        if name.as_str().is_empty() {
            return Err(Denial::ApiMisuse(Misuse::NoPhoneName));
        }
        self.apply(&Revocation::Phone(*device, name.clone()), now)
    }

    /// Revokes what a desktop asks for: the verb above that belongs to it.
    ///
    /// # Errors
    /// As that verb.
    pub fn revoke(&self, what: &Revoke, now: Now) -> Result<Revoked, Denial> {
        match what {
            Revoke::Ticket(ticket) => self.revoke_ticket(ticket, now),
            Revoke::Credential(credential) => self.revoke_credential(credential, now),
            Revoke::Session(session) => self.revoke_session(session, now),
            Revoke::Issuer(issuer) => self.revoke_issuer(issuer, now),
            Revoke::Device(device) => self.revoke_device(device, now),
            Revoke::Phone { device, name } => self.revoke_phone(device, name, now),
        }
    }

    fn apply(&self, revocation: &Revocation, now: Now) -> Result<Revoked, Denial> {
        self.inner.core.revoke(revocation, now)
    }
}
