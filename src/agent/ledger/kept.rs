//! A record as it was read, which is not decoded again while its row is the same.

use core::ops::Deref;
use std::sync::Arc;

use super::record::CredentialRecord;

/// A credential's record, and the row that it was decoded from. An admission reads the record several times, because
/// much may happen in between; mostly nothing has, and the row says so.
#[derive(Debug, Clone)]
pub(crate) struct Kept(Arc<Read>);

#[derive(Debug)]
struct Read {
    row: Box<[u8]>,
    record: CredentialRecord,
}

impl Kept {
    pub(crate) fn new(row: Vec<u8>, record: CredentialRecord) -> Self {
        Self(Arc::new(Read { row: row.into(), record }))
    }

    /// Whether this is what a row holds.
    pub(crate) fn is_of(&self, row: &[u8]) -> bool {
        *self.0.row == *row
    }
}

/// A record that was written and not read: no row is the same.
impl From<CredentialRecord> for Kept {
    fn from(record: CredentialRecord) -> Self {
        Self::new(Vec::new(), record)
    }
}

impl Deref for Kept {
    type Target = CredentialRecord;

    fn deref(&self) -> &CredentialRecord {
        &self.0.record
    }
}
