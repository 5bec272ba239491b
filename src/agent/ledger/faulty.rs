//! A simulated disk for tests of a real database: it fails, tears writes and loses data on demand.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

/// The fault at the chosen operation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The operation fails and has no effect.
    Fail(io::ErrorKind),
    /// A write stops half-way; any other operation has no effect.
    Tear,
    /// This and every later operation fails: the machine is off.
    Gone,
    /// The database panics in the operation.
    Panic,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Default)]
struct Inside {
    /// The content after the last sync.
    synced: Vec<u8>,
    /// The content that a reader sees.
    content: Vec<u8>,
    /// The writes since the last sync.
    unsynced: Vec<Change>,
    operations: u64,
    syncs: u64,
    writes: u64,
    fault: Option<(u64, Fault)>,
    gone: bool,
}

/// A disk that outlives the database on it. Clones share one disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Inside>>);

impl Disk {
    /// Makes a disk with this synced content.
    pub(crate) fn holding(content: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inside { synced: content.clone(), content, ..Inside::default() })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// Returns the number of reads, writes, syncs and length changes.
    pub(crate) fn operations(&self) -> u64 {
        self.inside().operations
    }

    /// Returns the number of syncs.
    pub(crate) fn syncs(&self) -> u64 {
        self.inside().syncs
    }

    /// Returns the number of writes and length changes.
    pub(crate) fn writes(&self) -> u64 {
        self.inside().writes
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.inside().content.clone()
    }

    /// Schedules a fault at the `nth` operation from now on, counted from 1.
    pub(crate) fn fault_at(&self, nth: u64, fault: Fault) {
        let mut inside = self.inside();
        inside.fault = Some((inside.operations + nth, fault));
    }

    /// Returns the content after the process was killed: everything that was written.
    pub(crate) fn after_kill(&self) -> Self {
        Self::holding(self.content())
    }

    /// Returns the content after a power failure: everything synced, and parts of some later writes.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let inside = self.inside();
        let mut content = inside.synced.clone();
        for change in &inside.unsynced {
            match change {
                Change::Length(len) if rng.gen_bool(0.5) => content.resize(*len, 0),
                Change::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if rng.gen_bool(0.5) {
                            put(&mut content, offset + index * SECTOR, sector);
                        }
                    }
                }
                Change::Length(_) => {}
            }
        }
        Self::holding(content)
    }

    fn operation(&self) -> Result<MutexGuard<'_, Inside>, (io::Error, MutexGuard<'_, Inside>)> {
        let mut inside = self.inside();
        inside.operations += 1;
        if inside.gone {
            return Err((io::ErrorKind::Other.into(), inside));
        }
        match inside.fault {
            Some((at, fault)) if at == inside.operations => {
                let kind = match fault {
                    Fault::Fail(kind) => kind,
                    Fault::Tear => io::ErrorKind::Other,
                    Fault::Panic => {
                        // Without the lock, so that the disk is usable after the panic.
                        drop(inside);
                        panic!("as the test wants it");
                    }
                    Fault::Gone => {
                        inside.gone = true;
                        io::ErrorKind::Other
                    }
                };
                Err((kind.into(), inside))
            }
            _ => Ok(inside),
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

impl core::fmt::Debug for Disk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disk").field("len", &self.inside().content.len()).finish_non_exhaustive()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inside().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inside = self.operation().map_err(|(error, _)| error)?;
        let offset = usize::try_from(offset).unwrap();
        let data = inside.content.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inside = self.operation().map_err(|(error, _)| error)?;
        let len = usize::try_from(len).unwrap();
        inside.writes += 1;
        inside.content.resize(len, 0);
        inside.unsynced.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inside = self.operation().map_err(|(error, _)| error)?;
        inside.syncs += 1;
        inside.synced = inside.content.clone();
        inside.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let write = |inside: &mut Inside, data: &[u8]| {
            inside.writes += 1;
            put(&mut inside.content, offset, data);
            inside.unsynced.push(Change::Write(offset, data.to_vec()));
        };
        match self.operation() {
            Ok(mut inside) => {
                write(&mut inside, data);
                Ok(())
            }
            Err((error, mut inside)) => {
                if let Some((at, Fault::Tear)) = inside.fault
                    && at == inside.operations
                {
                    write(&mut inside, &data[..data.len() / 2]);
                }
                Err(error)
            }
        }
    }
}
