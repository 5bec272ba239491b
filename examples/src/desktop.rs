//! The desktop: an enrolled device that owns the machine, and shares one session of it at a time.

pub mod acp;
mod attach;
pub mod cli;
pub mod code;
pub mod log;
pub mod pair_mobile;
pub mod png;
pub mod profile;
mod wire;

use super::clock::Clock;
use super::problem::{Outcome, Problem, While};
use super::request::read_answer;
use super::transport::{self, Secure};
use rand::rngs::OsRng;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::desktop::{Issuer, Pairing, PairingTerms, Renewal};
use sessioncap::noise::Initiator;
use sessioncap::pair::{Answer, List, Listing, Request, Revoke, Revoked};
use sessioncap::{
    AgentPublicKey, AgentUrl, DeviceSecretKey, HolderSecretKey, IssuerSecretKey, Now, OfferReceipt, OpSet,
    RenewalReceipt, SessionId, TicketId, Timestamp,
};

/// A desktop's own keys, and its agent's address and key.
#[derive(Clone)]
pub struct Identity {
    /// Where the agent is.
    pub url: AgentUrl,
    /// The agent's Noise key.
    pub agent: AgentPublicKey,
    /// The device's own Noise key.
    pub device: DeviceSecretKey,
    /// The key that signs what it shares.
    pub issuer: IssuerSecretKey,
}

/// A connection of the desktop to its agent.
pub struct Desktop<'a> {
    identity: &'a Identity,
    stream: Secure,
    handshake_hash: [u8; 32],
}

/// A shared session: the link to show, and until when it can be redeemed.
pub struct Shared {
    /// The pairing, with its link.
    pub pairing: Pairing,
    /// The agent's receipt.
    pub receipt: OfferReceipt,
}

/// The answer to `pair.log`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The records.
    pub entries: Vec<Logged>,
    /// Whether there are earlier ones.
    pub earlier: bool,
    /// What has happened since the last record.
    pub restarted: bool,
    /// Whether records are missing after the last.
    pub missing: bool,
    /// Where the next answer continues; none after the last.
    pub next: Option<u64>,
}

/// One audit record, and the remarks before it.
#[derive(Debug, Deserialize)]
pub struct Logged {
    /// The record, as it is in the file.
    pub record: Value,
    /// Whether the agent was started again before it.
    pub restarted: bool,
    /// Whether records are missing before it.
    pub missing: bool,
}

/// Records that are fetched at most. The agent has its own bound, and may write further records meanwhile.
const LONGEST_LOG: usize = 1_000;

/// Entries of the list that are fetched at most.
const LONGEST_LIST: usize = 10_000;

impl<'a> Desktop<'a> {
    /// Connects as the deployed clients do: Noise IK with empty payloads.
    pub async fn connect(identity: &'a Identity) -> Outcome<Self> {
        let mut socket = transport::connect(&identity.url).await?;
        // The library's initiator takes a phone's key type; on the wire both are X25519.
        let key = HolderSecretKey::from_bytes(*identity.device.expose_bytes());
        let started = Initiator::start(&key, &identity.agent, b"", &mut OsRng)?;
        socket.send(started.message).await?;
        let answer = socket.receive_soon().await?;
        let finished = started.next.finish(&answer);
        let finished = finished.map_err(|error| Problem::NotTheAgent(error.to_string()))?;
        socket.require_public_certificate()?;
        let (stream, _) = socket.prove(finished.channel);
        Ok(Self { identity, stream, handshake_hash: finished.handshake_hash })
    }

    /// One request and its answer.
    pub async fn call(&mut self, request: &Value) -> Outcome<Value> {
        self.stream.send(request.to_string().as_bytes()).await?;
        match self.stream.receive_soon().await? {
            Some(answer) => read_answer(&answer),
            None => Err(Problem::BrokenOff),
        }
    }

    /// Starts a session and returns its id.
    pub async fn create_session(&mut self, name: Option<&str>, command: Option<&str>) -> Outcome<SessionId> {
        let request = json!({ "method": "shell.create_session", "name": name, "command": command });
        let answer = self.call(&request).await?;
        let id = answer.get("id").and_then(Value::as_str).unwrap_or_default();
        SessionId::new(id).during("the agent's answer names no session")
    }

    /// One request of `sessioncap::pair` and its answer.
    pub async fn ask(&mut self, request: &Request) -> Outcome<Answer> {
        let request = serde_json::to_value(request).during("the request cannot be written")?;
        let answer = self.call(&request).await?;
        serde_json::from_value(answer).during("the agent's answer cannot be read; is it another version?")
    }

    /// Registers the issuer key on this channel, mints a pairing, and lodges its offer. A desktop
    /// whose clock is off mints once more with the agent's.
    pub async fn share(&mut self, session: &SessionId, terms: &PairingTerms) -> Outcome<Shared> {
        let Identity { url, agent, issuer, .. } = self.identity;
        let issuer = Issuer::new(issuer.clone(), *agent, url.clone());
        self.share_as(&issuer, session, terms).await
    }

    /// As [`Desktop::share`], for an issuer that names another of the agent's addresses.
    pub async fn share_as(
        &mut self,
        issuer: &Issuer,
        session: &SessionId,
        terms: &PairingTerms,
    ) -> Outcome<Shared> {
        let device = &self.identity.device;
        let registration = issuer.registration(&device.public(), &self.handshake_hash);
        match self.ask(&Request::RegisterIssuer { registration }).await? {
            Answer::Registered => {}
            _ => return Err(unlike_the_request()),
        }

        let now: Now = Clock::system()?.now();
        match self.offer(issuer, session, terms, now.timestamp()).await {
            Err(Problem::Refused { agent_time: Some(seconds), .. }) => {
                self.offer(issuer, session, terms, Timestamp::from_seconds(seconds)?).await
            }
            outcome => outcome,
        }
    }

    async fn offer(
        &mut self,
        issuer: &Issuer,
        session: &SessionId,
        terms: &PairingTerms,
        now: Timestamp,
    ) -> Outcome<Shared> {
        let pairing = issuer.pair(session.clone(), terms, now, &mut OsRng)?;
        match self.ask(&Request::Offer { offer: pairing.offer.clone() }).await? {
            Answer::Offered { receipt } => Ok(Shared { pairing, receipt }),
            _ => Err(unlike_the_request()),
        }
    }

    /// New terms for a credential that a phone holds. What is not named stays; with nothing named, the
    /// phone gets another twelve hours.
    pub async fn renew(
        &mut self,
        entry: &Listing,
        ops: Option<OpSet>,
        valid_for: Option<u64>,
    ) -> Outcome<RenewalReceipt> {
        let (latest, end) = match &entry.renewal {
            Some(renewal) => (renewal.ops, renewal.expires_at),
            None => (entry.ops, entry.expires_at),
        };
        let lifetime = |now: Timestamp| match (valid_for, ops) {
            (Some(seconds), _) => seconds,
            (None, Some(_)) => end.since(now).max(PairingTerms::MIN_VALID_FOR),
            (None, None) => PairingTerms::DEFAULT_VALID_FOR,
        };
        let terms = |now| {
            let renewal = Renewal {
                credential: entry.credential,
                ticket: entry.ticket,
                session: entry.session.clone(),
                ops: ops.unwrap_or(latest),
                valid_for: lifetime(now),
            };
            (renewal, now)
        };
        match self.lodge_renewal(terms(Clock::system()?.now().timestamp())).await {
            Err(Problem::Refused { agent_time: Some(seconds), .. }) => {
                self.lodge_renewal(terms(Timestamp::from_seconds(seconds)?)).await
            }
            outcome => outcome,
        }
    }

    async fn lodge_renewal(&mut self, (renewal, now): (Renewal, Timestamp)) -> Outcome<RenewalReceipt> {
        let Identity { url, agent, issuer, .. } = self.identity;
        let issuer = Issuer::new(issuer.clone(), *agent, url.clone());
        let renewal = issuer.renew(renewal, now, &mut OsRng)?;
        match self.ask(&Request::Renew { renewal }).await? {
            Answer::Renewed { receipt } => Ok(receipt),
            _ => Err(unlike_the_request()),
        }
    }

    /// The audit records of a session, or all, oldest first.
    pub async fn log(&mut self, session: Option<&SessionId>) -> Outcome<Log> {
        let mut log = Log::default();
        let mut after = Value::Null;
        loop {
            let page = self.call(&json!({ "method": "pair.log", "id": session, "after": after })).await?;
            let mut page: Log = serde_json::from_value(page).during("the agent's log cannot be read")?;
            log.entries.append(&mut page.entries);
            log.earlier |= page.earlier;
            (log.restarted, log.missing) = (page.restarted, page.missing);
            match page.next {
                Some(next) if log.entries.len() < LONGEST_LOG => after = next.into(),
                _ => return Ok(log),
            }
        }
    }

    /// Sets the agent's time to its wall clock's. Every pairing is removed.
    pub async fn reset_clock(&mut self) -> Outcome<String> {
        let answer = self.call(&json!({ "method": "agent.reset_clock" })).await?;
        Ok(answer.get("agent_time").and_then(Value::as_str).unwrap_or("set").to_owned())
    }

    /// What was shared of a session, or of all, page by page.
    pub async fn entries(&mut self, session: Option<&SessionId>) -> Outcome<Vec<Listing>> {
        let mut list = List::default();
        if let Some(session) = session {
            list = list.with_session(session.clone());
        }
        let mut entries = Vec::new();
        loop {
            let Answer::Listed(page) = self.ask(&Request::List(list.clone())).await? else {
                return Err(unlike_the_request());
            };
            entries.extend(page.entries);
            match page.next {
                Some(next) if entries.len() < LONGEST_LIST => list = list.after(next),
                _ => return Ok(entries),
            }
        }
    }

    /// What has become of one ticket, and of the credential behind it.
    pub async fn entry(&mut self, session: &SessionId, ticket: &TicketId) -> Outcome<Option<Listing>> {
        // A ticket that is redeemed while the list is read may be in it twice: the later entry holds.
        let entries = self.entries(Some(session)).await?;
        Ok(entries.into_iter().rfind(|entry| entry.ticket == *ticket))
    }

    /// Lets a waiting phone in.
    pub async fn confirm(&mut self, entry: &Listing) -> Outcome<()> {
        let holder = entry.holder.ok_or_else(|| Problem::said("no phone has redeemed the code yet"))?;
        match self.ask(&Request::Confirm { ticket: entry.ticket, holder }).await? {
            Answer::Confirmed => Ok(()),
            _ => Err(unlike_the_request()),
        }
    }

    /// Revokes something, and returns the outcome.
    pub async fn revoke(&mut self, what: Revoke) -> Outcome<Revoked> {
        match self.ask(&Request::Revoke(what)).await? {
            Answer::Revoked(revoked) => Ok(revoked),
            _ => Err(unlike_the_request()),
        }
    }

    /// Turns the connection into a session's raw bytes.
    pub async fn attach(mut self, session: &SessionId) -> Outcome<Secure> {
        self.call(&json!({ "method": "shell.attach_session", "id": session, "tail": true })).await?;
        Ok(self.stream)
    }

    /// Connects again, after a request was abandoned before its answer came.
    pub async fn resume(&mut self) -> Outcome<()> {
        *self = Self::connect(self.identity).await?;
        Ok(())
    }

    /// Ends the connection. Pairings stay valid.
    pub async fn disconnect(self) {
        self.stream.end().await;
    }
}

fn unlike_the_request() -> Problem {
    Problem::said("the agent answered another request than was made")
}
