//! What is published: a short clip made once per run, and tags made by hand where bytes must be recognised.

use std::path::{Path, PathBuf};

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::process;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::SOON;

/// Seconds from key frame to key frame.
pub const GOP_SECONDS: u32 = 1;
/// Seconds of the whole.
pub const SECONDS: u32 = 4;
/// Frames per second.
pub const FPS: u32 = 25;

/// The clip, as a file and taken apart.
pub struct Clip {
    _folder: TempDir,
    path: PathBuf,
    pub tags: Vec<Tag>,
}

/// H.264 with B-frames, 320x180 at 25 frames a second with a key frame each second, and AAC.
pub async fn clip() -> &'static Clip {
    static CLIP: OnceCell<Clip> = OnceCell::const_new();
    CLIP.get_or_init(Clip::make).await
}

impl Clip {
    async fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clip.flv");
        let text = format!(
            "-hide_banner -loglevel error -y -f lavfi -i testsrc2=size=320x180:rate={FPS} \
             -f lavfi -i sine=frequency=440:sample_rate=44100 -t {SECONDS} -pix_fmt yuv420p \
             -c:v libx264 -preset ultrafast -bf 2 -b_strategy 0 -g {} -sc_threshold 0 -threads 1 \
             -c:a aac -b:a 64k -flvflags no_duration_filesize -f flv {}",
            FPS * GOP_SECONDS,
            path.display()
        );
        let arguments: Vec<&str> = text.split_whitespace().collect();
        process::output("ffmpeg", &arguments, SOON)
            .await
            .expect("ffmpeg makes the clip");
        let bytes = std::fs::read(&path).expect("the clip");
        let tags = flv::tags(&bytes).expect("FLV");
        let frames = tags.iter().filter(|t| is_frame(t, Tag::VIDEO)).count();
        assert_eq!(frames as u32, FPS * SECONDS, "frames in the clip");
        Self {
            _folder: folder,
            path,
            tags,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bodies of the coded frames of one kind, in order.
    pub fn frames(&self, kind: u8) -> Vec<&[u8]> {
        frames(&self.tags, kind)
    }

    /// The decoder configurations: video, then audio.
    pub fn headers(&self) -> [&Tag; 2] {
        [Tag::VIDEO, Tag::AUDIO].map(|kind| {
            let header = self.tags.iter().find(|t| t.kind == kind && t.is_header());
            header.expect("the clip has it")
        })
    }
}

/// Bodies of the coded frames of one kind, in order.
pub fn frames(tags: &[Tag], kind: u8) -> Vec<&[u8]> {
    let frames = tags.iter().filter(|tag| is_frame(tag, kind));
    frames.map(|tag| tag.body.as_slice()).collect()
}

fn is_frame(tag: &Tag, kind: u8) -> bool {
    tag.kind == kind && tag.is_media()
}

/// Where `part` is found inside `whole` without a gap; `None` when it is not, or is empty.
pub fn run_of(part: &[&[u8]], whole: &[&[u8]]) -> Option<usize> {
    if part.is_empty() || part.len() > whole.len() {
        return None;
    }
    (0..=whole.len() - part.len()).find(|&at| whole[at..at + part.len()] == *part)
}

/// A video frame that carries its number and nothing that decodes: for tests that compare bytes.
pub fn numbered(number: u32, is_key: bool, bytes: usize) -> Vec<u8> {
    let mut body = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend(number.to_be_bytes());
    body.resize(bytes.max(9), 0x5a);
    body
}

/// The number in a frame made by [`numbered`].
pub fn number_of(body: &[u8]) -> Option<u32> {
    let number = body.get(5..9)?.try_into().ok()?;
    (body[1] == 1).then(|| u32::from_be_bytes(number))
}

#[test]
fn a_run_with_a_gap_is_no_run() {
    let whole: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    assert_eq!(run_of(&[b"b", b"c"], &whole), Some(1));
    assert_eq!(run_of(&[b"b", b"d"], &whole), None);
    assert_eq!(run_of(&[], &whole), None);
    assert_eq!(run_of(&[b"d", b"e"], &whole), None);
}
