//! `devices.json`, the trust set of the deployed agent. A key in it has the whole machine, so no
//! phone's key ever belongs there.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sessioncap::DevicePublicKey;
use tokio::sync::watch;

use crate::files;
use crate::problem::{Outcome, While};

/// The file, with the field names of the deployed agent.
#[derive(Default, Serialize, Deserialize)]
struct List {
    devices: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    pubkey: String,
    label: String,
    created_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at_ms: Option<u64>,
}

/// The devices that are enrolled now.
pub(super) struct Devices {
    path: PathBuf,
    read: Mutex<Read>,
    changed: watch::Sender<()>,
}

struct Read {
    enrolled: HashSet<DevicePublicKey>,
    modified: Option<SystemTime>,
}

impl Devices {
    /// Reads the list, and adds devices to it.
    pub(super) fn open(path: PathBuf, enroll: &[DevicePublicKey]) -> Outcome<Self> {
        let read = Read { enrolled: HashSet::new(), modified: None };
        let devices = Self { path, read: Mutex::new(read), changed: watch::channel(()).0 };
        let mut list = devices.read_list()?;
        let known = enrolled(&list);
        let new: Vec<_> = enroll.iter().filter(|device| !known.contains(device)).collect();
        if !new.is_empty() {
            for device in new {
                list.devices.push(Entry {
                    pubkey: device.to_string(),
                    label: "enrolled on the command line".to_owned(),
                    created_at_ms: milliseconds_since_1970(),
                    revoked_at_ms: None,
                });
            }
            let json = serde_json::to_vec_pretty(&list).during("the list of devices cannot be written")?;
            files::write_private(&devices.path, &json)?;
        }
        devices.reload(true)?;
        Ok(devices)
    }

    pub(super) fn contains(&self, device: &DevicePublicKey) -> bool {
        self.lock().enrolled.contains(device)
    }

    pub(super) fn enrolled(&self) -> Vec<DevicePublicKey> {
        self.lock().enrolled.iter().copied().collect()
    }

    /// Reads the file again if it was written since, or in any case; true if the set is another.
    /// An unreadable file changes nothing.
    pub(super) fn reload(&self, forced: bool) -> Outcome<bool> {
        let modified = std::fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        if !forced && modified == self.lock().modified {
            return Ok(false);
        }
        let enrolled = enrolled(&self.read_list()?);
        let mut read = self.lock();
        read.modified = modified;
        let changed = read.enrolled != enrolled;
        read.enrolled = enrolled;
        Ok(changed)
    }

    /// Tells the devices' connections to look whether they still may.
    pub(super) fn announce(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn read_list(&self) -> Outcome<List> {
        match files::read_private(&self.path)? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).during(format_args!("{} cannot be read", self.path.display()))
            }
            None => Ok(List::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that does not parse enrols nobody.
fn enrolled(list: &List) -> HashSet<DevicePublicKey> {
    let active = list.devices.iter().filter(|entry| entry.revoked_at_ms.is_none());
    active.filter_map(|entry| entry.pubkey.parse().ok()).collect()
}

fn milliseconds_since_1970() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
