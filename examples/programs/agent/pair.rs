//! The pairing methods of an enrolled device. The library's messages travel as base64url.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::OsRng;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sessioncap::agent::{Denial, Gate};
use sessioncap::limits::MAX_FRAME_LEN;
use sessioncap::{CredentialId, DevicePublicKey, HolderPublicKey, Now, SessionId, TicketId};

use super::Agent;
use crate::programs::request::{BadRequest, Request, denied, error};

pub(super) async fn answer(
    agent: &Arc<Agent>,
    device: &DevicePublicKey,
    handshake_hash: &[u8; 32],
    request: &Request,
) -> Result<Value, Value> {
    let (device, handshake_hash) = (*device, *handshake_hash);
    let done = match request.method() {
        "pair.register_issuer" => {
            let Registration { registration: Blob(bytes) } = parameters(request)?;
            ask(agent, move |gate, now| gate.register_issuer(&device, &handshake_hash, &bytes, now)).await
        }
        "pair.offer" => {
            let Offer { offer: Blob(bytes) } = parameters(request)?;
            let receipt = ask(agent, move |gate, now| gate.offer(&device, &bytes, now)).await?;
            return Ok(json!({ "ok": true, "receipt": URL_SAFE_NO_PAD.encode(receipt.to_bytes()) }));
        }
        "pair.confirm" => {
            let Confirm { ticket: Text(ticket), holder: Text(holder) } = parameters(request)?;
            ask(agent, move |gate, now| gate.confirm(&device, &ticket, &holder, now)).await
        }
        "pair.renew" => {
            let Renew { renewal: Blob(bytes) } = parameters(request)?;
            let receipt = ask(agent, move |gate, now| gate.renew(&device, &bytes, now, &mut OsRng)).await?;
            return Ok(json!({ "ok": true, "receipt": URL_SAFE_NO_PAD.encode(receipt.to_bytes()) }));
        }
        "pair.list" => return list(agent, parameters(request)?).await,
        "pair.log" => return log(agent, parameters(request)?).await,
        "pair.revoke" => {
            let what: Revoke = parameters(request)?;
            ask(agent, move |gate, now| revoke(gate, what, now)).await
        }
        _ => return Err(error("method_rejected", "there is no such method")),
    };
    done.map(|()| json!({ "ok": true }))
}

async fn ask<T: Send + 'static>(
    agent: &Arc<Agent>,
    question: impl FnOnce(&Gate, Now) -> Result<T, Denial> + Send + 'static,
) -> Result<T, Value> {
    match agent.ask(question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(denial)) => Err(denied(&denial)),
        Err(problem) => Err(error("upstream_failed", problem)),
    }
}

async fn list(agent: &Arc<Agent>, List { id }: List) -> Result<Value, Value> {
    let listings = ask(agent, move |gate, now| gate.list(id.as_ref(), now)).await?;
    // As many as fit one frame, with room for what stands around them.
    let mut room = MAX_FRAME_LEN.saturating_sub(128);
    let mut entries = Vec::new();
    for listing in &listings {
        let Ok(entry) = serde_json::to_value(listing) else {
            return Err(error("upstream_failed", "an entry cannot be shown"));
        };
        match room.checked_sub(entry.to_string().len().saturating_add(1)) {
            Some(less) => room = less,
            None => break,
        }
        entries.push(entry);
    }
    let complete = entries.len() == listings.len();
    Ok(json!({ "ok": true, "entries": entries, "complete": complete }))
}

async fn log(agent: &Arc<Agent>, Log { id, after }: Log) -> Result<Value, Value> {
    let Some(journal) = &agent.journal else {
        return Err(error("no_audit", "this agent was started without an audit file"));
    };
    journal.read(id, after).await.map_err(|problem| error("upstream_failed", problem))
}

/// Everything that was shared goes, so this is for a person who knows what the clock was.
pub(super) async fn reset_clock(agent: &Arc<Agent>, device: &DevicePublicKey) -> Result<Value, Value> {
    ask(agent, |gate, now| gate.reset_clock(now)).await?;
    let now = agent.now().timestamp();
    agent.log(format!("device {device} has reset the clock to {now}; everything that was shared is gone"));
    Ok(json!({ "ok": true, "agent_time": now }))
}

fn revoke(gate: &Gate, what: Revoke, now: Now) -> Result<(), Denial> {
    match what {
        Revoke::Ticket { ticket: Text(ticket) } => gate.revoke_ticket(&ticket, now),
        Revoke::Credential { credential: Text(credential) } => gate.revoke_credential(&credential, now),
        Revoke::Session { session } => gate.revoke_session(&session, now),
        Revoke::Issuer { issuer: Text(issuer) } => gate.revoke_issuer(&issuer, now),
        Revoke::Device { device: Text(device) } => gate.revoke_device(&device, now),
    }
}

fn parameters<T: DeserializeOwned>(request: &Request) -> Result<T, Value> {
    request.parameters().map_err(|BadRequest| error("method_rejected", "a parameter is missing or malformed"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    registration: Blob,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    offer: Blob,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    renewal: Blob,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    id: Option<SessionId>,
    after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    ticket: Text<TicketId>,
    holder: Text<HolderPublicKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    id: Option<SessionId>,
}

/// Exactly one thing to take back.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Revoke {
    Ticket { ticket: Text<TicketId> },
    Credential { credential: Text<CredentialId> },
    Session { session: SessionId },
    Issuer { issuer: Text<sessioncap::IssuerPublicKey> },
    Device { device: Text<DevicePublicKey> },
}

/// base64url without padding.
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        URL_SAFE_NO_PAD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// Anything with a text form.
struct Text<T>(T);

impl<'de, T: std::str::FromStr> Deserialize<'de> for Text<T>
where
    T::Err: std::fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(D::Error::custom)
    }
}
