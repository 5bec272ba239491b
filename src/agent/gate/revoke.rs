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

/// # Revocation
///
/// Each verb is idempotent, and an unknown id is no error. Live streams are cut first, and what is named is
/// closed to offers, redemptions, attaches and activations, before the verb waits for the ledger, the audit
/// sink, the context or a waker. When it returns, the revocation is durable, no further permit is granted
/// and none is in use. Each costs one durable write and what the audit sink does with its records, and waits
/// for permits in use, microseconds.
impl Gate {
    /// Revokes a ticket before it is redeemed, its credential afterwards.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_ticket(&self, ticket: &TicketId, now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::Ticket(*ticket), now)
    }

    /// Revokes a credential, with everything that its holder narrowed from it.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_credential(&self, credential: &CredentialId, now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::Credential(*credential), now)
    }

    /// Revokes every ticket and credential of a session that goes on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_session(&self, session: &SessionId, now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::Session(session.clone()), now)
    }

    /// Ends every ticket and credential of a session that has ended. Call it for each session that
    /// ends, before its id can be used again.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn end_session(&self, session: &SessionId, now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::SessionEnd(session.clone()), now)
    }

    /// Revokes an issuer key, with everything that it signed. A later registration of the same key
    /// revives nothing. Costs as much as there is to revoke.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_issuer(&self, issuer: &IssuerPublicKey, now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::Issuer(*issuer), now)
    }

    /// Revokes every issuer key of a device, with everything that they signed.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn revoke_device(&self, device: &DevicePublicKey, now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::Device(*device), now)
    }

    /// Revokes every device that is not in `enrolled`. Call it when the trust set has changed, and at
    /// start.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it is not on record, or may not be. What it names stays cut and closed in this
    /// gate, and is written with the next transaction that can be. [`Denial::ApiMisuse`] from inside a
    /// permit, before anything happened.
    pub fn sync_devices(&self, enrolled: &[DevicePublicKey], now: Now) -> Result<(), Denial> {
        self.revoke(&Revocation::DevicesOutside(enrolled.into()), now)
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
        self.revoke(&Revocation::Everything, now)
    }

    /// Revokes every pairing that a device has offered under one name for the phone, its label: for a phone
    /// that was stolen. Any enrolled device may ask for it. The name is compared byte for byte.
    ///
    /// # Errors
    /// [`Denial::ApiMisuse`] for an empty name. Otherwise as [`Gate::revoke_credential`].
    pub fn revoke_phone(&self, device: &DevicePublicKey, name: &Label, now: Now) -> Result<(), Denial> {
        if name.as_str().is_empty() {
            return Err(Denial::ApiMisuse(Misuse::NoPhoneName));
        }
        self.revoke(&Revocation::Phone(*device, name.clone()), now)
    }

    fn revoke(&self, revocation: &Revocation, now: Now) -> Result<(), Denial> {
        self.inner.core.revoke(revocation, now)
    }
}
