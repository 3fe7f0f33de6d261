//! Walks AMF0 bytes without recursion and vouches for their shape before anything is decoded.

use super::{Error, amf3};

/// Longest sequence looked at; the chunk reader's limit for commands, stated again for other callers.
pub const MAX_BYTES: usize = 64 * 1024;
/// Deepest nesting. Real commands and metadata reach 3; the decoder behind the guard recurses once per level.
pub const MAX_DEPTH: usize = 32;
/// Most values in one sequence. Real ones have under a hundred; a decoded value costs up to a hundred bytes.
pub const MAX_VALUES: usize = 4096;

pub(super) const NUMBER: u8 = 0;
pub(super) const BOOLEAN: u8 = 1;
pub(super) const STRING: u8 = 2;
pub(super) const OBJECT: u8 = 3;
pub(super) const NULL: u8 = 5;
pub(super) const UNDEFINED: u8 = 6;
const REFERENCE: u8 = 7;
const ECMA_ARRAY: u8 = 8;
pub(super) const OBJECT_END: u8 = 9;
pub(super) const STRICT_ARRAY: u8 = 10;
const DATE: u8 = 11;
const LONG_STRING: u8 = 12;
const UNSUPPORTED: u8 = 13;
const XML: u8 = 15;
const TYPED_OBJECT: u8 = 16;
/// One value in AMF3 follows.
const AMF3: u8 = 17;

/// Vouches for the shape of `bytes`: complete values within the limits. Text may be in any encoding, since
/// metadata is passed on as it came and some encoders write titles in the local code page.
///
/// # Errors
/// As [`decode`](super::decode), without the one about UTF-8.
pub fn check(bytes: &[u8]) -> Result<(), Error> {
    Walk::new(bytes, None)?.run().map(drop)
}

/// As [`rewrite`], for a sequence written in AMF3 throughout.
pub(super) fn rewrite3(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    limited(bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    amf3::Walk::new(bytes, 0, 0, 0, Some(&mut out)).all()?;
    Ok(out)
}

fn limited(bytes: &[u8]) -> Result<(), Error> {
    match bytes.len() <= MAX_BYTES {
        true => Ok(()),
        false => Err(Error::TooLong {
            bytes: bytes.len(),
            limit: MAX_BYTES,
        }),
    }
}

/// The same values in AMF0 throughout, where some are in AMF3; `None` where none is.
///
/// # Errors
/// As [`decode`](super::decode).
pub(super) fn without_amf3(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut walk = Walk::new(bytes, Some(Vec::with_capacity(bytes.len())))?;
    walk.any_text = true;
    let (out, has_amf3) = walk.run_noting()?;
    Ok(out.filter(|_| has_amf3))
}

/// The same values as `bytes`, in the types that the decoder knows.
pub(super) fn rewrite(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let out = Vec::with_capacity(bytes.len());
    Ok(Walk::new(bytes, Some(out))?.run()?.unwrap_or_default())
}

enum Level {
    /// Properties until the end marker.
    Object,
    /// So many more values.
    Array(u32),
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
    levels: Vec<Level>,
    /// `None`: the shape alone is wanted.
    out: Option<Vec<u8>>,
    /// Text in other encodings than UTF-8 goes on as it is.
    any_text: bool,
    has_amf3: bool,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], out: Option<Vec<u8>>) -> Result<Self, Error> {
        limited(bytes)?;
        Ok(Self {
            any_text: out.is_none(),
            has_amf3: false,
            bytes,
            at: 0,
            values: 0,
            levels: Vec::new(),
            out,
        })
    }

    fn run(self) -> Result<Option<Vec<u8>>, Error> {
        self.run_noting().map(|(out, _)| out)
    }

    /// Also says whether a value was in AMF3.
    fn run_noting(mut self) -> Result<(Option<Vec<u8>>, bool), Error> {
        loop {
            match self.levels.last_mut() {
                None if self.at == self.bytes.len() => return Ok((self.out, self.has_amf3)),
                None => {}
                Some(Level::Array(0)) => {
                    self.levels.pop();
                    continue;
                }
                Some(Level::Array(left)) => *left -= 1,
                Some(Level::Object) => {
                    let length = self.length16()?;
                    if length == 0 {
                        if self.take(1)? != [OBJECT_END] {
                            return Err(Error::EmptyKey { at: self.at - 1 });
                        }
                        self.emit(&[0, 0, OBJECT_END]);
                        self.levels.pop();
                        continue;
                    }
                    self.text(length)?;
                }
            }
            self.value()?;
        }
    }

    fn value(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Error::TooMany {
                at: self.at,
                limit: MAX_VALUES,
            });
        }
        let marker = self.take(1)?[0];
        match marker {
            NUMBER => self.copy(marker, 8)?,
            BOOLEAN => self.copy(marker, 1)?,
            NULL | UNDEFINED => self.emit(&[marker]),
            UNSUPPORTED => self.emit(&[UNDEFINED]),
            REFERENCE => {
                self.take(2)?;
                self.emit(&[UNDEFINED]);
            }
            DATE => {
                self.copy(NUMBER, 8)?;
                self.take(2)?; // a time zone, reserved by the specification
            }
            STRING => {
                let length = self.length16()?;
                self.emit(&[STRING]);
                self.text(length)?;
            }
            LONG_STRING | XML => {
                let length = self.length32()?;
                let short = u16::try_from(length).map_err(|_| Error::Truncated { at: self.at })?;
                self.emit(&[STRING]);
                self.text(short)?;
            }
            OBJECT => {
                self.emit(&[OBJECT]);
                self.descend(Level::Object)?;
            }
            TYPED_OBJECT => {
                let class = self.length16()?;
                self.take(usize::from(class))?;
                self.emit(&[OBJECT]);
                self.descend(Level::Object)?;
            }
            ECMA_ARRAY => {
                // The count is a hint that real encoders get wrong; the end marker counts.
                self.length32()?;
                self.emit(&[OBJECT]);
                self.descend(Level::Object)?;
            }
            STRICT_ARRAY => {
                let count = self.length32()?;
                self.emit(&[STRICT_ARRAY]);
                self.emit(&count.to_be_bytes());
                self.descend(Level::Array(count))?;
            }
            AMF3 => {
                let depth = self.levels.len();
                let out = self.out.as_mut();
                let walk = amf3::Walk::new(self.bytes, self.at, self.values, depth, out);
                (self.at, self.values) = walk.one()?;
                self.has_amf3 = true;
            }
            marker => {
                return Err(Error::Marker {
                    marker,
                    at: self.at - 1,
                });
            }
        }
        Ok(())
    }

    fn descend(&mut self, level: Level) -> Result<(), Error> {
        if self.levels.len() == MAX_DEPTH {
            return Err(Error::TooDeep {
                at: self.at,
                limit: MAX_DEPTH,
            });
        }
        self.levels.push(level);
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let part = self.bytes[self.at..]
            .get(..length)
            .ok_or(Error::Truncated { at: self.at })?;
        self.at += length;
        Ok(part)
    }

    fn length16(&mut self) -> Result<u16, Error> {
        let part = self.take(2)?;
        Ok(u16::from_be_bytes([part[0], part[1]]))
    }

    fn length32(&mut self) -> Result<u32, Error> {
        let part = self.take(4)?;
        Ok(u32::from_be_bytes([part[0], part[1], part[2], part[3]]))
    }

    fn copy(&mut self, marker: u8, length: usize) -> Result<(), Error> {
        let part = self.take(length)?;
        self.emit(&[marker]);
        self.emit(part);
        Ok(())
    }

    fn text(&mut self, length: u16) -> Result<(), Error> {
        let at = self.at;
        let part = self.take(usize::from(length))?;
        if !self.any_text && std::str::from_utf8(part).is_err() {
            return Err(Error::NotUtf8 { at });
        }
        self.emit(&length.to_be_bytes());
        self.emit(part);
        Ok(())
    }

    fn emit(&mut self, part: &[u8]) {
        if let Some(out) = &mut self.out {
            out.extend_from_slice(part);
        }
    }
}
