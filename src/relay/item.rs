//! One message as a ring keeps it, with its framings built once on demand.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::media::flv::Tag;
use crate::media::{Headers, Kind, Message};
use crate::rtmp::frame::{Framed, MEDIA_STREAM_ID};

/// The body of a tag of AVC with one NAL unit: end of sequence (ITU-T H.264, 7.3.2.5), behind a length of four bytes, which
/// reads the same where lengths are shorter. Its frame type is 5, a command, which ffmpeg's demuxer passes over; its parser
/// would complain of a unit without a picture.
const END_OF_SEQUENCE: [u8; 10] = [0x57, 1, 0, 0, 0, 0, 0, 0, 1, 10];

/// How messages travel to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// RTMP chunks on this message stream.
    Rtmp { stream_id: u32 },
    /// FLV tags, each a chunk of an HTTP answer.
    Flv,
    /// FLV tags as they are, for answers that end with the connection.
    BareFlv,
}

impl Framing {
    /// RTMP as nearly every client plays it: on the first message stream that it creates.
    pub const RTMP: Self = Self::Rtmp {
        stream_id: MEDIA_STREAM_ID,
    };
}

/// A message in a ring. Shared by every reader; the payload is stored once and each framing is a few
/// header bytes beside it.
#[derive(Debug)]
pub struct Item {
    message: Arc<Message>,
    /// Headers that belong to this message, when a reader may begin here.
    headers: Option<Arc<Headers>>,
    root: Option<u64>,
    ends_sequence: bool,
    rtmp: OnceLock<Framed>,
    flv: OnceLock<Tag>,
}

impl Item {
    pub fn new(message: Arc<Message>, headers: Option<Arc<Headers>>) -> Self {
        Self {
            message,
            headers,
            root: None,
            ends_sequence: false,
            rtmp: OnceLock::new(),
            flv: OnceLock::new(),
        }
    }

    /// The same with that [`Self::root`].
    pub(super) fn rooted(mut self, root: Option<u64>) -> Self {
        self.root = root;
        self
    }

    /// The same, a header of AVC that ends the coded video sequence before it, or not.
    pub(super) fn ending(mut self, ends_sequence: bool) -> Self {
        self.ends_sequence = ends_sequence;
        self
    }

    /// Does another coded video sequence of AVC end with this header?
    pub(super) fn ends_sequence(&self) -> bool {
        self.ends_sequence
    }

    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message itself, for another place that keeps it.
    pub(super) fn shared(&self) -> &Arc<Message> {
        &self.message
    }

    /// The header set to send before this message to a reader that begins here; `None` where nobody may begin.
    pub fn headers(&self) -> Option<&Arc<Headers>> {
        self.headers.as_ref()
    }

    /// Sequence number, in its ring, of what a reader must have been given to make use of this: its own where readers
    /// may begin, that of the key frame before it for a video track beside the main one. `None` for all else, which
    /// makes sense, or as much as it will, to whoever has begun.
    pub fn root(&self) -> Option<u64> {
        self.root
    }

    /// The message as RTMP chunks on [`MEDIA_STREAM_ID`].
    pub fn rtmp(&self) -> &Framed {
        self.rtmp.get_or_init(|| self.on(MEDIA_STREAM_ID))
    }

    /// The message as an FLV tag in an HTTP chunk.
    pub fn flv(&self) -> &Tag {
        self.flv.get_or_init(|| {
            let message = &self.message;
            Tag::new(message.kind, message.dts, message.payload.clone())
        })
    }

    /// What goes in front of [`Self::flv`], twice: mpegts.js (1.8.2) holds back the last one or two pictures until more come,
    /// and gives them to the browser behind the new header, by which they cannot be decoded. These are held back in their
    /// stead. To decoders they say what is true, and nothing else.
    fn end_of_sequence(&self) -> Option<Tag> {
        let body = Bytes::from_static(&END_OF_SEQUENCE);
        self.ends_sequence
            .then(|| Tag::new(Kind::Video, self.message.dts, body))
    }

    /// Bytes on the wire in that framing. Never 0.
    pub fn len_in(&self, framing: Framing) -> usize {
        let end = |len: fn(&Tag) -> usize| self.end_of_sequence().map_or(0, |end| 2 * len(&end));
        match framing {
            // The id has its four bytes whatever it is.
            Framing::Rtmp { .. } => self.rtmp().len(),
            Framing::Flv => self.flv().len() + end(Tag::len),
            Framing::BareFlv => self.flv().bare_len() + end(Tag::bare_len),
        }
    }

    /// Appends the wire form in that framing, from its byte `skip` on, until `out` is `limit` bytes long.
    ///
    /// The framings of which there is one for all are kept; RTMP on another message stream, which few clients ask
    /// for, is framed each time.
    pub fn write_in(&self, framing: Framing, mut skip: usize, limit: usize, out: &mut Vec<u8>) {
        let mut part = |part: &[u8]| {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            let room = limit.saturating_sub(out.len());
            out.extend_from_slice(&rest[..rest.len().min(room)]);
        };
        match framing {
            Framing::RTMP => self.rtmp().for_each_part(0, part),
            Framing::Rtmp { stream_id } => self.on(stream_id).for_each_part(0, part),
            Framing::Flv | Framing::BareFlv => {
                let end = self.end_of_sequence();
                for tag in end.iter().chain(&end).chain([self.flv()]) {
                    match framing {
                        Framing::Flv => tag.parts().into_iter().for_each(&mut part),
                        _ => tag.bare_parts().into_iter().for_each(&mut part),
                    }
                }
            }
        }
    }

    fn on(&self, stream_id: u32) -> Framed {
        let message = &self.message;
        Framed::new(
            message.kind.type_id(),
            message.dts.wire(),
            stream_id,
            message.payload.clone(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Kind, MediaTime};
    use crate::rtmp::CHUNK_BYTES;

    fn item(payload: Vec<u8>) -> Item {
        let message = Message::new(Kind::Video, MediaTime(0x100_0000), payload.into());
        Item::new(Arc::new(message), None)
    }

    fn wire(item: &Item, framing: Framing) -> Vec<u8> {
        let mut out = Vec::new();
        item.write_in(framing, 0, usize::MAX, &mut out);
        assert_eq!(out.len(), item.len_in(framing));
        out
    }

    #[test]
    fn any_piece_of_any_framing_is_a_piece_of_the_whole() {
        for length in [0, 5, 2 * CHUNK_BYTES + 1] {
            let item = item(vec![0x27; length]).ending(length == 5);
            for framing in [
                Framing::RTMP,
                Framing::Rtmp { stream_id: 7 },
                Framing::Flv,
                Framing::BareFlv,
            ] {
                let whole = wire(&item, framing);
                for skip in (0..whole.len()).step_by(1 + whole.len() / 97) {
                    for room in [0, 1, 20, whole.len()] {
                        let mut piece = vec![1, 2, 3];
                        item.write_in(framing, skip, 3 + room, &mut piece);
                        let expected = &whole[skip..(skip + room).min(whole.len())];
                        assert!(
                            piece[3..] == *expected,
                            "{framing:?} {length} {skip} {room}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn framings_differ_in_their_headers_and_share_one_payload() {
        let item = item(vec![0x27, 1, 0, 0, 0]);
        let extended = [6, 255, 255, 255, 0, 0, 5, 9, 1, 0, 0, 0, 1, 0, 0, 0];
        let mut expected = extended.to_vec();
        expected.extend([0x27, 1, 0, 0, 0]);
        assert_eq!(wire(&item, Framing::RTMP), expected);
        expected[8] = 7;
        assert_eq!(wire(&item, Framing::Rtmp { stream_id: 7 }), expected);
        let tag = b"14\r\n\x09\0\0\x05\0\0\0\x01\0\0\0\x27\x01\0\0\0\0\0\0\x10\r\n";
        assert_eq!(wire(&item, Framing::Flv), tag);
        let payload: &Bytes = &item.message().payload;
        assert_eq!(item.rtmp().payload().as_ptr(), payload.as_ptr());
        assert_eq!(item.flv().parts()[1].as_ptr(), payload.as_ptr());
    }
}
