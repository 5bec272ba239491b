//! Offline narrowing by the holder of a credential: a copy can only allow less (`docs/PROTOCOL.md` section
//! 5.5).

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
    /// Returns a copy that allows less: only `ops`, only until `expires_at`, or both. A value wider than
    /// before has no effect. Works offline; costs one Ed25519 signature.
    ///
    /// # Errors
    /// [`Error::AttenuationEmpty`] if neither is given, [`Error::OpsEmpty`] if `ops` is empty,
    /// [`Error::CredentialSealed`] if the credential is sealed, [`Error::TooManyAttenuations`] if it has the
    /// most blocks already, and [`Error::Credential`] if the copy would be too long.
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

    /// Returns a copy that cannot be narrowed any more and contains no key. Costs one Ed25519 signature.
    ///
    /// # Errors
    /// [`Error::CredentialSealed`] if it is sealed already.
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
