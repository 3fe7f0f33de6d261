//! What an audio or video payload says about itself in its first bytes.
//!
//! | source | version | covered |
//! |---|---|---|
//! | Adobe Flash Video File Format Specification | 10.1, annex E.4.2 and E.4.3 | frame type, codec, AVC and AAC packet type, composition time |
//! | Enhanced RTMP | v2 (veovera, 2026) | ex-header packet types, FourCC, multitrack, ModEx skipping |
//! | legacy codec id 12 | field practice | HEVC laid out like AVC |
//!
//! Reads, never writes; a payload that is too short or unknown is `Role::Frame` and passes through.

use super::message::{HeaderSlot, Kind, Role, Slot};

const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;
const CODEC_AVC: u8 = 7;
const CODEC_HEVC_LEGACY: u8 = 12;
const SOUND_AAC: u8 = 10;
const SOUND_EX_HEADER: u8 = 9;

const PACKET_SEQUENCE_START: u8 = 0;
const PACKET_CODED_FRAMES: u8 = 1;
const PACKET_SEQUENCE_END: u8 = 2;
const VIDEO_PACKET_METADATA: u8 = 4;
const VIDEO_PACKET_TS_SEQUENCE_START: u8 = 5;
const VIDEO_PACKET_MULTITRACK: u8 = 6;
const VIDEO_PACKET_MODEX: u8 = 7;
const AUDIO_PACKET_CHANNEL_CONFIG: u8 = 4;
const AUDIO_PACKET_MULTITRACK: u8 = 5;
const AUDIO_PACKET_MODEX: u8 = 7;

/// Codec of a track, as far as the payload header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Vp9,
    Aac,
    Opus,
    Mp3,
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
            Codec::Vp9 => "vp9",
            Codec::Aac => "aac",
            Codec::Opus => "opus",
            Codec::Mp3 => "mp3",
            Codec::Other => "other",
        }
    }
}

/// What one payload is: its role, codec, and for video the composition offset in ms (presentation − decode time).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    pub role: Role,
    pub codec: Codec,
    pub composition_ms: i32,
}

/// Describes a payload of the given kind. Total: any bytes give an answer.
pub fn describe(kind: Kind, payload: &[u8]) -> Description {
    match kind {
        Kind::Video => video(payload),
        Kind::Audio => audio(payload),
        Kind::Data => Description {
            // The session strips `@setDataFrame`, so the cacheable one starts with the string `onMetaData`.
            role: if payload.starts_with(b"\x02\x00\x0aonMetaData") {
                header(Kind::Data, 0, Slot::Metadata)
            } else {
                Role::Frame
            },
            codec: Codec::Other,
            composition_ms: 0,
        },
    }
}

fn header(kind: Kind, track: u8, slot: Slot) -> Role {
    Role::Header(HeaderSlot { kind, track, slot })
}

fn plain(role: Role, codec: Codec) -> Description {
    Description {
        role,
        codec,
        composition_ms: 0,
    }
}

fn video(payload: &[u8]) -> Description {
    let Some(&first) = payload.first() else {
        return plain(Role::Frame, Codec::Other);
    };
    if first & 0x80 != 0 {
        return enhanced_video(payload);
    }
    let frame_type = first >> 4;
    let codec = match first & 0x0f {
        CODEC_AVC => Codec::H264,
        CODEC_HEVC_LEGACY => Codec::Hevc,
        _ => Codec::Other,
    };
    if codec == Codec::Other {
        let role = if frame_type == FRAME_KEY {
            Role::Key
        } else {
            Role::Frame
        };
        return plain(role, codec);
    }
    match payload.get(1) {
        Some(&PACKET_SEQUENCE_START) => plain(header(Kind::Video, 0, Slot::Sequence), codec),
        Some(&PACKET_CODED_FRAMES) if frame_type == FRAME_KEY => Description {
            role: Role::Key,
            codec,
            composition_ms: signed24(payload.get(2..5)),
        },
        Some(&PACKET_CODED_FRAMES) => Description {
            role: Role::Frame,
            codec,
            composition_ms: signed24(payload.get(2..5)),
        },
        _ => plain(Role::Frame, codec),
    }
}

fn enhanced_video(payload: &[u8]) -> Description {
    let frame_type = (payload[0] >> 4) & 0x07;
    let Some((packet, track, rest)) = enter(payload, VIDEO_PACKET_MODEX, VIDEO_PACKET_MULTITRACK)
    else {
        return plain(Role::Frame, Codec::Other);
    };
    if frame_type == FRAME_COMMAND && packet != VIDEO_PACKET_METADATA {
        return plain(Role::Frame, Codec::Other);
    }
    let codec = four_cc(rest);
    match packet {
        PACKET_SEQUENCE_START | VIDEO_PACKET_TS_SEQUENCE_START => {
            plain(header(Kind::Video, track, Slot::Sequence), codec)
        }
        VIDEO_PACKET_METADATA => plain(header(Kind::Video, track, Slot::Metadata), codec),
        PACKET_SEQUENCE_END => plain(Role::Frame, codec),
        _ => {
            // Only the default track makes a joiner's starting point.
            let role = if frame_type == FRAME_KEY && track == 0 {
                Role::Key
            } else {
                Role::Frame
            };
            let timed = packet == PACKET_CODED_FRAMES
                && track == 0
                && matches!(codec, Codec::H264 | Codec::Hevc);
            Description {
                role,
                codec,
                composition_ms: if timed { signed24(rest.get(4..7)) } else { 0 },
            }
        }
    }
}

fn audio(payload: &[u8]) -> Description {
    let Some(&first) = payload.first() else {
        return plain(Role::Frame, Codec::Other);
    };
    match first >> 4 {
        SOUND_AAC if payload.get(1) == Some(&PACKET_SEQUENCE_START) => {
            plain(header(Kind::Audio, 0, Slot::Sequence), Codec::Aac)
        }
        SOUND_AAC => plain(Role::Frame, Codec::Aac),
        2 | 14 => plain(Role::Frame, Codec::Mp3),
        SOUND_EX_HEADER => {
            let entered = enter(payload, AUDIO_PACKET_MODEX, AUDIO_PACKET_MULTITRACK);
            let Some((packet, track, rest)) = entered else {
                return plain(Role::Frame, Codec::Other);
            };
            let codec = four_cc(rest);
            match packet {
                PACKET_SEQUENCE_START => plain(header(Kind::Audio, track, Slot::Sequence), codec),
                AUDIO_PACKET_CHANNEL_CONFIG => {
                    plain(header(Kind::Audio, track, Slot::Metadata), codec)
                }
                _ => plain(Role::Frame, codec),
            }
        }
        _ => plain(Role::Frame, Codec::Other),
    }
}

/// Where a video payload has its composition offset (a signed 24-bit number of ms); `None` where it has none, or
/// where finding it takes more than a look (several tracks in one message).
pub(super) fn composition_at(payload: &[u8]) -> Option<usize> {
    let (&first, rest) = payload.split_first()?;
    let at = if first & 0x80 == 0 {
        let classic = matches!(first & 0x0f, CODEC_AVC | CODEC_HEVC_LEGACY);
        (classic && rest.first() == Some(&PACKET_CODED_FRAMES)).then_some(2)?
    } else {
        let timed = matches!(four_cc(rest), Codec::H264 | Codec::Hevc);
        (timed && first & 0x0f == PACKET_CODED_FRAMES).then_some(5)?
    };
    (payload.len() >= at + 3).then_some(at)
}

/// Past the prefixes of an enhanced payload: packet type, track (the first, where there are several; 0 where none is
/// named) and the bytes from its FourCC on. The two packet types have other numbers for video and audio.
fn enter(payload: &[u8], modex: u8, multiple: u8) -> Option<(u8, u8, &[u8])> {
    let (&first, rest) = payload.split_first()?;
    let mut packet = first & 0x0f;
    let rest = skip_modex(rest, &mut packet, modex)?;
    if packet == multiple {
        multitrack(rest)
    } else {
        Some((packet, 0, rest))
    }
}

/// Skips ModEx prefixes (nanosecond offsets and the like), leaving the packet type that follows them.
fn skip_modex<'a>(mut rest: &'a [u8], packet: &mut u8, modex: u8) -> Option<&'a [u8]> {
    while *packet == modex {
        let (&size, after) = rest.split_first()?;
        let mut size = usize::from(size) + 1;
        let mut after = after;
        if size == 256 {
            let (bytes, tail) = after.split_at_checked(2)?;
            size = usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) + 1;
            after = tail;
        }
        let (_, tail) = after.split_at_checked(size)?;
        let (&next, tail) = tail.split_first()?;
        *packet = next & 0x0f;
        rest = tail;
    }
    Some(rest)
}

/// Multitrack header: (inner packet type, id of the first track, bytes from its FourCC on).
fn multitrack(rest: &[u8]) -> Option<(u8, u8, &[u8])> {
    // All three forms (one track, many tracks of one codec, many codecs) put FourCC before the first track id.
    let (&head, after) = rest.split_first()?;
    let track = *after.get(4)?;
    Some((head & 0x0f, track, after))
}

fn four_cc(rest: &[u8]) -> Codec {
    match rest.get(..4) {
        Some(b"avc1") => Codec::H264,
        Some(b"hvc1") => Codec::Hevc,
        Some(b"av01") => Codec::Av1,
        Some(b"vp09") => Codec::Vp9,
        Some(b"mp4a") => Codec::Aac,
        Some(b"Opus") => Codec::Opus,
        Some(b".mp3") => Codec::Mp3,
        _ => Codec::Other,
    }
}

fn signed24(bytes: Option<&[u8]>) -> i32 {
    match bytes {
        Some(&[a, b, c]) => i32::from_be_bytes([a, b, c, 0]) >> 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_told_apart() {
        let sequence = |kind, track| header(kind, track, Slot::Sequence);
        type Case = (&'static str, Kind, &'static [u8], Role, Codec, i32);
        let cases: [Case; 13] = [
            (
                "avc header",
                Kind::Video,
                &[0x17, 0, 0, 0, 0, 1],
                sequence(Kind::Video, 0),
                Codec::H264,
                0,
            ),
            (
                "avc key frame",
                Kind::Video,
                &[0x17, 1, 0, 0, 80],
                Role::Key,
                Codec::H264,
                80,
            ),
            (
                "avc inter frame, negative offset",
                Kind::Video,
                &[0x27, 1, 0xff, 0xff, 0xff],
                Role::Frame,
                Codec::H264,
                -1,
            ),
            (
                "avc end of sequence",
                Kind::Video,
                &[0x17, 2, 0, 0, 0],
                Role::Frame,
                Codec::H264,
                0,
            ),
            (
                "legacy hevc key",
                Kind::Video,
                &[0x1c, 1, 0, 0, 0],
                Role::Key,
                Codec::Hevc,
                0,
            ),
            (
                "enhanced hevc header",
                Kind::Video,
                b"\x90hvc1xx",
                sequence(Kind::Video, 0),
                Codec::Hevc,
                0,
            ),
            (
                "enhanced hevc key with offset",
                Kind::Video,
                b"\x91hvc1\0\0\x21",
                Role::Key,
                Codec::Hevc,
                33,
            ),
            (
                "enhanced av1 inter, no offset",
                Kind::Video,
                b"\xa1av01\0\0\x21",
                Role::Frame,
                Codec::Av1,
                0,
            ),
            (
                "enhanced hdr metadata",
                Kind::Video,
                b"\xd4hvc1",
                header(Kind::Video, 0, Slot::Metadata),
                Codec::Hevc,
                0,
            ),
            (
                "multitrack header of track 3",
                Kind::Video,
                b"\x96\x00avc1\x03",
                sequence(Kind::Video, 3),
                Codec::H264,
                0,
            ),
            (
                "aac header",
                Kind::Audio,
                &[0xaf, 0, 0x11, 0x90],
                sequence(Kind::Audio, 0),
                Codec::Aac,
                0,
            ),
            (
                "aac frame",
                Kind::Audio,
                &[0xaf, 1, 0x21],
                Role::Frame,
                Codec::Aac,
                0,
            ),
            (
                "opus header",
                Kind::Audio,
                b"\x90OpusOpusHead",
                sequence(Kind::Audio, 0),
                Codec::Opus,
                0,
            ),
        ];
        for (name, kind, payload, role, codec, composition_ms) in cases {
            let expected = Description {
                role,
                codec,
                composition_ms,
            };
            assert_eq!(describe(kind, payload), expected, "{name}");
        }
    }

    #[test]
    fn modex_before_a_key_frame_is_skipped() {
        // ModEx with a 3-byte nanosecond offset, then CodedFramesX (3) of a key frame.
        let payload = b"\x97\x02\x00\x00\x07\x03avc1data";
        assert_eq!(describe(Kind::Video, payload).role, Role::Key);
    }

    #[test]
    fn every_truncation_gives_an_answer() {
        for whole in [
            &b"\x96\x20avc1\x03abc"[..],
            b"\x97\xff\x01\x00\x07\x03avc1",
            b"\x95\x00Opus\x01",
            b"\x17\x01\0\0\x50",
        ] {
            for end in 0..=whole.len() {
                for kind in [Kind::Audio, Kind::Video, Kind::Data] {
                    describe(kind, &whole[..end]);
                }
            }
        }
    }
}
