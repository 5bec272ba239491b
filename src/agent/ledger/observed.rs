//! Reads what another node has changed.

use super::record::{CredentialRecord, IssuerRecord, Progress, SessionRecord};
use super::rows::{decoded, id_of, progress_key};
use super::{Changes, Table, event};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::id::{CredentialId, NodeId, SessionId};
use crate::key::IssuerPublicKey;

/// A changed row that matters to the streams of another node.
pub(crate) enum Observed {
    /// A credential's record, or that it was removed.
    Credential(CredentialId, Option<Box<CredentialRecord>>),
    /// A session's epoch, or that nothing of it is left.
    Session(SessionId, Option<u64>),
    /// An issuer's generation, or that it was removed.
    Issuer(IssuerPublicKey, Option<u64>),
    /// An event that another node has recorded.
    Event(AuditEvent),
    /// The progress of the observing node itself.
    Progress(Progress),
}

/// Reads the changes of one transaction that the node `node` has not made. Fails whole if one row cannot be
/// read.
pub(crate) fn observed(changes: &Changes, node: NodeId) -> Result<Vec<Observed>, LedgerFailure> {
    let own = progress_key(node);
    // Credentials first, whose records have the reason; then what ends them all.
    let (mut credentials, mut seen) = (Vec::new(), Vec::new());
    for (table, key, value) in changes.iter() {
        match (table, value) {
            (Table::Credentials, value) => {
                let record = value.map(decoded::<CredentialRecord>).transpose()?.map(Box::new);
                credentials.push(Observed::Credential(CredentialId::from_bytes(id_of(key)?), record));
            }
            (Table::Sessions, value) => {
                let id = core::str::from_utf8(key).ok().and_then(|id| SessionId::new(id).ok());
                let epoch = value.map(decoded::<SessionRecord>).transpose()?.map(|record| record.epoch);
                seen.push(Observed::Session(id.ok_or(LedgerFailure::Corrupt)?, epoch));
            }
            (Table::Issuers, value) => {
                let key = <[u8; 32]>::try_from(key).map_err(|_| LedgerFailure::Corrupt)?;
                let generation = value.map(decoded::<IssuerRecord>).transpose()?.map(|of| of.generation);
                seen.push(Observed::Issuer(IssuerPublicKey::from_stored(key), generation));
            }
            (Table::Events, Some(value)) => {
                seen.push(Observed::Event(decoded::<event::StoredEvent>(value)?.event));
            }
            (Table::Meta, Some(value)) if key == own => seen.push(Observed::Progress(decoded(value)?)),
            _ => {}
        }
    }
    credentials.append(&mut seen);
    Ok(credentials)
}
