//! One capture while it runs: messages become tags of a file and lines beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::files::Files;
use super::{MAX_BYTES, rfc3339};
use crate::media::flv::{FILE_HEADER, Tag};
use crate::media::{Kind, Message};
use crate::relay::{Item, Read, Subscriber, Tenure};

/// Messages that are written at once.
const BATCH: usize = 16;
/// Bytes that are gathered before they are written, beyond which one message goes at most. Messages may be of megabytes.
const PIECE: usize = 1 << 20;
/// How often a publisher that sends nothing is looked after.
const LOOK: Duration = Duration::from_millis(250);

/// A capture, as it is kept beside its files and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub id: String,
    pub app: String,
    pub stream: String,
    /// The publisher's.
    pub epoch: u64,
    pub address: Option<String>,
    /// That were asked for.
    pub seconds: u64,
    /// RFC 3339.
    pub started: String,
    /// `None` while it runs.
    pub ended: Option<String>,
    pub end: Option<End>,
    /// Lines of the timing, and tags of the file.
    pub messages: u64,
    /// Of the FLV file.
    pub bytes: u64,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The time that was asked for is over.
    Time,
    /// It is as large as one may be.
    Bytes,
    /// The publisher is gone.
    Publisher,
    /// It was deleted, or the server went down.
    Stopped,
    /// The disk took no more.
    Disk,
    /// It was not ended in order: the server died.
    Unknown,
}

impl End {
    /// The stable word for the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Bytes => "bytes",
            Self::Publisher => "publisher",
            Self::Stopped => "stopped",
            Self::Disk => "disk",
            Self::Unknown => "unknown",
        }
    }
}

/// How far it has come, for who looks meanwhile.
#[derive(Debug, Default)]
pub(super) struct Tally {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    pub fn read(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.messages), of(&self.bytes))
    }
}

/// Writes one.
pub(super) struct Recorder {
    pub reader: Subscriber,
    /// The publisher's that is captured.
    pub tenure: Tenure,
    pub files: Files,
    pub info: Info,
    pub tally: Arc<Tally>,
    pub stop: CancellationToken,
    pub time: Duration,
}

impl Recorder {
    /// Until its end, whatever brings it.
    pub async fn run(mut self) -> Info {
        let end = match self.record().await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(capture = self.info.id, %error, "a capture ended: the disk takes no more");
                End::Disk
            }
        };
        let (messages, bytes) = self.tally.read();
        Info {
            ended: Some(rfc3339(SystemTime::now())),
            end: Some(end),
            messages,
            bytes,
            ..self.info
        }
    }

    async fn record(&mut self) -> std::io::Result<End> {
        let begun = Instant::now();
        let over = begun + self.time;
        let mut page = Page::new(begun);
        page.flv.extend_from_slice(&FILE_HEADER);
        // What a decoder needs came before the capture: it has no time of arrival.
        for header in self.reader.headers().iter() {
            page.add(header, None);
        }
        let mut items: Vec<Arc<Item>> = Vec::with_capacity(BATCH);
        loop {
            self.write(&mut page).await?;
            if page.bytes + page.line_bytes >= MAX_BYTES {
                return Ok(End::Bytes);
            }
            let reception = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(End::Stopped),
                () = sleep_until(over.into()) => return Ok(End::Time),
                reception = self.reader.read(BATCH, &mut items) => Some(reception),
                // Who takes over may send nothing.
                () = sleep(LOOK) => None,
            };
            let Some(reception) = reception else {
                let over_at = self.tenure.over_at();
                if over_at.is_some_and(|at| self.reader.cursor() >= at) {
                    return Ok(End::Publisher);
                }
                continue;
            };
            let arrived = (Instant::now(), SystemTime::now());
            if let Read::Skipped(missed) = reception.read {
                page.miss(missed, arrived);
            }
            // Another one who takes over is another connection: none of its messages.
            let over_at = self.tenure.over_at().unwrap_or(u64::MAX);
            let strange = self.reader.cursor().saturating_sub(over_at);
            let own = items.len().saturating_sub(strange as usize);
            for item in items.drain(..).take(own) {
                page.add(item.message(), Some(arrived));
                if page.flv.len() >= PIECE {
                    self.write(&mut page).await?;
                    if page.bytes + page.line_bytes >= MAX_BYTES {
                        return Ok(End::Bytes);
                    }
                }
            }
            if reception.ended.is_some() || strange > 0 {
                self.write(&mut page).await?;
                return Ok(End::Publisher);
            }
        }
    }

    async fn write(&mut self, page: &mut Page) -> std::io::Result<()> {
        self.files.write(&page.flv, &page.lines).await?;
        page.turn();
        self.tally.messages.store(page.messages, Ordering::Relaxed);
        self.tally.bytes.store(page.bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// What is to be written.
struct Page {
    begun: Instant,
    flv: Vec<u8>,
    lines: String,
    /// So far, in all.
    messages: u64,
    bytes: u64,
    /// Tiny messages have long lines.
    line_bytes: u64,
}

impl Page {
    fn new(begun: Instant) -> Self {
        Self {
            begun,
            flv: Vec::new(),
            lines: String::new(),
            messages: 0,
            bytes: 0,
            line_bytes: 0,
        }
    }

    /// It is written.
    fn turn(&mut self) {
        self.bytes += self.flv.len() as u64;
        self.line_bytes += self.lines.len() as u64;
        self.flv.clear();
        self.lines.clear();
    }

    fn add(&mut self, message: &Message, arrived: Option<(Instant, SystemTime)>) {
        let offset = self.bytes + self.flv.len() as u64;
        let line = json!({
            "n": self.messages,
            "type": match message.kind {
                Kind::Audio => "audio",
                Kind::Video => "video",
                Kind::Data => "data",
            },
            "dts_ms": message.dts.0,
            "pts_ms": message.pts().0,
            "size": message.payload.len(),
            "key": message.is_video_key(),
            "header": message.is_header(),
            "track": message.track,
            "offset": offset,
            "arrived": arrived.map(|(_, wall)| rfc3339_micros(wall)),
            "arrived_us": arrived.map(|(at, _)| self.us(at)),
        });
        self.line(&line);
        let tag = Tag::new(message.kind, message.dts, message.payload.clone());
        for part in tag.bare_parts() {
            self.flv.extend_from_slice(part);
        }
        self.messages += 1;
    }

    /// So many went by too fast for the disk.
    fn miss(&mut self, missed: u64, (at, wall): (Instant, SystemTime)) {
        let line = json!({
            "missed": missed, "arrived": rfc3339_micros(wall), "arrived_us": self.us(at),
        });
        self.line(&line);
    }

    fn line(&mut self, line: &serde_json::Value) {
        self.lines.push_str(&line.to_string());
        self.lines.push('\n');
    }

    fn us(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

fn rfc3339_micros(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}
