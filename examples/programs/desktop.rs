//! The desktop: an enrolled device that owns the machine, and shares one session of it at a time.

mod attach;
pub mod cli;
pub mod log;
pub mod pair_mobile;
pub mod profile;

use rand::rngs::OsRng;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::desktop::{Issuer, Pairing, PairingTerms, Renewal};
use sessioncap::noise::{HandshakeHash, Initiator};
use sessioncap::{
    AgentPublicKey, AgentUrl, DeviceSecretKey, HolderSecretKey, IssuerSecretKey, Now, OfferReceipt, OpSet,
    RenewalReceipt, SessionId, TicketId, Timestamp,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::clock::Clock;
use super::problem::{Outcome, Problem, While};
use super::request::read_answer;
use super::transport::{self, Secure};

/// What a desktop knows of its agent and of itself.
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
    handshake_hash: HandshakeHash,
}

/// A shared session: the link to show, and until when it can be redeemed.
pub struct Shared {
    /// The pairing, with its link.
    pub pairing: Pairing,
    /// The agent's receipt.
    pub receipt: OfferReceipt,
}

/// What `pair.log` says.
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
    /// Where the next answer goes on; none after the last.
    pub next: Option<u64>,
}

/// One audit record, and what stands before it.
#[derive(Debug, Deserialize)]
pub struct Logged {
    /// The record, as it is in the file.
    pub record: Value,
    /// Whether the agent was started again before it.
    pub restarted: bool,
    /// Whether records are missing before it.
    pub missing: bool,
}

/// Records that are fetched at most. The agent has its own bound, and may go on writing meanwhile.
const LONGEST_LOG: usize = 1_000;

/// One entry of `pair.list`.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// The ticket's id.
    pub ticket: String,
    /// The credential's id.
    pub credential: String,
    /// The session's id.
    pub session: String,
    /// The desktop's name for it.
    pub label: String,
    /// The phone's key, once there is one.
    pub holder: Option<String>,
    /// The phone's name for itself.
    pub phone_label: Option<String>,
    /// What it allows.
    pub ops: Vec<String>,
    /// When it was offered, or redeemed.
    pub created_at: String,
    /// When the phone was last there.
    pub last_seen: Option<String>,
    /// When the ticket, or the credential, ends.
    pub expires_at: String,
    /// How many connections there are now.
    pub connections: u32,
    /// A renewed credential that the phone has not used yet.
    pub renewal: Option<Waiting>,
    /// What has become of it.
    pub state: State,
}

/// Terms that hold once the phone uses its renewed credential.
#[derive(Debug, Clone, Deserialize)]
pub struct Waiting {
    /// What it will allow.
    pub ops: Vec<String>,
    /// When it will end.
    pub expires_at: String,
}

impl Entry {
    /// What the phone may do and until when, by the latest terms.
    fn latest(&self) -> Outcome<(OpSet, Timestamp)> {
        let (ops, end) = match &self.renewal {
            Some(renewal) => (&renewal.ops, &renewal.expires_at),
            None => (&self.ops, &self.expires_at),
        };
        let end =
            OffsetDateTime::parse(end, &Rfc3339).ok().and_then(|end| end.unix_timestamp().try_into().ok());
        let end = end.ok_or_else(|| Problem::said("the agent's list names an end that cannot be read"))?;
        Ok((ops.join(",").parse()?, Timestamp::from_seconds(end)?))
    }
}

/// What has become of a ticket or credential.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It waits for a phone.
    Open,
    /// A phone waits for the desktop; both show these digits.
    Pending {
        /// The digits.
        code: String,
    },
    /// A phone has it.
    Active,
    /// It was taken back.
    Revoked {
        /// Why.
        why: String,
    },
    /// It ran out.
    Expired,
    /// A later agent's state.
    #[serde(other)]
    Unknown,
}

impl<'a> Desktop<'a> {
    /// Connects as the deployed clients do: Noise IK with empty payloads.
    pub async fn connect(identity: &'a Identity) -> Outcome<Self> {
        let mut socket = transport::connect(&identity.url).await?;
        // The library's initiator takes a phone's key type; on the wire both are X25519.
        let key = HolderSecretKey::from_bytes(*identity.device.expose_bytes());
        let started = Initiator::start(&key, &identity.agent, b"", &mut OsRng)?;
        transport::send(&mut socket, started.message).await?;
        let answer = transport::receive_soon(&mut socket).await.map_err(|problem| match problem {
            Problem::TurnedAway => Problem::said(
                "the agent turned this device away; enrol its public key at the agent, and check the agent's key",
            ),
            problem => problem,
        })?;
        let finished = started.next.finish(&answer)?;
        let stream = Secure::new(socket, finished.channel);
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

    /// Registers the issuer key on this channel, mints a pairing, and lodges its offer. A desktop
    /// whose clock is off mints once more with the agent's.
    pub async fn share(&mut self, session: &SessionId, terms: &PairingTerms) -> Outcome<Shared> {
        let Identity { url, agent, device, issuer } = self.identity;
        let issuer = Issuer::new(issuer.clone(), *agent, url.clone());
        let registration = issuer.registration(&device.public(), &self.handshake_hash);
        let registration = URL_SAFE_NO_PAD.encode(registration);
        self.call(&json!({ "method": "pair.register_issuer", "registration": registration })).await?;

        let now: Now = Clock::system()?.now();
        match self.offer(&issuer, session, terms, now.timestamp()).await {
            Err(Problem::Refused { agent_time: Some(seconds), .. }) => {
                self.offer(&issuer, session, terms, Timestamp::from_seconds(seconds)?).await
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
        let offer = URL_SAFE_NO_PAD.encode(&pairing.offer);
        let answer = self.call(&json!({ "method": "pair.offer", "offer": offer })).await?;
        let receipt = OfferReceipt::from_bytes(&read_receipt(&answer)?)?;
        Ok(Shared { pairing, receipt })
    }

    /// New terms for a credential that a phone holds. What is not named stays; with nothing named, the
    /// phone gets another twelve hours.
    pub async fn renew(
        &mut self,
        entry: &Entry,
        ops: Option<OpSet>,
        valid_for: Option<u64>,
    ) -> Outcome<RenewalReceipt> {
        let (latest, end) = entry.latest()?;
        let lifetime = |now: Timestamp| match (valid_for, ops) {
            (Some(seconds), _) => seconds,
            (None, Some(_)) => end.since(now).max(PairingTerms::MIN_VALID_FOR),
            (None, None) => PairingTerms::DEFAULT_VALID_FOR,
        };
        let terms = |now| -> Outcome<(Renewal, Timestamp)> {
            let renewal = Renewal {
                credential: entry.credential.parse()?,
                ticket: entry.ticket.parse()?,
                session: entry.session.parse()?,
                ops: ops.unwrap_or(latest),
                valid_for: lifetime(now),
            };
            Ok((renewal, now))
        };
        match self.lodge_renewal(terms(Clock::system()?.now().timestamp())?).await {
            Err(Problem::Refused { agent_time: Some(seconds), .. }) => {
                self.lodge_renewal(terms(Timestamp::from_seconds(seconds)?)?).await
            }
            outcome => outcome,
        }
    }

    async fn lodge_renewal(&mut self, (renewal, now): (Renewal, Timestamp)) -> Outcome<RenewalReceipt> {
        let Identity { url, agent, issuer, .. } = self.identity;
        let issuer = Issuer::new(issuer.clone(), *agent, url.clone());
        let renewal = URL_SAFE_NO_PAD.encode(issuer.renew(renewal, now, &mut OsRng)?);
        let answer = self.call(&json!({ "method": "pair.renew", "renewal": renewal })).await?;
        Ok(RenewalReceipt::from_bytes(&read_receipt(&answer)?)?)
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

    /// Sets the agent's time to its wall clock's. Everything that was shared is gone afterwards.
    pub async fn reset_clock(&mut self) -> Outcome<String> {
        let answer = self.call(&json!({ "method": "agent.reset_clock" })).await?;
        Ok(answer.get("agent_time").and_then(Value::as_str).unwrap_or("set").to_owned())
    }

    /// What was shared of a session, or of all.
    pub async fn entries(&mut self, session: Option<&SessionId>) -> Outcome<Vec<Entry>> {
        let answer = self.call(&json!({ "method": "pair.list", "id": session })).await?;
        let entries = answer.get("entries").cloned().unwrap_or_default();
        serde_json::from_value(entries).during("the agent's list cannot be read")
    }

    /// What has become of one ticket, and of the credential behind it.
    pub async fn entry(&mut self, session: &SessionId, ticket: &TicketId) -> Outcome<Option<Entry>> {
        let ticket = ticket.to_string();
        let entries = self.entries(Some(session)).await?;
        Ok(entries.into_iter().find(|entry| entry.ticket == ticket))
    }

    /// Lets a waiting phone in.
    pub async fn confirm(&mut self, entry: &Entry) -> Outcome<()> {
        let request = json!({ "method": "pair.confirm", "ticket": entry.ticket, "holder": entry.holder });
        self.call(&request).await.map(drop)
    }

    /// Takes back what `key` (`ticket`, `credential`, `session`, `issuer`, `device`) names.
    pub async fn revoke(&mut self, key: &str, value: &str) -> Outcome<()> {
        let mut request = json!({ "method": "pair.revoke" });
        if let Some(fields) = request.as_object_mut() {
            fields.insert(key.to_owned(), value.into());
        }
        self.call(&request).await.map(drop)
    }

    /// Turns the connection into a session's raw bytes.
    pub async fn attach(mut self, session: &SessionId) -> Outcome<Secure> {
        self.call(&json!({ "method": "shell.attach_session", "id": session, "tail": true })).await?;
        Ok(self.stream)
    }

    /// Connects anew, after a request was given up before its answer came.
    pub async fn resume(&mut self) -> Outcome<()> {
        *self = Self::connect(self.identity).await?;
        Ok(())
    }

    /// Ends the connection. What was shared goes on.
    pub async fn disconnect(self) {
        self.stream.end().await;
    }
}

fn read_receipt(answer: &Value) -> Outcome<Vec<u8>> {
    let receipt = answer.get("receipt").and_then(Value::as_str).unwrap_or_default();
    URL_SAFE_NO_PAD.decode(receipt).during("the agent's receipt cannot be read")
}
