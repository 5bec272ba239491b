//! Reads the unbound credentials that a desktop minted for this agent, and binds them to a phone.

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::Extension;
use crate::credential::block::Binding;
use crate::credential::bytes::CredentialBytes;
use crate::credential::mint::{UnboundCredential, VerifiedUnbound};
use crate::credential::verify::Credential;

impl Inner {
    /// Reads an unbound credential, checking only its shape. Refuses it as `mismatch` if it is for another
    /// agent or address. Its signature is not verified.
    pub(super) fn read_unbound(
        &self,
        bytes: &CredentialBytes,
        mismatch: Denial,
    ) -> Result<UnboundCredential, Denial> {
        let credential = UnboundCredential::parse(bytes).map_err(Denial::OfferMalformed)?;
        let authority = credential.authority();
        let for_us = authority.agent == self.agent && self.urls.contains(&authority.url);
        if for_us { Ok(credential) } else { Err(mismatch) }
    }
}

/// Binds an unbound credential. Returns the bound one, and with its bytes the hashes that identify it. Costs one
/// Ed25519 signature.
pub(super) fn bind<R: RngCore + CryptoRng>(
    unbound: &VerifiedUnbound,
    binding: Binding,
    rng: &mut R,
) -> Result<(Extension, Credential), Denial> {
    let bytes = unbound.bind(binding, rng).map_err(|_| Denial::Internal)?;
    let credential = Credential::parse(&bytes).map_err(|_| Denial::Internal)?;
    let hashes = credential.hashes();
    Ok((Extension { bytes, hashes }, credential))
}
