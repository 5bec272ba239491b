//! A ledger in one file, which survives a killed process, a full disk and a power failure.
//!
//! The database is redb: copy-on-write trees with checksums, so that a file is always in the state before or
//! after a transaction. Commits have two phases, because peers choose some of the written bytes, and with one
//! phase only the checksum would distinguish a torn commit from a complete one. Every page is checked when
//! the file is opened: it has a few megabytes at most, and a page that was changed by someone else must not
//! be read as a record.

use core::cell::{OnceCell, RefCell};
use core::ops::Bound;
use std::error::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadOnlyDatabase, ReadTransaction,
    ReadableDatabase, StorageBackend, StorageError, TableDefinition, TableError, TransactionError,
    WriteTransaction,
};

use super::record::Header;
use super::rows::HEADER as HEADER_KEY;
use super::{Changes, Ledger, LedgerError, Look, Outcome, Row, Snapshot, Table, Transition};
use crate::agent::denial::LedgerFailure;
use crate::codec;

/// The size of the database's page cache, bytes.
const CACHE: usize = 4 * 1_024 * 1_024;

/// The initial length of a redb file, and its header: a magic, which is written last, and the page size.
const NEW_FILE: u64 = 73_728;
const MAGIC: usize = 9;
const PAGE_SIZE: core::ops::Range<usize> = 12..16;
const HEADER: usize = 320;

/// A ledger in a file, for an agent whose pairings outlive its process.
///
/// When a transition has returned, it is on the disk, provided the disk honours fsync. Opening after a crash
/// needs no intervention: uncommitted changes are absent, and a half-created file is recreated. One process
/// at a time may open the file. Only its owner can access it (0600), because it shows which phones and
/// sessions there were. It contains no ticket's secret; it contains the credentials of live phones, which are
/// useless without the phones' keys.
///
/// After any failure, a full disk included, every further transition fails until the file is opened again; it
/// still contains everything that was acknowledged. A transition that writes costs two syncs, one that only
/// reads none.
pub struct RedbLedger {
    /// `None` after a failure.
    database: Mutex<Option<Arc<Database>>>,
    writer: Mutex<()>,
}

impl RedbLedger {
    /// Opens or creates the file. Checks every page, in time proportional to the size of the file.
    ///
    /// Access of others to the file is removed. A symbolic link as the path's last component is refused; this
    /// check precedes the opening and does not protect against someone who can write to the directory.
    ///
    /// # Errors
    /// [`LedgerError`], with the operating system's or database's error as its source and one of these
    /// causes: [`LedgerFailure::InUse`], [`LedgerFailure::ReadOnly`], [`LedgerFailure::Full`],
    /// [`LedgerFailure::NotAFile`], [`LedgerFailure::Corrupt`] if the file was changed or is not a ledger,
    /// [`LedgerFailure::UnknownFormat`] if the database has another version, otherwise [`LedgerFailure::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let path = path.as_ref();
        let opened = match Self::at(path) {
            Err(error) if error.cause() == LedgerFailure::Corrupt && discard_unfinished(path)? => {
                Self::at(path)
            }
            opened => opened,
        };
        opened.map_err(LedgerError::unusable)
    }

    /// Reads a ledger's file into memory, to look at it: the file is opened for reading only and stays as it is.
    /// What is written to the copy is lost with it.
    ///
    /// Reads the whole file and checks every page, in time and memory proportional to its size. An interrupted
    /// last commit is repaired in the copy, as [`RedbLedger::open`] would do in the file. Meanwhile no other
    /// process can open the file. Do not call it in a process that has the file open.
    ///
    /// # Errors
    /// As [`RedbLedger::open`], with [`LedgerFailure::InUse`] while a process has the file open. A file that
    /// does not exist is not created: [`LedgerFailure::Io`].
    pub fn copy_of(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        read_file(path.as_ref())
            .and_then(|content| {
                let copy = InMemoryBackend::new();
                let len = u64::try_from(content.len()).map_err(io_because)?;
                copy.set_len(len).and_then(|()| copy.write(0, &content)).map_err(io_because)?;
                Self::on_backend(copy)
            })
            .map_err(LedgerError::unusable)
    }

    fn at(path: &Path) -> Result<Self, LedgerError> {
        let file = opened(path)?;
        // The file's name must survive a crash too.
        sync_directory(path).map_err(from_io)?;
        let ledger = Self::on_backend(FileBackend::new(file).map_err(from_database)?)?;
        // Only a file that is a ledger is changed.
        make_private(path).map_err(from_io)?;
        Ok(ledger)
    }

    pub(crate) fn on_backend(backend: impl StorageBackend) -> Result<Self, LedgerError> {
        let database = catch_panic(|| {
            Builder::new()
                .set_cache_size(CACHE)
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
                .map_err(from_database)
                .and_then(|database| check_ours(&database).map(|()| database))
        })?;
        Ok(Self { database: Mutex::new(Some(Arc::new(database))), writer: Mutex::new(()) })
    }
}

impl core::fmt::Debug for RedbLedger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RedbLedger").field("usable", &lock(&self.database).is_some()).finish_non_exhaustive()
    }
}

impl Ledger for RedbLedger {
    fn read(&self, look: Look<'_>) -> Result<(), LedgerError> {
        self.with(|database| {
            let outcome = catch_panic(|| {
                let stored = Stored::new(database.begin_read().map_err(from_transaction)?);
                look(&stored).map_err(|cause| stored.error(cause))
            });
            outcome.map_err(LedgerError::unusable)
        })
    }

    fn transact(&self, transition: Transition<'_>) -> Result<(), LedgerError> {
        // One transition at a time; reads run concurrently.
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.with(|database| {
            let mut sound = false;
            let changes = catch_panic(|| {
                let stored = Stored::new(database.begin_read().map_err(from_transaction)?);
                let changes = transition(&stored);
                sound = stored.failed.borrow().is_none();
                changes.map_err(|cause| stored.error(cause))
            });
            match changes {
                Ok(changes) => commit(database, &changes).map_err(LedgerError::unusable),
                // The transition refused, and every row could be read.
                Err(error) if sound => Err(error),
                Err(error) => Err(error.unusable()),
            }
        })
    }
}

impl RedbLedger {
    /// Runs `act`, and closes the file after a failure: redb then writes no more until it is opened again,
    /// and what it returns may differ from the disk.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let database = lock(&self.database).clone();
        let database = database.ok_or_else(|| LedgerError::not_done(LedgerFailure::Poisoned).unusable())?;
        let outcome = act(&database);
        let failed = outcome.as_ref().is_err_and(|error| !error.is_usable());
        let kept = if failed { lock(&self.database).take() } else { None };
        // Closing also writes, and may fail or panic.
        let _ = catch_panic(|| {
            drop((kept, database));
            Ok(())
        });
        outcome
    }
}

/// Code that holds this lock cannot panic in the middle of a change.
fn lock(database: &Mutex<Option<Arc<Database>>>) -> MutexGuard<'_, Option<Arc<Database>>> {
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

type Rows = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The last committed state. Each table is opened once.
struct Stored {
    transaction: ReadTransaction,
    /// The reason of the first row that could not be read.
    failed: RefCell<Option<LedgerError>>,
    tables: [OnceCell<Option<Rows>>; Table::ALL.len()],
}

impl Stored {
    fn new(transaction: ReadTransaction) -> Self {
        Self {
            transaction,
            failed: RefCell::new(None),
            tables: [const { OnceCell::new() }; Table::ALL.len()],
        }
    }

    fn table(&self, table: Table) -> Result<Option<&Rows>, LedgerError> {
        let cell =
            self.tables.get(table as usize).ok_or_else(|| LedgerError::not_done(LedgerFailure::Corrupt))?;
        if let Some(opened) = cell.get() {
            return Ok(opened.as_ref());
        }
        let opened = match self.transaction.open_table(definition(table)) {
            Ok(table) => Some(table),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(from_table(error)),
        };
        Ok(cell.get_or_init(|| opened).as_ref())
    }
}

impl Stored {
    /// Returns the error of a read that ended with `cause`, with the database's error if a row could not be
    /// read.
    fn error(&self, cause: LedgerFailure) -> LedgerError {
        let failed = self.failed.borrow().clone().filter(|error| error.cause() == cause);
        failed.unwrap_or_else(|| LedgerError::not_done(cause))
    }

    fn keep(&self, error: LedgerError) -> LedgerFailure {
        let cause = error.cause();
        self.failed.borrow_mut().get_or_insert(error);
        cause
    }

    fn look_up(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        Ok(table.get(key).map_err(from_storage)?.map(|value| value.value().to_vec()))
    }

    fn rows(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerError> {
        let Some(table) = self.table(table)? else { return Ok(Vec::new()) };
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        for row in table.range::<&[u8]>((from, Bound::Unbounded)).map_err(from_storage)?.take(limit) {
            let (key, value) = row.map_err(from_storage)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(found)
    }
}

impl Snapshot for Stored {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFailure> {
        self.look_up(table, key).map_err(|error| self.keep(error))
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, LedgerFailure> {
        self.rows(table, prefix, after, limit).map_err(|error| self.keep(error))
    }
}

/// Writes changes. A failure before the commit leaves the file unchanged; a commit that fails may have
/// happened, because either of its two syncs can fail.
fn commit(database: &Database, changes: &Changes) -> Result<(), LedgerError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut write = None;
    catch_panic(|| {
        let mut begun = database.begin_write().map_err(from_transaction)?;
        begun.set_durability(Durability::Immediate).map_err(io_because)?;
        begun.set_two_phase_commit(true);
        put(&begun, changes)?;
        write = Some(begun);
        Ok(())
    })?;
    let Some(write) = write else { return Ok(()) };
    catch_panic(|| {
        write.commit().map_err(|error| match error {
            CommitError::Storage(error) => from_storage(error),
            error => io_because(error),
        })
    })
    .map_err(|error| LedgerError { outcome: Outcome::Unknown, usable: false, ..error })
}

fn put(write: &WriteTransaction, changes: &Changes) -> Result<(), LedgerError> {
    let mut changes = changes.iter().peekable();
    while let Some((table, ..)) = changes.peek().copied() {
        let mut rows = write.open_table(definition(table)).map_err(from_table)?;
        while let Some((_, key, value)) = changes.next_if(|(of, ..)| *of == table) {
            match value {
                Some(value) => rows.insert(key, value).map(drop),
                None => rows.remove(key).map(drop),
            }
            .map_err(from_storage)?;
        }
    }
    Ok(())
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Reports a panic as [`LedgerFailure::Corrupt`]: the database may panic on a file that it did not write.
fn catch_panic<T>(act: impl FnOnce() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(LedgerError::not_done(LedgerFailure::Corrupt)))
}

/// A database of somebody else has tables of its own. Whoever else names a table `meta` has no header
/// of ours in it.
fn check_ours(database: &Database) -> Result<(), LedgerError> {
    let read = database.begin_read().map_err(from_transaction)?;
    let tables = read.list_tables().map_err(from_storage)?.count();
    let multimaps = read.list_multimap_tables().map_err(from_storage)?.count();
    if tables == 0 && multimaps == 0 {
        return Ok(());
    }
    // Our first commit writes the header with the first table, so a database with tables and no header is not
    // ours. A later format may have other tables; its header says so.
    let stored = Stored::new(read);
    let foreign = || LedgerError::not_done(LedgerFailure::Corrupt);
    let header = stored.look_up(Table::Meta, HEADER_KEY)?.ok_or_else(foreign)?;
    codec::decode::<Header>(&header).map(drop).map_err(|error| foreign().because(error))
}

/// Empties a file whose creation was interrupted by a crash or a full disk. It contains no records, and redb
/// would refuse it permanently.
fn discard_unfinished(path: &Path) -> Result<bool, LedgerError> {
    let file = opened(path)?;
    // Another process may be creating it now, under the same lock.
    match file.try_lock() {
        Ok(()) => discard_if_unfinished(&file).map_err(from_io),
        Err(TryLockError::WouldBlock) => Err(LedgerError::not_done(LedgerFailure::InUse)),
        Err(TryLockError::Error(_)) => Ok(false),
    }
}

fn discard_if_unfinished(mut file: &File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    if len > NEW_FILE {
        return Ok(false);
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let unfinished = is_unfinished(&content);
    if unfinished {
        file.set_len(0)?;
        file.sync_all()?;
    }
    Ok(unfinished)
}

/// Whether the file has no magic and nothing after the header, which may itself be incomplete.
fn is_unfinished(content: &[u8]) -> bool {
    let zero = |bytes: Option<&[u8]>| bytes.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0));
    let begun = content.get(PAGE_SIZE).is_some_and(|size| size == 4_096_u32.to_le_bytes());
    let untouched = content.len() as u64 == NEW_FILE && zero(content.get(..HEADER));
    zero(content.get(..MAGIC)) && zero(content.get(HEADER..)) && (begun || untouched)
}

/// Reads a file that no process has open. A file whose creation was interrupted is empty.
fn read_file(path: &Path) -> Result<Vec<u8>, LedgerError> {
    if !fs::symlink_metadata(path).map_err(from_io)?.is_file() {
        return Err(LedgerError::not_done(LedgerFailure::NotAFile));
    }
    // The database's own locks; held while the file is read, unless it has to be repaired first.
    let held = lock_to_read(path)?;
    let content = fs::read(path).map_err(from_io)?;
    if held.is_none() {
        lock_to_read(path)?;
    }
    Ok(if is_unfinished(&content) { Vec::new() } else { content })
}

/// `None` if nobody has the file open, but it cannot be opened for reading as it is.
fn lock_to_read(path: &Path) -> Result<Option<ReadOnlyDatabase>, LedgerError> {
    let opened =
        catch_panic(|| Builder::new().set_cache_size(CACHE).open_read_only(path).map_err(from_database));
    match opened {
        Ok(database) => Ok(Some(database)),
        Err(error) if error.cause() == LedgerFailure::InUse => Err(error),
        Err(_) => Ok(None),
    }
}

/// Opens the file. A new file is created with access for its owner only.
fn opened(path: &Path) -> Result<File, LedgerError> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(LedgerError::not_done(LedgerFailure::NotAFile));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(from_io)
}

/// By path: on some systems, closing another handle of a file releases its locks.
fn make_private(path: &Path) -> io::Result<()> {
    #[cfg(not(unix))]
    let _ = path;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if fs::symlink_metadata(path)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn from_io(error: io::Error) -> LedgerError {
    let failure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            LedgerFailure::Full
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => LedgerFailure::ReadOnly,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => LedgerFailure::Corrupt,
        io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock => LedgerFailure::InUse,
        _ => LedgerFailure::Io,
    };
    LedgerError::not_done(failure).because(error)
}

fn io_because(error: impl Into<Box<dyn Error + Send + Sync>>) -> LedgerError {
    LedgerError::not_done(LedgerFailure::Io).because(error)
}

fn from_storage(error: StorageError) -> LedgerError {
    let failure = match error {
        StorageError::Io(error) => return from_io(error),
        StorageError::Corrupted(_) => LedgerFailure::Corrupt,
        StorageError::PreviousIo | StorageError::DatabaseClosed | StorageError::LockPoisoned(_) => {
            LedgerFailure::Poisoned
        }
        _ => LedgerFailure::Io,
    };
    LedgerError::not_done(failure).because(error)
}

fn from_database(error: DatabaseError) -> LedgerError {
    let failure = match error {
        DatabaseError::Storage(error) => return from_storage(error),
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => LedgerFailure::InUse,
        DatabaseError::UpgradeRequired(version) => LedgerFailure::UnknownFormat { version: version.into() },
        DatabaseError::RepairAborted => LedgerFailure::Corrupt,
        _ => LedgerFailure::Io,
    };
    LedgerError::not_done(failure).because(error)
}

fn from_transaction(error: TransactionError) -> LedgerError {
    match error {
        TransactionError::Storage(error) => from_storage(error),
        error => io_because(error.to_string()),
    }
}

/// A table with our name and another type belongs to another program.
fn from_table(error: TableError) -> LedgerError {
    match error {
        TableError::Storage(error) => from_storage(error),
        error => LedgerError::not_done(LedgerFailure::Corrupt).because(error),
    }
}

#[cfg(test)]
mod tests;
