//! What an audio or video payload says about itself in its first bytes.
//!
//! | source | version | covered |
//! |---|---|---|
//! | Adobe Flash Video File Format Specification | 10.1, annex E.4.2 and E.4.3 | frame type, codec, AVC and AAC packet type, composition time |
//! | Enhanced RTMP | v2 (veovera, 2026) | packet types, FourCC, the three multitrack forms, ModEx |
//! | legacy codec id 12 | field practice | HEVC laid out like AVC |
//!
//! Several tracks in one message share its packet type and its frame type. Such a message is a header for each of
//! its tracks, and a key frame when it says so and the main track is in it; the other tracks' own messages are
//! never a place to begin at, but say whether they are key frames of their own ([`Beside`]). The main track is 0 unless
//! the publisher has none (see [`MainTrack`]).
//!
//! Reads, and changes nothing but composition times on demand; a payload that is too short or unknown is
//! `Role::Frame` and passes through.

mod enhanced;

use super::message::{Beside, HeaderSlot, Kind, MediaTime, Message, Role, Slot};
use enhanced::Packet;
pub use enhanced::Tracks;

const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;

const CODEC_SORENSON: u8 = 2;
const CODEC_SCREEN: u8 = 3;
const CODEC_VP6: u8 = 4;
const CODEC_VP6_ALPHA: u8 = 5;
const CODEC_SCREEN_2: u8 = 6;
const CODEC_AVC: u8 = 7;
const CODEC_HEVC_LEGACY: u8 = 12;

const SOUND_EX_HEADER: u8 = 9;
const SOUND_AAC: u8 = 10;

const PACKET_SEQUENCE_START: u8 = 0;
const PACKET_CODED_FRAMES: u8 = 1;

/// Codec of a track, as far as the payload header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Vp8,
    Vp9,
    /// Sorenson Spark, a dialect of H.263.
    Sorenson,
    /// Screen video, either version.
    Screen,
    Vp6,
    Aac,
    Opus,
    Flac,
    Ac3,
    Eac3,
    Mp3,
    Speex,
    Nellymoser,
    /// G.711 A-law.
    G711A,
    /// G.711 µ-law.
    G711U,
    Pcm,
    Adpcm,
    /// Anything we forward without knowing.
    Other,
}

impl Codec {
    /// The word used by the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::Hevc => "hevc",
            Codec::Av1 => "av1",
            Codec::Vp8 => "vp8",
            Codec::Vp9 => "vp9",
            Codec::Sorenson => "sorenson",
            Codec::Screen => "screen",
            Codec::Vp6 => "vp6",
            Codec::Aac => "aac",
            Codec::Opus => "opus",
            Codec::Flac => "flac",
            Codec::Ac3 => "ac3",
            Codec::Eac3 => "eac3",
            Codec::Mp3 => "mp3",
            Codec::Speex => "speex",
            Codec::Nellymoser => "nellymoser",
            Codec::G711A => "g711a",
            Codec::G711U => "g711u",
            Codec::Pcm => "pcm",
            Codec::Adpcm => "adpcm",
            Codec::Other => "other",
        }
    }

    fn of_four_cc(name: &[u8]) -> Self {
        match name {
            b"avc1" => Codec::H264,
            b"hvc1" => Codec::Hevc,
            b"av01" => Codec::Av1,
            b"vp08" => Codec::Vp8,
            b"vp09" => Codec::Vp9,
            b"mp4a" => Codec::Aac,
            b"Opus" => Codec::Opus,
            b"fLaC" => Codec::Flac,
            b"ac-3" => Codec::Ac3,
            b"ec-3" => Codec::Eac3,
            b".mp3" => Codec::Mp3,
            _ => Codec::Other,
        }
    }

    fn of_codec_id(id: u8) -> Self {
        match id {
            CODEC_SORENSON => Codec::Sorenson,
            CODEC_SCREEN | CODEC_SCREEN_2 => Codec::Screen,
            CODEC_VP6 | CODEC_VP6_ALPHA => Codec::Vp6,
            CODEC_AVC => Codec::H264,
            CODEC_HEVC_LEGACY => Codec::Hevc,
            _ => Codec::Other,
        }
    }

    fn of_sound_format(format: u8) -> Self {
        match format {
            0 | 3 => Codec::Pcm,
            1 => Codec::Adpcm,
            2 | 14 => Codec::Mp3,
            4..=6 => Codec::Nellymoser,
            7 => Codec::G711A,
            8 => Codec::G711U,
            SOUND_AAC => Codec::Aac,
            11 => Codec::Speex,
            _ => Codec::Other,
        }
    }

    /// Whether coded frames of this codec carry a composition time.
    fn is_composed(self) -> bool {
        matches!(self, Codec::H264 | Codec::Hevc)
    }
}

/// What one payload is: its role, codec, track, and for video the composition offset in ms (presentation − decode
/// time). Where several tracks ride in one message, codec, track and offset are the main track's, else the first's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    pub role: Role,
    pub codec: Codec,
    /// Enhanced RTMP track id; 0 for everything else.
    pub track: u8,
    pub beside: Beside,
    pub composition_ms: i32,
}

/// Describes a payload of the given kind, whose main video track is 0. Total: any bytes give an answer.
pub fn describe(kind: Kind, payload: &[u8]) -> Description {
    describe_beside(kind, payload, 0)
}

/// Whether nothing follows the few bytes that say what it is: an empty message, or audio without a sound in it.
/// Video may be that: the end of a sequence is told so.
pub fn is_hollow(kind: Kind, payload: &[u8]) -> bool {
    let Some(first) = payload.first() else {
        return true;
    };
    let head = match first >> 4 {
        _ if kind != Kind::Audio => return false,
        SOUND_EX_HEADER => match Packet::open(kind, payload) {
            Some(packet) => return packet.is_hollow(),
            None => return false,
        },
        SOUND_AAC => 2,
        _ => 1,
    };
    payload.len() <= head
}

fn describe_beside(kind: Kind, payload: &[u8], main: u8) -> Description {
    match (kind, payload.first()) {
        (Kind::Data, _) => Description {
            // The session strips `@setDataFrame`, so the cacheable one starts with the string `onMetaData`.
            role: if payload.starts_with(b"\x02\x00\x0aonMetaData") {
                header(Kind::Data, 0, Slot::Metadata)
            } else {
                Role::Frame
            },
            ..UNKNOWN
        },
        (_, None) => UNKNOWN,
        (Kind::Video, Some(first)) if first & 0x80 == 0 => classic_video(payload),
        (Kind::Audio, Some(first)) if first >> 4 != SOUND_EX_HEADER => classic_audio(payload),
        _ => enhanced(kind, payload, main),
    }
}

const UNKNOWN: Description = Description {
    role: Role::Frame,
    codec: Codec::Other,
    track: 0,
    beside: Beside::Nothing,
    composition_ms: 0,
};

fn header(kind: Kind, track: u8, slot: Slot) -> Role {
    Role::Header(HeaderSlot { kind, track, slot })
}

fn classic_video(payload: &[u8]) -> Description {
    let (frame_type, codec) = (payload[0] >> 4, Codec::of_codec_id(payload[0] & 0x0f));
    let mut described = Description { codec, ..UNKNOWN };
    if frame_type == FRAME_COMMAND {
        // "Seek begins" and "seek ends": the byte where a packet type would be is another thing.
        return described;
    }
    let key = if frame_type == FRAME_KEY {
        Role::Key
    } else {
        Role::Frame
    };
    if !codec.is_composed() {
        described.role = key;
        return described;
    }
    match payload.get(1) {
        Some(&PACKET_SEQUENCE_START) => described.role = header(Kind::Video, 0, Slot::Sequence),
        Some(&PACKET_CODED_FRAMES) => {
            described.role = key;
            described.composition_ms = signed24(payload.get(2..5));
        }
        _ => {}
    }
    described
}

fn classic_audio(payload: &[u8]) -> Description {
    let codec = Codec::of_sound_format(payload[0] >> 4);
    let configures = codec == Codec::Aac && payload.get(1) == Some(&PACKET_SEQUENCE_START);
    Description {
        role: if configures {
            header(Kind::Audio, 0, Slot::Sequence)
        } else {
            Role::Frame
        },
        codec,
        ..UNKNOWN
    }
}

fn enhanced(kind: Kind, payload: &[u8], main: u8) -> Description {
    let Some(packet) = Packet::open(kind, payload) else {
        return UNKNOWN;
    };
    let Some(first) = packet.tracks().next() else {
        return UNKNOWN;
    };
    if let Some(slot) = packet.slot() {
        return Description {
            role: header(kind, first.id, slot),
            codec: first.codec,
            track: first.id,
            ..UNKNOWN
        };
    }
    let of_main = match first.id == main {
        true => Some(first.clone()),
        false => packet.tracks().find(|track| track.id == main),
    };
    let is_key = of_main.is_some() && packet.is_key_frame();
    let own = of_main.unwrap_or(first);
    Description {
        role: if is_key { Role::Key } else { Role::Frame },
        codec: own.codec,
        track: own.id,
        beside: packet.beside(main),
        composition_ms: own
            .composition_at(&packet)
            .map_or(0, |at| signed24(payload.get(at..at + 3))),
    }
}

/// Which tracks a payload speaks of: track 0 alone, unless it is an enhanced one that names others.
pub fn tracks(kind: Kind, payload: &[u8]) -> Tracks {
    let packet = match kind {
        Kind::Data => None,
        _ => Packet::open(kind, payload),
    };
    match packet {
        Some(packet) => packet.tracks().map(|track| track.id).collect(),
        None => Tracks::only(0),
    }
}

/// The same video payload with `delta` ms added to the composition time of each of its tracks; `None` where it has no
/// place for one: other codecs, headers, several tracks in one message of which none has a place.
///
/// A packet that leaves the time out because it is 0 (`CodedFramesX`) becomes one that says it.
pub(super) fn recomposed(payload: &[u8], delta: i32) -> Option<Vec<u8>> {
    let first = *payload.first()?;
    let mut bytes = payload.to_vec();
    if first & 0x80 == 0 {
        let composed = Codec::of_codec_id(first & 0x0f).is_composed();
        let coded = first >> 4 != FRAME_COMMAND && payload.get(1) == Some(&PACKET_CODED_FRAMES);
        return (composed && coded && add_signed24(&mut bytes, 2, delta)).then_some(bytes);
    }
    let packet = Packet::open(Kind::Video, payload)?;
    let mut changed = false;
    for track in packet.tracks() {
        if let Some(at) = track.composition_at(&packet) {
            changed |= add_signed24(&mut bytes, at, delta);
        }
    }
    if !changed && let Some(at) = packet.implied_composition_at() {
        packet.say_composition(&mut bytes);
        bytes.splice(at..at, [0; 3]);
        changed = add_signed24(&mut bytes, at, delta);
    }
    changed.then_some(bytes)
}

/// Which video track of a publisher makes joiners' starting points: 0, or the lowest there is where a publisher
/// numbers its tracks from another on. One per publish epoch; reads its messages in their order.
#[derive(Debug, Clone, Copy, Default)]
pub struct MainTrack {
    /// Lowest video track seen; `None` before the first.
    lowest: Option<u8>,
}

impl MainTrack {
    /// The message that `payload` is, at `dts`.
    pub fn read(&mut self, kind: Kind, dts: MediaTime, payload: bytes::Bytes) -> Message {
        if kind == Kind::Video && self.lowest != Some(0) {
            let lowest = tracks(kind, &payload).lowest();
            self.lowest = match (self.lowest, lowest) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let described = describe_beside(kind, &payload, self.lowest.unwrap_or(0));
        Message::described(kind, dts, payload, described)
    }
}

fn signed24(bytes: Option<&[u8]>) -> i32 {
    match bytes {
        Some(&[a, b, c]) => i32::from_be_bytes([a, b, c, 0]) >> 8,
        _ => 0,
    }
}

/// Adds to the signed 24-bit number at `at`, within its range; false when it is cut off.
fn add_signed24(bytes: &mut [u8], at: usize, delta: i32) -> bool {
    let Some(place) = bytes.get_mut(at..at + 3) else {
        return false;
    };
    let sum = signed24(Some(place)).saturating_add(delta);
    place.copy_from_slice(&sum.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes()[1..]);
    true
}

#[cfg(test)]
mod tests;
