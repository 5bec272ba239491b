//! The desktop's files: two keys, and which agent it belongs to.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sessioncap::{AgentPublicKey, AgentUrl, DeviceSecretKey, IssuerSecretKey};

#[cfg(feature = "keyring")]
use rand::rngs::OsRng;
#[cfg(feature = "keyring")]
use sha2::Digest;
#[cfg(feature = "keyring")]
use zeroize::Zeroizing;

use super::Identity;
use crate::files;
#[cfg(feature = "keyring")]
use crate::keys::Keeper;
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

/// Under which name the keyring has the keys of desktops.
#[cfg(feature = "keyring")]
const SERVICE: &str = "sessioncap-dd";
#[cfg(feature = "keyring")]
const DEVICE: &str = "device";
#[cfg(feature = "keyring")]
const ISSUER: &str = "issuer";

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
        self.remember_agent()?;
        Ok(device)
    }

    fn remember_agent(&self) -> Outcome<()> {
        if let (Some(url), Some(agent)) = (&self.url, &self.agent) {
            let file = AgentFile { url: url.to_string(), agent_key: agent.to_string() };
            let json = serde_json::to_vec_pretty(&file).during("agent.json cannot be written")?;
            files::write_private(&self.directory.join("agent.json"), &json)?;
        }
        Ok(())
    }

    /// Reads everything that a connection needs.
    pub fn open(&self) -> Outcome<Identity> {
        let (url, agent) = self.where_the_agent_is()?;
        let device = require(&self.device_path(), DeviceSecretKey::from_bytes)?;
        let issuer = require(&self.issuer_path(), IssuerSecretKey::from_bytes)?;
        Ok(Identity { url, agent, device, issuer })
    }

    fn where_the_agent_is(&self) -> Outcome<(AgentUrl, AgentPublicKey)> {
        Ok(match (&self.url, self.agent) {
            (Some(url), Some(agent)) => (url.clone(), agent),
            (url, agent) => {
                let file = self.agent_file()?;
                let read = |what| format!("{} in agent.json", what);
                let stored_url = AgentUrl::parse(&file.url).during(read("the address"))?;
                let stored_key = file.agent_key.parse().during(read("the key"))?;
                (url.clone().unwrap_or(stored_url), agent.unwrap_or(stored_key))
            }
        })
    }

    /// As [`Profile::make`], with the two keys in the system's keyring.
    #[cfg(feature = "keyring")]
    pub async fn make_in(&self, keyring: &Keeper) -> Outcome<DeviceSecretKey> {
        files::make_private_directory(&self.directory)?;
        let device = match self.kept(keyring, DEVICE).await? {
            Some(bytes) => DeviceSecretKey::from_bytes(*bytes),
            None => {
                let key = DeviceSecretKey::generate(&mut OsRng);
                keyring.set(SERVICE, &self.entry(DEVICE), key.expose_bytes()).await?;
                key
            }
        };
        if self.kept(keyring, ISSUER).await?.is_none() {
            let key = IssuerSecretKey::generate(&mut OsRng);
            keyring.set(SERVICE, &self.entry(ISSUER), key.expose_bytes()).await?;
        }
        self.remember_agent()?;
        Ok(device)
    }

    /// As [`Profile::open`], with the two keys from the system's keyring.
    #[cfg(feature = "keyring")]
    pub async fn open_in(&self, keyring: &Keeper) -> Outcome<Identity> {
        let (url, agent) = self.where_the_agent_is()?;
        let missing = || Problem::said("the keyring has no key of this profile; make one with `keygen`");
        let device = self.kept(keyring, DEVICE).await?.ok_or_else(missing)?;
        let issuer = self.kept(keyring, ISSUER).await?.ok_or_else(missing)?;
        let (device, issuer) = (DeviceSecretKey::from_bytes(*device), IssuerSecretKey::from_bytes(*issuer));
        Ok(Identity { url, agent, device, issuer })
    }

    #[cfg(feature = "keyring")]
    async fn kept(&self, keyring: &Keeper, what: &str) -> Outcome<Option<Zeroizing<[u8; 32]>>> {
        let Some(bytes) = keyring.get(SERVICE, &self.entry(what)).await? else { return Ok(None) };
        let key = <[u8; 32]>::try_from(bytes.as_slice());
        key.map(|key| Some(Zeroizing::new(key)))
            .during("the keyring has something else under the name of a key")
    }

    /// The name of a key in the keyring, which all profiles of a user share.
    #[cfg(feature = "keyring")]
    fn entry(&self, what: &str) -> String {
        let directory = std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone());
        let hash = sha2::Sha256::digest(directory.as_os_str().as_encoded_bytes());
        let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{what}-{digits}")
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
