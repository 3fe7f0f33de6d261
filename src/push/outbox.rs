//! What waits for a target's socket: framed media and control bytes, written with as few calls as possible.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use crate::net::Socket;
use crate::rtmp::Framed;
use bytes::Bytes;

/// Slices given to one write. A message is two (header and payload) unless it is longer than a chunk; Linux takes 1024.
const MAX_SLICES: usize = 128;

enum Piece {
    Framed(Framed),
    Bytes(Bytes),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Framed(framed) => framed.len(),
            Piece::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Pieces in sending order. Payloads are shared with the feed's ring; only the headers are this queue's own.
#[derive(Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that the socket has taken already.
    taken: usize,
    /// Control bytes among the pieces, whole pieces counted.
    control: usize,
    /// Bytes that were ever pushed.
    pushed: u64,
    /// Bytes that the socket has taken.
    written: u64,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.pushed - self.written
    }

    /// Bytes that were pushed since the connection began.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    pub(super) fn push(&mut self, framed: Framed) {
        self.pushed += framed.len() as u64;
        self.pieces.push_back(Piece::Framed(framed));
    }

    /// Control bytes that wait, media not counted.
    pub(super) fn control_bytes(&self) -> usize {
        self.control
    }

    /// Control bytes. They follow whole messages and so never land inside one.
    pub(super) fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.control += bytes.len();
            self.pushed += bytes.len() as u64;
            self.pieces.push_back(Piece::Bytes(bytes));
        }
    }

    /// One write of as much as there is; returns what the socket took.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has no room; everything else ends the connection.
    pub(super) fn write(&mut self, socket: &Socket) -> io::Result<usize> {
        let written = {
            let mut slices = Vec::with_capacity(MAX_SLICES.min(self.pieces.len() * 2));
            self.slices(&mut slices);
            socket.try_write_vectored(&slices)?
        };
        if written == 0 && !self.pieces.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(written)
    }

    /// The media that waits.
    #[cfg(test)]
    pub(super) fn framed(&self) -> impl Iterator<Item = &Framed> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Framed(framed) => Some(framed),
            Piece::Bytes(_) => None,
        })
    }

    fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        let mut skip = self.taken;
        for piece in &self.pieces {
            match piece {
                Piece::Framed(framed) => framed.append_slices(skip, out),
                Piece::Bytes(bytes) => out.push(IoSlice::new(&bytes[skip.min(bytes.len())..])),
            }
            skip = 0;
            if out.len() >= MAX_SLICES {
                out.truncate(MAX_SLICES);
                return;
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.written += written as u64;
        while let Some(first) = self.pieces.front() {
            let left = first.len() - self.taken;
            if written < left {
                self.taken += written;
                return;
            }
            written -= left;
            self.taken = 0;
            if let Some(Piece::Bytes(bytes)) = self.pieces.pop_front() {
                self.control -= bytes.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp::{MEDIA_STREAM_ID, kind};
    use bytes::BytesMut;

    #[test]
    fn whatever_the_socket_takes_at_a_time_it_gets_every_byte_once_and_in_order() {
        let long = Bytes::from(vec![7; 200_000]);
        let message = |kind, payload: Bytes| Framed::new(kind, 40, MEDIA_STREAM_ID, payload);
        for step in [1, 2, 11, 12, 13, 1_000, 65_549, 1_000_000] {
            let mut outbox = Outbox::default();
            let mut expected = BytesMut::new();
            for n in 0..50u8 {
                let framed = message(kind::AUDIO, vec![n; 10].into());
                framed.write_to(&mut expected);
                outbox.push(framed);
            }
            outbox.push_bytes(Bytes::from_static(b"control"));
            outbox.push_bytes(Bytes::new());
            expected.extend_from_slice(b"control");
            let framed = message(kind::VIDEO, long.clone());
            framed.write_to(&mut expected);
            outbox.push(framed);

            let mut sent = Vec::new();
            while !outbox.is_empty() {
                let mut taken = 0;
                let mut slices = Vec::new();
                outbox.slices(&mut slices);
                assert!(slices.len() <= MAX_SLICES);
                for slice in &slices {
                    let part = &slice[..slice.len().min(step - taken)];
                    sent.extend_from_slice(part);
                    taken += part.len();
                }
                drop(slices);
                assert!(taken > 0);
                outbox.advance(taken);
            }
            assert_eq!(sent, expected, "step {step}");
            assert_eq!((outbox.control_bytes(), outbox.bytes()), (0, 0));
            assert_eq!(outbox.pushed(), expected.len() as u64);
        }
    }
}
