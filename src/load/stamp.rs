//! The stamp: a number and a time that travel inside a video frame, so that a player knows what it missed and how
//! old a frame is.
//!
//! | source | covered |
//! |---|---|
//! | ITU-T H.264, D.1.6 | SEI message `user_data_unregistered` (payload type 5) |
//! | ITU-T H.264, 7.4.1.2.3 | an access unit delimiter stays first in its access unit |
//!
//! A decoder skips an SEI message that it does not know, so a stamped stream still plays. The numbers are written in
//! groups of seven bits with the top bit set: no byte of them is 0, so none needs an emulation prevention byte.

use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};

/// Names our stamps among all unregistered user data.
const UUID: [u8; 16] = [
    0x9b, 0x1d, 0xe4, 0x6a, 0x57, 0xc2, 0x4f, 0x83, 0xb6, 0x0f, 0x2e, 0xd8, 0x71, 0xa5, 0x3c, 0x94,
];
/// Groups of seven bits that a 64-bit number takes.
const WORD: usize = 10;
/// Number, time, and the clock's name.
const BODY: usize = 3 * WORD;
/// NAL unit header, SEI payload type and size, UUID, body, trailing bits.
const UNIT: usize = 3 + UUID.len() + BODY + 1;
/// Bytes that a stamp adds to a frame.
pub const BYTES: usize = 4 + UNIT;
/// FLV's own bytes before the first NAL unit: frame type and codec, packet type, composition time.
const TAG: usize = 5;
/// How far into a frame a stamp is looked for: servers may put parameter sets before it.
const SEARCH: usize = 1024;

const NAL_SEI: u8 = 6;
const NAL_DELIMITER: u8 = 9;
const USER_DATA_UNREGISTERED: u8 = 5;

/// What a frame says about its sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The frame's number, counted from 0 by its publisher.
    pub sequence: u64,
    /// CLOCK_MONOTONIC when the frame was handed to the publisher's socket, ns.
    pub sent_ns: u64,
    /// Whose CLOCK_MONOTONIC that is: see [`clock`].
    pub clock: u64,
}

/// CLOCK_MONOTONIC in ns: since some moment at boot, the same for all processes of a machine.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock begins at 0 with the kernel and never goes back.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// A number for this machine's clock: stamps of another boot or another machine have another, and the difference of
/// two such times means nothing.
pub fn clock() -> u64 {
    static CLOCK: OnceLock<u64> = OnceLock::new();
    *CLOCK.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // FNV-1a; only equality matters.
        boot.trim()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    })
}

/// Whether a video payload is a coded H.264 picture: neither configuration nor end of sequence.
pub fn is_picture(payload: &[u8]) -> bool {
    payload.len() > TAG && payload[0] & 0x8f == 7 && payload[1] == 1
}

/// The picture with room for a stamp before its first NAL unit, or after it when that is a delimiter, and where in the
/// new bytes [`write`] puts the stamp. NAL units have lengths of four bytes.
pub fn make_room(payload: &[u8]) -> (Vec<u8>, usize) {
    let first = payload
        .get(TAG..TAG + 4)
        .and_then(|length| length.try_into().ok())
        .map_or(0, |length| u32::from_be_bytes(length) as usize);
    let after_first = TAG + 4 + first;
    let delimited = payload
        .get(TAG + 4)
        .is_some_and(|b| b & 0x1f == NAL_DELIMITER);
    let at = match delimited && after_first <= payload.len() {
        true => after_first,
        false => TAG.min(payload.len()),
    };
    let mut out = Vec::with_capacity(payload.len() + BYTES);
    out.extend_from_slice(&payload[..at]);
    out.extend_from_slice(&(UNIT as u32).to_be_bytes());
    let size = (UUID.len() + BODY) as u8;
    out.extend_from_slice(&[NAL_SEI, USER_DATA_UNREGISTERED, size]);
    out.extend_from_slice(&UUID);
    let body = out.len();
    out.resize(body + BODY, 0x80);
    out.push(0x80);
    out.extend_from_slice(&payload[at..]);
    (out, body)
}

/// Writes a stamp at the place that [`make_room`] gave.
pub fn write(payload: &mut [u8], at: usize, stamp: Stamp) {
    let words = [stamp.sequence, stamp.sent_ns, stamp.clock];
    let groups = payload.iter_mut().skip(at).take(BODY);
    for (index, byte) in groups.enumerate() {
        let shift = 7 * (WORD - 1 - index % WORD);
        *byte = 0x80 | (words[index / WORD] >> shift) as u8;
    }
}

/// The stamp of a video payload; `None` when it has none near its beginning.
pub fn read(payload: &[u8]) -> Option<Stamp> {
    let head = &payload[..payload.len().min(SEARCH)];
    // Where we put it, unless something came before it.
    let usual = TAG + 4 + 3;
    let at = match head.get(usual..usual + UUID.len()) == Some(&UUID) {
        true => usual,
        false => head.windows(UUID.len()).position(|w| w == UUID)?,
    };
    let body = payload.get(at + UUID.len()..at + UUID.len() + BODY)?;
    let word = |index: usize| {
        body[index * WORD..(index + 1) * WORD]
            .iter()
            .fold(0_u64, |word, byte| word << 7 | u64::from(byte & 0x7f))
    };
    Some(Stamp {
        sequence: word(0),
        sent_ns: word(1),
        clock: word(2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        sequence: 0x0123_4567_89ab_cdef,
        sent_ns: u64::MAX,
        clock: 0,
    };
    const PICTURE: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0xaa];
    const DELIMITED: &[u8] = &[
        0x17, 1, 0, 0, 0, 0, 0, 0, 2, 9, 0xf0, 0, 0, 0, 2, 0x65, 0xaa,
    ];

    fn stamped(picture: &[u8]) -> Vec<u8> {
        let (mut out, at) = make_room(picture);
        write(&mut out, at, STAMP);
        out
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        assert_eq!(read(&stamped(PICTURE)), Some(STAMP));
        assert_eq!(read(PICTURE), None);
    }

    #[test]
    fn a_delimiter_stays_first() {
        let out = stamped(DELIMITED);
        assert_eq!(out.len(), DELIMITED.len() + BYTES);
        assert_eq!(out[9] & 0x1f, NAL_DELIMITER);
        assert_eq!(out[15] & 0x1f, NAL_SEI);
        assert_eq!(read(&out), Some(STAMP));
    }

    #[test]
    fn nothing_in_a_stamp_looks_like_a_start_code() {
        let (mut out, at) = make_room(PICTURE);
        for value in [0, 1, 0x0102_0304, u64::MAX] {
            let stamp = Stamp {
                sequence: value,
                sent_ns: value,
                clock: value,
            };
            write(&mut out, at, stamp);
            assert!(!out[9..9 + UNIT].contains(&0));
        }
    }

    #[test]
    fn pictures_too_short_or_with_lengths_that_lie_do_no_harm() {
        for end in 0..DELIMITED.len() {
            let (out, at) = make_room(&DELIMITED[..end]);
            assert_eq!(out.len(), end + BYTES);
            assert!(at + BODY <= out.len());
        }
        for end in 0..stamped(PICTURE).len() {
            let _ = read(&stamped(PICTURE)[..end]);
        }
    }
}
