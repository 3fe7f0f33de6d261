//! What a publisher sends, over and over: a file's H.264 and AAC, or a made-up clip, ready to be stamped.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::stamp::{self, Stamp};
use super::synthetic::{self, Shape};
use crate::probe::flv::{self, Tag};
use crate::rtmp::kind;

/// What servers take for metadata to be kept for joiners.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// GOPs in a made-up clip.
const GOPS: u32 = 10;

/// Why a file is no clip.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {what}", path.display())]
    Flv { path: PathBuf, what: String },
    #[error("{} has {count} H.264 pictures; two are needed to loop it", path.display())]
    TooShort { path: PathBuf, count: usize },
    #[error("{} has NAL unit lengths of {bytes} bytes; only 4 are known here", path.display())]
    NalLength { path: PathBuf, bytes: u8 },
}

/// One message of a clip.
#[derive(Debug, Clone)]
pub struct Frame {
    /// As in [`kind`].
    pub type_id: u8,
    /// Decode time, ms from the clip's beginning.
    pub time_ms: u32,
    pub payload: Bytes,
    /// Where the stamp goes, in pictures.
    pub stamp_at: Option<usize>,
}

impl Frame {
    /// Whether it is a picture, which is stamped.
    pub fn is_picture(&self) -> bool {
        self.stamp_at.is_some()
    }

    /// The payload as it is to be sent now: a picture with its number and the time in it, anything else as it is.
    pub fn stamped(&self, sequence: u64) -> Bytes {
        let Some(at) = self.stamp_at else {
            return self.payload.clone();
        };
        let mut payload = self.payload.to_vec();
        let stamp = Stamp {
            sequence,
            sent_ns: stamp::now_ns(),
            clock: stamp::clock(),
        };
        stamp::write(&mut payload, at, stamp);
        payload.into()
    }
}

/// A clip that can be sent in a loop.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Sent once, before all else: metadata and decoder configurations.
    pub headers: Vec<(u8, Bytes)>,
    /// In order of their times, which begin at 0.
    pub frames: Vec<Frame>,
    /// From the clip's beginning to its next, ms; more than the last frame's time.
    pub length_ms: u32,
}

impl Clip {
    /// Reads an FLV file with H.264 video.
    ///
    /// # Errors
    /// When it cannot be read, or holds no such thing.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let tags = flv::tags(&bytes).map_err(|error| Error::Flv {
            path: path.to_owned(),
            what: error.to_string(),
        })?;
        Self::of(tags, path)
    }

    /// Makes a clip of ten GOPs.
    pub fn synthetic(shape: Shape) -> Self {
        let shape = Shape {
            fps: shape.fps.clamp(1, 240),
            gop: shape.gop.clamp(1, 10_000),
            ..shape
        };
        let count = shape.gop * GOPS;
        let at = |index: u32| (u64::from(index) * 1000 / u64::from(shape.fps)) as u32;
        let length_ms = at(count);
        let pictures = (0..count).map(|i| picture(at(i), &synthetic::picture(i, shape)));
        let sound = Bytes::from(synthetic::sound());
        let sounds = (0..)
            .map(synthetic::sound_time)
            .take_while(|&time| time < length_ms)
            .map(|time_ms| Frame {
                type_id: kind::AUDIO,
                time_ms,
                payload: sound.clone(),
                stamp_at: None,
            });
        let mut frames: Vec<Frame> = pictures.chain(sounds).collect();
        frames.sort_by_key(|frame| frame.time_ms);
        Self {
            headers: vec![
                (kind::VIDEO, synthetic::video_header().into()),
                (kind::AUDIO, synthetic::audio_header().into()),
            ],
            frames,
            length_ms,
        }
    }

    fn of(tags: Vec<Tag>, path: &Path) -> Result<Self, Error> {
        let mut headers = Vec::new();
        let mut frames = Vec::new();
        for tag in tags {
            match tag.kind {
                Tag::SCRIPT => {
                    let body = [SET_DATA_FRAME, &tag.body].concat();
                    headers.push((kind::DATA, body.into()));
                }
                _ if tag.is_header() => {
                    // avcC: its fifth byte, after FLV's own five, has the length of lengths, less one.
                    let lengths = tag.body.get(9).map(|b| (b & 3) + 1);
                    if tag.kind == Tag::VIDEO && lengths != Some(4) {
                        return Err(Error::NalLength {
                            path: path.to_owned(),
                            bytes: lengths.unwrap_or(0),
                        });
                    }
                    headers.push((tag.kind, tag.body.into()));
                }
                Tag::VIDEO if stamp::is_picture(&tag.body) => {
                    frames.push(picture(tag.time, &tag.body));
                }
                _ if tag.is_media() && !tag.body.is_empty() => frames.push(Frame {
                    type_id: tag.kind,
                    time_ms: tag.time,
                    payload: tag.body.into(),
                    stamp_at: None,
                }),
                _ => {}
            }
        }
        let pictures = || frames.iter().filter(|frame| frame.stamp_at.is_some());
        let times = || pictures().map(|frame| frame.time_ms);
        let count = pictures().count();
        let (Some(first), Some(last), 2..) = (times().min(), times().max(), count) else {
            return Err(Error::TooShort {
                path: path.to_owned(),
                count,
            });
        };
        // The last picture lasts as long as the others do on average.
        let steps = count as u32 - 1;
        let length_ms = (last - first + (last - first + steps / 2) / steps).max(1);
        for frame in &mut frames {
            frame.time_ms = frame.time_ms.saturating_sub(first);
        }
        frames.retain(|frame| frame.time_ms < length_ms);
        frames.sort_by_key(|frame| frame.time_ms);
        Ok(Self {
            headers,
            frames,
            length_ms,
        })
    }

    /// When message `index`, counted through all rounds, is due: ms since the first. Times grow past 32 bits.
    pub fn due_ms(&self, index: u64) -> u64 {
        let (round, frame) = self.place(index);
        round * u64::from(self.length_ms) + u64::from(self.frames[frame].time_ms)
    }

    /// Message `index`, counted through all rounds.
    pub fn frame(&self, index: u64) -> &Frame {
        &self.frames[self.place(index).1]
    }

    /// A clip has at least two frames.
    fn place(&self, index: u64) -> (u64, usize) {
        let count = self.frames.len() as u64;
        (index / count, (index % count) as usize)
    }
}

fn picture(time_ms: u32, payload: &[u8]) -> Frame {
    let (payload, at) = stamp::make_room(payload);
    Frame {
        type_id: kind::VIDEO,
        time_ms,
        payload: payload.into(),
        stamp_at: Some(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: u8, time: u32, body: &[u8]) -> Tag {
        Tag {
            kind,
            time,
            body: body.to_vec(),
        }
    }

    const AVCC: &[u8] = &[0x17, 0, 0, 0, 0, 1, 66, 0, 30, 0xff, 0xe1];

    #[test]
    fn a_file_begins_at_its_first_picture_and_repeats_without_a_gap() {
        let clip = Clip::of(
            vec![
                tag(Tag::SCRIPT, 0, b"\x02\x00\x0aonMetaData"),
                tag(Tag::VIDEO, 80, AVCC),
                tag(Tag::VIDEO, 80, &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65]),
                tag(Tag::AUDIO, 60, &[0xaf, 1, 7]),
                tag(Tag::VIDEO, 120, &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41]),
                tag(Tag::VIDEO, 120, &[0x17, 2, 0, 0, 0]),
            ],
            Path::new("x.flv"),
        )
        .unwrap();
        assert_eq!(clip.length_ms, 80);
        assert_eq!(clip.headers.len(), 2);
        assert!(clip.headers[0].1.starts_with(SET_DATA_FRAME));
        let due: Vec<_> = (0..6).map(|i| clip.due_ms(i)).collect();
        assert_eq!(due, [0, 0, 40, 80, 80, 120]);
    }

    #[test]
    fn what_cannot_be_looped_or_stamped_is_said() {
        let error = Clip::of(vec![tag(Tag::VIDEO, 0, AVCC)], Path::new("x.flv")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.flv has 0 H.264 pictures; two are needed to loop it"
        );
        let mut odd = AVCC.to_vec();
        odd[9] = 0xfd;
        let error = Clip::of(vec![tag(Tag::VIDEO, 0, &odd)], Path::new("x.flv")).unwrap_err();
        assert!(matches!(error, Error::NalLength { bytes: 2, .. }));
    }

    #[test]
    fn a_made_up_clip_has_the_bitrate_asked_for() {
        for (fps, gop, kbps) in [(30, 30, 2000), (25, 50, 6000), (60, 120, 1000)] {
            let clip = Clip::synthetic(Shape { fps, gop, kbps });
            let video = clip.frames.iter().filter(|f| f.stamp_at.is_some());
            let bytes: usize = video.map(|f| f.payload.len() - stamp::BYTES).sum();
            let made = bytes as f64 * 8.0 / f64::from(clip.length_ms);
            let off = (made / f64::from(kbps) - 1.0).abs();
            assert!(off < 0.02, "{made} kbit/s instead of {kbps}");
        }
    }
}
