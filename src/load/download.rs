//! The conversation of an HTTP-FLV player: a request, an answer's head, chunks, tags. Takes bytes, hands out the head
//! of every message; what is behind that goes nowhere, because a player that measures looks no further.
//!
//! | source | covered |
//! |---|---|
//! | RFC 9112, sections 4 and 7.1 | status line, fields, chunked transfer coding without trailers |
//! | Video File Format Specification 10.1, annex E | FLV header and tags |

use bytes::BytesMut;

use super::link::Failure;
use crate::rtmp::url::Target;

/// An answer's head: longer ones are no streaming server's.
const MAX_HEAD: usize = 16 << 10;
/// Fields in it.
const MAX_FIELDS: usize = 64;
/// What is kept of a message. A stamp is in front of the picture, perhaps behind parameter sets.
const KEPT: usize = 2 << 10;
/// FLV's own header and the size before the first tag; a tag's header; the size behind a tag.
const FILE_HEADER: usize = 9 + 4;
const TAG_HEADER: usize = 11;
const BACK: usize = 4;

/// Asks for a stream and takes it apart.
#[derive(Debug)]
pub(super) struct Download {
    head: Option<Vec<u8>>,
    /// `None`: the body is bare, until the connection ends.
    chunks: Option<Chunks>,
    tags: Tags,
}

impl Download {
    /// The request for `target` goes into `out`.
    pub fn new(target: &Target, out: &mut BytesMut) -> Self {
        let mark = if target.query.is_empty() { "" } else { "?" };
        let request = format!(
            "GET /{}/{}.flv{mark}{} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: linkmic-bench\r\n\r\n",
            target.app, target.name, target.query, target.host, target.port
        );
        out.extend_from_slice(request.as_bytes());
        Self {
            head: Some(Vec::new()),
            chunks: None,
            tags: Tags::default(),
        }
    }

    /// Takes bytes, and calls `each` with the type and the first bytes of every message that is whole with them.
    ///
    /// # Errors
    /// When the server says no, or says what is no HTTP-FLV.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<(), Failure> {
        if let Some(head) = &mut self.head {
            let known = head.len();
            head.extend_from_slice(bytes);
            let Some(answer) = answer(head)? else {
                return Ok(());
            };
            self.chunks = answer.chunked.then(Chunks::default);
            self.head = None;
            return self.body(&bytes[answer.length - known..], &mut each);
        }
        self.body(bytes, &mut each)
    }

    fn body(&mut self, bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) -> Result<(), Failure> {
        let Some(chunks) = &mut self.chunks else {
            return self.tags.take(bytes, each);
        };
        let mut rest = bytes;
        while let Some(data) = chunks.next(&mut rest)? {
            self.tags.take(data, each)?;
        }
        Ok(())
    }
}

/// What an answer's head says.
struct Answer {
    /// Bytes of the head.
    length: usize,
    chunked: bool,
}

/// The head, once it is whole.
fn answer(bytes: &[u8]) -> Result<Option<Answer>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Failure::Http("a head without end")),
        Err(_) => return Err(Failure::Http("no HTTP/1 answer")),
    };
    if response.code != Some(200) {
        return Err(Failure::Refused {
            code: response.code.unwrap_or(0).to_string(),
            description: response.reason.unwrap_or_default().to_owned(),
        });
    }
    let chunked = response.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("transfer-encoding")
            && field.value.eq_ignore_ascii_case(b"chunked")
    });
    Ok(Some(Answer { length, chunked }))
}

/// The chunked transfer coding, taken off.
#[derive(Debug, Default)]
struct Chunks {
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// In the line that says the size, which is so much so far.
    Size(usize),
    /// In what may follow the size on its line.
    Extension(usize),
    Data(usize),
    /// Between a chunk's data and the next one's size.
    Behind,
}

impl Default for Step {
    fn default() -> Self {
        Step::Size(0)
    }
}

impl Chunks {
    /// The next stretch of data in `rest`, which is cut off there; `None` when there is no more.
    fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
        loop {
            if let Step::Data(left) = self.step {
                if rest.is_empty() {
                    return Ok(None);
                }
                let (data, behind) = rest.split_at(left.min(rest.len()));
                *rest = behind;
                self.step = match left - data.len() {
                    0 => Step::Behind,
                    left => Step::Data(left),
                };
                return Ok(Some(data));
            }
            let Some((&byte, behind)) = rest.split_first() else {
                return Ok(None);
            };
            *rest = behind;
            self.step = match (self.step, byte) {
                // The last chunk; the connection ends behind it.
                (Step::Size(0) | Step::Extension(0), b'\n') => return Err(Failure::Closed),
                (Step::Size(size) | Step::Extension(size), b'\n') => Step::Data(size),
                (Step::Size(size), b'\r' | b';' | b' ') => Step::Extension(size),
                (Step::Extension(size), _) => Step::Extension(size),
                (Step::Size(size), digit) => {
                    let digit = char::from(digit).to_digit(16);
                    let longer = size.checked_mul(16);
                    match (digit, longer) {
                        (Some(digit), Some(longer)) => Step::Size(longer + digit as usize),
                        _ => return Err(Failure::Http("a chunk without a size")),
                    }
                }
                (_, b'\n') => Step::Size(0),
                (behind, _) => behind,
            };
        }
    }
}

/// FLV, taken apart as it comes.
#[derive(Debug)]
struct Tags {
    /// Bytes to leave out before the next tag's header.
    skip: usize,
    header: Vec<u8>,
    /// The first bytes of the tag's message.
    kept: Vec<u8>,
    /// Bytes of the message still to come.
    left: usize,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            skip: FILE_HEADER,
            header: Vec::with_capacity(TAG_HEADER),
            kept: Vec::with_capacity(KEPT),
            left: 0,
        }
    }
}

impl Tags {
    fn take(&mut self, mut bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
            } else if self.header.len() < TAG_HEADER {
                let missing = TAG_HEADER - self.header.len();
                let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header.extend_from_slice(part);
                bytes = rest;
                if let [8 | 9 | 18, l0, l1, l2, .., s0, s1, s2] = self.header[..]
                    && self.header.len() == TAG_HEADER
                {
                    if [s0, s1, s2] != [0; 3] {
                        return Err(Failure::Http("a tag whose stream is not 0"));
                    }
                    self.left = u32::from_be_bytes([0, l0, l1, l2]) as usize;
                } else if self.header.len() == TAG_HEADER {
                    return Err(Failure::Http("a tag of a kind that FLV does not have"));
                }
            } else {
                let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
                let room = (KEPT - self.kept.len()).min(part.len());
                self.kept.extend_from_slice(&part[..room]);
                self.left -= part.len();
                bytes = rest;
            }
            if self.header.len() == TAG_HEADER && self.left == 0 {
                each(self.header[0], &self.kept);
                self.header.clear();
                self.kept.clear();
                self.skip = BACK;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages in chunks that end anywhere, behind a head.
    fn said() -> Vec<u8> {
        let mut body = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (kind, message) in [(9, vec![0x17; 5000]), (8, b"sound".to_vec()), (18, vec![])] {
            let [_, l0, l1, l2] = (message.len() as u32).to_be_bytes();
            body.extend([kind, l0, l1, l2, 0, 0, 0, 0, 0, 0, 0]);
            body.extend(&message);
            body.extend((11 + message.len() as u32).to_be_bytes());
        }
        let mut said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for (index, chunk) in body.chunks(1_234).enumerate() {
            let extension = if index == 1 { ";a=b" } else { "" };
            said.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
            said.extend(chunk);
            said.extend(b"\r\n");
        }
        said
    }

    fn download() -> Download {
        let target = Target::parse("rtmp://h:80/live/a?k=v").unwrap();
        Download::new(&target, &mut BytesMut::new())
    }

    #[test]
    fn messages_come_out_whole_wherever_the_bytes_are_split() {
        let said = said();
        for piece in [1, 2, 3, 7, 100, 1_233, said.len()] {
            let mut download = download();
            let mut got = Vec::new();
            for bytes in said.chunks(piece) {
                let each = |kind, head: &[u8]| got.push((kind, head.len()));
                download.take(bytes, each).unwrap();
            }
            assert_eq!(got, [(9, KEPT), (8, 5), (18, 0)], "pieces of {piece}");
            let end = download.take(b"0\r\n\r\n", |_, _| ());
            assert!(matches!(end, Err(Failure::Closed)));
        }
    }

    #[test]
    fn the_request_names_the_file_and_carries_the_query() {
        let mut out = BytesMut::new();
        let target = Target::parse("rtmp://h:80/live/a?k=v").unwrap();
        Download::new(&target, &mut out);
        assert!(out.starts_with(b"GET /live/a.flv?k=v HTTP/1.1\r\nHost: h:80\r\n"));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for (said, expected) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "refused: 404 Not Found"),
            ("\u{3}abc", "not HTTP-FLV: no HTTP/1 answer"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
                "not HTTP-FLV: a chunk without a size",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n0123456789012<html></html>",
                "not HTTP-FLV: a tag of a kind that FLV does not have",
            ),
        ] {
            let failure = download().take(said.as_bytes(), |_, _| ()).unwrap_err();
            assert_eq!(failure.to_string(), expected, "{said:?}");
        }
    }
}
