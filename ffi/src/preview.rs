//! A link before the person has accepted it.

use std::sync::Arc;

use rand_core::OsRng;
use sessioncap::app::{self, AppError};
use sessioncap::{Label, Link};

use crate::connection::Connection;
use crate::failure::Failed;
use crate::guarded::Guarded;
use crate::pairings::Pairings;

/// A link before the person has accepted it. Nothing is sent.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Preview(Guarded<app::Preview>);

/// Reads a link, as it was scanned, opened or pasted.
///
/// # Errors
/// The code of what is wrong with the link, or `wiped` if the list is.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn preview(link: String, pairings: Arc<Pairings>) -> Result<Arc<Preview>, Failed> {
    Preview::read(&link, &pairings).map(Arc::new)
}

impl Preview {
    pub(crate) fn read(link: &str, pairings: &Pairings) -> Result<Self, Failed> {
        let (link, _) = Link::from_pasted(link).map_err(AppError::from)?;
        pairings.with(|pairings| Self(Guarded::new(app::Preview::new(link, pairings))))
    }

    pub(crate) fn accepted(&self, label: &str) -> Result<Connection, Failed> {
        let label = Label::new(label)?;
        let preview = self.0.take().ok_or_else(Failed::wiped)?;
        Ok(Connection::join(preview.accept(label, &mut OsRng)))
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Preview {
    /// Returns the host that will be connected to.
    ///
    /// # Errors
    /// `wiped`, as of every call.
    pub fn host(&self) -> Result<String, Failed> {
        self.0.with(|preview| preview.host())
    }

    /// Returns the address that will be connected to.
    ///
    /// # Errors
    /// `wiped`.
    pub fn url(&self) -> Result<String, Failed> {
        self.0.with(|preview| preview.url().to_string())
    }

    /// Returns the agent's key as people compare it.
    ///
    /// # Errors
    /// `wiped`.
    pub fn fingerprint(&self) -> Result<String, Failed> {
        self.0.with(|preview| preview.fingerprint())
    }

    /// Returns the phone's knowledge of the agent: `link`, `agent`, `host_of_another` or `nothing`.
    ///
    /// # Errors
    /// `wiped`.
    pub fn known(&self) -> Result<String, Failed> {
        self.0.with(|preview| preview.known().code().to_owned())
    }

    /// Makes the connection, and wipes the preview. `label` is the phone's name for itself.
    ///
    /// # Errors
    /// `wiped` if it was accepted before; the code of what is wrong with the label, after which it can be accepted
    /// with another.
    pub fn accept(&self, label: String) -> Result<Arc<Connection>, Failed> {
        self.accepted(&label).map(Arc::new)
    }

    /// Wipes the link. Wiping twice is nothing.
    pub fn wipe(&self) {
        drop(self.0.take());
    }
}
