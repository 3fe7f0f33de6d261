//! FLV tags as an HTTP answer carries them: header and trailer bytes beside a shared payload.
//!
//! Source: Adobe, Video File Format Specification version 10.1, Annex E (E.2 header, E.3 body, E.4.1 tag); chunked
//! transfer coding, RFC 9112, section 7.1. An RTMP message body is the body of an FLV tag of the same type, so the
//! payload travels as it is. Knows neither rings nor sockets; called by the relay's items and by HTTP playback.

use bytes::Bytes;

use super::{Kind, MediaTime};

/// What a stream begins with: signature, version 1, "audio and video", header length, and the size of no tag.
pub const FILE_HEADER: [u8; 13] = *b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

/// The longest body whose length fits a tag's 24 bits.
pub const MAX_BODY_BYTES: usize = 0xff_ffff;

const TAG_HEADER_BYTES: usize = 11;
/// Seven hexadecimal digits (a whole tag is at most 0x100000e bytes), CR LF.
const SIZE_LINE_BYTES: usize = 9;
const PREVIOUS_SIZE_BYTES: usize = 4;
/// Size of the tag before, CR LF.
const TRAILER_BYTES: usize = PREVIOUS_SIZE_BYTES + 2;

/// One tag and the size field behind it as one HTTP chunk, decodable whatever was sent before it.
#[derive(Clone)]
pub struct Tag {
    header: [u8; SIZE_LINE_BYTES + TAG_HEADER_BYTES],
    header_len: u8,
    trailer: [u8; TRAILER_BYTES],
    body: Bytes,
}

impl Tag {
    /// Frames `body` at `dts`, whose low 32 bits are what a tag holds. Nothing is copied or allocated.
    ///
    /// A body longer than [`MAX_BODY_BYTES`] has no representation; the limits of a connection keep such a message
    /// from coming into being. Should one be made, it becomes an empty tag, which costs that message and not the
    /// stream.
    pub fn new(kind: Kind, dts: MediaTime, body: Bytes) -> Self {
        debug_assert!(body.len() <= MAX_BODY_BYTES);
        let body = if body.len() > MAX_BODY_BYTES {
            Bytes::new()
        } else {
            body
        };
        let tag_len = TAG_HEADER_BYTES + body.len();
        let chunk_len = tag_len + 4;
        let mut tag = Self {
            header: [0; SIZE_LINE_BYTES + TAG_HEADER_BYTES],
            header_len: 0,
            trailer: [0, 0, 0, 0, b'\r', b'\n'],
            body,
        };
        let digits = (chunk_len.ilog2() / 4 + 1) as usize;
        for place in (0..digits).rev() {
            tag.append(&[b"0123456789abcdef"[chunk_len >> (4 * place) & 0xf]]);
        }
        tag.append(b"\r\n");
        tag.append(&[kind.type_id()]);
        tag.append(&(tag.body.len() as u32).to_be_bytes()[1..]);
        let [high, low @ ..] = dts.wire().to_be_bytes();
        tag.append(&low);
        // The timestamp's upper eight bits, then a stream id that is always 0.
        tag.append(&[high, 0, 0, 0]);
        tag.trailer[..4].copy_from_slice(&(tag_len as u32).to_be_bytes());
        tag
    }

    fn append(&mut self, bytes: &[u8]) {
        let at = usize::from(self.header_len);
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self.header_len += bytes.len() as u8;
    }

    /// Bytes on the wire, chunk framing included. Never 0.
    #[allow(clippy::len_without_is_empty)] // a tag always has a header
    pub fn len(&self) -> usize {
        usize::from(self.header_len) + self.body.len() + TRAILER_BYTES
    }

    /// The parts that make up the wire form, in order.
    pub fn parts(&self) -> [&[u8]; 3] {
        let header = &self.header[..usize::from(self.header_len)];
        [header, &self.body, &self.trailer]
    }

    /// As [`Self::len`], without chunk framing.
    pub fn bare_len(&self) -> usize {
        TAG_HEADER_BYTES + self.body.len() + PREVIOUS_SIZE_BYTES
    }

    /// As [`Self::parts`], without chunk framing: for clients of HTTP/1.0.
    pub fn bare_parts(&self) -> [&[u8]; 3] {
        let header_len = usize::from(self.header_len);
        let header = &self.header[header_len - TAG_HEADER_BYTES..header_len];
        [header, &self.body, &self.trailer[..PREVIOUS_SIZE_BYTES]]
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("flv::Tag")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(kind: Kind, dts: i64, body: &'static [u8]) -> Vec<u8> {
        let tag = Tag::new(kind, MediaTime(dts), Bytes::from_static(body));
        let bytes = tag.parts().concat();
        assert_eq!(bytes.len(), tag.len());
        bytes
    }

    #[test]
    fn a_video_tag_is_one_http_chunk() {
        // 11 + 5 + 4 = 20 = 0x14 bytes in the chunk; 11 + 5 = 16 is the size of the tag.
        let expected = [
            b"14\r\n".as_slice(),
            &[9, 0, 0, 5, 0x01, 0x02, 0x03, 0, 0, 0, 0],
            &[0x17, 1, 0, 0, 0],
            &[0, 0, 0, 16],
            b"\r\n",
        ];
        let got = wire(Kind::Video, 0x01_0203, &[0x17, 1, 0, 0, 0]);
        assert_eq!(got, expected.concat());
    }

    #[test]
    fn a_timestamp_of_more_than_24_bits_has_its_top_in_the_extended_byte() {
        let header = |dts| wire(Kind::Audio, dts, &[0xaf, 1])[4..15].to_vec();
        assert_eq!(
            header(0xff_ffff),
            [8, 0, 0, 2, 0xff, 0xff, 0xff, 0, 0, 0, 0]
        );
        assert_eq!(header(0x100_0000), [8, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(
            header(0xfedc_ba98),
            [8, 0, 0, 2, 0xdc, 0xba, 0x98, 0xfe, 0, 0, 0]
        );
        // 32 bits are all there is: then it begins again.
        assert_eq!(header(0x1_0000_0001), [8, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn script_data_is_tag_18_and_an_empty_body_is_a_tag() {
        assert_eq!(wire(Kind::Data, 0, b"\x02\0\x0aonMetaData")[4], 18);
        let expected = b"f\r\n\x12\0\0\0\0\0\0\0\0\0\0\0\0\0\x0b\r\n";
        assert_eq!(wire(Kind::Data, 0, b""), expected);
    }

    #[test]
    fn without_chunks_the_tag_is_the_same() {
        for length in [0, 5, 300] {
            let tag = Tag::new(Kind::Video, MediaTime(7), vec![1; length].into());
            let (whole, bare) = (tag.parts().concat(), tag.bare_parts().concat());
            let line_end = whole.iter().position(|&b| b == b'\n').unwrap();
            assert_eq!(bare, whole[line_end + 1..whole.len() - 2]);
            assert_eq!(bare.len(), tag.bare_len());
        }
    }

    #[test]
    fn the_longest_body_fits_and_is_shared() {
        let body = Bytes::from(vec![7; MAX_BODY_BYTES]);
        let tag = Tag::new(Kind::Video, MediaTime::ZERO, body.clone());
        let [header, shared, trailer] = tag.parts();
        assert!(header.starts_with(b"100000e\r\n\x09\xff\xff\xff"));
        assert_eq!(shared.as_ptr(), body.as_ptr());
        assert_eq!(trailer, [1, 0, 0, 10, b'\r', b'\n']);
    }
}
