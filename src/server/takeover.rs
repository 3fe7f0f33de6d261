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
//! process fails, which the end of the conversation says: the old one takes the directory back and accepts again, after a while even
//! without it. Who connects meanwhile waits in the kernel's queue.

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
use tracing::{debug, error, info, warn};

use super::accepting::Accepting;
use super::operations::Operations;
use crate::hooks::Hooks;
use crate::net::inherited::{self, Inherited};
use crate::net::rights;
use crate::store::{self, EpochChange, Passed, Store};

/// The socket within `state.dir`.
const SOCKET: &str = "takeover.sock";
/// For each step of the other side but those of whoever has the state, which are waited for until it is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the store may take to do what it was asked for and to let go of the directory; twice what another program may hold the
/// file, and less than the other side's patience. Nobody is accepted meanwhile.
const LETTING_GO: Duration = Duration::from_secs(10);
/// How long a process that failed may still hold the directory while it ends, before this one accepts without it.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// Before the directory is tried again, at first.
const RETRY: Duration = Duration::from_millis(20);
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
    #[error("the state is still being written after {} s", LETTING_GO.as_secs())]
    Slow,
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
        is(word, &self.hear().await?)
    }
}

fn is(word: &str, heard: &Value) -> Result<(), Error> {
    if heard == word {
        return Ok(());
    }
    Err(Error::Refused(heard.to_string()))
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
    pub shutdown: CancellationToken,
}

impl Giver {
    /// Whoever wants to take over may connect from now on. `None`: nobody will be able to.
    pub fn listen(&self) -> Option<UnixListener> {
        let path = self.dir.join(SOCKET);
        // What is there is of a process that had the directory before.
        let _ = std::fs::remove_file(&path);
        UnixListener::bind(&path)
            .inspect_err(|error| {
                warn!(path = %path.display(), %error, "nobody will be able to take over from this process");
            })
            .ok()
    }

    /// Waits for somebody who takes over; returns when that is done.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            let came = tokio::select! {
                came = listener.accept() => came,
                () = self.shutdown.cancelled() => return,
            };
            match came {
                Ok((stream, _)) => {
                    match self.shutdown.run_until_cancelled(self.give(stream)).await {
                        None | Some(Ok(())) => return,
                        Some(Err(error)) => {
                            warn!(%error, "nobody has taken over; this process goes on");
                        }
                    }
                }
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
        let handed = timeout(LETTING_GO, self.store.hand_over()).await;
        // Letters that are on their way are the other process's from now on.
        self.hooks.look();
        let taken = match handed {
            Ok(()) => take(&mut line).await,
            Err(_) => line
                .say(&"its state is still being written")
                .await
                .and(Err(Error::Slow)),
        };
        if let Err(why) = taken {
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

    /// The other process did not come to be. Returns when the state is ours again; accepts at once then, or sooner where that takes
    /// long.
    async fn go_on(&self) {
        let mut back = std::pin::pin!(self.take_back());
        let is_back = timeout(LAST_BREATH, &mut back).await.is_ok();
        if let Err(error) = self.accepting.begin() {
            error!(%error, "the listeners cannot be had back; nobody new comes in");
        }
        if !is_back {
            error!("the state is not to be had back yet; changes and letters wait for it");
            back.await;
            info!("the state is ours again");
        }
        self.hooks.look();
    }

    /// However often that has to be tried.
    async fn take_back(&self) {
        let mut pause = RETRY;
        loop {
            let (store, dir) = (self.store.clone(), self.dir.clone());
            let back = tokio::task::spawn_blocking(move || store.take_back(&dir)).await;
            match back.unwrap_or(Err(store::Error::Ended)) {
                Ok(()) => return,
                Err(error) => debug!(%error, "the state is not to be had back yet"),
            }
            sleep(pause).await;
            pause = (2 * pause).min(LAST_BREATH);
        }
    }
}

/// Says that the state is the other process's, and waits until it is there. However long it takes: nobody else can have the state
/// meanwhile, and when it fails, this ends.
async fn take(line: &mut Line) -> Result<(), Error> {
    line.say(&"yours").await?;
    is("done", &line.wait().await?)
}

/// Tells the process that has taken over what became of our epochs.
async fn tell(mut line: Line, mut passed: mpsc::Receiver<Passed>) {
    while let Some((changes, answer)) = passed.recv().await {
        let told = async {
            line.say(&changes).await?;
            // Its disk may be slow; that it is gone would end this.
            line.wait::<Kept>().await
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a line.
    fn line() -> (Line, Line) {
        let (one, other) = UnixStream::pair().unwrap();
        (Line(BufReader::new(one)), Line(BufReader::new(other)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_takes_long_to_start_is_waited_for_until_it_is_there_or_gone() {
        for comes_to_be in [true, false] {
            let (mut old, mut new) = line();
            let taking = tokio::spawn(async move { take(&mut old).await });
            new.expect("yours").await.unwrap();
            sleep(3 * PATIENCE).await;
            assert!(!taking.is_finished());
            if comes_to_be {
                new.say(&"done").await.unwrap();
            }
            drop(new);
            assert_eq!(taking.await.unwrap().is_ok(), comes_to_be);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_disk_keeps_late_is_answered_for_and_the_next_is_told_too() {
        let (old, mut new) = line();
        let (pass, passed) = mpsc::channel(WAITING);
        tokio::spawn(tell(old, passed));
        for lost in [0, 2] {
            let (answer, answered) = tokio::sync::oneshot::channel();
            pass.send((Vec::new(), answer)).await.unwrap();
            let _: Vec<EpochChange> = new.wait().await.unwrap();
            sleep(3 * PATIENCE).await;
            new.say(&Kept::Lost(lost)).await.unwrap();
            assert_eq!(answered.await.unwrap().unwrap(), lost);
        }
    }
}
