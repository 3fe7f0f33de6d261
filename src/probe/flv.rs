//! FLV files taken apart, to compare what was sent with what arrived, byte for byte.

use super::Error;

/// One tag: 8 audio, 9 video, 18 script data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag {
    pub kind: u8,
    /// Decode time, ms, as written.
    pub time: u32,
    pub body: Vec<u8>,
}

impl Tag {
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const SCRIPT: u8 = 18;

    /// Whether it is a decoder configuration (AVC or AAC sequence header).
    pub fn is_header(&self) -> bool {
        match self.kind {
            Self::VIDEO => self.body.get(1) == Some(&0) && self.body[0] & 0x8f == 7,
            Self::AUDIO => self.body.get(1) == Some(&0) && self.body[0] >> 4 == 10,
            _ => false,
        }
    }

    /// Whether it is a video frame that decodes alone.
    pub fn is_key_frame(&self) -> bool {
        self.kind == Self::VIDEO
            && self.body.first().is_some_and(|b| b >> 4 == 1)
            && !self.is_header()
    }

    /// Whether it is media proper: no script data, no decoder configuration, no end of sequence.
    pub fn is_media(&self) -> bool {
        let end = self.kind == Self::VIDEO && self.body.get(1) == Some(&2);
        self.kind != Self::SCRIPT && !self.is_header() && !end
    }
}

/// All whole tags of a file; a tag cut off at the end, as a stopped recorder leaves it, is left out.
///
/// # Errors
/// [`Error::Flv`] where the bytes are not FLV.
pub fn tags(bytes: &[u8]) -> Result<Vec<Tag>, Error> {
    if !bytes.starts_with(b"FLV\x01") {
        return Err(Error::Flv {
            at: 0,
            what: "no FLV signature",
        });
    }
    let mut at = 9 + 4;
    let mut tags = Vec::new();
    while let Some(head) = bytes.get(at..at + 11) {
        let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        let Some(body) = bytes.get(at + 11..at + 11 + length) else {
            break;
        };
        if !matches!(head[0], Tag::AUDIO | Tag::VIDEO | Tag::SCRIPT) {
            return Err(Error::Flv {
                at,
                what: "unknown tag type",
            });
        }
        let Some(back) = bytes.get(at + 11 + length..at + 15 + length) else {
            break;
        };
        let expected = (11 + length as u32).to_be_bytes();
        // rtmpdump writes the size of the body alone in some of its tags.
        if back != expected && back != (length as u32).to_be_bytes() {
            return Err(Error::Flv {
                at,
                what: "the size after the tag is not that of the tag",
            });
        }
        tags.push(Tag {
            kind: head[0],
            time: u32::from_be_bytes([head[7], head[4], head[5], head[6]]),
            body: body.to_vec(),
        });
        at += 15 + length;
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tags: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (kind, time, body) in tags {
            let [_, l0, l1, l2] = (body.len() as u32).to_be_bytes();
            let [t3, t0, t1, t2] = time.to_be_bytes();
            out.extend([*kind, l0, l1, l2, t0, t1, t2, t3, 0, 0, 0]);
            out.extend(*body);
            out.extend((11 + body.len() as u32).to_be_bytes());
        }
        out
    }

    #[test]
    fn tags_come_out_with_kind_time_and_body() {
        let bytes = file(&[
            (9, 0, b"\x17\x00\0\0\0conf"),
            (8, 0, b"\xaf\x00\x11\x90"),
            (9, 0x0123_4567, b"\x17\x01\0\0\0idr"),
            (8, 3, b"\xaf\x01aac"),
            (9, 4, b"\x27\x01\0\0\0p"),
            (9, 5, b"\x17\x02\0\0\0"),
        ]);
        let tags = tags(&bytes).expect("FLV");
        assert_eq!(tags[2].time, 0x0123_4567);
        let flags = |f: fn(&Tag) -> bool| tags.iter().map(f).collect::<Vec<_>>();
        assert_eq!(
            flags(Tag::is_header),
            [true, true, false, false, false, false]
        );
        assert_eq!(
            flags(Tag::is_media),
            [false, false, true, true, true, false]
        );
        assert!(tags[2].is_key_frame() && !tags[4].is_key_frame() && !tags[0].is_key_frame());
    }

    #[test]
    fn a_file_cut_anywhere_gives_its_whole_tags() {
        let bytes = file(&[(8, 0, b"\xaf\x01abc"), (9, 1, b"\x27\x01\0\0\0p")]);
        for end in 13..bytes.len() {
            assert!(tags(&bytes[..end]).expect("FLV").len() < 2, "cut at {end}");
        }
        assert_eq!(tags(&bytes).expect("FLV").len(), 2);
    }

    #[test]
    fn what_is_no_flv_is_an_error() {
        assert!(tags(b"").is_err());
        assert!(tags(b"RIFF").is_err());
        assert!(tags(&file(&[(7, 0, b"x")])).is_err());
    }
}
