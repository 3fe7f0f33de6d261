//! Enhanced RTMP packets: where the packet type, the tracks and their bodies are.

use super::{Codec, FRAME_COMMAND, FRAME_KEY, PACKET_CODED_FRAMES, PACKET_SEQUENCE_START};
use crate::media::message::{Beside, Kind, Slot};

const VIDEO_PACKET_CODED_FRAMES_X: u8 = 3;
const VIDEO_PACKET_METADATA: u8 = 4;
const VIDEO_PACKET_TS_SEQUENCE_START: u8 = 5;
const VIDEO_PACKET_MULTITRACK: u8 = 6;
const AUDIO_PACKET_CHANNEL_CONFIG: u8 = 4;
const AUDIO_PACKET_MULTITRACK: u8 = 5;
const PACKET_MODEX: u8 = 7;

const FOUR_CC_BYTES: usize = 4;
/// Track ids are bytes: what comes after so many tracks repeats one.
const MAX_TRACKS: usize = 256;

/// How tracks stand in a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// FourCC and a body; the track is 0.
    Plain,
    /// FourCC, track id, body.
    OneTrack,
    /// FourCC, then track id, size and body of each.
    ManyTracks,
    /// FourCC, track id, size and body of each.
    ManyCodecs,
}

/// An enhanced payload, entered up to the FourCC.
pub(super) struct Packet<'a> {
    payload: &'a [u8],
    kind: Kind,
    frame_type: u8,
    packet_type: u8,
    /// Where the packet type stands (the low four bits).
    type_at: usize,
    form: Form,
    /// Where the FourCC, or the first of them, begins.
    body_at: usize,
}

/// One track of a packet.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) id: u8,
    pub(super) codec: Codec,
    /// Where its body is. Ends with the payload where the packet is cut off.
    body: std::ops::Range<usize>,
}

impl<'a> Packet<'a> {
    /// `None`: no enhanced payload of that kind, one that is cut off before its FourCC, or a video command.
    pub(super) fn open(kind: Kind, payload: &'a [u8]) -> Option<Self> {
        let &first = payload.first()?;
        let (frame_type, multiple, is_enhanced) = match kind {
            Kind::Video => ((first >> 4) & 7, VIDEO_PACKET_MULTITRACK, first & 0x80 != 0),
            Kind::Audio => (
                0,
                AUDIO_PACKET_MULTITRACK,
                first >> 4 == super::SOUND_EX_HEADER,
            ),
            Kind::Data => return None,
        };
        if !is_enhanced {
            return None;
        }
        let mut packet = Self {
            payload,
            kind,
            frame_type,
            packet_type: first & 0x0f,
            type_at: 0,
            form: Form::Plain,
            body_at: 1,
        };
        while packet.packet_type == PACKET_MODEX {
            packet.skip_modex()?;
        }
        // The frame type says nothing about metadata.
        let is_metadata = kind == Kind::Video && packet.packet_type == VIDEO_PACKET_METADATA;
        if frame_type == FRAME_COMMAND && !is_metadata {
            return None;
        }
        if packet.packet_type == multiple {
            packet.type_at = packet.body_at;
            let &head = payload.get(packet.type_at)?;
            packet.packet_type = head & 0x0f;
            packet.form = match head >> 4 {
                0 => Form::OneTrack,
                1 => Form::ManyTracks,
                2 => Form::ManyCodecs,
                _ => return None,
            };
            packet.body_at += 1;
            if [multiple, PACKET_MODEX].contains(&packet.packet_type) {
                return None;
            }
        }
        Some(packet)
    }

    /// Skips one ModEx prefix (a nanosecond offset and the like) to the packet type behind it.
    fn skip_modex(&mut self) -> Option<()> {
        let mut at = self.body_at;
        let mut size = usize::from(*self.payload.get(at)?) + 1;
        at += 1;
        if size == 256 {
            let long = self.payload.get(at..at + 2)?;
            size = usize::from(u16::from_be_bytes([long[0], long[1]])) + 1;
            at += 2;
        }
        self.type_at = at + size;
        self.packet_type = *self.payload.get(self.type_at)? & 0x0f;
        self.body_at = self.type_at + 1;
        Some(())
    }

    /// The slot that the packet is a header for; `None` when it is none.
    pub(super) fn slot(&self) -> Option<Slot> {
        match (self.kind, self.packet_type) {
            (_, PACKET_SEQUENCE_START) => Some(Slot::Sequence),
            (Kind::Video, VIDEO_PACKET_TS_SEQUENCE_START) => Some(Slot::Sequence),
            (Kind::Video, VIDEO_PACKET_METADATA) => Some(Slot::Metadata),
            (Kind::Audio, AUDIO_PACKET_CHANNEL_CONFIG) => Some(Slot::Metadata),
            _ => None,
        }
    }

    /// Whether all tracks in it are key frames: one frame type stands for them all.
    pub(super) fn is_key_frame(&self) -> bool {
        self.is_picture() && self.frame_type == FRAME_KEY
    }

    /// Whether it brings coded pictures.
    fn is_picture(&self) -> bool {
        let coded = matches!(
            self.packet_type,
            PACKET_CODED_FRAMES | VIDEO_PACKET_CODED_FRAMES_X
        );
        self.kind == Kind::Video && coded
    }

    /// What it has of tracks beside `main`.
    pub(super) fn beside(&self, main: u8) -> Beside {
        if !self.is_picture() || self.tracks().all(|track| track.id == main) {
            Beside::Nothing
        } else if self.is_key_frame() {
            Beside::Keys
        } else if self.tracks().any(|track| track.id == main) {
            Beside::Nothing
        } else {
            Beside::Frames
        }
    }

    /// Whether it brings coded frames, and not a byte of any.
    pub(super) fn is_hollow(&self) -> bool {
        let coded = self.packet_type == PACKET_CODED_FRAMES;
        coded && self.tracks().all(|track| track.body.is_empty())
    }

    /// The tracks in it, in their order; those behind a cut are left out.
    pub(super) fn tracks(&self) -> impl Iterator<Item = Track> + '_ {
        let shared = match self.form {
            Form::ManyCodecs => None,
            _ => self.codec_at(self.body_at),
        };
        let has_shared = self.form != Form::ManyCodecs;
        let mut at = self.body_at + if has_shared { FOUR_CC_BYTES } else { 0 };
        let mut over = has_shared && shared.is_none();
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            over = matches!(self.form, Form::Plain | Form::OneTrack);
            let codec = match shared {
                Some(codec) => codec,
                None => {
                    let codec = self.codec_at(at)?;
                    at += FOUR_CC_BYTES;
                    codec
                }
            };
            let end = self.payload.len();
            if self.form == Form::Plain {
                return Some(Track {
                    id: 0,
                    codec,
                    body: at..end,
                });
            }
            let &id = self.payload.get(at)?;
            at += 1;
            if self.form == Form::OneTrack {
                return Some(Track {
                    id,
                    codec,
                    body: at..end,
                });
            }
            let size = self.payload.get(at..at + 3)?;
            let size = u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize;
            let begin = at + 3;
            at = (begin + size).min(end);
            Some(Track {
                id,
                codec,
                body: begin..at,
            })
        })
        .take(MAX_TRACKS)
    }

    fn codec_at(&self, at: usize) -> Option<Codec> {
        self.payload
            .get(at..at + FOUR_CC_BYTES)
            .map(Codec::of_four_cc)
    }

    /// Where a composition time would stand that the packet leaves out because it is 0; `None` where it could not, or
    /// where several tracks would each need one.
    pub(super) fn implied_composition_at(&self) -> Option<usize> {
        let single = matches!(self.form, Form::Plain | Form::OneTrack);
        let implied = self.kind == Kind::Video && self.packet_type == VIDEO_PACKET_CODED_FRAMES_X;
        let track = self.tracks().next()?;
        (single && implied && track.codec.is_composed()).then_some(track.body.start)
    }

    /// Makes `bytes`, a copy of the payload, a packet that says its composition time.
    pub(super) fn say_composition(&self, bytes: &mut [u8]) {
        if let Some(place) = bytes.get_mut(self.type_at) {
            *place = *place & 0xf0 | PACKET_CODED_FRAMES;
        }
    }
}

impl Track {
    /// Where its composition time (a signed 24-bit number of ms) stands in the payload; `None` where it has none.
    pub(super) fn composition_at(&self, packet: &Packet<'_>) -> Option<usize> {
        let said = packet.kind == Kind::Video && packet.packet_type == PACKET_CODED_FRAMES;
        let whole = self.body.len() >= 3;
        (said && whole && self.codec.is_composed()).then_some(self.body.start)
    }
}

/// A set of track ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracks([u64; 4]);

impl Tracks {
    /// One track.
    pub fn only(id: u8) -> Self {
        std::iter::once(id).collect()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|id| self.contains(*id))
    }

    pub fn contains(&self, id: u8) -> bool {
        self.0[usize::from(id >> 6)] >> (id & 63) & 1 == 1
    }

    /// Whether `other` has all of these.
    pub fn is_within(&self, other: &Tracks) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a & !b == 0)
    }

    /// `None`: it is empty.
    pub fn lowest(&self) -> Option<u8> {
        self.iter().next()
    }
}

impl FromIterator<u8> for Tracks {
    fn from_iter<I: IntoIterator<Item = u8>>(ids: I) -> Self {
        let mut tracks = Self::default();
        for id in ids {
            tracks.0[usize::from(id >> 6)] |= 1 << (id & 63);
        }
        tracks
    }
}
