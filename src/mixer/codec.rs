//! Codecs: how a track is coded, which of the installed decoders reads it, and what that decoder must be told first.
//!
//! | source | version | covered |
//! |---|---|---|
//! | Enhanced RTMP | v2 | `avc1`, `hvc1`, `av01`, `mp4a`, `Opus` and `.mp3` sequence headers |
//! | ISO/IEC 14496-15 | 2022, 5.3.3, 8.3.3 | avcC and hvcC, handed to the decoder as they are |
//! | AV1 Codec ISO Media File Format Binding | 1.2, 2.3 | av1C, likewise |
//! | RFC 7845 | 5.1 | OpusHead: channels, mapping family |
//! | ISO/IEC 11172-3, 13818-3 | 2.4.2.3 | MP3 frame header: rate, channels |
//!
//! Reads no pixel and no sample. Called by [`feed`](super::feed), which has the messages, and by [`decode`](super::decode).

use bytes::Bytes;
use gstreamer as gst;

use super::format::{self, AudioConfig, AudioFormat};
use super::layout::Size;
use super::sps;
use super::user_data;
use crate::media::{Codec, Message};

/// Elements that decode a codec, the better one first, each as it stands in a pipeline and with the Debian package that
/// has it. One thread each: several would only delay a picture.
const fn decoders(codec: Codec) -> &'static [(&'static str, &'static str)] {
    match codec {
        Codec::H264 => &[("avdec_h264 max-threads=1", "gstreamer1.0-libav")],
        Codec::Hevc => &[
            ("avdec_h265 max-threads=1", "gstreamer1.0-libav"),
            ("libde265dec max-threads=1", "gstreamer1.0-plugins-bad"),
        ],
        Codec::Av1 => &[
            ("dav1ddec n-threads=1", "gstreamer1.0-plugins-rs"),
            ("av1dec", "gstreamer1.0-plugins-bad"),
        ],
        Codec::Aac => &[("avdec_aac", "gstreamer1.0-libav")],
        Codec::Opus => &[("opusdec", "gstreamer1.0-plugins-base")],
        Codec::Mp3 => &[
            ("mpg123audiodec", "gstreamer1.0-plugins-good"),
            ("avdec_mp3", "gstreamer1.0-libav"),
        ],
        Codec::G711A => &[("alawdec", "gstreamer1.0-plugins-good")],
        Codec::G711U => &[("mulawdec", "gstreamer1.0-plugins-good")],
        _ => &[],
    }
}

/// The decoder for a codec, as it stands in a pipeline.
///
/// # Errors
/// None is known, or none is installed: then with the package that has the best.
pub(super) fn decoder(codec: Codec) -> Result<&'static str, String> {
    let known = decoders(codec);
    let is_there = |launch: &str| {
        let factory = launch.split(' ').next().unwrap_or(launch);
        gst::ElementFactory::find(factory).is_some()
    };
    if let Some((found, _)) = known.iter().find(|(launch, _)| is_there(launch)) {
        return Ok(found);
    }
    Err(match known.last() {
        None => format!("{codec:?} is not decoded here"),
        Some((_, package)) => {
            format!(
                "{codec:?} is not decoded here; on Debian and Ubuntu: apt-get install {package}"
            )
        }
    })
}

/// Pictures may have so many pixels a side and in all, that of 4096×2304: decoders keep up to sixteen of them, and each mix
/// some more.
pub(super) const MAX_SIDE: u32 = 4_096;
const MAX_PIXELS: u32 = MAX_SIDE * 2_304;

fn is_decodable(size: Size) -> bool {
    let Size { width, height } = size;
    width.max(height) <= MAX_SIDE && width * height <= MAX_PIXELS
}

/// How a track is coded, with all that its decoder must know before the first access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coding {
    pub codec: Codec,
    /// The configuration record, as the publisher sent it; empty where the codec has none.
    config: Bytes,
    /// Of sound: how it will come out.
    pub audio: Option<AudioConfig>,
}

impl Coding {
    /// What a sequence header says. `None` when it is cut short or of a codec that has none.
    ///
    /// # Errors
    /// The codec, or this form of it, is not decoded here.
    pub fn of_header(message: &Message) -> Option<Result<Self, String>> {
        let codec = message.codec;
        if let Err(why) = decoder(codec) {
            return Some(Err(why));
        }
        let config = match format::body(message) {
            // ffmpeg's libaom leaves its header empty: all that it would say stands before each key frame.
            None if codec == Codec::Av1 => Bytes::new(),
            body => body?,
        };
        let audio = match codec {
            Codec::Aac => Some(format::audio_config(&config)?),
            Codec::Opus => match opus_head(&config)? {
                (channels, 0) => Some(AudioConfig {
                    format: AudioFormat {
                        rate: 48_000,
                        channels,
                    },
                    plain: false,
                }),
                (_, family) => {
                    return Some(Err(format!(
                        "Opus with channel mapping family {family} is not decoded here"
                    )));
                }
            },
            Codec::H264 => {
                let size = format::parameter_set(&config).and_then(sps::size);
                if let Some(size) = size.filter(|size| !is_decodable(*size)) {
                    return Some(Err(format!(
                        "pictures of {}x{} are not decoded here: {MAX_SIDE} pixels a side and {} in all are the most",
                        size.width, size.height, MAX_PIXELS
                    )));
                }
                None
            }
            _ => None,
        };
        Some(Ok(Self {
            codec,
            config,
            audio,
        }))
    }

    /// What a frame says whose codec has no sequence header. `None` for other codecs, and when it says nothing.
    ///
    /// # Errors
    /// The codec is not decoded here.
    pub fn of_frame(message: &Message) -> Option<Result<Self, String>> {
        let codec = message.codec;
        let format = match codec {
            Codec::Mp3 => mp3_format(&format::body(message)?)?,
            Codec::G711A | Codec::G711U => AudioFormat {
                rate: 8_000,
                channels: 1 + u32::from(message.payload.first()? & 1),
            },
            _ => return None,
        };
        Some(decoder(codec).map(|_| Self {
            codec,
            config: Bytes::new(),
            audio: Some(AudioConfig {
                format,
                plain: false,
            }),
        }))
    }

    /// The SEI messages of user data in one of its access units; empty where the codec has none, or none that is known here.
    pub fn user_data(&self, unit: &[u8]) -> Bytes {
        // Where the records say how long lengths are.
        let place = match self.codec {
            Codec::H264 => 4,
            Codec::Hevc => 21,
            _ => return Bytes::new(),
        };
        match self.config.get(place) {
            Some(byte) => user_data::messages(self.codec, usize::from(byte & 3) + 1, unit),
            None => Bytes::new(),
        }
    }

    /// What its decoder is told of the access units that follow.
    pub fn caps(&self) -> gst::Caps {
        let caps = gst::Caps::builder(match self.codec {
            Codec::H264 => "video/x-h264",
            Codec::Hevc => "video/x-h265",
            Codec::Av1 => "video/x-av1",
            Codec::Opus => "audio/x-opus",
            Codec::G711A => "audio/x-alaw",
            Codec::G711U => "audio/x-mulaw",
            _ => "audio/mpeg",
        });
        let mut caps = match self.codec {
            Codec::H264 => caps.field("stream-format", "avc").field("alignment", "au"),
            Codec::Hevc => caps.field("stream-format", "hvc1").field("alignment", "au"),
            Codec::Av1 => caps
                .field("stream-format", "obu-stream")
                .field("alignment", "tu"),
            Codec::Aac => caps
                .field("mpegversion", 4i32)
                .field("stream-format", "raw")
                .field("framed", true),
            Codec::Opus => caps.field("channel-mapping-family", 0i32),
            Codec::Mp3 => caps
                .field("mpegversion", 1i32)
                .field("layer", 3i32)
                .field("parsed", true),
            _ => caps,
        };
        if !self.config.is_empty() && self.codec != Codec::Opus {
            caps = caps.field("codec_data", gst::Buffer::from_slice(self.config.clone()));
        }
        if let Some(AudioConfig { format, .. }) = self.audio {
            caps = caps.field("rate", format.rate as i32);
            if format.channels > 0 {
                caps = caps.field("channels", format.channels as i32);
            }
        }
        caps.build()
    }
}

/// Channels and mapping family of an OpusHead.
fn opus_head(head: &[u8]) -> Option<(u32, u8)> {
    let rest = head.strip_prefix(b"OpusHead")?;
    let (&channels, &family) = (rest.get(1)?, rest.get(10)?);
    (channels > 0).then_some((channels.into(), family))
}

/// Rate and channels by the header of a frame of MPEG audio, layer III.
fn mp3_format(frame: &[u8]) -> Option<AudioFormat> {
    const RATES: [u32; 3] = [44_100, 48_000, 32_000];
    let &[sync, version, rate, mode, ..] = frame else {
        return None;
    };
    let is_layer_3 = version & 0b110 == 0b010;
    if sync != 0xff || version & 0xe0 != 0xe0 || !is_layer_3 {
        return None;
    }
    // MPEG-2 halves the rates, MPEG-2.5 quarters them.
    let divisor = match version >> 3 & 3 {
        3 => 1,
        2 => 2,
        0 => 4,
        _ => return None,
    };
    Some(AudioFormat {
        rate: RATES.get(usize::from(rate >> 2 & 3))? / divisor,
        channels: if mode >> 6 == 3 { 1 } else { 2 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Kind, MediaTime};

    fn message(kind: Kind, payload: &[u8]) -> Message {
        Message::new(kind, MediaTime(0), Bytes::copy_from_slice(payload))
    }

    fn caps(coding: Option<Result<Coding, String>>) -> String {
        coding.unwrap().unwrap().caps().to_string()
    }

    #[test]
    fn pictures_beyond_all_cameras_are_refused_by_their_header() {
        use crate::mixer::tests::studio::encoder_sets;
        for (width, height, taken) in [
            (1_920, 1_080, true),
            (4_096, 2_304, true),
            (4_112, 16, false),
            (3_840, 2_560, false),
        ] {
            let set = encoder_sets(width, height, "high", "1/1");
            let mut header = b"\x17\0\0\0\0\x01\x64\0\x33\xff\xe1".to_vec();
            header.extend_from_slice(&(set.len() as u16).to_be_bytes());
            header.extend_from_slice(&set);
            let coding = Coding::of_header(&message(Kind::Video, &header)).unwrap();
            assert_eq!(coding.is_ok(), taken, "{width}x{height}: {coding:?}");
            if let Err(why) = coding {
                assert!(why.contains(&format!("{width}x{height}")), "{why}");
            }
        }
    }

    #[test]
    fn headers_become_what_decoders_are_told() {
        gst::init().unwrap();
        for (kind, payload, told) in [
            (
                Kind::Video,
                &b"\x1c\0\0\0\0hvcC"[..],
                "video/x-h265, stream-format=(string)hvc1, alignment=(string)au, codec_data=(buffer)68766343",
            ),
            (
                Kind::Video,
                b"\x90hvc1hvcC",
                "video/x-h265, stream-format=(string)hvc1, alignment=(string)au, codec_data=(buffer)68766343",
            ),
            (
                Kind::Video,
                b"\x90av01\x81\0\0\0",
                "video/x-av1, stream-format=(string)obu-stream, alignment=(string)tu, codec_data=(buffer)81000000",
            ),
            (
                Kind::Video,
                b"\x90av01",
                "video/x-av1, stream-format=(string)obu-stream, alignment=(string)tu",
            ),
            (
                Kind::Audio,
                b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0",
                "audio/x-opus, channel-mapping-family=(int)0, rate=(int)48000, channels=(int)2",
            ),
        ] {
            assert_eq!(caps(Coding::of_header(&message(kind, payload))), told);
        }
        for (payload, told) in [
            // Layer III of MPEG-1 at 44.1 kHz, joint stereo; of MPEG-2 at 24 kHz, mono.
            (
                &b"\x2f\xff\xfb\x90\x64"[..],
                "audio/mpeg, mpegversion=(int)1, layer=(int)3, parsed=(boolean)true, rate=(int)44100, channels=(int)2",
            ),
            (
                b"\x26\xff\xf3\x84\xc4",
                "audio/mpeg, mpegversion=(int)1, layer=(int)3, parsed=(boolean)true, rate=(int)24000, channels=(int)1",
            ),
            (
                b"\x72sound",
                "audio/x-alaw, rate=(int)8000, channels=(int)1",
            ),
            (
                b"\x83sound",
                "audio/x-mulaw, rate=(int)8000, channels=(int)2",
            ),
        ] {
            assert_eq!(caps(Coding::of_frame(&message(Kind::Audio, payload))), told);
        }
    }

    #[test]
    fn what_cannot_be_decoded_says_why_and_what_is_cut_short_says_nothing() {
        gst::init().unwrap();
        let refusal = |kind, payload: &[u8]| Coding::of_header(&message(kind, payload));
        for (kind, payload, why) in [
            (Kind::Video, &b"\x90vp09conf"[..], "Vp9 is not decoded here"),
            (Kind::Audio, b"\x90fLaCconf", "Flac is not decoded here"),
            (
                Kind::Audio,
                b"\x90OpusOpusHead\x01\x06\x38\x01\x80\xbb\0\0\0\0\x01",
                "Opus with channel mapping family 1 is not decoded here",
            ),
        ] {
            assert_eq!(refusal(kind, payload), Some(Err(why.to_owned())));
        }
        for (kind, payload) in [
            (Kind::Audio, &b"\x90OpusOpusHead\x01"[..]),
            (Kind::Audio, b"\xaf\x00\x11"),
            (Kind::Video, b"\x90hvc1"),
        ] {
            assert_eq!(refusal(kind, payload), None, "{payload:?}");
        }
        for frame in [&b"\x2f"[..], b"\x2f\xff\xfb\xff\x64", b"\x2fID3\x04\0"] {
            let said = Coding::of_frame(&message(Kind::Audio, frame));
            assert_eq!(said, None, "{frame:?}");
        }
    }
}
