//! An upgrade on one host: a new process takes the listeners and the state from the one that runs, which then drains.
//!
//! Both talk through a socket in `state.dir`, a line of JSON at a time:
//!
//! | new process | old process |
//! |---|---|
//! | `{"take_over":1,"process":…}` | |
//! | | `{"listeners":[…],"instead":…}`, with the descriptors |
//! | opens what else its configuration names; `"ready"` | |
//! | | accepts no more, closes the database and lets go of the directory; `"yours"` |
//! | opens the database, builds every room, accepts; `"done"` | |
//! | | closes its listeners, forgets what it was asked to do, drains |
//! | `{"kept":…}` for each | what became of its epochs, until it is gone |
//!
//! There is one writer of the state at any time: whoever holds the directory's lock. Up to `"done"` nothing is lost when the new
//! process fails: the old one takes the directory back and accepts again. Who connects meanwhile waits in the kernel's queue.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::accepting::Accepting;
use super::operations::Operations;
use crate::hooks::Hooks;
use crate::net::inherited::{self, Inherited};
use crate::net::rights;
use crate::store::{self, EpochChange, Passed, Store};

/// The socket within `state.dir`.
const SOCKET: &str = "takeover.sock";
/// For each step of the other side; the longest is the start of a mixer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a process that failed may still hold the directory while it ends.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// The longest first message, in bytes.
const FIRST: usize = 4_096;
/// Batches of what became of epochs that wait for the other process: they are sent one at a time.
const WAITING: usize = 1;

/// Why a process could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the process that runs cannot be taken over: {0}")]
    Io(#[from] io::Error),
    #[error("the process that runs does not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the process that runs lets nobody take over: {0}")]
    Refused(String),
    #[error("the process that runs speaks another language: {0}")]
    Language(#[from] serde_json::Error),
    #[error(transparent)]
    Inherited(#[from] inherited::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct Asks {
    /// The version of this conversation.
    take_over: u32,
    process: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Offer {
    Refused(String),
    #[serde(untagged)]
    Given {
        listeners: Vec<String>,
        instead: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    /// So many letters there was no room for.
    Lost(usize),
    /// Nothing is kept.
    Failed(String),
}

const VERSION: u32 = 1;

/// The line to the other process.
#[derive(Debug)]
struct Line(BufReader<UnixStream>);

impl Line {
    async fn say(&mut self, words: &impl Serialize) -> Result<(), Error> {
        let mut text = serde_json::to_vec(words)?;
        text.push(b'\n');
        let said = timeout(PATIENCE, self.0.get_mut().write_all(&text)).await;
        Ok(said.map_err(|_| Error::Silent)??)
    }

    async fn hear<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, Error> {
        timeout(PATIENCE, self.wait())
            .await
            .map_err(|_| Error::Silent)?
    }

    /// As [`Self::hear`], however long it takes.
    async fn wait<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, Error> {
        let mut text = String::new();
        if self.0.read_line(&mut text).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// A word that is expected now.
    async fn expect(&mut self, word: &str) -> Result<(), Error> {
        let heard: Value = self.hear().await?;
        if heard == word {
            return Ok(());
        }
        Err(Error::Refused(heard.to_string()))
    }
}

/// What a process that runs gives to one that comes.
pub struct Giver {
    pub accepting: Accepting,
    /// The listeners stand for those of the configuration, whatever is said there.
    pub instead: bool,
    pub store: Store,
    pub dir: PathBuf,
    pub hooks: Hooks,
    pub operations: Operations,
    /// Whoever makes mixes, or remembers what becomes of them.
    pub following: CancellationToken,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Giver {
    /// Waits for somebody who takes over; returns when that is done.
    pub async fn serve(self) {
        let path = self.dir.join(SOCKET);
        // What is there is of a process that had the directory before.
        let _ = std::fs::remove_file(&path);
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(path = %path.display(), %error, "nobody will be able to take over from this process");
                return;
            }
        };
        loop {
            let came = tokio::select! {
                came = listener.accept() => came,
                () = self.shutdown.cancelled() => return,
            };
            match came {
                Ok((stream, _)) => match self.give(stream).await {
                    Ok(()) => return,
                    Err(error) => warn!(%error, "nobody has taken over; this process goes on"),
                },
                Err(error) => {
                    warn!(%error, "cannot listen for who takes over");
                    sleep(PATIENCE).await;
                }
            }
        }
    }

    async fn give(&self, stream: UnixStream) -> Result<(), Error> {
        // The directory is ours alone, and root's.
        let theirs = stream.peer_cred()?.uid();
        if theirs != 0 && theirs != geteuid().as_raw() {
            return Err(Error::Refused(format!("user {theirs} may not take over")));
        }
        let mut line = Line(BufReader::new(stream));
        let asks: Asks = line.hear().await?;
        let refused = match asks.take_over {
            _ if self.operations.is_draining() => Some("it is going down"),
            VERSION => None,
            _ => Some("it is of another version"),
        };
        if let Some(why) = refused {
            line.say(&Offer::Refused(why.to_owned())).await?;
            return Err(Error::Refused(why.to_owned()));
        }
        info!(process = asks.process, "another process asks to take over");
        self.offer(&line).await?;
        line.expect("ready").await?;
        self.accepting.pause();
        self.store.hand_over().await;
        let taken = async {
            line.say(&"yours").await?;
            line.expect("done").await
        };
        if let Err(why) = taken.await {
            drop(line);
            self.go_on().await;
            return Err(why);
        }
        self.accepting.give_up();
        // What ends here from now on is there again over there.
        self.following.cancel();
        let (pass, passed) = mpsc::channel(WAITING);
        self.store.pass_on(pass);
        // Until the process ends: what it has to say last is what became of those who were there.
        tokio::spawn(tell(line, passed));
        info!(process = asks.process, "another process has taken over");
        let operations = &self.operations;
        operations.drain(operations.patience(), true);
        Ok(())
    }

    async fn offer(&self, line: &Line) -> Result<(), Error> {
        let (names, rights) = self.accepting.lend(|open| {
            let names: Vec<String> = open.iter().map(|(name, _)| (*name).to_owned()).collect();
            let rights = open
                .iter()
                .map(|(_, listener)| listener.try_clone_to_owned());
            (names, rights.collect::<io::Result<Vec<OwnedFd>>>())
        });
        let rights = rights?;
        let offer = Offer::Given {
            listeners: names,
            instead: self.instead,
        };
        let mut text = serde_json::to_vec(&offer)?;
        text.push(b'\n');
        let rights: Vec<BorrowedFd<'_>> = rights.iter().map(std::os::fd::AsFd::as_fd).collect();
        Ok(rights::send(line.0.get_ref(), &text, &rights).await?)
    }

    /// The other process did not come to be.
    async fn go_on(&self) {
        let until = tokio::time::Instant::now() + LAST_BREATH;
        loop {
            let (store, dir) = (self.store.clone(), self.dir.clone());
            let back = tokio::task::spawn_blocking(move || store.take_back(&dir)).await;
            match back.unwrap_or(Err(store::Error::Ended)) {
                Ok(()) => break,
                Err(_) if tokio::time::Instant::now() < until => sleep(LAST_BREATH / 50).await,
                Err(error) => {
                    error!(%error, "the state cannot be had back; changes are not kept");
                    break;
                }
            }
        }
        if let Err(error) = self.accepting.begin() {
            error!(%error, "the listeners cannot be had back; nobody new comes in");
        }
        self.tasks
            .spawn(self.hooks.clone().send(self.shutdown.clone()));
    }
}

/// Tells the process that has taken over what became of our epochs.
async fn tell(mut line: Line, mut passed: mpsc::Receiver<Passed>) {
    while let Some((changes, answer)) = passed.recv().await {
        let told = async {
            line.say(&changes).await?;
            line.hear::<Kept>().await
        };
        let kept = match told.await {
            Ok(Kept::Lost(lost)) => Ok(lost),
            Ok(Kept::Failed(why)) => {
                warn!(
                    error = why,
                    "the process that has taken over could not keep what became of publishers"
                );
                Err(store::Error::HandedOver)
            }
            Err(error) => {
                warn!(%error, "the process that has taken over is gone");
                let _ = answer.send(Err(store::Error::HandedOver));
                return;
            }
        };
        let _ = answer.send(kept);
    }
}

/// The process that runs, about to be taken over.
#[derive(Debug)]
pub struct Claim(Line);

impl Claim {
    /// Asks the process that uses the directory for its listeners. `None`: none does, or none that can be asked.
    ///
    /// # Errors
    /// When it refuses, or does not understand.
    pub async fn ask(dir: &Path) -> Result<Option<(Self, Inherited)>, Error> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let stream = match UnixStream::connect(dir.join(SOCKET)).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut line = Line(BufReader::new(stream));
        let asks = Asks {
            take_over: VERSION,
            process: std::process::id(),
        };
        line.say(&asks).await?;
        let mut bytes = [0; FIRST];
        let received = timeout(PATIENCE, rights::receive(line.0.get_ref(), &mut bytes)).await;
        let (length, rights) = received.map_err(|_| Error::Silent)??;
        let (names, instead) = match serde_json::from_slice(&bytes[..length])? {
            Offer::Refused(why) => return Err(Error::Refused(why)),
            Offer::Given { listeners, instead } => (listeners, instead),
        };
        let listeners = rights.into_iter().map(std::net::TcpListener::from);
        let inherited = Inherited::handed(names.into_iter().zip(listeners), instead)?;
        Ok(Some((Self(line), inherited)))
    }

    /// Everything else is there: the other process is to let go. When this returns, the state is ours.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn take(&mut self) -> Result<(), Error> {
        self.0.say(&"ready").await?;
        self.0.expect("yours").await
    }

    /// We accept. From now on the other process tells what becomes of its publishers, and is to have `gone` cancelled when it is
    /// over.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn done(mut self, hooks: Hooks, gone: CancellationToken) -> Result<(), Error> {
        let _gone = gone.drop_guard();
        self.0.say(&"done").await?;
        loop {
            let changes: Vec<EpochChange> = match self.0.wait().await {
                Ok(changes) => changes,
                Err(Error::Io(_)) => {
                    info!("the process that was taken over is gone");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let kept = match hooks.take_in(changes).await {
                Ok(lost) => Kept::Lost(lost),
                Err(error) => Kept::Failed(error.to_string()),
            };
            self.0.say(&kept).await?;
        }
    }
}
