//! Aggregate messages (type 22): FLV tags in a row, handed out as the messages they stand for.

use bytes::{Buf, Bytes};

use super::{Error, Message};
use crate::rtmp::kind;

/// Type (1), size (3), timestamp (3 + 1), stream id (3): the head of an FLV tag.
const TAG_HEAD_BYTES: usize = 11;
/// The size of the tag just read, written again behind it.
const BACK_POINTER_BYTES: usize = 4;

/// The rest of one aggregate message.
pub(super) struct Aggregate {
    stream_id: u32,
    timestamp: u32,
    /// What to add to a tag's timestamp: the first tag lies at the message's own (RTMP 1.0, section 7.1.6).
    offset: Option<u32>,
    rest: Bytes,
}

impl Aggregate {
    pub(super) fn new(message: Message) -> Self {
        Self {
            stream_id: message.stream_id,
            timestamp: message.timestamp,
            offset: None,
            rest: message.payload,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Message>, Error> {
        let Some(&type_id) = self.rest.first() else {
            return Ok(None);
        };
        if !matches!(
            type_id,
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3
        ) {
            return Err(Error::AggregateTag(type_id));
        }
        let short = |needed, left| Err(Error::ShortAggregate { needed, left });
        let Some(head) = self.rest.first_chunk::<TAG_HEAD_BYTES>() else {
            return short(TAG_HEAD_BYTES, self.rest.len());
        };
        let size = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let time = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        self.rest.advance(TAG_HEAD_BYTES);
        if self.rest.len() < size {
            return short(size, self.rest.len());
        }
        let payload = self.rest.split_to(size);
        // Some senders leave the last one out.
        self.rest.advance(BACK_POINTER_BYTES.min(self.rest.len()));
        let offset = *self.offset.get_or_insert(self.timestamp.wrapping_sub(time));
        Ok(Some(Message {
            type_id,
            stream_id: self.stream_id,
            timestamp: time.wrapping_add(offset),
            payload,
        }))
    }
}
