//! Why a permit was not granted, by what happens to the connection.

use thiserror::Error;

use crate::agent::denial::Denial;

/// Why a permit was not granted, and whether the connection goes on (`docs/PROTOCOL.md` section 10).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PermitError {
    /// This frame may not pass. The connection goes on.
    #[error(transparent)]
    Refused(Denial),
    /// Not now: the gate was not settled for some seconds, or its ledger has failed. Keep the frame, wait for
    /// [`Guard::settled`](crate::agent::Guard::settled), and ask again.
    #[error("{}", Denial::Stale)]
    Stale,
    /// The connection is over. Send an end frame and close it.
    #[error(transparent)]
    Over(Denial),
}

impl PermitError {
    /// Whether the connection is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }

    /// The reason, for logs and for the answer to the peer.
    #[must_use]
    pub fn denial(&self) -> &Denial {
        match self {
            Self::Refused(denial) | Self::Over(denial) => denial,
            Self::Stale => &Denial::Stale,
        }
    }

    /// A stable name for programs and logs: that of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.denial().code()
    }
}

/// Of the mark of a credential: a pause, or an end.
impl From<Denial> for PermitError {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Stale => Self::Stale,
            denial => Self::Over(denial),
        }
    }
}

impl From<PermitError> for Denial {
    fn from(error: PermitError) -> Self {
        match error {
            PermitError::Refused(denial) | PermitError::Over(denial) => denial,
            PermitError::Stale => Self::Stale,
        }
    }
}
