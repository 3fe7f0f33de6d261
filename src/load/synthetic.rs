//! A clip made from numbers alone: H.264 and AAC that decode, at the frame rate, GOP and bitrate asked for.
//!
//! | source | covered |
//! |---|---|
//! | ITU-T H.264, 7.3 | baseline SPS and PPS, IDR slices of flat intra macroblocks, P slices of skipped ones, filler NAL units |
//! | ISO/IEC 14496-3, 4.4.2 | a silent single channel element, fill elements |
//! | ISO/IEC 14496-15, 5.3 | the decoder configuration record |
//!
//! The picture is grey and the sound is silence; what makes a frame as long as a real one is filler, which decoders
//! throw away and servers carry.

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Video frames a second, 1 to 240.
    pub fps: u32,
    /// Video frames from one key frame to the next, at least 1.
    pub gop: u32,
    /// Video bitrate in kbit/s. Frames are never shorter than their coded picture (4 KB for a key frame).
    pub kbps: u32,
}

impl Default for Shape {
    /// 30 frames a second, a key frame every second, 2 Mbit/s.
    fn default() -> Self {
        Self {
            fps: 30,
            gop: 30,
            kbps: 2000,
        }
    }
}

/// 1280x720 in macroblocks.
const WIDTH: u32 = 80;
const HEIGHT: u32 = 45;
/// How much heavier a key frame is than another: about what x264 gives a talking head.
const KEY_WEIGHT: u32 = 8;
/// Bits of `frame_num`: a GOP longer than this many frames wraps, as the standard has it.
const FRAME_NUM_BITS: u32 = 8;
/// AAC: 48 kHz, one channel, 1024 samples a frame.
const SAMPLES: u32 = 1024;
pub const SAMPLE_RATE: u32 = 48_000;
/// 128 kbit/s.
const SOUND_BYTES: usize = 341;
/// The AudioSpecificConfig: AAC-LC, 48 kHz, one channel.
const SOUND_CONFIG: [u8; 2] = [0x11, 0x88];

/// The FLV video payload with the decoder's configuration.
pub fn video_header() -> Vec<u8> {
    let (sps, pps) = (sps(), pps());
    let mut out = vec![0x17, 0, 0, 0, 0];
    out.extend([1, sps[1], sps[2], sps[3], 0xff, 0xe1]);
    for (index, unit) in [&sps, &pps].into_iter().enumerate() {
        if index == 1 {
            out.push(1);
        }
        out.extend((unit.len() as u16).to_be_bytes());
        out.extend(unit.iter());
    }
    out
}

/// The FLV audio payload with the decoder's configuration.
pub fn audio_header() -> Vec<u8> {
    let mut out = vec![0xaf, 0];
    out.extend(SOUND_CONFIG);
    out
}

/// The FLV video payload of frame `index` of a clip.
pub fn picture(index: u32, shape: Shape) -> Vec<u8> {
    let in_gop = index % shape.gop.max(1);
    let key = in_gop == 0;
    let mut out = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    let slice = match key {
        true => key_slice(index / shape.gop.max(1)),
        false => skipped_slice(in_gop),
    };
    append_unit(&mut out, &slice);
    // Header and end of a filler unit: four bytes of length, type, trailing bits.
    let room = frame_bytes(key, shape).saturating_sub(out.len() + 6);
    if room > 0 {
        let mut filler = vec![0xff; room + 2];
        filler[0] = 12;
        filler[room + 1] = 0x80;
        append_unit(&mut out, &filler);
    }
    out
}

/// The FLV audio payload of 1024 silent samples.
pub fn sound() -> Vec<u8> {
    let mut bits = Bits::default();
    // Single channel element 0 with no band coded: gain, window, and nothing after.
    bits.put(3, 0).put(4, 0).put(8, 0);
    bits.put(1, 0).put(2, 0).put(1, 0).put(6, 0).put(1, 0);
    bits.put(3, 0);
    let mut left = SOUND_BYTES - 5;
    while left > 20 {
        // Fill element: 15 says that another count follows, less one.
        let bytes = left.min(269) - 3;
        bits.put(3, 6).put(4, 15).put(8, bytes as u32 - 14);
        bits.put(8, 0x10);
        for _ in 1..bytes {
            bits.put(8, 0xa5);
        }
        left -= bytes + 3;
    }
    bits.put(3, 7);
    let mut out = vec![0xaf, 1];
    out.extend(bits.bytes());
    out
}

/// When audio frame `index` is due, ms from the clip's beginning.
pub fn sound_time(index: u32) -> u32 {
    (u64::from(index) * u64::from(SAMPLES) * 1000 / u64::from(SAMPLE_RATE)) as u32
}

/// Bytes of a frame, so that a GOP has its bitrate.
fn frame_bytes(key: bool, shape: Shape) -> usize {
    let gop = u64::from(shape.gop.max(1));
    let gop_bytes = u64::from(shape.kbps) * 125 * gop / u64::from(shape.fps.max(1));
    let unit = gop_bytes / (gop - 1 + u64::from(KEY_WEIGHT));
    let bytes = match key {
        true => unit * u64::from(KEY_WEIGHT),
        false => unit,
    };
    // The longest that one message may be, well inside RTMP's 24 bits.
    bytes.min(8_000_000) as usize
}

fn append_unit(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend((unit.len() as u32).to_be_bytes());
    out.extend(unit);
}

fn sps() -> Vec<u8> {
    let mut bits = Bits::default();
    // Constrained baseline, level 4.2: 1280x720 at up to 145 frames a second.
    bits.put(8, 66).put(8, 0xc0).put(8, 42);
    // Id 0; frame_num; pictures in output order (type 2).
    bits.ue(0).ue(FRAME_NUM_BITS - 4).ue(2);
    // One reference frame, no gaps; size; frames only; direct 8x8; no cropping; no VUI.
    bits.ue(1).put(1, 0).ue(WIDTH - 1).ue(HEIGHT - 1);
    bits.put(1, 1).put(1, 1).put(1, 0).put(1, 0);
    bits.unit(0x67)
}

fn pps() -> Vec<u8> {
    let mut bits = Bits::default();
    // Ids 0, CAVLC, one slice group, one reference, no weights, QP 26, no deblocking control, no redundancy.
    bits.ue(0).ue(0).put(1, 0).put(1, 0).ue(0).ue(0).ue(0);
    bits.put(1, 0).put(2, 0).ue(0).ue(0).ue(0);
    bits.put(1, 0).put(1, 0).put(1, 0);
    bits.unit(0x68)
}

/// An IDR picture whose every macroblock is predicted flat and has nothing left to code.
fn key_slice(gop: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.ue(0).ue(7).ue(0).put(FRAME_NUM_BITS, 0);
    // IDR pictures next to each other differ in this number.
    bits.ue(gop % 2);
    // No reference marking to speak of; the QP of the PPS.
    bits.put(1, 0).put(1, 0).ue(0);
    for _ in 0..WIDTH * HEIGHT {
        // Intra 16x16, DC prediction, no coefficients; DC chroma; same QP; no DC coefficients.
        bits.ue(3).ue(0).ue(0).put(1, 1);
    }
    bits.unit(0x65)
}

/// A picture in which every macroblock is that of the picture before.
fn skipped_slice(in_gop: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    let number = in_gop % (1 << FRAME_NUM_BITS);
    bits.ue(0).ue(5).ue(0).put(FRAME_NUM_BITS, number);
    // One reference, in order; no marking; the QP of the PPS.
    bits.put(1, 0).put(1, 0).put(1, 0).ue(0);
    bits.ue(WIDTH * HEIGHT);
    bits.unit(0x41)
}

/// Bits, first one first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// The low `count` bits of `value`.
    fn put(&mut self, count: u32, value: u32) -> &mut Self {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> bit & 1 == 1
                && let Some(last) = self.bytes.last_mut()
            {
                *last |= 0x80 >> (self.used % 8);
            }
            self.used += 1;
        }
        self
    }

    /// An unsigned Exp-Golomb number; for 0 also the signed one.
    fn ue(&mut self, value: u32) -> &mut Self {
        let length = (value + 1).ilog2();
        self.put(length, 0).put(length + 1, value + 1)
    }

    /// All bits, the last byte filled up with zeros.
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A NAL unit of these bits, with trailing bits and emulation prevention.
    fn unit(&mut self, header: u8) -> Vec<u8> {
        self.put(1, 1);
        let mut out = vec![header];
        let mut zeros = 0;
        for &byte in &self.bytes {
            if zeros >= 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
        out
    }
}
