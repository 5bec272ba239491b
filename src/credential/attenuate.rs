//! Narrowing, offline, by whoever holds a credential: a child can only lose
//! (`docs/PROTOCOL.md` section 5.5).

use biscuit_auth::UnverifiedBiscuit;
use rand_core::{CryptoRng, RngCore};

use crate::clock::Timestamp;
use crate::credential::block::{Attenuation, Block};
use crate::credential::bytes::CredentialBytes;
use crate::credential::shape::{append, problem};
use crate::credential::verify::Credential;
use crate::error::{CredentialProblem, Error};
use crate::limits::MAX_ATTENUATIONS;
use crate::op::OpSet;

impl Credential {
    /// A copy that allows less: only `ops`, only until `expires_at`, or both. Whatever is named wider
    /// than before has no effect. Works offline; costs one Ed25519 signature.
    ///
    /// # Errors
    /// [`Error::AttenuationEmpty`] if neither is named, [`Error::OpsEmpty`] for an empty set,
    /// [`Error::CredentialSealed`], [`Error::TooManyAttenuations`], and [`Error::Credential`] if it
    /// would be too long.
    pub fn attenuate<R: RngCore + CryptoRng>(
        &self,
        ops: Option<OpSet>,
        expires_at: Option<Timestamp>,
        rng: &mut R,
    ) -> Result<Self, Error> {
        if ops.is_none() && expires_at.is_none() {
            return Err(Error::AttenuationEmpty);
        }
        if ops.is_some_and(OpSet::is_empty) {
            return Err(Error::OpsEmpty);
        }
        if self.is_sealed() {
            return Err(Error::CredentialSealed);
        }
        if self.attenuations() >= MAX_ATTENUATIONS {
            return Err(Error::TooManyAttenuations { max: MAX_ATTENUATIONS });
        }
        let block = Block::Attenuation(Attenuation { ops, expires_at });
        Self::parse(&append(self.bytes.as_bytes(), &block, rng)?)
    }

    /// A copy that cannot be narrowed any more and holds no key. Costs one Ed25519 signature.
    ///
    /// # Errors
    /// [`Error::CredentialSealed`] if it is one already.
    pub fn seal(&self) -> Result<Self, Error> {
        if self.is_sealed() {
            return Err(Error::CredentialSealed);
        }
        let encoding = |_| problem(CredentialProblem::Encoding);
        let token = UnverifiedBiscuit::from(self.bytes.as_bytes()).map_err(encoding)?;
        let sealed = token.seal().and_then(|token| token.to_vec()).map_err(encoding)?;
        Self::parse(&CredentialBytes::new(sealed)?)
    }
}
