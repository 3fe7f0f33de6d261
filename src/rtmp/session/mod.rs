//! The conversation around the media: one state machine for each end of a connection.
//!
//! A session takes whole messages, returns what happened as an event, and queues its own answers for the
//! owner to send. It has no clock and no policy: who may publish or play is the owner's answer to an event.

pub mod client;
pub mod server;

use bytes::{Bytes, BytesMut};

use crate::rtmp::amf::Writer;
use crate::rtmp::{Framed, chunk, control, kind};

/// What a session has queued to be sent.
struct Outbox {
    bytes: BytesMut,
    /// Whether our chunk size is announced; until then longer messages go in the initial small chunks.
    announced: bool,
}

impl Outbox {
    fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            announced: false,
        }
    }

    fn send(&mut self, framed: &Framed) {
        framed.write_to(&mut self.bytes);
    }

    /// Announces window and chunk size, once.
    fn announce(&mut self) {
        if !self.announced {
            self.announced = true;
            self.send(&control::window());
            self.send(&control::peer_bandwidth());
            self.send(&control::chunk_size());
        }
    }

    fn command(&mut self, stream_id: u32, body: &mut Writer) {
        self.amf(kind::COMMAND, stream_id, body);
    }

    fn amf(&mut self, type_id: u8, stream_id: u32, body: &mut Writer) {
        let payload = body.finish();
        if self.announced {
            self.send(&Framed::new(type_id, 0, stream_id, payload));
        } else {
            let chunk = chunk::INITIAL_CHUNK_BYTES as u32;
            self.send(&Framed::with_chunk_bytes(
                type_id, 0, stream_id, payload, chunk,
            ));
        }
    }

    /// With the room that they are in: what is left of it would be kept for answers that may never come.
    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).freeze()
    }
}
