//! The pairing methods of an enrolled device: `sessioncap::pair` says what they look like.

use std::sync::Arc;

use rand::rngs::OsRng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sessioncap::agent::{Denial, Gate};
use sessioncap::pair;
use sessioncap::{DevicePublicKey, Now, SessionId};

use super::Agent;
use crate::request::{BadRequest, Request, denied, error};

pub(super) async fn answer(
    agent: &Arc<Agent>,
    device: &DevicePublicKey,
    handshake_hash: &[u8; 32],
    request: &Request,
) -> Result<Value, Value> {
    if request.method() == "pair.log" {
        return log(agent, parameters(request)?).await;
    }
    let asked: pair::Request = read(request.whole())?;
    let (device, handshake_hash) = (*device, *handshake_hash);
    let answered =
        ask(agent, move |gate, now| gate.answer(&device, &handshake_hash, &asked, now, &mut OsRng)).await;
    let answer = answered.map_err(|refusal| naming_addresses(agent, refusal))?;
    if let pair::Answer::Renewed { receipt } = &answer {
        agent.floors.forget(receipt.credential);
    }
    serde_json::to_value(&answer).map_err(|problem| error("upstream_failed", problem))
}

/// An offer for another address is the mistake that people make, so they are told the right ones.
fn naming_addresses(agent: &Agent, mut refusal: Value) -> Value {
    if refusal.get("code").and_then(Value::as_str) == Some(Denial::OfferMismatch.code()) {
        let urls: Vec<_> = agent.gate.urls().iter().map(ToString::to_string).collect();
        let detail = refusal.get("detail").and_then(Value::as_str).unwrap_or_default();
        let detail = format!("{detail}; this agent's addresses are {}", urls.join(", "));
        if let Some(refusal) = refusal.as_object_mut() {
            refusal.insert("detail".to_owned(), detail.into());
        }
    }
    refusal
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

fn parameters<T: DeserializeOwned>(request: &Request) -> Result<T, Value> {
    read(request.parameters())
}

fn read<T>(asked: Result<T, BadRequest>) -> Result<T, Value> {
    asked.map_err(|BadRequest| {
        error("method_rejected", "there is no such method, or a parameter is missing or malformed")
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    id: Option<SessionId>,
    after: Option<u64>,
}
