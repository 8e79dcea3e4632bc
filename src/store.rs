//! What survives a restart, on disk: texts by key, changed in transactions.
//!
//! A [`Store`] is one directory with one file. It knows the pool's [`Change`]s only as entries, and
//! nothing of who makes them. One [`apply`](Store::apply) is one transaction: when it returns, all of
//! it has reached the disk; whatever happens before that, a restart finds all of it or nothing.
//!
//! # Why redb
//!
//! Three stores were compared, on two busy cores and an ext4 disk; features trimmed. A transaction is
//! what a lease changes, three entries, synced; 4,096 leases were one each, then 500 were changed. A
//! damage is a flipped bit, or a page of zeros, where data are; then everything was checked and read.
//!
//! | | redb 4.6 | fjall 3.1 | SQLite (rusqlite 0.43, bundled, WAL) |
//! |---|---|---|---|
//! | new crates | 1 | 43 | 10, and a C compiler |
//! | build from nothing, debug / release | 14-21 s / 19-68 s | 21-70 s / 107-159 s | 24-57 s / 124-143 s |
//! | one transaction, median (p99) | 0.6 ms (6 ms) | 0.1 ms (4 ms) | 0.2 ms (0.3 ms) |
//! | disk, 4,096 leases | 2.9 MiB | 2.8 MiB | 5.8 MiB, its log included |
//! | 200 damages after a kill | 177 refused, 23 harmless | 100 refused, **99 read wrong** | 1 refused, **198 read wrong** |
//!
//! Speed decides nothing here: Discord wants seconds between permits. What does is that nothing damaged
//! passes for sound. The other two drop the end of a log that they cannot read, without a word. In redb
//! every page has a checksum, all are read at the start, and a commit in two phases is never taken back. (With one phase, the default and a
//! third faster, a damaged last commit silently gives way to the one before: epochs would go back. The
//! tests show it.)

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use crate::state::shards::{Change, Entry, Snapshot};

/// What [`Change::entry`] puts.
const ENTRIES: TableDefinition<&str, &str> = TableDefinition::new("entries");

/// What the file says of itself.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");

/// The key in [`ABOUT`] of the format of [`ENTRIES`], and the one that is written here. Whoever
/// changes a record so that older gateways misread it raises it.
const FORMAT_KEY: &str = "format";
const FORMAT: u64 = 1;

const FILE_NAME: &str = "shards.redb";

/// The file before it is whole. What a crash leaves of it is thrown away.
const UNFINISHED_NAME: &str = "shards.redb.new";

/// Held locked as long as the store is open; the holder's process id stands in it.
const LOCK_NAME: &str = "lock";

/// Much more than the entries of the largest pool take.
const CACHE_BYTES: usize = 16 << 20;

/// An open store.
pub struct Store {
    directory: PathBuf,
    /// `None` after a failed write: it is opened anew for the next one.
    database: Option<Database>,
    /// What each write takes longer, for tests.
    #[cfg(feature = "fault-injection")]
    slowness: std::time::Duration,
    /// Kept for its lock, which ends with the process, however that ends.
    _lock: File,
}

/// A store cannot be used. Each text is one line: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "data_dir: cannot keep the shard pool in {path}: {why}; expected a directory that this user can \
         write to (--data-dir chooses another, --data-dir=none keeps everything in memory)"
    )]
    Unusable { path: String, why: String },
    #[error(
        "data_dir: {directory} is used by another gateway{}: expected one gateway for each directory; stop \
         that one, or choose another with --data-dir",
        .process.as_ref().map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    Locked { directory: String, process: Option<String> },
    #[error(
        "data_dir: the store {path} is damaged: {why}; expected what a gateway wrote there. Put a copy back; \
         or, once every shard has closed its Discord session, move the file away to begin a new pool (or \
         choose another directory with --data-dir)"
    )]
    Damaged { path: String, why: String },
    #[error(
        "data_dir: the store {path} has format {found}, and this gateway reads {FORMAT}: a newer gateway \
         wrote it; start that one, or choose another directory with --data-dir"
    )]
    Newer { path: String, found: u64 },
}

impl Store {
    /// Opens the store in that directory, and makes both where they are not there.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let unusable = |error: io::Error| unusable(directory, &error);
        make_directory(directory, sync_directory).map_err(unusable)?;
        let lock = lock(directory)?;
        let file = directory.join(FILE_NAME);
        if !file.try_exists().map_err(unusable)? {
            // Whoever made the directory may have been killed before its name was durable.
            directory.parent().map_or(Ok(()), sync_directory).map_err(unusable)?;
            create(directory)?;
        }
        let database = Some(open(&file)?);
        Ok(Self {
            directory: directory.to_owned(),
            database,
            #[cfg(feature = "fault-injection")]
            slowness: std::time::Duration::ZERO,
            _lock: lock,
        })
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// All that is stored.
    pub fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        let path = self.path();
        let damaged = |error: &dyn std::fmt::Display| damaged(&path, error);
        let entries = read_all(self.database()?).map_err(|error| damaged(&error))?;
        let entries = entries.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Snapshot::read(entries).map_err(|error| damaged(&error))
    }

    /// Makes the changes durable, all or none. To be called again with the same ones after an error:
    /// what became of them is not known then. They are whole records, so twice does no harm.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        #[cfg(feature = "fault-injection")]
        std::thread::sleep(self.slowness);
        self.database()?;
        // Not put back where it fails: redb refuses everything after an error of the disk.
        let database = self.database.take().expect("it was opened just now");
        write(&database, changes).map_err(|error| unusable(&self.path(), &error))?;
        self.database = Some(database);
        Ok(())
    }

    /// From now on each write takes so much longer, for tests.
    #[cfg(feature = "fault-injection")]
    pub fn slow_down(&mut self, by: std::time::Duration) {
        self.slowness = by;
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            none => Ok(none.insert(open(&self.directory.join(FILE_NAME))?)),
        }
    }
}

fn unusable(path: &Path, why: &impl ToString) -> StoreError {
    StoreError::Unusable { path: shown(path), why: one_line(&why.to_string()) }
}

fn damaged(path: &Path, why: &(impl ToString + ?Sized)) -> StoreError {
    StoreError::Damaged { path: shown(path), why: one_line(&why.to_string()) }
}

fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Only for its owner, as XDG demands of directories that a program makes. Those above it that are not
/// there are made too, and each is as durable as the store in it will be.
fn make_directory(directory: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing = directory.ancestors().filter(|it| !it.as_os_str().is_empty() && !it.is_dir());
    let missing: Vec<&Path> = missing.collect();
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    missing.into_iter().rev().filter_map(Path::parent).try_for_each(&mut sync)
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK_NAME);
    let unusable = |error: io::Error| unusable(&path, &error);
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Only told: the lock itself says what is allowed.
            let _ = file.read_to_string(&mut process);
            let process = Some(one_line(process.trim())).filter(|id| !id.is_empty());
            return Err(StoreError::Locked { directory: shown(directory), process });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Makes an empty store, which has its name only once it is whole: a crash leaves none behind that
/// looks damaged.
fn create(directory: &Path) -> Result<(), StoreError> {
    let (path, unfinished) = (directory.join(FILE_NAME), directory.join(UNFINISHED_NAME));
    let make = || -> Result<(), redb::Error> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        transaction.open_table(ABOUT)?.insert(FORMAT_KEY, FORMAT)?;
        transaction.open_table(ENTRIES)?;
        transaction.commit()?;
        database.close()?;
        fs::rename(&unfinished, &path)?;
        Ok(sync_directory(directory)?)
    };
    make().map_err(|error| unusable(&path, &error))
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Reads all of it, which is little, and finds whatever was changed behind our back.
    builder.set_check_integrity_on_open(true).set_cache_size(CACHE_BYTES);
    builder
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let database = builder().open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked { directory: shown(path), process: None }
        }
        DatabaseError::Storage(StorageError::Io(error)) if !is_damage(&error) => unusable(path, &error),
        error => damaged(path, &error),
    })?;
    match format(&database) {
        Ok(Some(FORMAT)) => Ok(database),
        Ok(Some(found)) => Err(StoreError::Newer { path: shown(path), found }),
        Ok(None) => Err(damaged(path, "it does not say which format it has")),
        Err(error) => Err(damaged(path, &error)),
    }
}

/// Whether the file is not what it was, rather than out of reach.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let table = database.begin_read()?.open_table(ABOUT)?;
    Ok(table.get(FORMAT_KEY)?.map(|format| format.value()))
}

fn read_all(database: &Database) -> Result<Vec<(String, String)>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    let entries = table.iter()?.map(|entry| {
        let (key, value) = entry?;
        Ok((key.value().to_owned(), value.value().to_owned()))
    });
    entries.collect()
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    let mut table = transaction.open_table(ENTRIES)?;
    for change in changes {
        match change.entry() {
            Entry::Put { key, value } => drop(table.insert(key.as_str(), value.as_str())?),
            Entry::DeleteAll { prefix } => {
                // After every key that begins so: keys are ASCII.
                let end = format!("{prefix}{}", char::MAX);
                table.retain_in(prefix.as_str()..end.as_str(), |_, _| false)?;
            }
        }
    }
    drop(table);
    Ok(transaction.commit()?)
}
