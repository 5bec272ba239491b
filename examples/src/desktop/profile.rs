//! The desktop's files: two keys, and which agent it belongs to.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sessioncap::{AgentPublicKey, AgentUrl, DeviceSecretKey, IssuerSecretKey};

use super::Identity;
use crate::files;
use crate::problem::{Outcome, Problem, While};

/// Where the files are, and what the command line says instead.
pub struct Profile {
    /// The directory.
    pub directory: PathBuf,
    /// The agent's address, instead of the one in `agent.json`.
    pub url: Option<AgentUrl>,
    /// The agent's key, instead of the one in `agent.json`.
    pub agent: Option<AgentPublicKey>,
    /// The device key's file, instead of `device.key`.
    pub device_key: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct AgentFile {
    url: String,
    agent_key: String,
}

impl Profile {
    /// Draws the keys that are not there yet, and stores the agent if it was named.
    pub fn make(&self) -> Outcome<DeviceSecretKey> {
        files::make_private_directory(&self.directory)?;
        let path = self.device_path();
        let device = match files::read_key(&path, DeviceSecretKey::from_bytes)? {
            Some(key) => key,
            None => files::new_key(&path, DeviceSecretKey::generate, DeviceSecretKey::expose_bytes)?,
        };
        let path = self.issuer_path();
        if files::read_key(&path, IssuerSecretKey::from_bytes)?.is_none() {
            files::new_key(&path, IssuerSecretKey::generate, IssuerSecretKey::expose_bytes)?;
        }
        if let (Some(url), Some(agent)) = (&self.url, &self.agent) {
            let file = AgentFile { url: url.to_string(), agent_key: agent.to_string() };
            let json = serde_json::to_vec_pretty(&file).during("agent.json cannot be written")?;
            files::write_private(&self.directory.join("agent.json"), &json)?;
        }
        Ok(device)
    }

    /// Reads everything that a connection needs.
    pub fn open(&self) -> Outcome<Identity> {
        let (url, agent) = match (&self.url, self.agent) {
            (Some(url), Some(agent)) => (url.clone(), agent),
            (url, agent) => {
                let file = self.agent_file()?;
                let read = |what| format!("{} in agent.json", what);
                let stored_url = AgentUrl::parse(&file.url).during(read("the address"))?;
                let stored_key = file.agent_key.parse().during(read("the key"))?;
                (url.clone().unwrap_or(stored_url), agent.unwrap_or(stored_key))
            }
        };
        let device = require(&self.device_path(), DeviceSecretKey::from_bytes)?;
        let issuer = require(&self.issuer_path(), IssuerSecretKey::from_bytes)?;
        Ok(Identity { url, agent, device, issuer })
    }

    fn agent_file(&self) -> Outcome<AgentFile> {
        let bytes = files::read_private(&self.directory.join("agent.json"))?.ok_or_else(|| {
            Problem::said("name the agent with --agent and --agent-key, once with `keygen` to have it stored")
        })?;
        serde_json::from_slice(&bytes).during("agent.json cannot be read; write it again with `keygen`")
    }

    fn device_path(&self) -> PathBuf {
        self.device_key.clone().unwrap_or_else(|| self.directory.join("device.key"))
    }

    fn issuer_path(&self) -> PathBuf {
        self.directory.join("issuer.key")
    }
}

fn require<K>(path: &Path, of_bytes: impl FnOnce([u8; 32]) -> K) -> Outcome<K> {
    files::read_key(path, of_bytes)?.ok_or_else(|| {
        Problem::Said(format!("there is no key at {}; make one with `keygen`", path.display()))
    })
}

/// Where the profile is by default.
pub fn default_directory() -> Outcome<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = config.or_else(home);
    config
        .map(|config| config.join("sessioncap-dd"))
        .ok_or_else(|| Problem::said("name a directory with --profile"))
}
