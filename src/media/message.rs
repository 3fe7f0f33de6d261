//! One media message as every room hands it on: kind, time, role and the untouched payload.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::payload::{self, Codec};

/// Audio, video, or script data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Audio,
    Video,
    Data,
}

impl Kind {
    /// The RTMP message type id and FLV tag type (they are the same numbers).
    pub const fn type_id(self) -> u8 {
        match self {
            Kind::Audio => 8,
            Kind::Video => 9,
            Kind::Data => 18,
        }
    }

    /// The kind of an RTMP message type id; `None` for commands and protocol control.
    pub const fn from_type_id(type_id: u8) -> Option<Self> {
        match type_id {
            8 => Some(Kind::Audio),
            9 => Some(Kind::Video),
            18 => Some(Kind::Data),
            _ => None,
        }
    }

    /// Index into small per-kind tables.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A point on a feed's own timeline, in milliseconds. Zero is that feed's first message unless the
/// place that hands it out says otherwise. 64 bits: it never wraps; the wire's 32 bits do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(pub i64);

impl MediaTime {
    pub const ZERO: MediaTime = MediaTime(0);

    /// The low 32 bits, as RTMP and FLV write it.
    pub const fn wire(self) -> u32 {
        self.0 as u32
    }

    /// How far `self` is after `earlier`; zero when it is not after it.
    pub fn since(self, earlier: MediaTime) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl Add<i64> for MediaTime {
    type Output = MediaTime;
    /// `ms` later.
    fn add(self, ms: i64) -> MediaTime {
        MediaTime(self.0 + ms)
    }
}

impl Sub for MediaTime {
    type Output = i64;
    /// Milliseconds from `other` to `self`.
    fn sub(self, other: MediaTime) -> i64 {
        self.0 - other.0
    }
}

/// Which cached header a header message replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderSlot {
    pub kind: Kind,
    /// Enhanced RTMP track id; 0 for everything else.
    pub track: u8,
    pub slot: Slot,
}

/// The two sorts of header a track can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// onMetaData, HDR metadata, channel configuration.
    Metadata,
    /// Decoder configuration (AVCDecoderConfigurationRecord, AudioSpecificConfig, …).
    Sequence,
}

/// What a message means to a reader that joins or skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Needed before media can be decoded; cached for joiners.
    Header(HeaderSlot),
    /// A video frame that decodes alone.
    Key,
    /// Everything else.
    Frame,
}

/// One message. The payload is shared and not copied, but for [`Message::timed`]; times are only ever rewritten by
/// making a new message.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: Kind,
    pub role: Role,
    pub codec: Codec,
    /// Decode time on the timeline of the feed that it is in.
    pub dts: MediaTime,
    /// Presentation − decode time, in ms; 0 for anything but video.
    pub composition_ms: i32,
    /// The RTMP message body, equal to the FLV tag body.
    pub payload: Bytes,
}

impl Message {
    /// Reads the payload's own header to fill in role, codec and composition offset.
    pub fn new(kind: Kind, dts: MediaTime, payload: Bytes) -> Self {
        let d = payload::describe(kind, &payload);
        Self {
            kind,
            role: d.role,
            codec: d.codec,
            dts,
            composition_ms: d.composition_ms,
            payload,
        }
    }

    /// Presentation time on the same timeline as `dts`.
    pub fn pts(&self) -> MediaTime {
        self.dts + i64::from(self.composition_ms)
    }

    /// The same message at another time.
    pub fn at(&self, dts: MediaTime) -> Self {
        Self {
            dts,
            ..self.clone()
        }
    }

    /// The same message at another decode time and presented at `pts`. Copies the payload when the distance between
    /// the two changes, because that stands inside it; a payload that has no place for it keeps its distance.
    pub fn timed(&self, dts: MediaTime, pts: MediaTime) -> Self {
        let mut timed = self.at(dts);
        // A signed 24-bit number on the wire.
        let composition_ms = (pts - dts).clamp(-0x80_0000, 0x7f_ffff) as i32;
        if composition_ms != self.composition_ms
            && let Some(at) = payload::composition_at(&self.payload)
        {
            let mut bytes = self.payload.to_vec();
            bytes[at..at + 3].copy_from_slice(&composition_ms.to_be_bytes()[1..]);
            timed.payload = bytes.into();
            timed.composition_ms = composition_ms;
        }
        timed
    }

    pub fn is_video_key(&self) -> bool {
        self.role == Role::Key
    }

    pub fn is_header(&self) -> bool {
        matches!(self.role, Role::Header(_))
    }
}

/// The headers that a reader needs before a key frame, in the order in which to send them:
/// metadata first, then decoder configurations. Immutable; a new header makes a new set.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    entries: Vec<(HeaderSlot, Arc<Message>)>,
}

/// Enhanced RTMP allows 256 tracks; a stranger must not fill memory with their headers.
pub const MAX_HEADERS: usize = 32;

impl Headers {
    /// This set with `message` in its slot. A message that is no header, or one slot more than
    /// [`MAX_HEADERS`], leaves the set as it is.
    pub fn with(&self, message: &Arc<Message>) -> Self {
        let mut next = self.clone();
        if let Role::Header(slot) = message.role {
            match next.entries.iter().position(|(s, _)| *s == slot) {
                Some(at) => next.entries[at].1 = message.clone(),
                None if next.entries.len() < MAX_HEADERS => {
                    next.entries.push((slot, message.clone()));
                    next.entries
                        .sort_by_key(|(s, _)| (s.slot, s.kind != Kind::Data, s.kind, s.track));
                }
                None => {}
            }
        }
        next
    }

    /// In sending order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries.iter().map(|(_, m)| m)
    }

    /// The header in that slot.
    pub fn find(&self, kind: Kind, slot: Slot) -> Option<&Arc<Message>> {
        self.entries
            .iter()
            .find(|(s, _)| s.kind == kind && s.slot == slot && s.track == 0)
            .map(|(_, m)| m)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: Kind, payload: &'static [u8]) -> Arc<Message> {
        Arc::new(Message::new(
            kind,
            MediaTime(5),
            Bytes::from_static(payload),
        ))
    }

    #[test]
    fn headers_come_metadata_first_and_the_newest_wins() {
        let set = Headers::default()
            .with(&message(Kind::Video, b"\x17\0\0\0\0old"))
            .with(&message(Kind::Audio, b"\xaf\0\x11\x90"))
            .with(&message(Kind::Data, b"\x02\0\x0aonMetaData"))
            .with(&message(Kind::Video, b"\x17\0\0\0\0new"))
            .with(&message(Kind::Video, b"\x27\x01\0\0\0frame"));
        let sent: Vec<_> = set.iter().map(|m| (m.kind, m.payload.clone())).collect();
        assert_eq!(
            sent,
            vec![
                (Kind::Data, Bytes::from_static(b"\x02\0\x0aonMetaData")),
                (Kind::Audio, Bytes::from_static(b"\xaf\0\x11\x90")),
                (Kind::Video, Bytes::from_static(b"\x17\0\0\0\0new")),
            ]
        );
    }

    #[test]
    fn a_stranger_cannot_fill_the_header_cache() {
        let mut set = Headers::default();
        for track in 0..=255u8 {
            let mut payload = b"\x96\x00avc1".to_vec();
            payload.push(track);
            set = set.with(&Arc::new(Message::new(
                Kind::Video,
                MediaTime::ZERO,
                payload.into(),
            )));
        }
        assert_eq!(set.iter().count(), MAX_HEADERS);
    }
}
