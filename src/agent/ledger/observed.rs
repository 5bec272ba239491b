//! Reads what another node has changed.

use super::record::{Counters, CredentialRecord, IssuerRecord, Progress, SessionRecord};
use super::rows::{COUNTERS, decoded, id_of, progress_key};
use super::{Changes, Table, event};
use crate::agent::audit::AuditEvent;
use crate::agent::denial::LedgerFailure;
use crate::id::{CredentialId, NodeId, SessionId};
use crate::key::IssuerPublicKey;

/// A changed row that matters to the streams of another node.
pub(crate) enum Observed {
    /// A credential's record, or that it was removed.
    Credential(CredentialId, Option<Box<CredentialRecord>>),
    /// A session, whose earlier epochs are over.
    Session(SessionId, Over),
    /// An issuer, whose earlier generations are over.
    Issuer(IssuerPublicKey, Over),
    /// An event that another node has recorded.
    Event(AuditEvent),
    /// The progress of the observing node itself.
    Progress(Progress),
}

/// Which epochs of a session, or generations of an issuer, are over by what was observed. What has begun since, and
/// was joined before the observation, is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Those before this one.
    Before(u64),
    /// Those up to this number, the latest that was given when the row was removed.
    UpTo(u64),
    /// All: the row was removed by a transaction that does not say what the latest number was.
    All,
}

impl Over {
    fn of(current: Option<u64>, given: Option<u64>) -> Self {
        current.map(Self::Before).or(given.map(Self::UpTo)).unwrap_or(Self::All)
    }

    /// Whether this epoch or generation is over.
    pub(crate) fn takes(self, number: u64) -> bool {
        match self {
            Self::Before(current) => number < current,
            Self::UpTo(last) => number <= last,
            Self::All => true,
        }
    }
}

/// Reads the changes of one transaction that the node `node` has not made. Fails whole if one row cannot be
/// read.
pub(crate) fn observed(changes: &Changes, node: NodeId) -> Result<Vec<Observed>, LedgerFailure> {
    let own = progress_key(node);
    let counters = changes.iter().find(|(table, key, _)| *table == Table::Meta && *key == COUNTERS);
    let counters = counters.and_then(|(_, _, value)| value).map(decoded::<Counters>).transpose()?;
    let given = counters.map(|counters| counters.sequence);
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
                seen.push(Observed::Session(id.ok_or(LedgerFailure::Corrupt)?, Over::of(epoch, given)));
            }
            (Table::Issuers, value) => {
                let key = <[u8; 32]>::try_from(key).map_err(|_| LedgerFailure::Corrupt)?;
                let generation = value.map(decoded::<IssuerRecord>).transpose()?.map(|of| of.generation);
                seen.push(Observed::Issuer(IssuerPublicKey::from_stored(key), Over::of(generation, given)));
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
