//! Formats at the mixer's edges: what FLV payloads carry for the decoders, and what the encoders' output is put into.
//!
//! | source | version | covered |
//! |---|---|---|
//! | Adobe Flash Video File Format Specification | 10.1, annex E.4.2, E.4.3, E.5 | AVC, AAC, MP3 and G.711 payload headers, onMetaData |
//! | Enhanced RTMP | v2 | payload headers of `avc1`, `hvc1`, `av01`, `mp4a`, `Opus` and `.mp3` |
//! | ITU-T H.264 | 08/2021, 7.3.1, 7.4.1 | types of NAL units |
//! | ISO/IEC 14496-3 | 2019, 1.6.2.1 | AudioSpecificConfig: object type, rate, channels |
//!
//! Pure.

use bytes::{BufMut, Bytes, BytesMut};

use super::layout::Size;
use crate::media::{Codec, Kind, Message};
use crate::rtmp::amf;

/// Sample rate in Hz and number of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    pub rate: u32,
    pub channels: u32,
}

/// Of a publisher that sends none, and of one whose format the encoder does not know: the linkmic rate.
pub const DEFAULT_AUDIO: AudioFormat = AudioFormat {
    rate: 48_000,
    channels: 2,
};

/// Sampling frequencies by index (ISO/IEC 14496-3, table 1.18).
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];
const AAC_LC: u8 = 2;
const AAC_SBR: u8 = 5;
const AAC_PS: u8 = 29;

/// What an AudioSpecificConfig says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioConfig {
    pub format: AudioFormat,
    /// Plain AAC-LC, as our encoder makes it; `false` for HE-AAC and other object types.
    pub plain: bool,
}

/// Reads an AudioSpecificConfig; `None` when it is too short or has a reserved rate.
pub fn audio_config(config: &[u8]) -> Option<AudioConfig> {
    let &[a, b, ref rest @ ..] = config else {
        return None;
    };
    let object_type = a >> 3;
    let index = usize::from((a & 7) << 1 | b >> 7);
    let (rate, channels) = if index == 15 {
        let &[c, d, e, ..] = rest else {
            return None;
        };
        let bits = u32::from_be_bytes([b, c, d, e]);
        ((bits >> 7) & 0xff_ffff, (bits >> 3) & 15)
    } else {
        (*RATES.get(index)?, u32::from(b >> 3 & 15))
    };
    // HE-AAC says at which rate it comes out behind the rate of its core; with parametric stereo, from one channel two.
    let (rate, channels) = match (object_type, rest) {
        (AAC_SBR | AAC_PS, &[c, ..]) if index != 15 => {
            let extended = RATES.get(usize::from((b & 7) << 1 | c >> 7));
            let channels = if object_type == AAC_PS { 2 } else { channels };
            (extended.copied().unwrap_or(2 * rate), channels)
        }
        _ => (rate, channels),
    };
    Some(AudioConfig {
        format: AudioFormat { rate, channels },
        plain: object_type == AAC_LC,
    })
}

impl AudioFormat {
    /// The nearest format that the encoder makes: a standard rate, one or two channels.
    pub fn encodable(self) -> Self {
        Self {
            rate: if RATES[..12].contains(&self.rate) {
                self.rate
            } else {
                DEFAULT_AUDIO.rate
            },
            channels: if self.channels == 1 { 1 } else { 2 },
        }
    }
}

/// The codec's own bytes in a message: decoder configuration, access unit or raw frame. `None` when the codec is not
/// ours to decode, or the message carries no such thing.
pub fn body(message: &Message) -> Option<Bytes> {
    let payload = &message.payload;
    let (&first, second) = (payload.first()?, payload.get(1));
    let skip = match (message.kind, message.codec) {
        (Kind::Video, codec) if first & 0x80 != 0 => match (first & 0x0f, codec) {
            (1, Codec::H264 | Codec::Hevc) => 8,
            (0 | 3, Codec::H264 | Codec::Hevc) | (0 | 1 | 3, Codec::Av1) => 5,
            _ => return None,
        },
        (Kind::Video, Codec::H264 | Codec::Hevc) => match second {
            Some(0 | 1) => 5,
            _ => return None,
        },
        (Kind::Audio, Codec::Aac | Codec::Opus | Codec::Mp3) if first >> 4 == 9 => {
            match first & 0x0f {
                0 | 1 => 5,
                _ => return None,
            }
        }
        (Kind::Audio, Codec::Aac) => 2,
        (Kind::Audio, Codec::Mp3 | Codec::G711A | Codec::G711U) => 1,
        _ => return None,
    };
    (payload.len() > skip).then(|| payload.slice(skip..))
}

/// An AVC sequence header from an AVCDecoderConfigurationRecord.
pub fn avc_header(record: &[u8]) -> Bytes {
    prefixed(&[0x17, 0, 0, 0, 0], record)
}

/// An AVC message from an access unit of length-prefixed NAL units without reordering, behind `sei`: nothing, or NAL units
/// of the same form.
pub fn avc_frame(sei: &[u8], unit: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(5 + sei.len() + unit.len());
    payload.put_slice(&[0x27, 1, 0, 0, 0]);
    payload.put_slice(sei);
    payload.put_slice(unit);
    payload.freeze()
}

/// An AVC message from a key frame's access unit, with the parameter sets of its AVCDecoderConfigurationRecord in
/// front of it, and then `sei`: nothing, or NAL units of the same form.
///
/// ffmpeg's demuxer takes a new sequence header to the decoder but not to its parser, which then reads the
/// mix's slices with the source's parameter sets and complains of each (seen in 5.1: "luma_log2_weight_denom 32
/// is out of range"). In band they reach both. Encoders that put them there themselves are left to it.
pub fn avc_key_frame(record: &[u8], sei: &[u8], unit: &[u8]) -> Bytes {
    let sets = if has_parameter_sets(unit) {
        Vec::new()
    } else {
        parameter_sets(record).unwrap_or_default()
    };
    let mut payload = BytesMut::with_capacity(5 + sets.len() + sei.len() + unit.len());
    payload.put_slice(&[0x17, 1, 0, 0, 0]);
    payload.put_slice(&sets);
    payload.put_slice(sei);
    payload.put_slice(unit);
    payload.freeze()
}

const SPS: u8 = 7;

/// The SPS and PPS of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1.2), each with the four bytes of
/// length that our encoder's access units use. `None` when the record is cut short or counts lengths otherwise.
fn parameter_sets(record: &[u8]) -> Option<Vec<u8>> {
    if record.get(4)? & 3 != 3 {
        return None;
    }
    let mut sets = Vec::new();
    let mut rest = record.get(5..)?;
    for count_mask in [0x1f, 0xff] {
        let (&count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & count_mask {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let length = u16::from_be_bytes(*length);
            let (set, after) = after.split_at_checked(usize::from(length))?;
            sets.extend_from_slice(&u32::from(length).to_be_bytes());
            sets.extend_from_slice(set);
            rest = after;
        }
    }
    Some(sets)
}

/// Is there an SPS in an access unit, which stands before its slices?
fn has_parameter_sets(mut unit: &[u8]) -> bool {
    const SLICES: std::ops::RangeInclusive<u8> = 1..=5;
    while let Some((length, after)) = unit.split_first_chunk::<4>() {
        let kind = after.first().map_or(0, |header| header & 31);
        if kind == SPS || SLICES.contains(&kind) {
            return kind == SPS;
        }
        unit = after
            .get(u32::from_be_bytes(*length) as usize..)
            .unwrap_or_default();
    }
    false
}

/// The first SPS of an AVCDecoderConfigurationRecord, as a NAL unit; `None` when the record is cut short or has none.
pub fn parameter_set(record: &[u8]) -> Option<&[u8]> {
    let (&count, rest) = record.get(5..)?.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let set = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    (count & 0x1f > 0).then_some(set)
}

/// An AAC sequence header from an AudioSpecificConfig. The rate and channel bits are fixed for AAC.
pub fn aac_header(config: &[u8]) -> Bytes {
    prefixed(&[0xaf, 0], config)
}

pub fn aac_frame(frame: &[u8]) -> Bytes {
    prefixed(&[0xaf, 1], frame)
}

fn prefixed(prefix: &[u8], body: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(prefix.len() + body.len());
    payload.put_slice(prefix);
    payload.put_slice(body);
    payload.freeze()
}

/// What onMetaData says of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    pub size: Size,
    pub fps: u32,
    pub video_kbps: u32,
    pub audio_kbps: u32,
    pub audio: AudioFormat,
}

impl Metadata {
    /// As AMF0: the name and an object.
    pub fn payload(&self) -> Bytes {
        let mut amf = amf::Writer::new();
        amf.string("onMetaData").object();
        for (name, value) in [
            ("width", self.size.width),
            ("height", self.size.height),
            ("framerate", self.fps),
            ("videocodecid", 7),
            ("videodatarate", self.video_kbps),
            ("audiocodecid", 10),
            ("audiodatarate", self.audio_kbps),
            ("audiosamplerate", self.audio.rate),
            ("audiosamplesize", 16),
        ] {
            amf.key(name).number(f64::from(value));
        }
        amf.key("stereo").boolean(self.audio.channels == 2);
        amf.key("encoder")
            .string(concat!("linkmic/", env!("CARGO_PKG_VERSION")));
        amf.end().finish()
    }
}

/// Video bitrate for a size and rate where none was asked for: 0.1 bit per pixel, what the vendor's presets
/// spend at 540×960 and 20 frames a second.
pub fn default_video_kbps(size: Size, fps: u32) -> u32 {
    let pixels = u64::from(size.width) * u64::from(size.height) * u64::from(fps);
    (pixels / 10_000).clamp(200, 8_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{MediaTime, Role};

    fn message(kind: Kind, payload: &[u8]) -> Message {
        Message::new(kind, MediaTime(0), Bytes::copy_from_slice(payload))
    }

    #[test]
    fn audio_configs_are_read() {
        let read = |config: &[u8]| {
            audio_config(config).map(|c| (c.format.rate, c.format.channels, c.plain))
        };
        assert_eq!(read(&[0x11, 0x90]), Some((48_000, 2, true)));
        assert_eq!(read(&[0x12, 0x08]), Some((44_100, 1, true)));
        // HE-AAC: object type 5, 24 kHz that come out as 48; version 2: type 29, one channel that comes out as two.
        assert_eq!(read(&[0x2b, 0x11, 0x88]), Some((48_000, 2, false)));
        assert_eq!(read(&[0xeb, 0x09, 0x88]), Some((48_000, 2, false)));
        // Index 15: 24 bits of 50 000 Hz, then one channel.
        let explicit = (2u64 << 35 | 15 << 31 | 50_000 << 7 | 1 << 3).to_be_bytes();
        assert_eq!(read(&explicit[3..]), Some((50_000, 1, true)));
        for broken in [&[][..], &[0x11], &[0x16, 0x90], &[0x17, 0x80, 0]] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn bodies_begin_behind_their_headers() {
        for (kind, payload, expected) in [
            (Kind::Video, &b"\x17\0\0\0\0conf"[..], Some("conf")),
            (Kind::Video, b"\x27\x01\0\0\x50unit", Some("unit")),
            (Kind::Video, b"\x90avc1conf", Some("conf")),
            (Kind::Video, b"\xa1avc1\0\0\x50unit", Some("unit")),
            (Kind::Video, b"\xa3avc1unit", Some("unit")),
            (Kind::Video, b"\x17\x02\0\0\0end", None),
            (Kind::Video, b"\x91hvc1\0\0\0unit", Some("unit")),
            (Kind::Video, b"\x1c\0\0\0\0conf", Some("conf")),
            (Kind::Video, b"\xa1av01unit", Some("unit")),
            (Kind::Video, b"\xa2av01", None),
            (Kind::Video, b"\x91vp09unit", None),
            (Kind::Audio, b"\xaf\0conf", Some("conf")),
            (Kind::Audio, b"\xaf\x01", None),
            (Kind::Audio, b"\x91mp4aunit", Some("unit")),
            (Kind::Audio, b"\x91Opusunit", Some("unit")),
            (Kind::Audio, b"\x2funit", Some("unit")),
            (Kind::Audio, b"\x72unit", Some("unit")),
            (Kind::Audio, b"\xb2speex", None),
        ] {
            let got = body(&message(kind, payload));
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{payload:?}");
        }
    }

    #[test]
    fn what_we_write_is_what_the_rest_of_the_house_reads() {
        assert!(message(Kind::Video, &avc_header(b"x")).is_header());
        assert!(message(Kind::Video, &avc_key_frame(&[], &[], b"x")).is_video_key());
        assert_eq!(
            message(Kind::Video, &avc_frame(b"", b"x")).role,
            Role::Frame
        );
        assert!(message(Kind::Audio, &aac_header(b"x")).is_header());
        let metadata = Metadata {
            size: Size {
                width: 540,
                height: 960,
            },
            fps: 20,
            video_kbps: 1_200,
            audio_kbps: 96,
            audio: DEFAULT_AUDIO,
        };
        let payload = metadata.payload();
        assert!(message(Kind::Data, &payload).is_header());
        let values = amf::decode(&payload).unwrap();
        let read = |key| amf::property(&values[1], key).and_then(amf::number);
        assert_eq!(amf::text(&values[0]), Some("onMetaData"));
        assert_eq!(
            (read("height"), read("framerate")),
            (Some(960.0), Some(20.0))
        );
    }

    #[test]
    fn parameter_sets_stand_in_a_key_frame_once() {
        let record = b"\x01\x42\x00\x1e\xff\xe1\0\x02\x67s\x01\0\x02\x68p";
        let sets = b"\0\0\0\x02\x67s\0\0\0\x02\x68p";
        let (delimiter, slice) = (b"\0\0\0\x02\x09\xf0", b"\0\0\0\x02\x65x");
        for (unit, wanted) in [
            (slice.to_vec(), [&sets[..], slice].concat()),
            ([&sets[..], slice].concat(), [&sets[..], slice].concat()),
            (
                [&delimiter[..], sets, slice].concat(),
                [&delimiter[..], sets, slice].concat(),
            ),
            (
                b"\0\0\0\x09\x09".to_vec(),
                [&sets[..], b"\0\0\0\x09\x09"].concat(),
            ),
        ] {
            assert_eq!(avc_key_frame(record, &[], &unit)[5..], wanted);
        }
    }

    #[test]
    fn default_bitrates_are_those_of_the_presets() {
        let kbps = |width, height, fps| default_video_kbps(Size { width, height }, fps);
        assert_eq!(kbps(540, 960, 20), 1_036);
        assert_eq!(kbps(1_280, 720, 30), 2_764);
        assert_eq!(kbps(160, 120, 15), 200);
    }
}
