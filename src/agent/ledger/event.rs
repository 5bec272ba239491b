//! Audit events in the ledger, each with one encoding.

use super::record::{label, reason, reason_number, session, timestamp};
use crate::agent::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::codec::{Reader, Wire, Writer};
use crate::error::Error;
use crate::id::{CredentialId, TicketId};
use crate::key::{AgentPublicKey, DevicePublicKey, HolderPublicKey, IssuerPublicKey};
use crate::op::OpSet;

/// A stored event: what happened, when, and at which agent. Its node and position are its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredEvent {
    pub(super) agent: AgentPublicKey,
    pub(super) at: Timestamp,
    pub(super) event: AuditEvent,
}

/// More fields than any event has.
const MAX_FIELDS: usize = 16;

impl Wire for StoredEvent {
    /// The agent, the time, the kind's permanent number, and the kind's own fields.
    fn encode(&self, writer: &mut Writer) {
        let (agent, at) = (self.agent, self.at.seconds());
        let begin = |kind: u64, fields: usize| {
            // Moved into the closure, so that each kind begins once.
            let writer = writer;
            writer.array(3 + fields).bytes(agent.as_bytes()).uint(at).uint(kind)
        };
        match &self.event {
            AuditEvent::GateOpened { discarded } => begin(0, 1).uint((*discarded).into()),
            AuditEvent::ClockReset { from } => begin(1, 1).uint(from.seconds()),
            AuditEvent::IssuerRegistered { issuer, device } => {
                begin(2, 2).bytes(issuer.as_bytes()).bytes(device.as_bytes())
            }
            AuditEvent::IssuerRevoked { issuer } => begin(3, 1).bytes(issuer.as_bytes()),
            AuditEvent::TicketOffered { ticket, credential, session, device, ops, label, expires_at } => {
                let ids = begin(4, 7).bytes(ticket.as_bytes()).bytes(credential.as_bytes());
                let whose = ids.text(session.as_str()).bytes(device.as_bytes());
                whose.uint(ops.bits().into()).text(label.as_str()).uint(expires_at.seconds())
            }
            AuditEvent::TicketRedeemed { ticket, credential, session, holder, label, pending } => {
                let ids = begin(5, 6).bytes(ticket.as_bytes()).bytes(credential.as_bytes());
                let whose = ids.text(session.as_str()).bytes(holder.as_bytes());
                whose.text(label.as_str()).uint((*pending).into())
            }
            AuditEvent::TicketContested { ticket, credential, session, holder, contender } => {
                let ids = begin(6, 5).bytes(ticket.as_bytes()).bytes(credential.as_bytes());
                ids.text(session.as_str()).bytes(holder.as_bytes()).bytes(contender.as_bytes())
            }
            AuditEvent::TicketRevoked { ticket, session, why } => {
                begin(7, 3).bytes(ticket.as_bytes()).text(session.as_str()).uint(reason_number(*why))
            }
            AuditEvent::TicketExpired { ticket, session } => {
                begin(8, 2).bytes(ticket.as_bytes()).text(session.as_str())
            }
            AuditEvent::CredentialConfirmed { credential, session, holder } => {
                begin(9, 3).bytes(credential.as_bytes()).text(session.as_str()).bytes(holder.as_bytes())
            }
            AuditEvent::PhoneAttached { credential, session, holder, ops } => {
                let ids = begin(10, 4).bytes(credential.as_bytes()).text(session.as_str());
                ids.bytes(holder.as_bytes()).uint(ops.bits().into())
            }
            AuditEvent::CredentialRenewed { credential, session, ops, expires_at, waiting } => {
                let ids = begin(11, 5).bytes(credential.as_bytes()).text(session.as_str());
                ids.uint(ops.bits().into()).uint(expires_at.seconds()).uint((*waiting).into())
            }
            AuditEvent::RenewalUsed { credential, session, holder } => {
                begin(12, 3).bytes(credential.as_bytes()).text(session.as_str()).bytes(holder.as_bytes())
            }
            AuditEvent::CredentialRevoked { credential, session, why } => {
                let ids = begin(13, 3).bytes(credential.as_bytes()).text(session.as_str());
                ids.uint(reason_number(*why))
            }
            AuditEvent::CredentialExpired { credential, session } => {
                begin(14, 2).bytes(credential.as_bytes()).text(session.as_str())
            }
            AuditEvent::SessionClosed { session, why } => {
                begin(15, 2).text(session.as_str()).uint(reason_number(*why))
            }
        };
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        reader.array(MAX_FIELDS)?;
        let agent = AgentPublicKey::from_bytes(reader.array_of()?)?;
        let at = timestamp(reader)?;
        let event = match reader.uint()? {
            0 => AuditEvent::GateOpened { discarded: flag(reader)? },
            1 => AuditEvent::ClockReset { from: timestamp(reader)? },
            2 => AuditEvent::IssuerRegistered { issuer: issuer(reader)?, device: device(reader)? },
            3 => AuditEvent::IssuerRevoked { issuer: issuer(reader)? },
            4 => AuditEvent::TicketOffered {
                ticket: ticket(reader)?,
                credential: credential(reader)?,
                session: session(reader)?,
                device: device(reader)?,
                ops: ops(reader)?,
                label: label(reader)?,
                expires_at: timestamp(reader)?,
            },
            5 => AuditEvent::TicketRedeemed {
                ticket: ticket(reader)?,
                credential: credential(reader)?,
                session: session(reader)?,
                holder: holder(reader)?,
                label: label(reader)?,
                pending: flag(reader)?,
            },
            6 => AuditEvent::TicketContested {
                ticket: ticket(reader)?,
                credential: credential(reader)?,
                session: session(reader)?,
                holder: holder(reader)?,
                contender: holder(reader)?,
            },
            7 => AuditEvent::TicketRevoked {
                ticket: ticket(reader)?,
                session: session(reader)?,
                why: reason(reader)?,
            },
            8 => AuditEvent::TicketExpired { ticket: ticket(reader)?, session: session(reader)? },
            9 => AuditEvent::CredentialConfirmed {
                credential: credential(reader)?,
                session: session(reader)?,
                holder: holder(reader)?,
            },
            10 => AuditEvent::PhoneAttached {
                credential: credential(reader)?,
                session: session(reader)?,
                holder: holder(reader)?,
                ops: ops(reader)?,
            },
            11 => AuditEvent::CredentialRenewed {
                credential: credential(reader)?,
                session: session(reader)?,
                ops: ops(reader)?,
                expires_at: timestamp(reader)?,
                waiting: flag(reader)?,
            },
            12 => AuditEvent::RenewalUsed {
                credential: credential(reader)?,
                session: session(reader)?,
                holder: holder(reader)?,
            },
            13 => AuditEvent::CredentialRevoked {
                credential: credential(reader)?,
                session: session(reader)?,
                why: reason(reader)?,
            },
            14 => {
                AuditEvent::CredentialExpired { credential: credential(reader)?, session: session(reader)? }
            }
            15 => AuditEvent::SessionClosed { session: session(reader)?, why: reason(reader)? },
            _ => return Err(Error::MessageMalformed),
        };
        Ok(Self { agent, at, event })
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Error> {
    Ok(reader.uint()? == 1)
}

fn ops(reader: &mut Reader<'_>) -> Result<OpSet, Error> {
    OpSet::from_bits(reader.uint()?)
}

fn ticket(reader: &mut Reader<'_>) -> Result<TicketId, Error> {
    reader.array_of().map(TicketId::from_bytes)
}

fn credential(reader: &mut Reader<'_>) -> Result<CredentialId, Error> {
    reader.array_of().map(CredentialId::from_bytes)
}

fn issuer(reader: &mut Reader<'_>) -> Result<IssuerPublicKey, Error> {
    reader.array_of().map(IssuerPublicKey::from_stored)
}

fn device(reader: &mut Reader<'_>) -> Result<DevicePublicKey, Error> {
    DevicePublicKey::from_bytes(reader.array_of()?)
}

fn holder(reader: &mut Reader<'_>) -> Result<HolderPublicKey, Error> {
    HolderPublicKey::from_bytes(reader.array_of()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};
    use crate::id::SessionId;
    use crate::key::{AgentSecretKey, DeviceSecretKey, HolderSecretKey, IssuerSecretKey};
    use crate::label::Label;
    use crate::pair::RevocationReason;

    fn agent() -> AgentPublicKey {
        AgentSecretKey::from_bytes([7; 32]).public()
    }

    /// One of each, every field another.
    fn each() -> Vec<AuditEvent> {
        let ticket = TicketId::from_bytes([1; 16]);
        let credential = CredentialId::from_bytes([2; 16]);
        let session = SessionId::new("a-session").unwrap();
        let issuer = IssuerSecretKey::from_bytes([3; 32]).public();
        let device = DeviceSecretKey::from_bytes([4; 32]).public();
        let holder = HolderSecretKey::from_bytes([5; 32]).public();
        let contender = HolderSecretKey::from_bytes([6; 32]).public();
        let label = Label::new("a phone").unwrap();
        let time = |seconds| Timestamp::from_seconds(seconds).unwrap();
        let ops = OpSet::COMPANION;
        let mut events = vec![
            AuditEvent::GateOpened { discarded: true },
            AuditEvent::GateOpened { discarded: false },
            AuditEvent::ClockReset { from: time(7) },
            AuditEvent::IssuerRegistered { issuer, device },
            AuditEvent::IssuerRevoked { issuer },
            AuditEvent::TicketOffered {
                ticket,
                credential,
                session: session.clone(),
                device,
                ops,
                label: label.clone(),
                expires_at: time(8),
            },
            AuditEvent::TicketContested { ticket, credential, session: session.clone(), holder, contender },
            AuditEvent::TicketExpired { ticket, session: session.clone() },
            AuditEvent::CredentialConfirmed { credential, session: session.clone(), holder },
            AuditEvent::PhoneAttached { credential, session: session.clone(), holder, ops },
            AuditEvent::RenewalUsed { credential, session: session.clone(), holder },
            AuditEvent::CredentialExpired { credential, session: session.clone() },
        ];
        for flag in [false, true] {
            events.push(AuditEvent::TicketRedeemed {
                ticket,
                credential,
                session: session.clone(),
                holder,
                label: label.clone(),
                pending: flag,
            });
            events.push(AuditEvent::CredentialRenewed {
                credential,
                session: session.clone(),
                ops,
                expires_at: time(9),
                waiting: flag,
            });
        }
        for why in [
            RevocationReason::Owner,
            RevocationReason::Contest,
            RevocationReason::Session,
            RevocationReason::SessionEnd,
            RevocationReason::Issuer,
        ] {
            events.push(AuditEvent::TicketRevoked { ticket, session: session.clone(), why });
            events.push(AuditEvent::CredentialRevoked { credential, session: session.clone(), why });
            events.push(AuditEvent::SessionClosed { session: session.clone(), why });
        }
        events
    }

    #[test]
    fn every_event_is_kept_as_it_was() {
        for event in each() {
            let stored =
                StoredEvent { agent: agent(), at: Timestamp::from_seconds(1_780_000_000).unwrap(), event };
            assert_eq!(decode(&encode(&stored)), Ok(stored));
        }
    }

    #[test]
    fn a_kept_event_that_was_changed_is_refused_or_is_another_event() {
        for event in each() {
            let stored = StoredEvent { agent: agent(), at: Timestamp::EPOCH, event };
            let bytes = encode(&stored);
            for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(decode(&changed), Ok(stored.clone()), "byte {at}, bit {bit}");
            }
        }
    }
}
