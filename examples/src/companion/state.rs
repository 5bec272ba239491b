//! What a phone keeps: its key, and once it has redeemed, its credential. A phone app puts this in
//! the keychain; here it is a file of mode 0600.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sessioncap::{AgentPublicKey, AgentUrl, CredentialBytes, HolderSecretKey, Link, SessionId, TicketId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::files;
use crate::problem::{Outcome, Problem, While};

/// One pairing.
pub struct Pairing {
    /// Where the agent is.
    pub url: AgentUrl,
    /// The agent's key, from the link: the phone accepts no other agent.
    pub agent: AgentPublicKey,
    /// The ticket that it came from. The ticket's secret is not kept.
    pub ticket: TicketId,
    /// The key of this pairing and no other.
    pub holder: HolderSecretKey,
    /// The credential, once there is one.
    pub credential: Option<CredentialBytes>,
    /// The session, once it is known.
    pub session: Option<SessionId>,
}

/// The file. Wiped from memory once it is read or written.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Stored {
    agent_url: String,
    agent_key: String,
    ticket: String,
    holder_key: String,
    credential: Option<String>,
    session: Option<String>,
}

impl Pairing {
    /// A new pairing with a fresh key.
    pub fn begin(link: &Link, ticket: TicketId) -> Self {
        Self {
            url: link.url().clone(),
            agent: *link.agent(),
            ticket,
            holder: HolderSecretKey::generate(&mut OsRng),
            credential: None,
            session: None,
        }
    }

    /// Reads a stored one; `None` if there is no such file.
    pub fn load(file: &Path) -> Outcome<Option<Self>> {
        let Some(bytes) = files::read_private(file)? else {
            return Ok(None);
        };
        let doing = format!("{} cannot be read; move it away and pair again", file.display());
        let stored: Stored = serde_json::from_slice(&bytes).during(&doing)?;
        let mut key = Zeroizing::new([0; 32]);
        let decoded = URL_SAFE_NO_PAD.decode_slice(stored.holder_key.as_bytes(), key.as_mut_slice());
        if decoded != Ok(key.len()) {
            return Err(Problem::Said(doing));
        }
        let credential = stored.credential.as_deref().map(|text| text.parse().during(&doing)).transpose()?;
        Ok(Some(Self {
            url: stored.agent_url.parse().during(&doing)?,
            agent: stored.agent_key.parse().during(&doing)?,
            ticket: stored.ticket.parse().during(&doing)?,
            holder: HolderSecretKey::from_bytes(*key),
            credential,
            session: stored.session.as_deref().map(|id| id.parse().during(&doing)).transpose()?,
        }))
    }

    /// As [`Pairing::load`], for a file that must be there.
    pub fn open(file: &Path) -> Outcome<Self> {
        Self::load(file)?.ok_or_else(|| {
            Problem::Said(format!("there is nothing at {}; `join` a link first", file.display()))
        })
    }

    /// Stores it.
    pub fn save(&self, file: &Path) -> Outcome<()> {
        let stored = Stored {
            agent_url: self.url.to_string(),
            agent_key: self.agent.to_string(),
            ticket: self.ticket.to_string(),
            holder_key: URL_SAFE_NO_PAD.encode(self.holder.expose_bytes()),
            credential: self.credential.as_ref().map(CredentialBytes::to_text),
            session: self.session.as_ref().map(SessionId::to_string),
        };
        let json = serde_json::to_vec_pretty(&stored).map(Zeroizing::new);
        files::write_private(file, &json.during("the pairing cannot be stored")?)
    }

    /// The credential, which a join that was cut short did not get.
    pub fn credential(&self) -> Outcome<&CredentialBytes> {
        self.credential.as_ref().ok_or_else(|| Problem::said("the link is not redeemed yet; `join` it again"))
    }
}
