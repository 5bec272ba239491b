//! The error of a permit, which says what happens to the connection.

use thiserror::Error;

use crate::agent::denial::Denial;

/// The reason why a permit was not granted, and whether the connection goes on (`docs/PROTOCOL.md` section
/// 10).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PermitError {
    /// This frame is refused. The connection continues.
    #[error(transparent)]
    Refused(Denial),
    /// The gate was not settled for some seconds, or its ledger has failed. Keep the frame, wait for
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

    /// Returns the reason, for logs and for the answer to the peer.
    #[must_use]
    pub fn denial(&self) -> &Denial {
        match self {
            Self::Refused(denial) | Self::Over(denial) => denial,
            Self::Stale => &Denial::Stale,
        }
    }

    /// Returns a stable name for programs and logs: that of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.denial().code()
    }
}

impl PermitError {
    /// Of the mark of a credential, which pauses or cuts its connections.
    pub(super) fn of_mark(denial: Denial) -> Self {
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
