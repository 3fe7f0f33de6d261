//! Captures: what a publisher sends for a while, as an FLV file with the times of its messages beside it.
//!
//! | source | covered |
//! |---|---|
//! | Adobe, Video File Format Specification 10.1, annex E | the file: header and tags, written by [`crate::media::flv::Tag`] |
//!
//! A capture is a reader of the source feed like any other: who publishes pays nothing for it, and without one there is
//! nothing. Times are those of the feed, repaired; messages are as they came. Owns a folder, and how much may be in it.
//! Refuses to know who asks. Made by the server, driven by `api`.

mod files;
mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use files::{Part, Stored};
pub use record::{End, Info};

use crate::media::StreamKey;
use crate::relay::{Origin, Relay};
use files::Folder;
use record::{Recorder, Tally};

/// The longest capture.
pub const MAX_TIME: Duration = Duration::from_secs(60);
/// The largest: a minute of 8 Mbit/s.
pub const MAX_BYTES: u64 = 64 << 20;
/// Captures at once, each of another name.
pub const AT_ONCE: usize = 4;
/// Captures that are kept; the oldest go.
pub const KEPT: usize = 32;
/// Bytes of all that are kept, those that run counted as if they were as large as may be.
pub const KEPT_BYTES: u64 = 512 << 20;

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nobody publishes {0}")]
    NotPublished(StreamKey),
    #[error("{0} is being captured")]
    Busy(StreamKey),
    #[error("{AT_ONCE} captures run, as many as may at once")]
    Full,
    #[error("no capture has the id {0:?}")]
    NotFound(String),
    #[error("the disk: {0}")]
    Disk(#[from] std::io::Error),
}

/// The room's handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Captures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    relay: Relay,
    folder: Folder,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    running: Mutex<HashMap<String, Running>>,
}

/// One that is being written.
#[derive(Debug, Clone)]
struct Running {
    key: StreamKey,
    info: Info,
    tally: Arc<Tally>,
    stop: CancellationToken,
    /// Its files are complete.
    done: CancellationToken,
}

impl Running {
    fn info(&self) -> Info {
        let (messages, bytes) = self.tally.read();
        Info {
            messages,
            bytes,
            ..self.info.clone()
        }
    }
}

impl Captures {
    /// Nothing is touched before the first capture. They run on `tasks`, and end with `shutdown`.
    pub fn new(
        relay: Relay,
        folder: PathBuf,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            relay,
            folder: Folder::new(folder),
            tasks,
            shutdown,
            running: Mutex::default(),
        }))
    }

    /// Begins to capture what publishes `key`, from its next message on, for so long, which is at most [`MAX_TIME`]. Old captures make
    /// room.
    ///
    /// # Errors
    /// Nobody publishes it, it is being captured, there are as many as may be, or the disk does not take it.
    pub async fn begin(&self, key: &StreamKey, time: Duration) -> Result<Info, Error> {
        let info = self.0.relay.stream_info(key);
        let publisher = info.and_then(|info| info.publisher);
        let publisher = publisher.ok_or_else(|| Error::NotPublished(key.clone()))?;
        let time = time.min(MAX_TIME);
        let info = Info {
            id: self.0.folder.next_id(SystemTime::now()),
            app: key.app().to_owned(),
            stream: key.stream().to_owned(),
            epoch: publisher.epoch,
            address: match publisher.origin {
                Origin::Anchor { address, .. } => Some(address.to_string()),
                Origin::Mix { .. } => None,
            },
            seconds: time.as_secs(),
            started: rfc3339(SystemTime::now()),
            ended: None,
            end: None,
            messages: 0,
            bytes: 0,
        };
        let running = Running {
            key: key.clone(),
            info: info.clone(),
            tally: Arc::default(),
            stop: self.0.shutdown.child_token(),
            done: CancellationToken::new(),
        };
        let running_ids = self.0.enter(&running)?;
        // Whatever happens from here on, it leaves.
        let place = Place(self.0.clone(), info.id.clone(), running.done.clone());
        self.0.folder.make_room(&running_ids).await?;
        let files = self.0.folder.create(&info.id).await;
        let watched = self.0.relay.watch_epoch(key, info.epoch);
        let (files, (reader, tenure)) = match (files, watched) {
            (Ok(files), Some(watched)) => (files, watched),
            (files, _) => {
                // What of it is there would be kept as one whose server died.
                let _ = self.0.folder.delete(&info.id).await;
                files?;
                return Err(Error::NotPublished(key.clone()));
            }
        };
        let recorder = Recorder {
            reader,
            tenure,
            files,
            info: info.clone(),
            tally: running.tally,
            stop: running.stop,
            time,
        };
        let inner = self.0.clone();
        self.0.tasks.spawn(async move {
            let info = recorder.run().await;
            if let Err(error) = inner.folder.describe(&info).await {
                tracing::warn!(capture = info.id, %error, "a capture's description could not be written");
            }
            drop(place);
        });
        tracing::info!(stream = %key, capture = info.id, "capture begun");
        Ok(info)
    }

    /// All of them, the newest first.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn list(&self) -> Result<Vec<Info>, Error> {
        let running: Vec<_> = self.0.running().values().map(Running::info).collect();
        let mut all = self.0.folder.list().await?;
        all.retain(|info| running.iter().all(|r| r.id != info.id));
        all.extend(running);
        all.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(all)
    }

    /// One of them.
    ///
    /// # Errors
    /// There is no such, or what the disk says.
    pub async fn get(&self, id: &str) -> Result<Info, Error> {
        let running = self.0.running().get(id).map(Running::info);
        match running {
            Some(info) => Ok(info),
            None => self.0.folder.get(id).await,
        }
    }

    /// One of its files, as far as it is written.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn open(&self, id: &str, part: Part) -> Result<Stored, Error> {
        self.0.folder.open(id, part).await
    }

    /// Ends it if it runs, and deletes it.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn delete(&self, id: &str) -> Result<Info, Error> {
        let running = self.0.running().get(id).cloned();
        if let Some(running) = running {
            running.stop.cancel();
            running.done.cancelled().await;
        }
        let info = self.0.folder.get(id).await?;
        self.0.folder.delete(id).await?;
        Ok(info)
    }
}

impl Inner {
    /// Takes a place among those that run; the ids of the others.
    fn enter(&self, running: &Running) -> Result<Vec<String>, Error> {
        let mut all = self.running();
        if all.values().any(|other| other.key == running.key) {
            return Err(Error::Busy(running.key.clone()));
        }
        if all.len() >= AT_ONCE {
            return Err(Error::Full);
        }
        let others = all.keys().cloned().collect();
        all.insert(running.info.id.clone(), running.clone());
        Ok(others)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        // It is valid after every statement.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that run, until this is dropped.
struct Place(Arc<Inner>, String, CancellationToken);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running().remove(&self.1);
        self.2.cancel();
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
