//! `devices.json`, the trust set of the deployed agent. A key in it has the whole machine, so no
//! phone's key ever belongs there. It removes a device only where it can be read as a whole.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sessioncap::DevicePublicKey;
use sessioncap::agent::Presence;
use tokio::sync::watch;

use crate::files;
use crate::lock;
use crate::problem::{Outcome, Problem, While};

/// Seconds for which a file counts as just written.
const YOUNG: i64 = 2;

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

/// The devices that are enrolled, as the list last said that could be read.
pub(super) struct Devices {
    path: PathBuf,
    read: Mutex<Read>,
    changed: watch::Sender<()>,
}

struct Read {
    /// `None` until a list was read.
    enrolled: Option<HashSet<DevicePublicKey>>,
    /// The file that was looked at last, unless it could still change without getting another stamp.
    stamp: Option<Stamp>,
    /// The file that could not be read, and was told of.
    unreadable: Option<Stamp>,
}

/// Properties of a file, of which one changes when it is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// `None` if there is no file.
    file: Option<(u64, u64, u64, i64, i64, i64, i64)>,
}

/// The result of looking at the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// Nothing new.
    Same,
    /// Other devices are enrolled.
    Changed,
    /// It can be read again.
    Back {
        /// Whether other devices are enrolled than before.
        changed: bool,
    },
    /// It cannot be read, for a reason that was not told yet. Nobody is enrolled or removed by that.
    Unreadable(String),
}

impl Devices {
    /// Reads the list in the state directory, and adds devices to it. A list that was there once and is missing
    /// now, or cannot be read, enrols nobody and revokes nothing until it is back; the warning says so.
    pub(super) fn open(state: &Path, enroll: &[DevicePublicKey]) -> Outcome<(Self, Option<String>)> {
        let path = state.join("devices.json");
        // Tells a first start from a list that got lost.
        let mark = state.join("devices.seen");
        let first = matches!(mark.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound);
        let list = match read_list(&path) {
            Ok(Some(list)) => Ok(list),
            Ok(None) if first => Ok((List::default(), HashSet::new())),
            Ok(None) => Err(missing(&path)),
            Err(problem) => Err(problem),
        };
        let warning = match list {
            Ok((mut list, known)) => {
                let new = enroll.iter().filter(|device| !known.contains(device));
                list.devices.extend(new.map(|device| Entry {
                    pubkey: device.to_string(),
                    label: "enrolled on the command line".to_owned(),
                    created_at_ms: milliseconds_since_1970(),
                    revoked_at_ms: None,
                }));
                if list.devices.len() > known.len() || !path.exists() {
                    let json =
                        serde_json::to_vec_pretty(&list).during("the list of devices cannot be written")?;
                    files::write_private(&path, &json)?;
                }
                if first {
                    files::write_private(&mark, b"")?;
                }
                None
            }
            Err(problem) => Some(format!(
                "{problem}. until the list of devices can be read, no device is enrolled and nothing is revoked{}",
                if enroll.is_empty() { "" } else { "; `--enroll` was not carried out" }
            )),
        };
        let read = Read { enrolled: None, stamp: None, unreadable: None };
        let devices = Self { path, read: Mutex::new(read), changed: watch::channel(()).0 };
        devices.reload(true);
        Ok((devices, warning))
    }

    pub(super) fn contains(&self, device: &DevicePublicKey) -> bool {
        self.lock().enrolled.as_ref().is_some_and(|enrolled| enrolled.contains(device))
    }

    /// For the gate: without a list the agent cannot tell.
    pub(super) fn presence(&self, device: &DevicePublicKey) -> Presence {
        match &self.lock().enrolled {
            Some(enrolled) => enrolled.contains(device).into(),
            None => Presence::Unknown,
        }
    }

    /// The devices, if a list was read.
    pub(super) fn enrolled(&self) -> Option<Vec<DevicePublicKey>> {
        self.lock().enrolled.as_ref().map(|enrolled| enrolled.iter().copied().collect())
    }

    /// Whether the list can be read now.
    pub(super) fn is_known(&self) -> bool {
        let read = self.lock();
        read.enrolled.is_some() && read.unreadable.is_none()
    }

    /// Reads the file again if it is another or was written since, or in any case.
    pub(super) fn reload(&self, forced: bool) -> Reload {
        // Before the file is read: what is written meanwhile is seen with the next look.
        let stamp = Stamp::of(&self.path);
        let mut read = self.lock();
        if !forced && read.stamp == Some(stamp) {
            return Reload::Same;
        }
        read.stamp = (!stamp.is_young()).then_some(stamp);
        match read_list(&self.path).and_then(|list| list.ok_or_else(|| missing(&self.path))) {
            Ok((_, enrolled)) => {
                let changed = read.enrolled.as_ref() != Some(&enrolled);
                read.enrolled = Some(enrolled);
                match (read.unreadable.take(), changed) {
                    (Some(_), changed) => Reload::Back { changed },
                    (None, true) => Reload::Changed,
                    (None, false) => Reload::Same,
                }
            }
            Err(problem) => match read.unreadable.replace(stamp) == Some(stamp) && !forced {
                true => Reload::Same,
                false => Reload::Unreadable(format!(
                    "{problem}. the devices stay as they were, and nothing is revoked"
                )),
            },
        }
    }

    /// Tells the devices' connections to look whether they still may.
    pub(super) fn announce(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        lock(&self.read)
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let file = std::fs::metadata(path).ok().map(|file| {
            let (written, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
            (file.dev(), file.ino(), file.len(), written.0, written.1, changed.0, changed.1)
        });
        Self { file }
    }

    /// Whether the file is so new that it could be written once more within the same tick of its clock.
    fn is_young(self) -> bool {
        let Some((.., changed, _)) = self.file else { return false };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        changed.saturating_add(YOUNG) > i64::try_from(now).unwrap_or(i64::MAX)
    }
}

fn missing(path: &Path) -> Problem {
    Problem::Said(format!(
        "the list of devices {} is missing; one without devices is {{\"devices\": []}}",
        path.display()
    ))
}

/// The list with the devices that it enrols; `None` if there is no file. Half a list, or one with a key that is
/// none, is no list: it would remove devices that nobody has removed.
fn read_list(path: &Path) -> Outcome<Option<(List, HashSet<DevicePublicKey>)>> {
    let Some(bytes) = files::read_private(path)? else { return Ok(None) };
    let doing = || format!("the list of devices {} cannot be read", path.display());
    let list: List = serde_json::from_slice(&bytes).during(doing())?;
    let mut enrolled = HashSet::new();
    for (number, entry) in list.devices.iter().enumerate() {
        let key = entry.pubkey.parse::<DevicePublicKey>();
        let key =
            key.during(format_args!("{}: the public key of entry {}", doing(), number.saturating_add(1)))?;
        if entry.revoked_at_ms.is_none() {
            enrolled.insert(key);
        }
    }
    Ok(Some((list, enrolled)))
}

fn milliseconds_since_1970() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DevicePublicKey {
        sessioncap::DeviceSecretKey::from_bytes([number; 32]).public()
    }

    fn place() -> PathBuf {
        let path = std::env::temp_dir().join(format!("sessioncap-devices-{}", uuid::Uuid::new_v4()));
        files::make_private_directory(&path).unwrap();
        path
    }

    fn entry(key: &str) -> String {
        format!(r#"{{"pubkey":"{key}","label":"a","created_at_ms":1}}"#)
    }

    fn list(keys: &[String]) -> String {
        let entries: Vec<_> = keys.iter().map(|key| entry(key)).collect();
        format!(r#"{{"devices":[{}]}}"#, entries.join(","))
    }

    #[test]
    fn only_a_list_that_can_be_read_removes_a_device() {
        let state = place();
        let (devices, warning) = Devices::open(&state, &[device(1)]).unwrap();
        assert_eq!((warning, devices.enrolled()), (None, Some(vec![device(1)])));
        let file = state.join("devices.json");
        let whole = list(&[device(1).to_string()]);
        let half = whole[..whole.len() / 2].to_owned();
        let cases = [
            None,
            Some(String::new()),
            Some(half),
            Some("[]".to_owned()),
            Some("{}".to_owned()),
            Some(list(&[device(1).to_string(), "00".to_owned()])),
        ];
        for case in cases {
            match &case {
                None => std::fs::remove_file(&file).unwrap(),
                Some(text) => files::write_private(&file, text.as_bytes()).unwrap(),
            }
            let found = devices.reload(false);
            assert!(
                matches!(&found, Reload::Unreadable(warning) if warning.contains("nothing is revoked")),
                "{case:?}: {found:?}"
            );
            // It is told once.
            assert_eq!(devices.reload(false), Reload::Same, "{case:?}");
            assert!(devices.contains(&device(1)) && !devices.is_known(), "{case:?}");
            files::write_private(&file, whole.as_bytes()).unwrap();
            assert_eq!(devices.reload(false), Reload::Back { changed: false }, "{case:?}");
        }
        files::write_private(&file, list(&[device(2).to_string()]).as_bytes()).unwrap();
        assert_eq!(devices.reload(false), Reload::Changed);
        assert!(devices.contains(&device(2)) && !devices.contains(&device(1)));
        files::write_private(&file, br#"{"devices": []}"#).unwrap();
        assert_eq!((devices.reload(false), devices.enrolled()), (Reload::Changed, Some(Vec::new())));
        std::fs::remove_dir_all(&state).unwrap();
    }

    #[test]
    fn an_agent_that_starts_without_the_list_that_it_had_enrols_nobody_and_cannot_tell() {
        let state = place();
        drop(Devices::open(&state, &[device(1)]).unwrap());
        let file = state.join("devices.json");
        let kept = state.join("kept");
        std::fs::rename(&file, &kept).unwrap();
        let (devices, warning) = Devices::open(&state, &[device(2)]).unwrap();
        assert!(warning.unwrap().contains("`--enroll` was not carried out"));
        assert!(!file.exists());
        assert_eq!((devices.enrolled(), devices.presence(&device(1))), (None, Presence::Unknown));
        std::fs::rename(&kept, &file).unwrap();
        assert_eq!(devices.reload(false), Reload::Back { changed: true });
        assert!(devices.contains(&device(1)) && !devices.contains(&device(2)));
        std::fs::remove_dir_all(&state).unwrap();
    }

    #[test]
    fn a_list_in_the_place_of_one_of_the_same_size_is_noticed() {
        let state = place();
        let (devices, _) = Devices::open(&state, &[]).unwrap();
        let file = state.join("devices.json");
        for number in [1, 2, 3, 4] {
            // The same length, within the same tick of the clock.
            std::fs::write(&file, list(&[device(number).to_string()])).unwrap();
            assert_eq!(devices.reload(false), Reload::Changed, "{number}");
        }
        std::fs::remove_dir_all(&state).unwrap();
    }
}
