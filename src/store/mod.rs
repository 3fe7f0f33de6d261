//! What outlives the process: one SQLite file under `state.dir`, written by one thread.
//!
//! Owns the file, its schema and the steps from older ones ([`schema`]), and the rows as plain values ([`BanRow`], [`MixRow`], [`LetterRow`] and others).
//! Refuses to know what a row means: whoever reads it parses it. Nobody on the way of media or of a connecting client
//! asks here; what they need is in memory, read once at the start. A publisher whose beginning is told of waits for the commit, within the
//! time that `hooks` allows. Called by `api`, `hooks`, `links` and `server`.
//!
//! An answer that says a change was kept comes after the file was synchronised: it is there after a kill or a power
//! cut. The file is in WAL mode, so it can be read and backed up with SQLite's own tools while the server runs.

mod bans;
mod desired;
mod outbox;
mod schema;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, Transaction};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

pub use bans::BanRow;
pub use desired::{LinkRow, MixRow, PushRow};
pub use outbox::{Due, EpochChange, EpochRow, LetterRow, OutboxState};

/// The file within `state.dir`.
const FILE: &str = "linkmic.db";
/// Locked as long as a server uses the directory. Not the database itself, which SQLite locks in its own way.
const LOCK: &str = "linkmic.lock";
/// Jobs that may wait for the disk: a few a minute from operators, and from `hooks` one for each batch of facts, each look for letters and
/// each letter on its way.
const WAITING: usize = 256;
/// How long somebody else's tool may hold the file, a backup say.
const BUSY: Duration = Duration::from_secs(5);

/// Why state is not there, or could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the state directory {}: {source}; set state.dir to one that can be written", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("another server uses the state directory {}; give each its own state.dir", path.display())]
    InUse { path: PathBuf },
    #[error("{} is damaged ({detail}); restore it, or move it away to start without what was kept: bans, mixes, pushes, links and letters", path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{} cannot be written; the state directory and its files need to be writable by this user", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} is not a database of linkmic; move it away, or set state.dir elsewhere", path.display())]
    Foreign { path: PathBuf },
    #[error("{} was written by a newer version (schema {found}, this version knows {known}); go back to that version", path.display())]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("{}: {source}", path.display())]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("too many changes wait for the disk")]
    Busy,
    #[error("the store has ended")]
    Ended,
    #[error("the state belongs to the process that has taken over")]
    HandedOver,
}

type Job = Box<dyn FnOnce(&mut Connection, &Path) + Send>;

/// What the writer thread is asked for.
enum Order {
    Job(Job),
    /// Closes the file and lets go of the directory, after all that was asked before.
    LetGo(oneshot::Sender<()>),
}

/// Changes of epochs for the process that has the state now, and where it answers.
pub type Passed = (Vec<EpochChange>, oneshot::Sender<Result<usize, Error>>);

/// Where changes go.
#[derive(Debug, Clone)]
enum Way {
    File(mpsc::Sender<Order>),
    /// Another process has the file. Of what this one still has to say, only what became of its epochs is taken.
    Handed(Option<mpsc::Sender<Passed>>),
}

/// Handle on the store. Cheap to clone; the last one that is dropped closes the file.
#[derive(Debug, Clone)]
pub struct Store {
    way: Arc<Mutex<Way>>,
    failures: Arc<AtomicU64>,
}

impl Store {
    /// Opens `dir/linkmic.db`, makes both if need be (modes 0700 and 0600), checks the file and brings its schema up
    /// to date. Blocks on the disk: for the start, before anything is served.
    ///
    /// # Errors
    /// When the directory cannot be used or another server uses it, and when the file is damaged, cannot be written,
    /// is not ours, or is of a newer version.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let orders = start(dir)?;
        Ok(Self {
            way: Arc::new(Mutex::new(Way::File(orders))),
            failures: Arc::default(),
        })
    }

    /// Closes the file and lets go of the directory, so that another process may have them. What was asked before is done;
    /// whatever is asked from then on is [`Error::HandedOver`].
    pub async fn hand_over(&self) {
        let before = std::mem::replace(&mut *self.way(), Way::Handed(None));
        if let Way::File(orders) = before {
            let (gone, waits) = oneshot::channel();
            if orders.send(Order::LetGo(gone)).await.is_ok() {
                // An error: the thread is gone, and with it the file.
                let _ = waits.await;
            }
        }
    }

    /// Takes the directory again, after [`Self::hand_over`] to somebody who did not come to be. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn take_back(&self, dir: &Path) -> Result<(), Error> {
        let orders = start(dir)?;
        *self.way() = Way::File(orders);
        Ok(())
    }

    /// The one who has the file now takes what becomes of our epochs: [`Self::note_epochs`] goes there.
    pub fn pass_on(&self, to: mpsc::Sender<Passed>) {
        *self.way() = Way::Handed(Some(to));
    }

    /// Where changes of epochs go when they do not go to the file.
    fn successor(&self) -> Option<mpsc::Sender<Passed>> {
        match &*self.way() {
            Way::Handed(to) => to.clone(),
            Way::File(_) => None,
        }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        // It is whole after every statement.
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `work` done by the writer thread, after what was asked before, in a transaction of its own: whole or not
    /// at all. The one way to the file for every table.
    ///
    /// The commit stands by itself because a full disk is met there and nowhere else. Left to the end of the last
    /// statement, its failure is lost: who reads one row of `… RETURNING` never runs the statement to its end.
    ///
    /// # Errors
    /// When anything of it failed, the commit included: then nothing has changed.
    ///
    /// # Cancel safety
    /// Work that was handed over is done, also when nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let failures = self.failures.clone();
        let job: Job = Box::new(move |connection, path| {
            let done = whole(connection, work).map_err(|source| Refused::Database(source).at(path));
            if done.is_err() {
                failures.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody waits any more: it is kept all the same.
            let _ = answer.send(done);
        });
        let handed = match &*self.way() {
            Way::File(orders) => orders.try_send(Order::Job(job)),
            Way::Handed(_) => return Err(Error::HandedOver),
        };
        handed.map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Error::Busy
            }
            mpsc::error::TrySendError::Closed(_) => Error::Ended,
        })?;
        answered.await.unwrap_or(Err(Error::Ended))
    }

    /// Jobs that failed since the start, or that too many others kept from the disk.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Statements of a test: a trigger that fails stands for a disk that is full, say.
    #[cfg(test)]
    pub async fn execute(&self, statements: &'static str) -> Result<(), Error> {
        self.run(|file| file.execute_batch(statements)).await
    }
}

/// Opens the file and starts the thread that writes it.
fn start(dir: &Path) -> Result<mpsc::Sender<Order>, Error> {
    let path = dir.join(FILE);
    let lock = claim(dir)?;
    let mut connection = connect(&path)?;
    if let Err(refused) = prepare(&mut connection) {
        if !refused.is_for_want_of_room() {
            return Err(refused.at(&path));
        }
        connection = connect(&path)?;
        alone(&mut connection).map_err(|error| error.at(&path))?;
    }
    let (orders, mut inbox) = mpsc::channel::<Order>(WAITING);
    let spawned = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            let mut told = None;
            while let Some(order) = inbox.blocking_recv() {
                match order {
                    Order::Job(job) => job(&mut connection, &path),
                    Order::LetGo(gone) => {
                        told = Some(gone);
                        break;
                    }
                }
            }
            // The file is whole and closed before another server may have it.
            drop(connection);
            drop(lock);
            if let Some(told) = told {
                let _ = told.send(());
            }
        });
    spawned.map_err(|source| Error::Directory {
        path: dir.to_owned(),
        source,
    })?;
    Ok(orders)
}

/// Work between a begin and a commit. Dropped without the commit, a transaction is rolled back.
fn whole<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction()?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// The directory, for this process alone until the file that is returned is closed.
fn claim(dir: &Path) -> Result<File, Error> {
    let failed = |source| Error::Directory {
        path: dir.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(LOCK))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let make = || {
        // Made here and not by SQLite, so that nobody else can ever read it.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
    };
    if let Err(source) = make() {
        let path = path.to_owned();
        return Err(match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::ReadOnly { path }
            }
            _ => Error::Directory { path, source },
        });
    }
    let size = fs::metadata(path).map_or(0, |file| file.len());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|source| Refused::Database(source).at(path))?;
    // A file that was cut to less than a header reads as an empty database, and would pass for a new one.
    if size > 0 && size < 512 {
        return Err(Error::Damaged {
            path: path.to_owned(),
            detail: format!("{size} bytes are no database"),
        });
    }
    Ok(connection)
}

/// What can be wrong with a file, before its name is put to it.
#[derive(Debug)]
enum Refused {
    Database(rusqlite::Error),
    ReadOnly,
    Damaged(String),
    Foreign,
    Newer { found: i64, known: i64 },
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Refused::Database(error)
    }
}

impl Refused {
    /// Whether it may be that a file beside the database cannot be made.
    fn is_for_want_of_room(&self) -> bool {
        let Refused::Database(error) = self else {
            return false;
        };
        let code = error.sqlite_error_code();
        use ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
        matches!(code, Some(CannotOpen | DiskFull | SystemIoFailure))
    }

    fn at(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Refused::Damaged(detail) => Error::Damaged { path, detail },
            Refused::ReadOnly => Error::ReadOnly { path },
            Refused::Foreign => Error::Foreign { path },
            Refused::Newer { found, known } => Error::Newer { path, found, known },
            Refused::Database(source) => match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged {
                    path,
                    detail: source.to_string(),
                },
                Some(ErrorCode::ReadOnly) => Error::ReadOnly { path },
                _ => Error::Database { path, source },
            },
        }
    }
}

/// As [`prepare`], without the file of 32 KiB beside the database that SQLite keeps for other processes: a full disk
/// has no room for it. Until the next start nobody else can read the database, and that is all; changes are taken as
/// soon as there is room for them.
fn alone(connection: &mut Connection) -> Result<(), Refused> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    prepare(connection)?;
    warn!(
        "state.dir seems to be full: what is kept is read, changes may not be kept, and other programs cannot read \
         {FILE} before a restart"
    );
    Ok(())
}

/// Checks a database and brings it up to date.
fn prepare(connection: &mut Connection) -> Result<(), Refused> {
    connection.busy_timeout(BUSY)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        // The finding is several lines long.
        let first = verdict.lines().last().unwrap_or_default();
        return Err(Refused::Damaged(first.to_owned()));
    }
    // Nothing may have to be written now, and then everything would seem well until the first change.
    if connection.is_readonly(MAIN_DB)? {
        return Err(Refused::ReadOnly);
    }
    schema::migrate(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

#[cfg(test)]
mod tests;
