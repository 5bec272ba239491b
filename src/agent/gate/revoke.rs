//! Taking back. Each verb is idempotent, cuts live streams first, is durable before it returns, and
//! keeps the guard's contract: after it returns no permit is granted, and none is in use.

use std::sync::Arc;

use super::Gate;
use crate::agent::audit::RevocationReason;
use crate::agent::core::Target;
use crate::agent::denial::{Denial, LedgerFailure};
use crate::agent::guard::{Cut, Live, check_outside_permit};
use crate::agent::ledger::transition::Step;
use crate::clock::Now;
use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::{DevicePublicKey, IssuerPublicKey};

/// # Taking back
///
/// Each verb is idempotent, and an unknown id is no error. Live streams are cut first; when the verb
/// returns, the revocation is durable, no further permit is granted and none is in use. Each costs one
/// durable write and what the audit sink does with its records, and waits for permits in use, microseconds.
impl Gate {
    /// Revokes a ticket before it is redeemed, its credential afterwards.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn revoke_ticket(&self, ticket: &TicketId, now: Now) -> Result<(), Denial> {
        self.take_back(Target::Ticket(ticket), Cut::Revoked, now, |step| step.revoke_ticket(ticket))
    }

    /// Revokes a credential, with everything that its holder narrowed from it.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn revoke_credential(&self, credential: &CredentialId, now: Now) -> Result<(), Denial> {
        self.take_back(Target::Credential(credential), Cut::Revoked, now, |step| {
            step.revoke_credential(credential)
        })
    }

    /// Revokes every ticket and credential of a session that goes on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn revoke_session(&self, session: &SessionId, now: Now) -> Result<(), Denial> {
        self.take_back(Target::Session(session), Cut::Revoked, now, |step| {
            step.close_session(session, RevocationReason::Session)
        })
    }

    /// Ends every ticket and credential of a session that has ended. Call it for each session that
    /// ends, before its id can be used again.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn end_session(&self, session: &SessionId, now: Now) -> Result<(), Denial> {
        self.take_back(Target::Session(session), Cut::SessionGone, now, |step| {
            step.close_session(session, RevocationReason::SessionEnd)
        })
    }

    /// Revokes an issuer key, with everything that it signed. A later registration of the same key
    /// revives nothing. Costs as much as there is to revoke.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn revoke_issuer(&self, issuer: &IssuerPublicKey, now: Now) -> Result<(), Denial> {
        self.take_back(Target::Issuer(issuer), Cut::Revoked, now, |step| step.revoke_issuer(issuer))
    }

    /// Revokes every issuer key of a device, with everything that they signed.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn revoke_device(&self, device: &DevicePublicKey, now: Now) -> Result<(), Denial> {
        self.take_back(Target::Device(device), Cut::Revoked, now, |step| {
            step.issuers_of(device)?.iter().try_for_each(|issuer| step.revoke_issuer(issuer))
        })
    }

    /// Revokes every device that is not in `enrolled`. Call it when the trust set has changed, and at
    /// start.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn sync_devices(&self, enrolled: &[DevicePublicKey], now: Now) -> Result<(), Denial> {
        self.take_back(Target::DevicesOutside(enrolled), Cut::Revoked, now, |step| {
            step.issuers_outside(enrolled)?.iter().try_for_each(|issuer| step.revoke_issuer(issuer))
        })
    }

    /// Sets the agent's time to the wall clock's, which may be earlier. For an operator whose clock
    /// once stood in the future: the agent's time never goes back by itself. Whatever could be revived
    /// by that goes first: every ticket, credential and issuer registration. Desktops register again,
    /// phones pair again; their credentials are unknown here from now on.
    ///
    /// # Errors
    /// [`Denial::Ledger`] if it could not be made durable: streams stay cut, and the gate refuses
    /// everything from then on. [`Denial::ApiMisuse`] from inside a permit, before anything happened.
    pub fn reset_clock(&self, now: Now) -> Result<(), Denial> {
        check_outside_permit()?;
        let (cut, outcome) = {
            let mut state = self.inner.state();
            state.count_closure();
            let cut = state.registry().cut(Target::All, Cut::Revoked);
            (cut, state.reset_clock(now, self.inner.audit()))
        };
        for live in cut {
            live.drain();
        }
        outcome
    }

    fn take_back(
        &self,
        target: Target<'_>,
        why: Cut,
        now: Now,
        mut transition: impl FnMut(&mut Step<'_>) -> Result<(), LedgerFailure>,
    ) -> Result<(), Denial> {
        check_outside_permit()?;
        let (cut, outcome): (Vec<Arc<Live>>, _) = {
            let mut state = self.inner.state();
            let now = state.effective(now);
            // One phone's end changes nothing of what the agent's context says.
            if !matches!(target, Target::Ticket(_) | Target::Credential(_)) {
                state.count_closure();
            }
            let cut = state.registry().cut(target, why);
            let outcome = state.judge(now, self.inner.audit(), |step| transition(step).map(Ok));
            (cut, outcome)
        };
        // Without the lock: a permit that is still in use may want it.
        for live in cut {
            live.drain();
        }
        outcome
    }
}
