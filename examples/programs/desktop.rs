//! The desktop: an enrolled device that owns the machine, and shares one session of it at a time.

mod attach;
pub mod cli;
pub mod pair_mobile;
pub mod profile;

use rand::rngs::OsRng;
use serde::Deserialize;
use serde_json::{Value, json};
use sessioncap::noise::{HandshakeHash, Initiator};
use sessioncap::{
    AgentPublicKey, AgentUrl, DeviceSecretKey, HolderSecretKey, Issuer, IssuerSecretKey, Now, OfferReceipt,
    Pairing, PairingTerms, SessionId, TicketId, Timestamp,
};

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
    /// When the ticket, or the credential, ends.
    pub expires_at: String,
    /// How many connections there are now.
    pub connections: u32,
    /// What has become of it.
    pub state: State,
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

        let now: Now = Clock::system().now();
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
        let receipt = answer.get("receipt").and_then(Value::as_str).unwrap_or_default();
        let receipt = URL_SAFE_NO_PAD.decode(receipt).during("the agent's receipt cannot be read")?;
        Ok(Shared { pairing, receipt: OfferReceipt::from_bytes(&receipt)? })
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
