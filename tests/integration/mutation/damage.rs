//! Damages recorded bytes at random, in the ways in which bytes go wrong: on the wire, in encoders, and on purpose.

use bytes::{BufMut, BytesMut};
use linkmic::rtmp::chunk::{Limits, Message};
use linkmic::rtmp::kind;

use super::drive;
use crate::random::Random;

/// What is done to a recording.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// Some bits turn over.
    Bits,
    /// Some bytes become ones that are limits of something.
    Limits,
    /// AMF numbers become others: stream ids, transactions, sizes.
    Numbers,
    /// The rest is missing.
    Truncate,
    /// A part is missing.
    Leave,
    /// A part comes twice.
    Repeat,
    /// A part of another recording comes in between.
    Splice,
    /// The same messages in other chunks, shuffled, interleaved, some with a length that is a lie.
    Rechunk,
}

const ALL: [Damage; 8] = [
    Damage::Bits,
    Damage::Limits,
    Damage::Numbers,
    Damage::Truncate,
    Damage::Leave,
    Damage::Repeat,
    Damage::Splice,
    Damage::Rechunk,
];

/// Numbers that nobody should send where a small one belongs.
const NUMBERS: [f64; 9] = [
    0.0,
    -1.0,
    2.0,
    9.0,
    0.5,
    4_294_967_296.0,
    f64::MAX,
    f64::NAN,
    f64::NEG_INFINITY,
];

/// A damaged copy of one of `recordings`.
pub fn damaged(random: &mut Random, recordings: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = recordings[random.below(recordings.len())].clone();
    for _ in 0..=random.below(3) {
        let other = &recordings[random.below(recordings.len())];
        let damage = random.pick(&ALL);
        bytes = apply(random, damage, bytes, other);
    }
    bytes
}

fn apply(random: &mut Random, damage: Damage, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return other.to_vec();
    }
    match damage {
        Damage::Bits => {
            for _ in 0..=random.below(16) {
                let at = place(random, bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        Damage::Limits => {
            for _ in 0..=random.below(8) {
                let at = place(random, bytes.len());
                let length = random.pick(&[1, 2, 3, 4]).min(bytes.len() - at);
                let value = random.pick(&[0, 1, 0x7f, 0x80, 0xff]);
                bytes[at..at + length].fill(value);
            }
        }
        Damage::Numbers => {
            // The marker of a number and the upper byte of a small one.
            let found: Vec<usize> = bytes
                .windows(9)
                .enumerate()
                .filter(|(_, w)| w[0] == 0 && matches!(w[1], 0x3f | 0x40) && w[7..] == [0, 0])
                .map(|(at, _)| at + 1)
                .collect();
            for _ in 0..=random.below(3) {
                let Some(&at) = found.get(random.below(found.len().max(1))) else {
                    break;
                };
                let number = random.pick(&NUMBERS);
                bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
            }
        }
        Damage::Truncate => bytes.truncate(place(random, bytes.len())),
        Damage::Leave => {
            let range = part(random, bytes.len());
            bytes.drain(range);
        }
        Damage::Repeat => {
            let range = part(random, bytes.len());
            let twice = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, twice);
        }
        Damage::Splice => {
            let from = part(random, other.len().max(1));
            let into = place(random, bytes.len());
            let guest = other.get(from).unwrap_or_default().to_vec();
            bytes.splice(into..into, guest);
        }
        Damage::Rechunk => {
            let (messages, _) = drive::read(&bytes, bytes.len(), Limits::default());
            bytes = rechunk(random, messages);
        }
    }
    bytes
}

/// Somewhere in the first `length` bytes; mostly near the beginning or the end, where the commands are.
fn place(random: &mut Random, length: usize) -> usize {
    match random.below(4) {
        0 | 1 => random.below(length.min(2_000)),
        2 => length - 1 - random.below(length.min(400)),
        _ => random.below(length),
    }
}

fn part(random: &mut Random, length: usize) -> std::ops::Range<usize> {
    let start = place(random, length);
    let most = random.pick(&[4, 64, 1_500, 70_000]);
    start..(start + 1 + random.below(most)).min(length)
}

/// A message on its way out, chunk by chunk.
struct Open {
    chunk_stream: u8,
    message: Message,
    sent: usize,
}

/// Writes messages as a client of a strange kind would.
fn rechunk(random: &mut Random, messages: Vec<Message>) -> Vec<u8> {
    let mut out = BytesMut::new();
    let chunk_bytes = random.pick(&[1_usize, 7, 128, 1_000, 4_096, 65_536]);
    out.put_slice(&[2, 0, 0, 0, 0, 0, 4, kind::SET_CHUNK_SIZE, 0, 0, 0, 0]);
    out.put_u32(chunk_bytes as u32);
    let disorder = random.pick(&[4, 20, 1_000_000]);
    let lies = random.pick(&[10, 100, 1_000_000, 1_000_000]);
    let mut waiting: std::collections::VecDeque<Message> = messages.into();
    let mut open: Vec<Open> = Vec::new();
    // Small chunks make many bytes of few.
    while out.len() < 60_000 {
        if open.len() < 3 && (open.is_empty() || random.one_in(2)) {
            if random.one_in(disorder) && waiting.len() > 1 {
                let last = waiting.len() - 1;
                waiting.swap(0, 1 + random.below(last.min(5)));
            }
            if let Some(message) = waiting.pop_front() {
                if random.one_in(disorder) {
                    waiting.push_front(message.clone());
                }
                let chunk_stream = match message.type_id {
                    kind::AUDIO => 4,
                    kind::VIDEO => 6,
                    kind::DATA => 5,
                    _ => 3,
                };
                let free = open.iter().all(|o| o.chunk_stream != chunk_stream);
                if free || random.one_in(disorder) {
                    open.push(Open {
                        chunk_stream,
                        message,
                        sent: 0,
                    });
                } else {
                    waiting.push_front(message);
                }
            }
        }
        if open.is_empty() {
            break;
        }
        let at = random.below(open.len());
        let Open {
            chunk_stream,
            message,
            sent,
        } = &mut open[at];
        if *sent == 0 {
            let mut length = message.payload.len() as u32;
            if random.one_in(lies) {
                length = random.pick(&[0, 1, length + 1, length / 2, 0xff_ffff, 100_000]);
            }
            header(random, &mut out, *chunk_stream, message, length);
        } else {
            out.put_u8(0xc0 | *chunk_stream);
            if message.timestamp >= 0xff_ffff && !random.one_in(4) {
                out.put_u32(message.timestamp);
            }
        }
        let end = (*sent + chunk_bytes).min(message.payload.len());
        out.put_slice(&message.payload[*sent..end]);
        *sent = end;
        if end == message.payload.len() {
            open.swap_remove(at);
        }
    }
    out.to_vec()
}

/// A header of type 0, now and then of type 1 to 3, whether or not that is allowed here.
fn header(
    random: &mut Random,
    out: &mut BytesMut,
    chunk_stream: u8,
    message: &Message,
    length: u32,
) {
    let format = if random.one_in(6) {
        random.below(4) as u8
    } else {
        0
    };
    out.put_u8(format << 6 | chunk_stream);
    let time = match format {
        0 => message.timestamp,
        _ => random.pick(&[0, 20, 40, 0xff_ffff]),
    };
    if format < 3 {
        out.put_slice(&time.min(0xff_ffff).to_be_bytes()[1..]);
    }
    if format < 2 {
        out.put_slice(&length.to_be_bytes()[1..]);
        out.put_u8(message.type_id);
    }
    if format == 0 {
        out.put_u32_le(message.stream_id);
    }
    if format < 3 && time >= 0xff_ffff {
        out.put_u32(time);
    }
}
