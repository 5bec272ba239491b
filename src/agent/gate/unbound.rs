//! Unbound credentials: reads what a desktop has minted for this agent, and binds it to a phone.

use rand_core::{CryptoRng, RngCore};

use super::Inner;
use crate::agent::denial::Denial;
use crate::agent::ledger::transition::Extension;
use crate::credential::block::Binding;
use crate::credential::bytes::CredentialBytes;
use crate::credential::mint::{UnboundCredential, VerifiedUnbound};
use crate::credential::verify::Credential;

impl Inner {
    /// Reads one by shape, or refuses it as `mismatch` if it is for another agent or another address. Its
    /// signature is not checked.
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

/// Binds one, and takes down what the bound credential is told by. One Ed25519 signature.
pub(super) fn bind<R: RngCore + CryptoRng>(
    unbound: &VerifiedUnbound,
    binding: Binding,
    rng: &mut R,
) -> Result<Extension, Denial> {
    let bytes = unbound.bind(binding, rng).map_err(|_| Denial::Internal)?;
    let hashes = Credential::parse(&bytes).map_err(|_| Denial::Internal)?.hashes();
    Ok(Extension { bytes, hashes })
}
