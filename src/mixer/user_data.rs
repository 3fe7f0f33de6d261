//! SEI messages of user data: the mix's own text is written as one, those of a main are taken from its access units and
//! put into the program's.
//!
//! | source | version | covered |
//! |---|---|---|
//! | ITU-T H.264 | 08/2021, 7.3.1, 7.3.2.3, 7.3.5, D.1.6, D.1.7 | NAL units, SEI messages of payload types 4 and 5 |
//! | ITU-T H.265 | 08/2021, 7.3.1.2, 7.3.5, D.2.1 | the same in prefix SEI |
//!
//! Other SEI messages tell of the bits that they stand in (buffering, timing, recovery), which the mix makes anew. Pure;
//! times are whoever's asks, and none is changed. Called by [`feed`](super::feed), which has the access units, by
//! [`source`](super::source) and [`input`](super::input), which carry what was taken, and by [`output`](super::output).

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Codec;

/// By this the mix's text is known among other user data.
pub const TEXT_ID: [u8; 16] = [
    0x6c, 0x69, 0x6e, 0x6b, 0x6d, 0x69, 0x63, 0x2d, 0xa7, 0x1d, 0x4e, 0x50, 0x8f, 0x3b, 0x21, 0xc4,
];
/// x264 tells with it how it was set up for its own bits, once a stream; readers of it work around old versions' faults,
/// which ours are not.
const X264_ID: [u8; 16] = [
    0xdc, 0x45, 0xe9, 0xbd, 0xe6, 0xd9, 0x48, 0xb7, 0x96, 0x2c, 0xd8, 0x20, 0xd9, 0x23, 0xee, 0xef,
];
/// Bytes of messages that one picture may have, with their heads: more than captions and stamps need, and at 30 pictures a
/// second at most 1 Mbit/s beside what the encoder was allowed.
pub const MAX_BYTES: usize = 4_096;
/// Pictures whose messages may wait to be shown: what B-frames and a decoder that is a second behind ask for.
const MAX_WAITING: usize = 64;

const H264_SEI: u8 = 6;
const HEVC_PREFIX_SEI: u8 = 39;
const REGISTERED: u32 = 4;
const UNREGISTERED: u32 = 5;
/// The stop bit, and zeros up to the byte's end.
const TRAILING: u8 = 0x80;

/// The messages of user data in an access unit of NAL units behind lengths of `length_bytes`, as they stand in SEI before
/// emulation prevention; empty when there are none. What is damaged is left out, and what exceeds [`MAX_BYTES`].
pub fn messages(codec: Codec, length_bytes: usize, unit: &[u8]) -> Bytes {
    let mut taken = BytesMut::new();
    let units = Units {
        rest: unit,
        length_bytes,
    };
    for nal in units {
        let sei = match (codec, nal) {
            (Codec::H264, [head, sei @ ..]) if head & 31 == H264_SEI => sei,
            (Codec::Hevc, [head, _, sei @ ..]) if head >> 1 & 63 == HEVC_PREFIX_SEI => sei,
            _ => continue,
        };
        let plain = without_prevention(sei);
        let mut rest = plain.as_ref();
        while let Some((message, after)) = next_message(rest) {
            let is_user_data = matches!(message.kind, REGISTERED | UNREGISTERED);
            let is_x264 = message.kind == UNREGISTERED && message.payload.starts_with(&X264_ID);
            let fits = taken.len() + message.whole.len() <= MAX_BYTES;
            if is_user_data && !is_x264 && fits {
                taken.put_slice(message.whole);
            }
            rest = after;
        }
    }
    taken.freeze()
}

/// A text as a message of user data.
pub fn text(text: &[u8]) -> Bytes {
    let size = TEXT_ID.len() + text.len();
    let mut message = vec![UNREGISTERED as u8];
    message.extend(std::iter::repeat_n(0xff, size / 255));
    message.push((size % 255) as u8);
    message.extend_from_slice(&TEXT_ID);
    message.extend_from_slice(text);
    message.into()
}

/// Messages as a NAL unit of H.264 behind the four bytes of its length; nothing for no message.
pub fn unit(messages: &[u8]) -> Bytes {
    if messages.is_empty() {
        return Bytes::new();
    }
    let mut unit = BytesMut::with_capacity(6 + messages.len());
    unit.put_u32(0);
    let mut zeros = 0;
    let sei = [H264_SEI].into_iter().chain(messages.iter().copied());
    for byte in sei.chain([TRAILING]) {
        // Nothing in a unit may look like a start code.
        if zeros >= 2 && byte <= 3 {
            unit.put_u8(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        unit.put_u8(byte);
    }
    let length = (unit.len() - 4) as u32;
    unit[..4].copy_from_slice(&length.to_be_bytes());
    unit.freeze()
}

/// Those of one picture behind those of another; of both the first [`MAX_BYTES`], whole messages only.
pub fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() || second.is_empty() {
        return if first.is_empty() { second } else { first };
    }
    let mut both = BytesMut::from(first);
    let mut rest = second.as_ref();
    while let Some((message, after)) = next_message(rest) {
        if both.len() + message.whole.len() <= MAX_BYTES {
            both.put_slice(message.whole);
        }
        rest = after;
    }
    both.freeze()
}

/// NAL units behind their lengths; ends where a length leads out of the access unit.
struct Units<'a> {
    rest: &'a [u8],
    length_bytes: usize,
}

impl<'a> Iterator for Units<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.length_bytes == 0 {
            // They would go on for ever.
            return None;
        }
        let (length, after) = self.rest.split_at_checked(self.length_bytes)?;
        let length = length
            .iter()
            .fold(0usize, |sum, b| sum << 8 | usize::from(*b));
        let (nal, after) = after.split_at_checked(length)?;
        self.rest = after;
        Some(nal)
    }
}

/// One SEI message.
struct Message<'a> {
    kind: u32,
    payload: &'a [u8],
    /// With its head.
    whole: &'a [u8],
}

/// The message that `sei` begins with, and what follows it; `None` at the end, and where it is cut short.
fn next_message(sei: &[u8]) -> Option<(Message<'_>, &[u8])> {
    if sei.is_empty() || *sei == [TRAILING] {
        return None;
    }
    let mut at = 0;
    let mut number = || {
        let mut sum = 0u32;
        loop {
            let byte = *sei.get(at)?;
            at += 1;
            sum = sum.checked_add(u32::from(byte))?;
            if byte != 0xff {
                return Some(sum);
            }
        }
    };
    let (kind, size) = (number()?, number()?);
    let end = at.checked_add(size as usize)?;
    let message = Message {
        kind,
        payload: sei.get(at..end)?,
        whole: sei.get(..end)?,
    };
    Some((message, sei.get(end..)?))
}

/// A NAL unit's payload without the bytes that keep it from looking like a start code.
fn without_prevention(nal: &[u8]) -> Cow<'_, [u8]> {
    if !nal.windows(3).any(|three| three == [0, 0, 3]) {
        return Cow::Borrowed(nal);
    }
    let (mut plain, mut zeros) = (Vec::with_capacity(nal.len()), 0);
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    Cow::Owned(plain)
}

/// Messages on their way with their pictures, by the pictures' times in µs.
#[derive(Debug, Default)]
pub struct Carried {
    waiting: VecDeque<(i64, Bytes)>,
}

impl Carried {
    /// Those of the picture of that time. The oldest go when too many wait.
    pub fn push(&mut self, time_us: i64, messages: Bytes) {
        if messages.is_empty() {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((time_us, messages));
    }

    /// As [`push`](Self::push), where pictures come in their order: those that wait for a later time are of a clock
    /// that was set back, and are due with this one.
    pub fn push_next(&mut self, time_us: i64, messages: Bytes) {
        for waiting in &mut self.waiting {
            waiting.0 = waiting.0.min(time_us);
        }
        self.push(time_us, messages);
    }

    /// Those of all pictures up to that time, by rising time: the picture of that time shows itself, those before it have
    /// or never will.
    pub fn take_until(&mut self, time_us: i64) -> Bytes {
        if self.waiting.iter().all(|(of, _)| *of > time_us) {
            return Bytes::new();
        }
        let (mut due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(of, _)| *of <= time_us);
        self.waiting = later.into();
        due.sort_by_key(|(of, _)| *of);
        let each = due.into_iter().map(|(_, messages)| messages);
        each.fold(Bytes::new(), joined)
    }

    /// Nobody wants them any more.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An access unit of those NAL units, behind lengths of four bytes.
    fn access_unit(nals: &[&[u8]]) -> Vec<u8> {
        let each = nals.iter().flat_map(|nal| {
            let length = (nal.len() as u32).to_be_bytes();
            length.into_iter().chain(nal.iter().copied())
        });
        each.collect()
    }

    fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, payload.len() as u8][..], payload].concat()
    }

    fn sei(messages: &[&[u8]]) -> Vec<u8> {
        [&[H264_SEI][..], &messages.concat(), &[TRAILING]].concat()
    }

    #[test]
    fn user_data_is_taken_and_what_tells_of_the_bits_is_left() {
        let (captions, stamp) = (
            message(4, b"\xb5captions"),
            message(5, b"0123456789abcdef stamp"),
        );
        let (buffering, timing, recovery) = (message(0, b"b"), message(1, b"tt"), message(6, b"r"));
        let x264 = message(5, &[&X264_ID[..], b"x264 - core 164"].concat());
        let several = sei(&[&buffering, &captions, &timing, &x264]);
        let unit = access_unit(&[
            &[9, 0xf0],
            &several,
            &sei(&[&stamp, &recovery]),
            &[0x65, 6, 5],
        ]);
        let both = [&captions[..], &stamp].concat();
        assert_eq!(messages(Codec::H264, 4, &unit), both);
        assert_eq!(messages(Codec::H264, 4, &access_unit(&[&[0x41, 6, 5]])), "");
        // Lengths of two bytes.
        let nal = sei(&[&stamp]);
        let short = [&(nal.len() as u16).to_be_bytes()[..], &nal].concat();
        assert_eq!(messages(Codec::H264, 2, &short), stamp);
        // HEVC has two bytes of head, and the type further left.
        let hevc = [&[HEVC_PREFIX_SEI << 1, 1][..], &stamp, &[TRAILING]].concat();
        assert_eq!(messages(Codec::Hevc, 4, &access_unit(&[&hevc])), stamp);
        assert_eq!(messages(Codec::Av1, 4, &unit), "");
    }

    #[test]
    fn what_is_damaged_or_too_much_is_left_out() {
        let stamp = message(5, b"0123456789abcdef");
        let whole = access_unit(&[&sei(&[&stamp, &stamp])]);
        for end in 0..whole.len() {
            // At any place: nothing that was not there, and no panic.
            let taken = messages(Codec::H264, 4, &whole[..end]);
            assert!(taken.is_empty(), "cut at {end}: {taken:?}");
        }
        for length_bytes in [0, 1, 2, 3] {
            messages(Codec::H264, length_bytes, &whole);
        }
        // The second claims more than there is; 0xff bytes without an end add up to nothing.
        let mut lies = sei(&[&stamp, &stamp]);
        lies[1 + stamp.len() + 1] = 200;
        assert_eq!(messages(Codec::H264, 4, &access_unit(&[&lies])), stamp);
        let endless = [&[H264_SEI][..], &[0xff; 100]].concat();
        assert_eq!(messages(Codec::H264, 4, &access_unit(&[&endless])), "");
        // 200 bytes and 3 of head each: 20 of them are 4,060.
        let long = message(5, &[7; 200]);
        let many = access_unit(&[&sei(&[&long[..]; 30])]);
        assert_eq!(messages(Codec::H264, 4, &many).len(), 20 * long.len());
    }

    #[test]
    fn units_never_look_like_a_start_code_and_are_read_as_they_were_written() {
        let written = unit(&text(b"a\0\0\0\x01b"));
        // Length, header, type, 16 + 6 bytes, id.
        assert_eq!(written[..7], [0, 0, 0, written.len() as u8 - 4, 6, 5, 22]);
        assert_eq!(written[7..23], TEXT_ID);
        assert_eq!(written[23..], *b"a\0\0\x03\0\x01b\x80");
        // 16 + 500 = 2 × 255 + 6.
        assert_eq!(unit(&text(&[7; 500]))[5..9], [5, 255, 255, 6]);
        for size in [0, 1, 238, 239, 240, 700] {
            let message = text(&[0, 0, 0, 1, 2, 3].repeat(size)[..size]);
            assert_eq!(messages(Codec::H264, 4, &unit(&message)), message, "{size}");
        }
        assert_eq!(unit(b""), "");
    }

    #[test]
    fn messages_come_out_with_their_picture_however_it_was_reordered() {
        let mut carried = Carried::default();
        let of = |n: u8| Bytes::from(message(5, &[n; 16]));
        // Decoded as 0, 3, 1, 2.
        for n in [0, 3, 1, 2] {
            carried.push(n, of(n as u8));
        }
        assert_eq!(carried.take_until(-1), "");
        assert_eq!(carried.take_until(0), of(0));
        // Picture 1 was never shown: what it had goes with 2.
        assert_eq!(carried.take_until(2), [of(1), of(2)].concat());
        assert_eq!(carried.take_until(2), "");
        assert_eq!(carried.take_until(9), of(3));
    }

    #[test]
    fn a_clock_set_back_holds_nothing_back_and_nothing_grows() {
        let mut carried = Carried::default();
        let of = |n: u8| Bytes::from(message(5, &[n; 16]));
        carried.push_next(5_000, of(1));
        carried.push_next(100, of(2));
        assert_eq!(carried.take_until(100), [of(1), of(2)].concat());
        for n in 0..1_000 {
            carried.push(n, of(3));
            carried.push(n, Bytes::new());
        }
        assert_eq!(carried.waiting.len(), MAX_WAITING);
        let all = carried.take_until(1_000);
        assert_eq!(all.len(), MAX_WAITING * of(3).len());
        carried.push(0, vec![5; MAX_BYTES].into());
        carried.push(1, of(4));
        assert_eq!(carried.take_until(1).len(), MAX_BYTES);
    }
}
