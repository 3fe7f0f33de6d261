//! The folder of captures: three files each (`.flv`, `.jsonl` and the description, `.json`), named by an id that rises with time.
//!
//! Whatever else lies in the folder is left alone. Ids come from strangers' paths: none but ours is looked up.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use tokio::fs;
use tokio::io::AsyncWriteExt;

use super::record::{End, Info};
use super::{Error, KEPT, KEPT_BYTES, MAX_BYTES, rfc3339};

/// Longest id: a time of 18 characters, a dash and a number.
const MAX_ID: usize = 32;
/// The longest description in bytes: two names of up to 128 and 64, an id, an address, two times and some numbers.
const DESCRIPTION: usize = 1_024;

/// One of a capture's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// FLV.
    Media,
    /// A line of JSON for each message.
    Timing,
}

impl Part {
    const fn ending(self) -> &'static str {
        match self {
            Self::Media => "flv",
            Self::Timing => "jsonl",
        }
    }
}

/// A file to be read.
#[derive(Debug)]
pub struct Stored {
    pub file: fs::File,
    /// Its length now.
    pub bytes: u64,
}

/// The files of a capture that runs.
#[derive(Debug)]
pub(super) struct Files {
    media: fs::File,
    timing: fs::File,
}

impl Files {
    /// Appends to both.
    pub async fn write(&mut self, media: &[u8], timing: &str) -> io::Result<()> {
        self.media.write_all(media).await?;
        self.timing.write_all(timing.as_bytes()).await?;
        // Not to the disk's platters: to where others read it.
        self.media.flush().await?;
        self.timing.flush().await
    }
}

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Two captures of one millisecond have different ids.
    number: AtomicU32,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            number: AtomicU32::new(0),
        }
    }

    /// `20261129T191412345Z-1`.
    pub fn next_id(&self, now: SystemTime) -> String {
        let time = rfc3339(now).replace(['-', ':', '.'], "");
        let number = self.number.fetch_add(1, Ordering::Relaxed) % 10_000 + 1;
        format!("{time}-{number}")
    }

    fn file(&self, id: &str, ending: &str) -> PathBuf {
        self.path.join(format!("{id}.{ending}"))
    }

    /// Makes the files of a capture; its description is missing until it ends.
    pub async fn create(&self, id: &str) -> io::Result<Files> {
        // What anchors send is nobody else's business on this host.
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .await?;
        let new = |ending| {
            let path = self.file(id, ending);
            async move {
                let mut options = fs::OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                options.open(path).await
            }
        };
        let files = Files {
            media: new("flv").await?,
            timing: new("jsonl").await?,
        };
        // A place for the description: it says of a full disk that it was full.
        new("part").await?.write_all(&[b' '; DESCRIPTION]).await?;
        Ok(files)
    }

    /// Writes a capture's description.
    pub async fn describe(&self, info: &Info) -> io::Result<()> {
        let text = serde_json::to_vec(info)?;
        let part = self.file(&info.id, "part");
        // Over the blanks that are there, which JSON takes behind it, too.
        let mut file = fs::OpenOptions::new().write(true).open(&part).await?;
        file.write_all(&text).await?;
        file.flush().await?;
        fs::rename(&part, self.file(&info.id, "json")).await
    }

    /// The ids of what is there, oldest first.
    async fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut entries = match fs::read_dir(&self.path).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            Err(error) => return Err(error),
        };
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".flv"));
            ids.extend(id.filter(|id| is_id(id)).map(str::to_owned));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    pub async fn list(&self) -> Result<Vec<Info>, Error> {
        let mut infos = Vec::new();
        for id in self.ids().await? {
            match self.get(&id).await {
                Ok(info) => infos.push(info),
                // Deleted meanwhile.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    /// The description of a capture that has ended, in order or not.
    pub async fn get(&self, id: &str) -> Result<Info, Error> {
        let media = self.open(id, Part::Media).await?;
        let described = match fs::read(self.file(id, "json")).await {
            Ok(text) => serde_json::from_slice(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        Ok(described.unwrap_or_else(|| Info {
            id: id.to_owned(),
            app: String::new(),
            stream: String::new(),
            epoch: 0,
            address: None,
            seconds: 0,
            started: String::new(),
            ended: None,
            end: Some(End::Unknown),
            messages: 0,
            bytes: media.bytes,
        }))
    }

    pub async fn open(&self, id: &str, part: Part) -> Result<Stored, Error> {
        let absent = || Error::NotFound(id.chars().take(MAX_ID).collect());
        if !is_id(id) {
            return Err(absent());
        }
        let file = match fs::File::open(self.file(id, part.ending())).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            Err(error) => return Err(error.into()),
        };
        let bytes = file.metadata().await?.len();
        Ok(Stored { file, bytes })
    }

    pub async fn delete(&self, id: &str) -> io::Result<()> {
        // The one by which it is found is last.
        for ending in ["part", "json", "jsonl", "flv"] {
            match fs::remove_file(self.file(id, ending)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the oldest until another fits beside what is kept and those that are `running`, however large these become.
    pub async fn make_room(&self, running: &[String]) -> io::Result<()> {
        let mut kept = Vec::new();
        for id in self.ids().await? {
            let mut bytes = 0;
            for ending in ["flv", "jsonl"] {
                let file = fs::metadata(self.file(&id, ending)).await;
                bytes += file.map_or(0, |file| file.len());
            }
            kept.push((id, bytes));
        }
        let mut bytes: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        let most = KEPT_BYTES - MAX_BYTES * (running.len() as u64 + 1);
        let mut count = kept.len();
        for (id, size) in kept.iter().filter(|(id, _)| !running.contains(id)) {
            if count < KEPT && bytes <= most {
                break;
            }
            self.delete(id).await?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

fn is_id(id: &str) -> bool {
    let known = |c: u8| c.is_ascii_digit() || matches!(c, b'T' | b'Z' | b'-');
    !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(known)
}
