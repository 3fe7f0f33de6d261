//! One media message as every room hands it on: kind, time, role and the untouched payload.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::payload::{self, Codec, Description, Tracks};

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
    /// Enhanced RTMP track id, the first where one message configures several; 0 for everything else.
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

/// What a video message has of tracks beside the main one, which alone is told by its [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beside {
    /// Nothing; or nothing coded; or frames that go with the main track's in one message, and cannot stay behind.
    #[default]
    Nothing,
    /// Key frames of others, with the main track's or without.
    Keys,
    /// Frames of others alone, which each build on a key frame of their own track.
    Frames,
}

/// One message. The payload is shared and not copied, but for [`Message::timed`]; times are only ever rewritten by
/// making a new message.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: Kind,
    pub role: Role,
    pub codec: Codec,
    /// Enhanced RTMP track id; 0 for everything else. Of several in one message the main one, else the first.
    pub track: u8,
    pub beside: Beside,
    /// Decode time on the timeline of the feed that it is in.
    pub dts: MediaTime,
    /// Presentation − decode time, in ms; 0 for anything but video.
    pub composition_ms: i32,
    /// The RTMP message body, equal to the FLV tag body.
    pub payload: Bytes,
}

impl Message {
    /// Reads the payload's own header to fill in role, codec, track and composition offset. The main video track is 0;
    /// [`payload::MainTrack`] reads for publishers that may have another.
    pub fn new(kind: Kind, dts: MediaTime, payload: Bytes) -> Self {
        let described = payload::describe(kind, &payload);
        Self::described(kind, dts, payload, described)
    }

    pub(super) fn described(kind: Kind, dts: MediaTime, payload: Bytes, is: Description) -> Self {
        Self {
            kind,
            role: is.role,
            codec: is.codec,
            track: is.track,
            beside: is.beside,
            dts,
            composition_ms: is.composition_ms,
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
    /// the two changes, because that stands inside it; a payload that has no place for it keeps its distance. Other
    /// tracks in the same message keep their distance to this one.
    pub fn timed(&self, dts: MediaTime, pts: MediaTime) -> Self {
        let mut timed = self.at(dts);
        // A signed 24-bit number on the wire.
        let composition_ms = (pts - dts).clamp(-0x80_0000, 0x7f_ffff) as i32;
        // Sound and data have no such place, whatever their bytes look like.
        if self.kind == Kind::Video
            && composition_ms != self.composition_ms
            && let Some(bytes) =
                payload::recomposed(&self.payload, composition_ms - self.composition_ms)
        {
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

/// The headers that a reader needs before a key frame, in the order in which to send them: script data, then for
/// audio and for video decoder configurations and then what goes with them (HDR metadata, channel configurations).
/// Immutable; a new header makes a new set.
///
/// A message that is a header for several tracks is kept as one, for as long as any of them has no newer one; of two
/// that speak of the same track, the newer is sent later and so is what holds.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    slot: HeaderSlot,
    tracks: Tracks,
    message: Arc<Message>,
}

/// Enhanced RTMP allows 256 tracks; a stranger must not fill memory with their headers.
pub const MAX_HEADERS: usize = 32;
/// Most bytes in all headers of a set. The largest real ones (HEVC with an encoder's signature in it) have 3 KB.
pub const MAX_HEADER_BYTES: usize = 512 * 1024;

impl Headers {
    /// This set with `message` in its slot. A message that is no header, one more than [`MAX_HEADERS`], or one that
    /// exceeds [`MAX_HEADER_BYTES`] leaves the set as it is.
    pub fn with(&self, message: &Arc<Message>) -> Self {
        let Role::Header(slot) = message.role else {
            return self.clone();
        };
        let tracks = payload::tracks(message.kind, &message.payload);
        let replaced = |e: &Entry| {
            (e.slot.kind, e.slot.slot) == (slot.kind, slot.slot) && e.tracks.is_within(&tracks)
        };
        let mut next = Self {
            entries: Vec::with_capacity(self.entries.len() + 1),
        };
        let kept = self.entries.iter().filter(|e| !replaced(e)).cloned();
        next.entries.extend(kept);
        let bytes: usize = next.entries.iter().map(|e| e.message.payload.len()).sum();
        if next.entries.len() == MAX_HEADERS || bytes + message.payload.len() > MAX_HEADER_BYTES {
            return self.clone();
        }
        next.entries.push(Entry {
            slot,
            tracks,
            message: message.clone(),
        });
        // Stable: within a group the newest stays last.
        next.entries.sort_by_key(|e| {
            let HeaderSlot { kind, slot, .. } = e.slot;
            (kind != Kind::Data, kind, slot == Slot::Metadata)
        });
        next
    }

    /// In sending order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries.iter().map(|e| &e.message)
    }

    /// The header in that slot that holds for track 0.
    pub fn find(&self, kind: Kind, slot: Slot) -> Option<&Arc<Message>> {
        self.entries
            .iter()
            .rfind(|e| e.slot.kind == kind && e.slot.slot == slot && e.tracks.contains(0))
            .map(|e| &e.message)
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
    fn each_track_has_headers_of_its_own_and_hdr_metadata_follows_them() {
        let set = Headers::default()
            .with(&message(Kind::Video, b"\xd4hvc1hdr"))
            .with(&message(Kind::Video, b"\x90hvc1zero"))
            .with(&message(Kind::Video, b"\x96\x00av01\x01one"))
            .with(&message(Kind::Audio, b"\x90Opuszero"))
            .with(&message(Kind::Audio, b"\x94Opuschannels"))
            .with(&message(Kind::Audio, b"\x95\x00fLaC\x01one"))
            .with(&message(Kind::Video, b"\x96\x00av01\x01newer"));
        let sent: Vec<_> = set.iter().map(|m| &m.payload[..]).collect();
        let expected: [&[u8]; 6] = [
            b"\x90Opuszero",
            b"\x95\x00fLaC\x01one",
            b"\x94Opuschannels",
            b"\x90hvc1zero",
            b"\x96\x00av01\x01newer",
            b"\xd4hvc1hdr",
        ];
        assert_eq!(sent, expected);
        let main = set.find(Kind::Video, Slot::Sequence).unwrap();
        assert_eq!(&main.payload[..], b"\x90hvc1zero");
    }

    #[test]
    fn a_header_of_several_tracks_is_kept_until_each_has_a_newer_one() {
        const BOTH: &[u8] = b"\x96\x10avc1\x00\0\0\x01a\x01\0\0\x01b";
        let sent = |set: &Headers| set.iter().map(|m| m.payload.to_vec()).collect::<Vec<_>>();
        let newer_zero: &[u8] = b"\x96\x00avc1\x00A";
        let newer_one: &[u8] = b"\x96\x00avc1\x01B";
        let set = Headers::default()
            .with(&message(Kind::Video, newer_zero))
            .with(&message(Kind::Video, BOTH));
        assert_eq!(
            sent(&set),
            [BOTH],
            "the newer one speaks of track 0 as well"
        );
        let set = set.with(&message(Kind::Video, newer_one));
        assert_eq!(
            sent(&set),
            [BOTH, newer_one],
            "what holds for track 1 comes last"
        );
        let set = set.with(&message(Kind::Video, newer_zero));
        assert_eq!(sent(&set), [BOTH, newer_one, newer_zero]);
        let found = set.find(Kind::Video, Slot::Sequence).unwrap();
        assert_eq!(&found.payload[..], newer_zero);
        let set = set.with(&message(Kind::Video, BOTH));
        assert_eq!(sent(&set), [BOTH]);
    }

    #[test]
    fn monstrous_headers_are_not_kept() {
        let long = |fill| {
            let mut payload = b"\x90hvc1".to_vec();
            payload.resize(MAX_HEADER_BYTES, fill);
            Arc::new(Message::new(Kind::Video, MediaTime::ZERO, payload.into()))
        };
        let set = Headers::default().with(&long(1));
        let full = set.with(&message(Kind::Audio, b"\xaf\0\x11\x90"));
        assert_eq!(full.iter().count(), 1);
        let replaced = full.with(&long(2));
        assert_eq!(replaced.iter().next().unwrap().payload[9], 2);
    }

    #[test]
    fn sound_that_looks_like_a_picture_is_not_written_into() {
        // PCM whose second byte is 1: as video this would be a coded frame of H.264, its offset in bytes 2 to 4.
        let sound = message(Kind::Audio, b"\x37\x01abc");
        let moved = sound.timed(MediaTime(9), MediaTime(16));
        assert_eq!(moved.payload, sound.payload);
        assert_eq!((moved.dts, moved.composition_ms), (MediaTime(9), 0));
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
